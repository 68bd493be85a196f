//! Archives that were made to do harm.

use super::site::{Site, count, manifest, trusting};
use crosspoint_core::Code;
use crosspoint_runtime::artifacts::{ArtifactLimits, ArtifactsConfig};
use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use std::{
    io::Write,
    path::{Path, PathBuf},
};
use tar::{EntryType, Header};

/// An archive, written without any of the care that programs take.
#[derive(Clone, Default)]
struct Raw(Vec<u8>);

impl Raw {
    fn hello() -> Self {
        let manifest = manifest("1.0.0", json!({})).to_string();
        Self::default()
            .file("crosspoint.json", manifest.as_bytes())
            .file("greet.sh", b"true\n")
    }

    fn entry(mut self, name: &[u8], kind: EntryType, mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        if kind.is_symlink() || kind.is_hard_link() {
            header.as_old_mut().linkname[..11].copy_from_slice(b"/etc/passwd");
        }
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.content(content)
    }

    fn content(mut self, content: &[u8]) -> Self {
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(name.as_bytes(), EntryType::Regular, 0o644, content)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn save(at: &Path, bytes: &[u8]) -> PathBuf {
    let path = at.join("archive");
    std::fs::write(&path, bytes).unwrap();
    path
}

async fn refused(what: &str, bytes: &[u8], reason: &str) {
    for packed in [bytes.to_vec(), gzip(bytes)] {
        let root = tempfile::tempdir().unwrap();
        let site = Site::over(&root.path().join("artifacts"));
        let error = site.refusal(save(root.path(), &packed)).await;
        assert_eq!(error.code(), Code::ArtifactInvalid, "{what}: {error:?}");
        assert!(error.message().contains(reason), "{what}: {error:?}");
        let artifacts = root.path().join("artifacts");
        assert_eq!(
            (count(&artifacts, "content"), count(&artifacts, "staging")),
            (0, 0),
            "{what}"
        );
        assert_eq!(
            count(root.path(), ""),
            2,
            "{what}: nothing lies beside the artifacts and the archive"
        );
    }
}

#[tokio::test]
async fn a_plain_archive_is_taken_packed_or_not() {
    for bytes in [Raw::hello().end(), gzip(&Raw::hello().end())] {
        let root = tempfile::tempdir().unwrap();
        let site = Site::over(&root.path().join("artifacts"));
        assert!(site.publish(save(root.path(), &bytes)).await.unwrap().new);
    }
}

#[tokio::test]
async fn names_that_lead_elsewhere_are_refused() {
    for name in [
        "../evil",
        "a/../../evil",
        "/etc/evil",
        "a//b",
        "a/./b",
        "..",
        "a\\..\\evil",
        "a\nb",
        "a\u{1b}[2Jb",
    ] {
        refused(name, &Raw::hello().file(name, b"x").end(), "not one below").await;
    }
    let latin = Raw::hello().entry(b"caf\xe9", EntryType::Regular, 0o644, b"x").end();
    refused("no UTF-8", &latin, "not UTF-8").await;
    let long = format!("{}x", "a/".repeat(40));
    refused("depth", &Raw::hello().file(&long, b"x").end(), "too long").await;
}

#[tokio::test]
async fn whatever_is_no_file_and_no_folder_is_refused() {
    for (kind, reason) in [
        (EntryType::Symlink, "symbolic link"),
        (EntryType::Link, "hard link"),
        (EntryType::Block, "device"),
        (EntryType::Char, "device"),
        (EntryType::Fifo, "FIFO"),
        (EntryType::GNUSparse, "sparse"),
        (EntryType::new(b'V'), "not known"),
    ] {
        refused(reason, &Raw::hello().entry(b"bad", kind, 0o644, b"").end(), reason).await;
    }
    // The classic: a link, and then a file through it.
    let through = Raw::hello()
        .entry(b"a", EntryType::Symlink, 0o777, b"")
        .file("a/evil", b"x")
        .end();
    refused("through a link", &through, "symbolic link").await;
    for mode in [0o4755, 0o2755, 0o1755] {
        refused(
            "setuid",
            &Raw::hello().entry(b"bad", EntryType::Regular, mode, b"x").end(),
            "setuid",
        )
        .await;
    }
}

#[tokio::test]
async fn a_path_is_there_once_in_one_spelling() {
    refused("twice", &Raw::hello().file("greet.sh", b"evil").end(), "twice").await;
    refused("dotted", &Raw::hello().file("./greet.sh", b"evil").end(), "twice").await;
    refused("case", &Raw::hello().file("Greet.sh", b"evil").end(), "case alone").await;
    refused(
        "case of folders",
        &Raw::hello().file("a/b", b"").file("A/c", b"").end(),
        "case alone",
    )
    .await;
    refused(
        "letters",
        &Raw::hello().file("straße", b"").file("STRAßE", b"").end(),
        "case alone",
    )
    .await;
    refused(
        "a file as a folder",
        &Raw::hello().file("greet.sh/b", b"").end(),
        "twice",
    )
    .await;
    refused(
        "a folder as a file",
        &Raw::hello().file("a/b", b"").file("a", b"").end(),
        "twice",
    )
    .await;
}

#[tokio::test]
async fn damaged_archives_are_refused_wherever_they_end() {
    let whole = Raw::hello().end();
    for cut in [
        1,
        511,
        512,
        700,
        1024,
        whole.len() - 1024,
        whole.len() - 512,
        whole.len() - 1,
    ] {
        refused(&format!("cut at {cut}"), &whole[..cut], "").await;
    }
    let mut wrong = whole.clone();
    wrong[3] ^= 1;
    refused("checksum", &wrong, "checksum").await;
    refused("no archive", b"PK\x03\x04 this is a zip, they said", "tar archive").await;
    let mut packed = gzip(&whole);
    let last = packed.len() - 6;
    packed[last] ^= 1;
    let root = tempfile::tempdir().unwrap();
    let site = Site::over(&root.path().join("artifacts"));
    let error = site.refusal(save(root.path(), &packed)).await;
    assert_eq!(
        error.code(),
        Code::ArtifactInvalid,
        "the checksum of the compression: {error:?}"
    );
}

async fn too_much(what: &str, archive: &[u8], reason: &str) {
    let root = tempfile::tempdir().unwrap();
    let artifacts = root.path().join("artifacts");
    let mut limits = ArtifactLimits::default();
    limits.entries = 20;
    limits.file = 64 << 10;
    limits.total = 128 << 10;
    limits.archive = 1 << 20;
    let site = Site::with(ArtifactsConfig::folder(&artifacts).authors(trusting()).limits(limits));
    let error = site.refusal(save(root.path(), archive)).await;
    assert_eq!(error.code(), Code::ArtifactInvalid, "{what}: {error:?}");
    assert!(error.message().contains(reason), "{what}: {error:?}");
    assert_eq!(
        (count(&artifacts, "content"), count(&artifacts, "staging")),
        (0, 0),
        "{what}"
    );
}

#[tokio::test]
async fn what_is_too_much_is_not_unpacked_to_its_end() {
    let many = (0..30).fold(Raw::hello(), |raw, n| raw.file(&format!("{n}"), b""));
    too_much("entries", &many.end(), "too many").await;
    let folders = (0..30).fold(Raw::hello(), |raw, n| {
        raw.entry(format!("{n}/").as_bytes(), EntryType::Directory, 0o755, b"")
    });
    too_much("folders", &folders.end(), "too many").await;
    too_much("one file", &Raw::hello().file("a", &[7; 65 << 10]).end(), "too large").await;
    let full = (0..3).fold(Raw::hello(), |raw, n| raw.file(&format!("{n}"), &[7; 60 << 10]));
    too_much("all files", &full.end(), "too large").await;
    too_much("the archive", &vec![7; (1 << 20) + 1], "at most").await;
    // Gigabytes of nothing are megabytes when they are packed.
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    bomb.write_all(&Raw::hello().0).unwrap();
    for n in 0..2000 {
        let zeros = Raw::default().file(&format!("{n}"), &[0; 60 << 10]);
        bomb.write_all(&zeros.0).unwrap();
    }
    too_much("a bomb", &bomb.finish().unwrap(), "too large").await;
    // A header that says that more follows than could ever be there.
    let mut header = Header::new_gnu();
    header.set_path("huge").unwrap();
    header.set_mode(0o644);
    header.set_size(u64::MAX / 2);
    header.set_cksum();
    let mut huge = Raw::hello();
    huge.0.extend_from_slice(header.as_bytes());
    too_much("a size that is a lie", &huge.end(), "too large").await;
}

/// What is left out is read past, and counts all the same.
#[tokio::test]
async fn a_bomb_in_what_is_left_out_ends_at_the_ratio() {
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    bomb.write_all(&Raw::hello().0).unwrap();
    let mut header = Header::new_ustar();
    header.set_path(".git/zeros").unwrap();
    header.set_mode(0o644);
    header.set_size(1 << 30);
    header.set_cksum();
    bomb.write_all(header.as_bytes()).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..200 {
        bomb.write_all(&zeros).unwrap();
    }
    too_much("left out", &bomb.finish().unwrap(), "unpacks to more").await;
}

#[tokio::test]
async fn an_archive_within_an_archive_is_a_file_like_others() {
    let inner = gzip(&vec![0; 32 << 20]);
    let root = tempfile::tempdir().unwrap();
    let site = Site::over(&root.path().join("artifacts"));
    let outer = Raw::hello().file("data.tar.gz", &inner).end();
    let published = site.publish(save(root.path(), &outer)).await.unwrap();
    let kept = root.path().join("artifacts/content").join(published.digest.to_string());
    assert_eq!(std::fs::read(kept.join("data.tar.gz")).unwrap(), inner);
}

/// Names of more than a hundred bytes, in both ways that programs write them.
#[tokio::test]
async fn long_names_are_read_and_checked_like_short_ones() {
    let long = format!(
        "{}/file.txt",
        "folder-with-a-long-name/".repeat(5).trim_end_matches('/')
    );
    let pax = |path: &str| {
        let record = |length: usize| format!("{length} path={path}\n");
        let mut length = record(0).len();
        while record(length).len() != length {
            length = record(length).len();
        }
        record(length)
    };
    for name in [long.as_str(), "../evil"] {
        let gnu = Raw::hello().entry(
            b"././@LongLink",
            EntryType::GNULongName,
            0,
            format!("{name}\0").as_bytes(),
        );
        let posix = Raw::hello().entry(b"PaxHeader", EntryType::XHeader, 0o644, pax(name).as_bytes());
        for raw in [gnu, posix] {
            let bytes = raw.file("short", b"x").end();
            if name == long {
                let root = tempfile::tempdir().unwrap();
                let site = Site::over(&root.path().join("artifacts"));
                let published = site.publish(save(root.path(), &bytes)).await.unwrap();
                let kept = root.path().join("artifacts/content").join(published.digest.to_string());
                assert_eq!(std::fs::read(kept.join(name)).unwrap(), b"x");
            } else {
                refused(name, &bytes, "not one below").await;
            }
        }
    }
    let endless = Raw::hello().entry(b"././@LongLink", EntryType::GNULongName, 0, &vec![b'a'; 100 << 10]);
    refused("a name without end", &endless.file("short", b"x").end(), "too long").await;
    let lie = Raw::hello().entry(b"PaxHeader", EntryType::XHeader, 0o644, b"999999 path=x\n");
    refused("a wrong length", &lie.file("short", b"x").end(), "attributes").await;
}
