//! From an author's folder or archive to a folder of our own that has nothing in it but plain files.

use super::{
    ArtifactLimits,
    archive::unpack,
    invalid,
    sink::{Sink, refused},
};
use crosspoint_core::{Code, ErrorExt, Result};
use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// Takes a folder or an archive apart into the empty folder `into`. Answers what was left out.
///
/// # Errors
/// [`Code::ArtifactInvalid`] with what is wrong.
pub(super) fn from(source: &Path, into: &Path, limits: &ArtifactLimits) -> Result<BTreeSet<String>> {
    let mut sink = Sink::of_author(into.to_owned(), *limits);
    let metadata = fs::metadata(source).or_fail(Code::ArtifactInvalid, "there is no such folder or archive");
    let metadata = metadata.map_err(|error| error.with("source", source.display()))?;
    match metadata.is_dir() {
        true => walk(source, &mut sink)?,
        false => unpack(source, limits, &mut sink)?,
    }
    Ok(sink.left_out().clone())
}

/// What was left out, as a warning.
pub(super) fn told(left_out: &BTreeSet<String>) -> Vec<String> {
    let names: Vec<&str> = left_out.iter().map(String::as_str).collect();
    match names.is_empty() {
        true => Vec::new(),
        false => vec![format!("left out: {}", names.join(", "))],
    }
}

/// Takes what a package manager has installed.
pub(super) fn packages(source: &Path, into: &Path) -> Result<()> {
    walk(source, &mut Sink::of_packages(into.to_owned()))
}

fn walk(root: &Path, sink: &mut Sink) -> Result<()> {
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let mut names = Vec::new();
        for entry in fs::read_dir(root.join(&folder)).or_fail(Code::ArtifactInvalid, "a folder cannot be read")? {
            let name = entry
                .or_fail(Code::ArtifactInvalid, "a folder cannot be read")?
                .file_name();
            match name.to_str() {
                Some(name) => names.push(name.to_owned()),
                None => return Err(refused(&name.to_string_lossy(), "the name is not UTF-8")),
            }
        }
        // In order, so that of several problems it is always the same that is told.
        names.sort();
        for name in names {
            let path = match folder.is_empty() {
                true => name,
                false => format!("{folder}/{name}"),
            };
            if sink.leaves_out(&path) {
                continue;
            }
            let metadata = fs::symlink_metadata(root.join(&path)).or_fail(Code::ArtifactInvalid, "a file is gone")?;
            if metadata.is_dir() {
                sink.folder(&path)?;
                folders.push(path);
            } else {
                file(root, &path, sink)?;
            }
        }
    }
    Ok(())
}

fn file(root: &Path, path: &str, sink: &mut Sink) -> Result<()> {
    // Neither follows a link nor waits for the other end of a FIFO.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).map_err(|_| invalid("the flags of a file do not fit"))?;
    let not_plain = "it is a link, a device, a socket or a FIFO, or cannot be read: an artifact has plain files and folders \
                     only";
    let open = OpenOptions::new().read(true).custom_flags(flags).open(root.join(path));
    let mut content = open.map_err(|error| refused(path, not_plain).caused_by(error))?;
    let metadata = content
        .metadata()
        .or_fail(Code::ArtifactInvalid, "a file cannot be looked at")?;
    if !metadata.is_file() {
        return Err(refused(path, not_plain));
    }
    sink.file(path, metadata.permissions().mode(), metadata.len(), &mut content)
}
