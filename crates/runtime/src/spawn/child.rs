//! What the child does between `clone` and `execve`. The spawner that made it sleeps meanwhile.
//!
//! It shares the host's memory, so it follows orders and nothing else: no allocation, no lock, no panic. Each step that
//! fails is told to the spawner through that memory, by name.

use super::{
    filter::Kind,
    landlock::{Access, Landlock, Rules},
    orders::{Entry, FIRST_MORE, Orders, PORT, both},
    root::INNER_ID,
    step::{Step, Trouble, step},
    sys,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd},
    fs::{CWD, Gid, Mode, OFlags, Uid, open},
    io::{Errno, IoSlice},
    mount::{MountFlags, MoveMountFlags, mount, move_mount},
    net::{
        AddressFamily, Ipv4Addr, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrV4, SocketFlags,
        SocketType, bind, listen, sendmsg, socket_with, sockopt,
    },
    process::{
        DumpableBehavior, PidfdFlags, Signal, chdir, getpid, pidfd_open, set_dumpable_behavior,
        set_parent_process_death_signal, setrlimit, setsid,
    },
    thread::{set_no_new_privs, set_thread_res_gid, set_thread_res_uid},
};
use std::{
    ffi::{CStr, c_char, c_int, c_void},
    mem::MaybeUninit,
    sync::atomic::{AtomicI32, Ordering},
};

/// What the child is given. It lives in the spawner's memory until the child has executed its program or ended.
pub(super) struct Brief<'a> {
    pub(super) orders: &'a Orders,
    /// Ended by null pointers.
    pub(super) argv: &'a [*const c_char],
    pub(super) envp: &'a [*const c_char],
    /// Where descriptors are handed out.
    pub(super) post: BorrowedFd<'a>,
    /// The spawner itself.
    pub(super) spawner: BorrowedFd<'a>,
    /// What it needs lies below this number.
    pub(super) end: u32,
    /// Written by the child, before it has a table of its own: its descriptor.
    pub(super) born: AtomicI32,
    /// Written by the child: what did not work.
    pub(super) trouble: Option<Trouble>,
}

/// The child's whole life in the host's memory.
pub(super) extern "C" fn main(arg: *mut c_void) -> c_int {
    // SAFETY: the spawner passes a `Brief` that lives until this process has left its memory, and sleeps until then.
    let brief = unsafe { &mut *arg.cast::<Brief<'_>>() };
    if let Err(trouble) = settle(brief).and_then(|()| follow(brief)) {
        brief.trouble = Some(trouble);
    }
    127
}

/// The last that it does in the host's table of descriptors, where its own stays, and the first in its own table.
fn settle(brief: &Brief<'_>) -> Result<(), Trouble> {
    let own = step(Step::Pipes, pidfd_open(getpid(), PidfdFlags::empty()))?;
    brief.born.store(own.into_raw_fd(), Ordering::SeqCst);
    step(Step::Descriptors, sys::own_descriptors(brief.end))
}

/// Answers only if something failed.
fn follow(brief: &Brief<'_>) -> Result<(), Trouble> {
    let orders = brief.orders;
    if let Some((_, entry)) = &orders.grants.group {
        step(Step::ControlGroup, rustix::io::write(entry, b"0\n").map(drop))?;
    }
    match orders.kind {
        Kind::Sandboxed => sandbox(brief)?,
        Kind::Confined | Kind::Bubblewrap => confine(orders)?,
    }
    let Some(locks) = &orders.grants.locks else {
        return hand_on(brief);
    };
    let rules = rules(orders, locks.landlock)?;
    step(Step::WorkFolder, chdir(&*orders.dir))?;
    stdio(orders)?;
    step(Step::Session, setsid())?;
    for (resource, limit) in &orders.limits {
        step(Step::Limits, setrlimit(*resource, both(*limit)))?;
    }
    if orders.kind == Kind::Sandboxed {
        // A new user namespace comes with a full one. Without, a root's spawner has emptied its own; an ordinary user may not
        // empty it, and need not: no_new_privs keeps a run from getting anything.
        step(Step::Capabilities, sys::empty_bounding_set())?;
    }
    step(Step::Capabilities, sys::drop_capabilities())?;
    end_with_spawner(brief)?;
    step(Step::NoNewPrivileges, set_no_new_privs(true))?;
    rules.enforce()?;
    let kept = 3 + u32::from(orders.streams.messages.is_some());
    step(Step::Descriptors, sys::close_on_exec_from(kept))?;
    step(Step::Seccomp, sys::load_filter(&locks.filter))?;
    step(Step::Session, sys::unblock_signals())?;
    execute(brief)
}

/// What bubblewrap is executed with: the user that the run is outside, no capabilities, and the descriptors that it is told
/// of. It locks the run in, and is told its limits when its namespaces are there.
fn hand_on(brief: &Brief<'_>) -> Result<(), Trouble> {
    let orders = brief.orders;
    step(Step::WorkFolder, chdir(&*orders.dir))?;
    step(Step::Session, setsid())?;
    for (resource, limit) in &orders.limits {
        step(Step::Limits, setrlimit(*resource, both(*limit)))?;
    }
    step(Step::Capabilities, sys::drop_capabilities())?;
    end_with_spawner(brief)?;
    step(Step::Descriptors, sys::close_on_exec_from(3))?;
    stdio(orders)?;
    for (at, fd) in (i32::from(FIRST_MORE)..).zip(&orders.streams.more) {
        step(Step::Stdio, sys::dup_onto(fd.as_fd(), at))?;
    }
    step(Step::Session, sys::unblock_signals())?;
    execute(brief)
}

/// After the last change of credentials, which clears it; and the spawner may have died before.
fn end_with_spawner(brief: &Brief<'_>) -> Result<(), Trouble> {
    let signal = set_parent_process_death_signal(Some(Signal::KILL));
    step(Step::ParentWatch, signal)?;
    let mut spawner = [PollFd::new(&brief.spawner, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if step(Step::ParentWatch, poll(&mut spawner, Some(&now)))? != 0 {
        return Err(Trouble {
            step: Step::ParentWatch,
            errno: Errno::SRCH,
        });
    }
    Ok(())
}

/// Answers only if it fails.
fn execute(brief: &Brief<'_>) -> Result<(), Trouble> {
    // SAFETY: the spawner made both arrays of C strings that it keeps, and ended them by null pointers.
    let errno = unsafe { sys::execute(&brief.orders.program, brief.argv.as_ptr(), brief.envp.as_ptr()) };
    Err(Trouble {
        step: Step::Execute,
        errno,
    })
}

fn write_file(of: Step, path: &CStr, text: &[u8]) -> Result<(), Trouble> {
    let file = step(of, open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()))?;
    step(of, rustix::io::write(&file, text).map(drop))
}

/// Writes a file of this task's own. They belong to root while the memory, which is the host's, is marked as not to be
/// dumped; another spawner's change of user marks it so for an instant, and that can be any instant.
fn write_own(path: &CStr, text: &[u8]) -> Result<(), Trouble> {
    let mut tries = 0;
    loop {
        match write_file(Step::IdMaps, path, text) {
            Err(trouble) if trouble.errno == Errno::ACCESS && tries < 1000 => {
                tries += 1;
                step(Step::Identity, set_dumpable_behavior(DumpableBehavior::Dumpable))?;
            }
            other => return other,
        }
    }
}

/// Its own user, outside nobody's but the customer's.
fn identity(orders: &Orders) -> Result<(), Trouble> {
    let map = orders.map.as_bytes();
    write_own(c"/proc/self/setgroups", b"deny")?;
    write_own(c"/proc/self/uid_map", map)?;
    write_own(c"/proc/self/gid_map", map)?;
    if orders.grants.id.is_some() {
        let (user, group) = (Uid::from_raw(INNER_ID), Gid::from_raw(INNER_ID));
        step(Step::Identity, set_thread_res_gid(group, group, group))?;
        step(Step::Identity, set_thread_res_uid(user, user, user))?;
    }
    Ok(())
}

fn sandbox(brief: &Brief<'_>) -> Result<(), Trouble> {
    let orders = brief.orders;
    identity(orders)?;
    // The kernel prefers it over the host when memory runs out. Not decisive.
    write_file(Step::Limits, c"/proc/self/oom_score_adj", b"1000").ok();
    step(Step::Hostname, rustix::system::sethostname(b"sandbox"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let strict = flags | MountFlags::NOEXEC;
    let processes_only = Some(c"hidepid=invisible,subset=pid");
    step(Step::Proc, mount(c"proc", c"/proc", c"proc", strict, processes_only))?;
    step(
        Step::Tmpfs,
        mount(c"tmpfs", c"/w", c"tmpfs", flags, Some(&*orders.tmpfs)),
    )?;
    step(Step::Tmpfs, chdir(c"/w"))?;
    for entry in &orders.entries {
        make(entry)?;
    }
    for bind in &orders.binds {
        if bind.make && bind.folder {
            step(Step::Bind, rustix::fs::mkdir(&*bind.target, Mode::from_raw_mode(0o755)))?;
        } else if bind.make {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            step(Step::Bind, open(&*bind.target, flags, Mode::from_raw_mode(0o644)))?;
        }
        if let Some(tree) = &bind.tree {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            step(Step::Bind, move_mount(tree, c"", CWD, &*bind.target, flags))?;
        }
    }
    hand_out(brief)
}

fn make(entry: &Entry) -> Result<(), Trouble> {
    let Some(content) = &entry.content else {
        return step(Step::Inputs, rustix::fs::mkdir(&*entry.name, entry.mode));
    };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = step(Step::Inputs, open(&*entry.name, flags, entry.mode))?;
    let mut rest = content.as_slice();
    while !rest.is_empty() {
        let written = step(Step::Inputs, rustix::io::write(&file, rest))?;
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// Sends the supervisor its folder, its view of its processes, and its listener.
fn hand_out(brief: &Brief<'_>) -> Result<(), Trouble> {
    let folder = path(Step::HandOut, c"/w")?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let processes = step(Step::HandOut, open(c"/proc", flags, Mode::empty()))?;
    let listener = if brief.orders.listen { Some(listener()?) } else { None };
    let (two, three);
    let fds: &[BorrowedFd<'_>] = if let Some(listener) = &listener {
        three = [folder.as_fd(), processes.as_fd(), listener.as_fd()];
        &three
    } else {
        two = [folder.as_fd(), processes.as_fd()];
        &two
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Trouble {
            step: Step::HandOut,
            errno: Errno::NOBUFS,
        });
    }
    let word = [IoSlice::new(b"w")];
    step(
        Step::HandOut,
        sendmsg(brief.post, &word, &mut control, SendFlags::NOSIGNAL).map(drop),
    )
}

fn path(of: Step, path: &CStr) -> Result<OwnedFd, Trouble> {
    step(of, open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()))
}

fn listener() -> Result<OwnedFd, Trouble> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = step(
        Step::Listener,
        socket_with(AddressFamily::INET, SocketType::STREAM, flags, None),
    )?;
    step(Step::Listener, sockopt::set_socket_reuseaddr(&socket, true))?;
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT);
    step(Step::Listener, bind(&socket, &address))?;
    step(Step::Listener, listen(&socket, 128))?;
    Ok(socket)
}

fn confine(orders: &Orders) -> Result<(), Trouble> {
    write_file(Step::Limits, c"/proc/self/oom_score_adj", b"1000").ok();
    if let Some(id) = &orders.grants.id {
        let (user, group) = (Uid::from_raw(id.number()), Gid::from_raw(id.number()));
        step(Step::Identity, set_thread_res_gid(group, group, group))?;
        step(Step::Identity, set_thread_res_uid(user, user, user))?;
    }
    Ok(())
}

/// Second lock or first, depending on the level: which files it may reach.
fn rules(orders: &Orders, landlock: Landlock) -> Result<Rules, Trouble> {
    let rules = landlock.rules(landlock.tcp())?;
    match &orders.grants.grounds {
        None => {
            // A rule on a mount point does not hold for what is mounted there: these are opened after the mounts.
            rules.allow(path(Step::Landlock, c"/")?.as_fd(), Access::Read, true)?;
            rules.allow(path(Step::Landlock, c"/w")?.as_fd(), Access::Own, true)?;
            rules.allow(path(Step::Landlock, c"/dev")?.as_fd(), Access::Device, true)?;
            if orders.listen {
                rules.allow_connect(PORT)?;
            }
        }
        Some(grounds) => {
            for ground in grounds.shared.iter().chain(&grounds.own) {
                rules.allow(ground.path.as_fd(), ground.access, ground.folder)?;
            }
        }
    }
    Ok(rules)
}

fn stdio(orders: &Orders) -> Result<(), Trouble> {
    let streams = &orders.streams;
    for (at, fd) in (0..).zip(streams.standard.iter().chain(&streams.messages)) {
        step(Step::Stdio, sys::dup_onto(fd.as_fd(), at))?;
    }
    Ok(())
}
