//! What is done to files and folders, with errors that name them.

use crosspoint_core::{Code, Error, Result, Timestamp};
use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

/// How the name of what is being removed begins.
pub(super) const AWAY: &str = "away-";

/// What was left in a staging folder by a process that died is removed after this time.
pub(super) const LEFT_BEHIND: Duration = Duration::from_secs(24 * 3600);

/// Removes what is being removed, and what was left behind before this time.
pub(super) fn sweep(staging: &Path, before: Timestamp) -> Result<()> {
    for name in names(staging)? {
        let path = staging.join(&name);
        if name.starts_with(AWAY) || older(&path, before) {
            remove(&path)?;
        }
    }
    Ok(())
}

pub(super) fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    Error::new(Code::StoreUnavailable, what)
        .with("path", path.display())
        .caused_by(error)
}

pub(super) fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed("a folder cannot be read", folder, e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| failed("a folder cannot be read", folder, e))?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

pub(super) fn older(path: &Path, before: Timestamp) -> bool {
    let modified = fs::metadata(path).and_then(|found| found.modified());
    let age = modified
        .ok()
        .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    age.and_then(|age| i64::try_from(age.as_millis()).ok())
        .is_some_and(|at| at < before.as_millis())
}

pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|e| failed("a folder cannot be brought to disk", folder, e))
}

/// Brings everything below a folder to disk.
pub(super) fn sync_below(root: &Path) -> Result<()> {
    let failed = |e: io::Error| failed("content cannot be brought to disk", root, e);
    // Of ten thousand small files, all at once is a hundred times faster than one by one.
    #[cfg(target_os = "linux")]
    {
        let root = File::open(root).map_err(failed)?;
        rustix::fs::syncfs(&root).map_err(|e| failed(e.into()))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => File::open(&path).and_then(|file| file.sync_all()).map_err(failed)?,
                }
            }
            File::open(&folder)
                .and_then(|folder| folder.sync_all())
                .map_err(failed)?;
        }
        Ok(())
    }
}

/// Files were protected when they were written.
pub(super) fn protect(root: &Path) -> Result<()> {
    modes(root, 0o555)
}

fn modes(root: &Path, mode: u32) -> Result<()> {
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let changed = fs::set_permissions(&folder, Permissions::from_mode(mode));
        changed.map_err(|e| failed("a folder's mode cannot be set", &folder, e))?;
        for entry in fs::read_dir(&folder).map_err(|e| failed("a folder cannot be read", &folder, e))? {
            let entry = entry.map_err(|e| failed("a folder cannot be read", &folder, e))?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Removes a file, or a folder that may be protected, with everything in it.
pub(super) fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(found) if found.is_dir() => {
            modes(path, 0o755)?;
            fs::remove_dir_all(path)
        }
        _ => fs::remove_file(path),
    };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("something cannot be removed", path, e)),
        _ => Ok(()),
    }
}
