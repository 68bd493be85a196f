//! Whether a file may be a store: not on a network, not read-only.
//!
//! SQLite's locks and its shared memory do not work over a network, and they fail silently: the file is destroyed later.

use crosspoint_core::{Code, Error, Result};
use rustix::fs::{Access, access, statfs};
use std::path::{Path, PathBuf};

/// Checks where a database file is, or would be made; answers with its absolute path.
pub(crate) fn check(path: &Path, any_file_system: bool) -> Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| {
        Error::new(Code::SetupInvalid, "the path of the store names no file").with("path", path.display())
    })?;
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let folder = folder.canonicalize().map_err(|e| {
        Error::new(Code::StoreUnavailable, "the folder of the store does not exist")
            .with("folder", folder.display())
            .caused_by(e)
    })?;
    // Two names of one file must lead to the same lock files.
    let path = folder.join(name);
    let path = path.canonicalize().unwrap_or(path);
    let folder = path.parent().map_or(folder, Path::to_path_buf);
    if !any_file_system {
        refuse_network(&folder)?;
    }
    refuse_read_only(&folder, "the folder of the store is read-only")?;
    if path.exists() {
        refuse_read_only(&path, "the file of the store is read-only")?;
    }
    Ok(path)
}

/// Permission bits are asked as well as the kernel, which lets the superuser write what nobody should.
fn refuse_read_only(path: &Path, message: &'static str) -> Result<()> {
    let bits = path.metadata().is_ok_and(|metadata| metadata.permissions().readonly());
    let refused = access(path, Access::WRITE_OK);
    if !bits && refused.is_ok() {
        return Ok(());
    }
    let error = Error::new(Code::StoreReadOnly, message).with("path", path.display());
    Err(match refused {
        Err(cause) => error.caused_by(cause),
        Ok(()) => error,
    })
}

fn refuse_network(folder: &Path) -> Result<()> {
    // A kernel that cannot tell is no reason to refuse.
    let Ok(found) = statfs(folder) else {
        return Ok(());
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "magic numbers have 32 bits; the type of the field differs between machines"
    )]
    let magic = found.f_type as u32;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    match network(magic, mounted_as(&mounts, folder)) {
        None => Ok(()),
        Some(kind) => Err(Error::new(
            Code::StoreOnNetwork,
            format!("the store would be on a network file system ({kind})"),
        )
        .with("folder", folder.display())),
    }
}

/// The network file system that this is, if it is one.
fn network(magic: u32, mounted_as: Option<&str>) -> Option<&'static str> {
    Some(match magic {
        0x0000_6969 => "NFS",
        0x0000_517B => "SMB",
        0xFF53_4D42 => "CIFS",
        0xFE53_4D42 => "SMB2",
        0x0000_564C => "NCP",
        0x0102_1997 => "9P",
        0x5346_414F | 0x6B41_4653 => "AFS",
        0x00C3_6400 => "Ceph",
        0x7461_636F => "OCFS2",
        0x0116_1970 => "GFS2",
        0x0BD0_0BD0 => "Lustre",
        0x7375_7245 => "Coda",
        // FUSE tells its kind only in the mount table; what sits on a block device is local.
        0x6573_5546 if mounted_as != Some("fuseblk") => "FUSE",
        _ => return None,
    })
}

/// The type under which the mount that holds `folder` stands in the mount table.
fn mounted_as<'a>(mounts: &'a str, folder: &Path) -> Option<&'a str> {
    let mut best: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let (Some(point), Some(kind)) = (left.split(' ').nth(4), right.split(' ').next()) else {
            continue;
        };
        if folder.starts_with(point) && best.is_none_or(|(length, _)| point.len() >= length) {
            best = Some((point.len(), kind));
        }
    }
    best.map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known() {
        assert_eq!(network(0x6969, None), Some("NFS"));
        assert_eq!(network(0xFF53_4D42, Some("cifs")), Some("CIFS"));
        assert_eq!(network(0x6573_5546, Some("fuse.sshfs")), Some("FUSE"));
        assert_eq!(network(0x6573_5546, Some("fuseblk")), None, "a local disk behind FUSE");
        assert_eq!(network(0xEF53, Some("ext4")), None);
    }

    #[test]
    fn the_innermost_mount_counts() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/sda rw\n\
                      2 1 0:5 / /data rw shared:1 - fuse.sshfs me@there rw\n\
                      3 2 8:2 / /data/disk rw - fuseblk /dev/sdb rw\n";
        assert_eq!(mounted_as(mounts, Path::new("/var/lib")), Some("ext4"));
        assert_eq!(mounted_as(mounts, Path::new("/data/x")), Some("fuse.sshfs"));
        assert_eq!(mounted_as(mounts, Path::new("/data/disk/x")), Some("fuseblk"));
        assert_eq!(mounted_as(mounts, Path::new("/database")), Some("ext4"));
    }

    #[test]
    fn read_only_places_are_refused_before_anything_is_written() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("app.db");
        std::fs::write(&file, b"").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o444)).unwrap();
        assert_eq!(check(&file, false).unwrap_err().code(), Code::StoreReadOnly);
        std::fs::remove_file(&file).unwrap();
        assert!(check(&file, false).is_ok());
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o555)).unwrap();
        assert_eq!(check(&file, false).unwrap_err().code(), Code::StoreReadOnly);
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_link_leads_to_its_file() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (link, file) = (here.path().join("link.db"), there.path().join("app.db"));
        std::fs::write(&file, b"").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(check(&link, false).unwrap(), file.canonicalize().unwrap());
    }

    #[test]
    fn a_folder_that_does_not_exist_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = check(&folder.path().join("none/app.db"), false).unwrap_err();
        assert_eq!(error.code(), Code::StoreUnavailable);
        assert!(error.to_string().contains("none"), "{error}");
    }
}
