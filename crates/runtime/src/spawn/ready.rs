//! The ready namespaces ("R"): a user, a PID and a mount namespace that live as long as the sandbox.
//!
//! Every run is started from inside, so that it inherits the ready root instead of building one. The first process of
//! the PID namespace does nothing; when the host dies it dies, and the kernel then ends everything inside.

use super::{
    ids::{Ids, extents},
    paths::Visible,
    root,
    step::{Step, Trouble, io_step, step},
    sys,
    task::{self, Place, die_with_parent},
};
use rustix::{
    event::{EventfdFlags, eventfd},
    fd::OwnedFd,
    fs::{Mode, OFlags},
    io::Errno,
    mount::{MountPropagationFlags, mount_change},
    thread::{UnshareFlags, set_thread_groups},
};
use std::{
    ffi::CStr,
    fs,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc::{self, Receiver},
    },
};

/// Descriptors of the namespaces. They live as long as these are open.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) user: OwnedFd,
    pub(super) pids: OwnedFd,
    /// The ready root.
    pub(super) root: OwnedFd,
    /// The host's own files, from which a run's own folders are shown.
    pub(super) host: OwnedFd,
    /// Where the host is root: the ids of customers.
    pub(super) ids: Option<Arc<Ids>>,
    /// Written to end the first process.
    stop: Arc<OwnedFd>,
}

impl Drop for Ready {
    fn drop(&mut self) {
        // All spawners have ended: each holds this.
        rustix::io::write(&*self.stop, &1_u64.to_ne_bytes()).ok();
    }
}

struct Namespaces {
    user: OwnedFd,
    pids: OwnedFd,
    root: OwnedFd,
    host: OwnedFd,
}

impl Ready {
    /// Makes the namespaces and the root. Blocks for some milliseconds.
    pub(super) fn make(visible: Visible, ids: Option<Arc<Ids>>) -> Result<Arc<Self>, Trouble> {
        let privileged = ids.is_some();
        let stop = Arc::new(step(Step::Pipes, eventfd(0, EventfdFlags::CLOEXEC))?);
        let number = Arc::new(AtomicU32::new(0));
        let (born, birth) = mpsc::channel();
        let (mapped, maps) = mpsc::channel();
        let (built, result) = mpsc::channel();
        let told = Arc::clone(&number);
        let main = move |halt: &OwnedFd, entered: Result<(), Trouble>| {
            if let Err(trouble) = entered {
                born.send(Err(trouble)).ok();
                return;
            }
            born.send(Ok(told.load(Ordering::Acquire))).ok();
            let made = first(&maps, &visible, privileged);
            let fine = made.is_ok();
            built.send(made).ok();
            // What this closure holds may be the last of its kind only in the host.
            if fine {
                let mut word = [0_u8; 8];
                while matches!(rustix::io::read(halt, &mut word), Err(Errno::INTR)) {}
            }
        };
        // With it end all that live in its namespaces, whose own threads hear of that.
        task::start("crosspoint-init", Place::New(number), Arc::clone(&stop), main, |_| ())?;
        let gone = |_| Trouble {
            step: Step::UserNamespace,
            errno: Errno::SRCH,
        };
        let pid = birth.recv().map_err(gone)??;
        mapped.send(write_maps(pid, privileged)).ok();
        let namespaces: Namespaces = result.recv().map_err(gone)??;
        Ok(Arc::new(Self {
            user: namespaces.user,
            pids: namespaces.pids,
            root: namespaces.root,
            host: namespaces.host,
            ids,
            stop,
        }))
    }
}

/// Written from outside: only the host may map more than its own user.
fn write_maps(pid: u32, privileged: bool) -> Result<(), Trouble> {
    let write = |name: &str, text: &str| io_step(Step::IdMaps, fs::write(format!("/proc/{pid}/{name}"), text));
    if privileged {
        for name in ["uid_map", "gid_map"] {
            let map = io_step(Step::IdMaps, fs::read_to_string(format!("/proc/self/{name}")))?;
            let same: String = extents(&map)
                .iter()
                .map(|(first, count)| format!("{first} {first} {count}\n"))
                .collect();
            write(name, &same)?;
        }
        return Ok(());
    }
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    write("setgroups", "deny")?;
    write("uid_map", &format!("0 {user} 1\n"))?;
    write("gid_map", &format!("0 {group} 1\n"))
}

/// The work of the first process.
fn first(maps: &Receiver<Result<(), Trouble>>, visible: &Visible, privileged: bool) -> Result<Namespaces, Trouble> {
    let gone = |_| Trouble {
        step: Step::IdMaps,
        errno: Errno::SRCH,
    };
    maps.recv().map_err(gone)??;
    if privileged {
        step(Step::Identity, set_thread_groups(&[]))?;
    }
    die_with_parent()?;
    // What loses its parent, because a spawner was killed, becomes a child of this one.
    step(Step::Root, sys::leave_no_zombies())?;
    let followers = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    step(Step::HostView, mount_change("/", followers))?;
    let host = namespace(Step::HostView, c"/proc/self/ns/mnt")?;
    step(Step::Root, sys::new_namespace(UnshareFlags::NEWNS))?;
    root::build(visible)?;
    Ok(Namespaces {
        user: namespace(Step::Root, c"/proc/self/ns/user")?,
        pids: namespace(Step::Root, c"/proc/self/ns/pid")?,
        root: namespace(Step::Root, c"/proc/self/ns/mnt")?,
        host,
    })
}

/// A descriptor of a namespace of this task.
pub(super) fn namespace(of: Step, path: &CStr) -> Result<OwnedFd, Trouble> {
    step(
        of,
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()),
    )
}
