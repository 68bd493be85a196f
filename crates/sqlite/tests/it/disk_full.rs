//! A disk that is full: everybody is told, nothing is half written, and it goes on afterwards.

use crate::world::{call, queue, request};
use crosspoint_core::{Code, DispatchStore};
use crosspoint_sqlite::Sqlite;
use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// A small file system of its own; `None` where this user may not make one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .status();
        mount.is_ok_and(|status| status.success()).then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmount = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmount.is_ok_and(|status| status.success()), "the small disk is gone");
    }
}

#[tokio::test]
async fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let Some(disk) = SmallDisk::mount() else {
        assert!(
            std::env::var_os("CROSSPOINT_REQUIRE_ALL").is_none(),
            "a small disk can be mounted only by the superuser"
        );
        println!("skipped: no file system can be mounted here");
        return;
    };
    let store = Sqlite::open(disk.path().join("app.db")).await.unwrap();
    let ballast = disk.path().join("ballast");
    let room = 600 * 1024;
    std::fs::write(&ballast, vec![0_u8; room]).unwrap();
    let mut stored = Vec::new();
    let error = loop {
        let mut item = call("t", "acme");
        *item.envelope.invocation.request.body_mut() = vec![b'x'; 16 * 1024].into();
        let id = item.envelope.id();
        match store.enqueue(vec![item]).await {
            Ok(_) => stored.push(id),
            Err(error) => break error,
        }
        assert!(stored.len() < 1000, "the disk does not fill");
    };
    assert_eq!(error.code(), Code::StoreUnavailable, "{error:?}");
    assert!(!stored.is_empty());
    let fleet = crosspoint_testkit::scope::fleet();
    for id in &stored {
        assert!(
            store.get((&fleet).into(), *id).await.unwrap().is_some(),
            "{id} was acknowledged"
        );
    }
    std::fs::remove_file(&ballast).unwrap();
    queue(&store, vec![call("t", "acme")]).await;
    let leases = store.lease(request("t", 2000, Duration::from_secs(30))).await.unwrap();
    assert_eq!(leases.len(), stored.len() + 1, "exactly what was acknowledged");
    store.close().await;
}
