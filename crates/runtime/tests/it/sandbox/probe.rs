//! What the machine is said to enforce, and what is said to be visible.

use super::*;

#[tokio::test]
async fn the_probe_proves_the_strongest_level_by_trial() {
    let report = sandbox().probe().await;
    eprintln!("{report:#?}");
    assert_eq!(report.level, SANDBOXED, "{report:?}");
    assert_eq!(report.missing, Vec::<String>::new());
    for name in [
        "user-namespace",
        "pid-namespace",
        "network-namespace",
        "landlock",
        "seccomp",
        "capped-tmpfs",
    ] {
        assert!(
            report.mechanisms.iter().any(|mechanism| mechanism == name),
            "{name}: {report:?}"
        );
    }
}
