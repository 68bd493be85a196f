//! All of this again for an ordinary user.

use std::process::Command;

/// Whether this process is the one that was started for that.
pub(crate) fn is_ordinary() -> bool {
    std::env::var_os("CROSSPOINT_ORDINARY").is_some()
}

#[test]
fn everything_holds_for_an_ordinary_user() {
    if is_ordinary() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: this is an ordinary user already");
        return;
    }
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "54321", "--regid", "54321", "--clear-groups"])
        .arg(program);
    command
        .args(["sandbox::", "--test-threads", "2"])
        .env("CROSSPOINT_ORDINARY", "1");
    command
        .env("HOME", "/nonexistent")
        .env("TMPDIR", "/tmp")
        .current_dir("/");
    let out = command.output().unwrap();
    assert!(
        out.status.success(),
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}
