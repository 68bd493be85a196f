//! The ready root: the file system that all sandboxed runs see, read-only, built once.

use super::{
    paths::Visible,
    step::{Step, Trouble, io_step, step},
    sys,
};
use rustix::{
    fs::{CWD, Timespec},
    io::Errno,
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change, mount_remount,
        unmount,
    },
    process::{chdir, pivot_root},
    thread::nanosleep,
};
use std::{
    ffi::CString,
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
};

/// The number of a run's user inside, and of its group.
pub(super) const INNER_ID: u32 = 1000;

/// Folders that exist for a run's own read-only folders to be shown at.
pub(super) const LAYERS: usize = 8;

pub(super) const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom"];

pub(super) const FILES: &[(&str, &str)] = &[
    (
        "/etc/passwd",
        "root:x:0:0:root:/:/usr/sbin/nologin\nscript:x:1000:1000:script:/w/work:/bin/sh\n\
         nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    ),
    ("/etc/group", "root:x:0:\nscript:x:1000:\nnogroup:x:65534:\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
    (
        "/etc/resolv.conf",
        "# there is no name server here: names are resolved outside\n",
    ),
    HOSTNAME,
];

pub(super) const HOSTNAME: (&str, &str) = ("/etc/hostname", "sandbox\n");

pub(super) const FOLDERS: [&str; 8] = ["/proc", "/dev", "/w", "/app", "/layer", "/run", "/etc", "/var"];

pub(super) const LINKS: &[(&str, &str)] = &[
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/shm", "/w/tmp"),
    ("/tmp", "/w/tmp"),
    ("/var/tmp", "/w/tmp"),
    ("/etc/mtab", "/proc/self/mounts"),
];

/// Puts this task, which has a mount namespace of its own, into a root of its own.
pub(super) fn build(visible: &Visible) -> Result<(), Trouble> {
    step(
        Step::Root,
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC),
    )?;
    let stage = ["/tmp", "/mnt", "/run", "/var", "/opt", "/home"];
    let stage = stage
        .into_iter()
        .find(|stage| Path::new(stage).is_dir())
        .unwrap_or("/usr");
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let caps = c"mode=0755,size=16m,nr_inodes=65536";
    step(Step::Root, mount("tmpfs", stage, "tmpfs", flags, Some(caps)))?;
    step(Step::Root, chdir(stage))?;
    io_step(Step::Root, fs::create_dir("old"))?;
    step(Step::Root, pivot_root(".", "old"))?;
    step(Step::Root, chdir("/"))?;

    for tree in &visible.trees {
        let shown = show(tree);
        // What only some programs want may be out of reach; without the system's own nothing runs.
        if tree == Path::new("/usr") {
            shown?;
        }
    }
    for (at, target) in &visible.links {
        make_parent(at)?;
        if fs::symlink_metadata(at).is_err() {
            io_step(Step::Root, symlink(target, at))?;
        }
    }
    fill()?;
    devices()?;
    let flags = flags | MountFlags::NOEXEC;
    step(Step::RootProc, mount("proc", "/proc", "proc", flags, None))?;
    step(Step::Root, unmount("/old", UnmountFlags::DETACH))?;
    io_step(Step::Root, fs::remove_dir("/old"))?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    step(Step::Root, seal(flags))
}

/// Makes the root read-only. A file that was just written may still be open: a program that the host is starting at this
/// moment has a copy of its descriptor, which it closes when it executes.
fn seal(flags: MountFlags) -> rustix::io::Result<()> {
    let pause = Timespec {
        tv_sec: 0,
        tv_nsec: 2_000_000,
    };
    for _ in 0..1000 {
        match mount_remount("/", flags, c"") {
            Err(Errno::BUSY) => drop(nanosleep(&pause)),
            other => return other,
        }
    }
    Err(Errno::BUSY)
}

fn make_parent(path: &Path) -> Result<(), Trouble> {
    let parent = path.parent().unwrap_or_else(|| Path::new("/"));
    io_step(Step::Root, fs::create_dir_all(parent))
}

/// Shows a tree of the host's at the same path.
fn show(tree: &Path) -> Result<(), Trouble> {
    let relative = tree.strip_prefix("/").unwrap_or(tree);
    let source = PathBuf::from("/old").join(relative);
    make_parent(tree)?;
    place(tree, io_step(Step::RootTree, fs::metadata(&source))?.is_dir())?;
    step(Step::RootTree, mount_bind_recursive(&source, tree))?;
    let at = CString::new(tree.as_os_str().as_bytes()).unwrap_or_default();
    let sealed = step(Step::RootTree, sys::make_read_only(CWD, &at, false));
    if sealed.is_err() {
        // Better not at all than writable.
        step(Step::RootTree, unmount(tree, UnmountFlags::DETACH))?;
    }
    sealed
}

/// An empty folder or file for something to be mounted on.
fn place(at: &Path, folder: bool) -> Result<(), Trouble> {
    if fs::symlink_metadata(at).is_ok() {
        return Ok(());
    }
    let made = if folder { fs::create_dir(at) } else { fs::write(at, "") };
    io_step(Step::Root, made)
}

/// What the root has of its own.
fn fill() -> Result<(), Trouble> {
    for folder in FOLDERS {
        io_step(Step::Root, fs::create_dir_all(folder))?;
    }
    for layer in 0..LAYERS {
        io_step(Step::Root, fs::create_dir(format!("/layer/{layer}")))?;
    }
    for (at, text) in FILES {
        io_step(Step::Root, fs::write(at, text))?;
    }
    for (at, target) in LINKS {
        io_step(Step::Root, symlink(target, at))?;
    }
    Ok(())
}

fn devices() -> Result<(), Trouble> {
    for device in DEVICES {
        let at = PathBuf::from("/dev").join(device);
        place(&at, false)?;
        let source = PathBuf::from("/old/dev").join(device);
        step(Step::RootDevices, mount_bind_recursive(&source, &at))?;
        let at = CString::new(at.as_os_str().as_bytes()).unwrap_or_default();
        step(Step::RootDevices, sys::make_read_only(CWD, &at, true))?;
    }
    Ok(())
}
