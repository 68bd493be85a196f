//! Where everything that comes from outside goes through, from an archive or from a folder: names, kinds and sizes are
//! looked at before a byte is written, and nothing is written but plain files in a folder of our own.

use super::{ArtifactLimits, invalid, listing::EXECUTABLE};
use crosspoint_core::{Code, Error, ErrorExt, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::PathBuf,
};

/// What is of no use to a run, or not for others: never published.
const LEFT_OUT: &[&str] = &[
    ".git",
    ".hg",
    ".svn",
    ".DS_Store",
    ".env",
    ".npmrc",
    ".pypirc",
    ".venv",
    "__pycache__",
    "node_modules",
];

/// Bits that make a program run as somebody else.
const SPECIAL: u32 = 0o7000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
}

/// Takes files and folders one by one.
#[derive(Debug)]
pub(super) struct Sink {
    root: PathBuf,
    limits: ArtifactLimits,
    /// Whether what a repository has beside its content is left out.
    picky: bool,
    /// Every path, by its spelling in lower case.
    seen: BTreeMap<String, (String, Kind)>,
    left_out: BTreeSet<String>,
    total: u64,
}

impl Sink {
    /// Takes an author's artifact into this empty folder.
    pub(super) const fn of_author(root: PathBuf, limits: ArtifactLimits) -> Self {
        Self::new(root, limits, true)
    }

    /// Takes installed packages into this empty folder.
    pub(super) const fn of_packages(root: PathBuf) -> Self {
        Self::new(root, ArtifactLimits::of_layers(), false)
    }

    const fn new(root: PathBuf, limits: ArtifactLimits, picky: bool) -> Self {
        Self {
            root,
            limits,
            picky,
            seen: BTreeMap::new(),
            left_out: BTreeSet::new(),
            total: 0,
        }
    }

    /// What was left out, for a warning.
    pub(super) const fn left_out(&self) -> &BTreeSet<String> {
        &self.left_out
    }

    /// Whether a path is one of those that are left out, whatever it is. To be asked before anything else.
    pub(super) fn leaves_out(&mut self, path: &str) -> bool {
        let part = path
            .split('/')
            .find(|part| LEFT_OUT.contains(part))
            .filter(|_| self.picky);
        if let Some(part) = part {
            self.left_out.insert(part.to_owned());
        }
        part.is_some()
    }

    /// A folder. It may come more than once.
    pub(super) fn folder(&mut self, path: &str) -> Result<()> {
        let path = path.trim_end_matches('/');
        if path.is_empty() || path == "." {
            return Ok(());
        }
        let path = self.name(path, Kind::Folder)?;
        fs::create_dir_all(self.root.join(path)).or_fail(Code::StoreUnavailable, "a folder cannot be made")
    }

    /// A file of `size` bytes, read from `content` to its end.
    pub(super) fn file(&mut self, path: &str, mode: u32, size: u64, content: &mut dyn Read) -> Result<()> {
        let path = self.name(path, Kind::File)?;
        if mode & SPECIAL != 0 {
            return Err(refused(
                &path,
                "the file has a setuid, setgid or sticky bit: clear it with `chmod ug-s,-t`",
            ));
        }
        self.total = self.total.saturating_add(size);
        if size > self.limits.file || self.total > self.limits.total {
            let message = format!(
                "it is too large: a file has at most {} bytes here, and all files together {}",
                self.limits.file, self.limits.total
            );
            return Err(refused(&path, message));
        }
        let target = self.root.join(&path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).or_fail(Code::StoreUnavailable, "a folder cannot be made")?;
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&target)
            .or_fail(Code::StoreUnavailable, "a file cannot be made")?;
        let copied = io::copy(&mut content.take(size), &mut file).map_err(|error| in_copy(error, &path))?;
        let more = content.read(&mut [0]).map_err(|error| in_copy(error, &path))?;
        if copied != size || more != 0 {
            return Err(refused(
                &path,
                "the file is not as long as it says: the archive is cut off, or the file is changing",
            ));
        }
        file.flush()
            .or_fail(Code::StoreUnavailable, "a file cannot be written")?;
        let mode = if mode & EXECUTABLE == 0 { 0o444 } else { 0o555 };
        file.set_permissions(Permissions::from_mode(mode))
            .or_fail(Code::StoreUnavailable, "a file cannot be protected")
    }

    /// Checks a path and notes it with every folder above it.
    fn name(&mut self, path: &str, kind: Kind) -> Result<String> {
        let path = path.strip_prefix("./").unwrap_or(path);
        let parts: Vec<&str> = path.split('/').collect();
        let strange = |part: &&str| {
            part.is_empty()
                || matches!(*part, "." | "..")
                || part.len() > 255
                || part.chars().any(|c| c.is_control() || c == '\\')
        };
        if parts.iter().any(strange) {
            return Err(refused(
                path,
                "the path is not one below the artifact: it has no `..`, no empty parts, no control characters",
            ));
        }
        if path.len() > self.limits.path || parts.len() > self.limits.depth {
            let message = format!(
                "the path is too long: at most {} bytes and {} folders deep",
                self.limits.path, self.limits.depth
            );
            return Err(refused(path, message));
        }
        let mut end = 0;
        for (index, part) in parts.iter().enumerate() {
            end += part.len() + usize::from(index > 0);
            let above = path.get(..end).unwrap_or(path);
            let last = index + 1 == parts.len();
            self.note(above, if last { kind } else { Kind::Folder })?;
        }
        if self.seen.len() > self.limits.entries {
            let message = format!("there are too many files and folders: at most {}", self.limits.entries);
            return Err(invalid(message));
        }
        Ok(path.to_owned())
    }

    fn note(&mut self, path: &str, kind: Kind) -> Result<()> {
        match self.seen.get(&path.to_lowercase()) {
            None => {
                self.seen.insert(path.to_lowercase(), (path.to_owned(), kind));
                Ok(())
            }
            Some((other, Kind::Folder)) if other == path && kind == Kind::Folder => Ok(()),
            Some((other, _)) if other == path => Err(refused(path, "the path is there twice")),
            Some((other, _)) => {
                let message = format!("the path differs from `{other}` in case alone, which not every system can keep");
                Err(refused(path, message))
            }
        }
    }
}

/// What is wrong with one path of an artifact.
pub(super) fn refused(path: &str, message: impl Into<String>) -> Error {
    // In the message, because that is what an author gets to see who publishes over HTTP.
    invalid(format!("`{}`: {}", path.escape_debug(), message.into())).with("path", path.escape_debug())
}

/// An error of ours that came through a reader is told as it is.
fn in_copy(error: io::Error, path: &str) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            Error::new(Code::StoreUnavailable, "there is no room for the artifact").caused_by(error)
        }
        Err(error) => refused(path, format!("it cannot be read: {error}")).caused_by(error),
    }
}
