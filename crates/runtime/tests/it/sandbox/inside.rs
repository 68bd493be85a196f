//! What a run finds.

use super::*;

#[tokio::test]
async fn a_program_runs() {
    let sandbox = Sandbox::new(SandboxOptions::new());
    let told = run(&sandbox, Isolation::Sandboxed, Job::new("/bin/true")).await;
    assert!(told.ended.status.success(), "{:?} {}", told.ended, told.err);
    let told = run(
        &sandbox,
        Isolation::Sandboxed,
        shell("id; pwd; ls -la / /w /proc /dev; cat /proc/self/status; hostname; exit 3"),
    )
    .await;
    println!("{}\n{}", told.out, told.err);
    assert_eq!(told.ended.status.code(), Some(3));
}
