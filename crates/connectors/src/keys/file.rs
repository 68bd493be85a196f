//! A key ring in a file, for examples and single machines.

use super::KeyRing;
use chacha20poly1305::aead::Generate;
use crosspoint_core::{Code, Error, ErrorExt, Result};
use secrecy::zeroize::Zeroizing;
use std::{
    fs,
    io::{self, Write},
    path::Path,
};

impl KeyRing {
    /// Reads the keys from a file, in the form of [`KeyRing::parse`]. If there is no file, makes one that holds a new
    /// key and that only its owner can read; of several processes that do this at once, all end with the same key.
    ///
    /// Whoever has both the file and the database can read every credential: in production prefer
    /// [`KeyRing::from_env`], fed from a secret store. This call blocks; it is meant for start-up.
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] if the file cannot be read or made, can be read by others, or holds something else.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        match fs::read_to_string(path).map(Zeroizing::new) {
            Ok(text) => {
                check_private(path)?;
                Self::parse(&text).map_err(|e| e.with("file", path.display()))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                create(path, Self::generate()?.to_text().as_bytes()).map_err(|e| failed(path, e))?;
                let text = fs::read_to_string(path)
                    .map(Zeroizing::new)
                    .map_err(|e| failed(path, e))?;
                Self::parse(&text).map_err(|e| e.with("file", path.display()))
            }
            Err(e) => Err(failed(path, e)),
        }
    }
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::new(
        Code::SetupInvalid,
        "the file with the keys can be neither read nor made",
    )
    .with("file", path.display())
    .caused_by(error)
}

/// Makes the file complete or not at all, and leaves one alone that somebody else has made in the meantime.
fn create(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        fs::create_dir_all(folder)?;
    }
    let unique = u64::try_generate().map_err(io::Error::other)?;
    let draft = path.with_extension(format!("draft-{unique:016x}"));
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&draft)?;
    let linked = file
        .write_all(text)
        .and_then(|()| file.sync_all())
        .and_then(|()| match fs::hard_link(&draft, path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        });
    fs::remove_file(&draft)?;
    linked
}

#[cfg(unix)]
fn check_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path)
        .or_fail(Code::SetupInvalid, "the file with the keys cannot be read")?
        .permissions()
        .mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(Error::new(
        Code::SetupInvalid,
        "the file with the keys can be read by others: make it private (chmod 600), and consider its keys known",
    )
    .with("file", path.display()))
}

#[cfg(not(unix))]
fn check_private(_: &Path) -> Result<()> {
    Ok(())
}
