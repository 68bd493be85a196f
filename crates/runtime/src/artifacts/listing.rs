//! What is in a folder, in the one order that its digest is made of.
//!
//! The digest covers what a program can tell apart: the path of each file below the folder, whether it can be executed,
//! and its content. Times, owners, the other bits of the mode and folders without files do not count, so that a checkout,
//! an archive of it and what the store keeps have the same digest.

use super::invalid;
use crosspoint_core::{Code, ContentDigest, Error, ErrorExt, Result};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Named in the hash, so that another way to list things can never have the same digest.
const FORM: &[u8] = b"crosspoint artifact 1\n";

/// The bit by which a file counts as a program.
pub(super) const EXECUTABLE: u32 = 0o100;

/// A file below a folder.
#[derive(Debug)]
pub(super) struct Listed {
    /// Its path below the folder, with `/` between the parts.
    pub(super) path: String,
    pub(super) executable: bool,
    pub(super) size: u64,
}

/// Every file below a folder, by the bytes of its path.
///
/// # Errors
/// [`Code::ArtifactInvalid`] if there is anything but files and folders.
pub(super) fn list(root: &Path) -> Result<Vec<Listed>> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).or_fail(Code::StoreUnavailable, "a folder cannot be read")? {
            let entry = entry.or_fail(Code::StoreUnavailable, "a folder cannot be read")?;
            let path = folder.join(entry.file_name());
            let kind = entry
                .file_type()
                .or_fail(Code::StoreUnavailable, "a file cannot be looked at")?;
            if kind.is_dir() {
                folders.push(path);
                continue;
            }
            let text = path.to_str().filter(|_| kind.is_file());
            let Some(text) = text else {
                return Err(invalid("there is something that is no plain file").with("path", path.display()));
            };
            let metadata = entry
                .metadata()
                .or_fail(Code::StoreUnavailable, "a file cannot be looked at")?;
            files.push(Listed {
                path: text.to_owned(),
                executable: metadata.permissions().mode() & EXECUTABLE != 0,
                size: metadata.len(),
            });
        }
    }
    files.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
    Ok(files)
}

/// The digest of everything below a folder.
pub(super) fn digest(root: &Path) -> Result<ContentDigest> {
    digest_under(root, "")
}

/// The digest that everything below a folder would have if it lay in another folder below `above`.
pub(super) fn digest_under(root: &Path, above: &str) -> Result<ContentDigest> {
    let above = match above.is_empty() {
        true => String::new(),
        false => format!("{above}/"),
    };
    let mut hash = Sha256::new();
    hash.update(FORM);
    let mut buffer = vec![0; 64 << 10];
    for file in list(root)? {
        hash.update(length(above.len() + file.path.len()));
        hash.update(above.as_bytes());
        hash.update(file.path.as_bytes());
        hash.update([u8::from(file.executable)]);
        hash.update(file.size.to_be_bytes());
        let path = root.join(&file.path);
        let mut content = File::open(&path).or_fail(Code::StoreUnavailable, "a file cannot be read")?;
        let mut left = file.size;
        loop {
            let count = content
                .read(&mut buffer)
                .or_fail(Code::StoreUnavailable, "a file cannot be read")?;
            if count == 0 {
                break;
            }
            hash.update(buffer.get(..count).unwrap_or_default());
            left = left
                .checked_sub(u64::try_from(count).unwrap_or(u64::MAX))
                .ok_or_else(|| changed(&path))?;
        }
        if left > 0 {
            return Err(changed(&path));
        }
    }
    Ok(ContentDigest::from_bytes(hash.finalize().into()))
}

/// The digest of texts, none of which can pass for a part of its neighbour.
pub(super) fn digest_of(parts: &[&[u8]]) -> ContentDigest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(length(part.len()));
        hash.update(part);
    }
    ContentDigest::from_bytes(hash.finalize().into())
}

fn length(length: usize) -> [u8; 8] {
    u64::try_from(length).unwrap_or(u64::MAX).to_be_bytes()
}

fn changed(path: &Path) -> Error {
    Error::new(Code::StoreUnavailable, "a file changed while it was read").with("path", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str, u32)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, content, mode) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        folder
    }

    fn of(files: &[(&str, &str, u32)]) -> ContentDigest {
        digest(folder(files).path()).unwrap()
    }

    #[test]
    fn path_executable_bit_and_content_count_and_nothing_else() {
        let one = of(&[("a/b.py", "x", 0o644), ("c", "y", 0o755)]);
        assert_eq!(one, of(&[("c", "y", 0o700), ("a/b.py", "x", 0o400)]));
        let empty = folder(&[("a/b.py", "x", 0o644), ("c", "y", 0o755)]);
        fs::create_dir(empty.path().join("nothing")).unwrap();
        assert_eq!(one, digest(empty.path()).unwrap(), "a folder without files");
        for other in [
            of(&[("a/b.py", "x", 0o755), ("c", "y", 0o755)]),
            of(&[("a/b.py", "X", 0o644), ("c", "y", 0o755)]),
            of(&[("a-b.py", "x", 0o644), ("c", "y", 0o755)]),
            of(&[("a/b.py", "xy", 0o644), ("c", "", 0o755)]),
            of(&[("a/b.py", "x", 0o644)]),
        ] {
            assert_ne!(one, other);
        }
    }

    /// So that content of older releases is found again. The figure was made with another implementation.
    #[test]
    fn the_digest_of_given_files_never_changes() {
        let found = of(&[("crosspoint.json", "{}", 0o644), ("run.sh", "true\n", 0o755)]);
        assert_eq!(
            found.to_string(),
            "92bdd899180c24b1e805b4730479cde012e83f191ce579f7986cd2c47c0857ef"
        );
    }

    #[test]
    fn a_folder_can_be_hashed_as_if_it_lay_deeper() {
        let deep = of(&[("p/q/a", "x", 0o644), ("p/q/b/c", "y", 0o755)]);
        let flat = folder(&[("a", "x", 0o644), ("b/c", "y", 0o755)]);
        assert_eq!(digest_under(flat.path(), "p/q").unwrap(), deep);
    }

    #[test]
    fn a_link_is_no_plain_file() {
        let folder = folder(&[("a", "x", 0o644)]);
        std::os::unix::fs::symlink("a", folder.path().join("b")).unwrap();
        assert_eq!(digest(folder.path()).unwrap_err().code(), Code::ArtifactInvalid);
    }
}
