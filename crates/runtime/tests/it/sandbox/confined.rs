//! Without namespaces.

use super::*;
use std::{fs, path::Path};

pub(crate) const CONFINED: Isolation = Isolation::Confined;

/// A private folder on the host, for runs that have none of their own.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The job, in this folder if its level has no other.
    pub(crate) fn at(&self, level: Isolation, mut job: Job) -> Job {
        if level == CONFINED {
            job.folder = Some(self.path().to_owned());
            job.dir = self.path().to_owned();
        }
        job
    }
}

pub(crate) async fn run_at(level: Isolation, job: Job) -> Told {
    let folder = Folder::new();
    run(&sandbox(), level, folder.at(level, job)).await
}

#[tokio::test]
async fn a_confined_run_has_its_folder_and_the_system_and_nothing_else() {
    let folder = Folder::new();
    let theirs = Folder::new();
    fs::write(theirs.path().join("secret"), "s").unwrap();
    let script = format!(
        "echo mine > result; cat result; for f in /etc/shadow {0}/secret /root/.bashrc /var/log/dpkg.log /proc/{1}/environ; \
         do cat $f >/dev/null 2>&1 && echo read $f; done; for f in /tmp/x {0}/x /dev/shm/x /usr/x; do (echo > $f) \
         2>/dev/null && echo wrote $f; done; cat /proc/self/status",
        theirs.path().display(),
        std::process::id(),
    );
    let told = run(&sandbox(), CONFINED, folder.at(CONFINED, shell(&script))).await;
    assert!(told.out.starts_with("mine\nName:"), "{told:?}");
    let mut lines = vec!["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"];
    // An ordinary user may not empty it, and has nothing to gain by it.
    if rustix::process::geteuid().is_root() {
        lines.push("CapBnd:\t0000000000000000");
    }
    for line in lines {
        assert!(told.out.contains(line), "{line}: {}", told.out);
    }
}

#[tokio::test]
async fn a_confined_run_has_no_sockets_and_signals_nobody() {
    if !has("perl") {
        return;
    }
    let mut victim = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let pid = victim.id();
    let script = format!(
        "for my $f (2, 10, 16, 17) {{ print syscall({}, $f, 1, 0), ' ' }} print kill(0, {pid}), kill(9, {pid}), kill(9, {})",
        libc::SYS_socket,
        std::process::id(),
    );
    let told = run_at(CONFINED, perl(&script)).await;
    assert_eq!(told.out, "-1 -1 -1 -1 000", "{told:?}");
    assert!(victim.try_wait().unwrap().is_none());
    victim.kill().unwrap();
    victim.wait().unwrap();
}

#[tokio::test]
async fn a_confined_fork_bomb_stops() {
    if !has("perl") {
        return;
    }
    let mut job = perl(
        "my $n=0; while (1) { my $p = fork(); last unless defined $p; if (!$p) { sleep 60; exit } $n++ } print $n",
    );
    job.limits.processes = 64;
    let told = run_at(CONFINED, job).await;
    // Where runs are the user's own, what else the user has counts too, and changes meanwhile.
    let count: u32 = told.out.parse().unwrap();
    assert!((20..=120).contains(&count), "{told:?}");
}

#[tokio::test]
async fn a_confined_run_cannot_lose_its_mark() {
    if !has("perl") {
        return;
    }
    let mark = unusual();
    let script = format!(
        "my $l = pack('QQ', 5, 5); print syscall({}, 0, 15, $l, 0), syscall({}, 15, $l); if (!fork()) {{ if (!fork()) {{ exec('sleep', \
         '{mark}') }} exit }} select(undef, undef, undef, 0.2)",
        libc::SYS_prlimit64,
        libc::SYS_setrlimit,
    );
    let told = run_at(CONFINED, perl(&script)).await;
    assert_eq!(told.out, "-1-1", "{told:?}");
    assert_eq!(processes_with(&mark), 0);
}
