//! What a spawner's task does: it starts runs. How they end is in [`ends`].

mod ends;

use super::{Over, Request, Spawner, Started, Unwatched};
use crate::spawn::{
    cgroup::Group,
    child::{self, Brief},
    confined,
    desk::Asleep,
    filter::Kind,
    frail::GONE,
    hogs::Hogs,
    ids::Id,
    orders::Orders,
    ready::Ready,
    slots::Slots,
    step::{Step, Trouble, step},
    sweeper::Sweeper,
    sys::{self, Reaped, Stack},
    task::{die_with_parent, move_into},
};
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    fd::{AsFd, AsRawFd, OwnedFd},
    fs::{CWD, FileType, Gid, Uid},
    io::{Errno, IoSliceMut},
    mount::{OpenTreeFlags, open_tree},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg,
        socketpair,
    },
    process::{
        DumpableBehavior, Pid, PidfdFlags, Resource, Signal, getpid, kill_process, pidfd_open, set_dumpable_behavior,
    },
    thread::{
        CapabilitiesSecureBits, CapabilitySet, LinkNameSpaceType, capabilities, capabilities_secure_bits,
        set_capabilities_secure_bits, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};
use std::{
    collections::HashMap,
    ffi::{CString, c_char, c_int},
    mem::MaybeUninit,
    sync::{
        Arc, Weak,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

const CHILD_STACK: usize = 128 * 1024;

/// A run whose end is awaited.
struct Running {
    pid: Pid,
    pidfd: Arc<OwnedFd>,
    /// Its user's, which is nobody else's before all of it is dead.
    id: Option<Id>,
    /// Kept past the run's end: the kernel takes its time to take a mount namespace down.
    mounts: Option<OwnedFd>,
    /// By which its processes are found, if it has no namespace for them.
    mark: Option<u64>,
    /// It can be removed only when nobody is left in it.
    group: Option<Arc<Group>>,
    end: oneshot::Sender<Over>,
}

/// The task's side.
pub(super) struct Work {
    ready: Option<Arc<Ready>>,
    /// The crew's: what a killed spawner leaves behind must not keep it.
    sweeper: Weak<Sweeper>,
    stack: Stack,
    post: OwnedFd,
    letterbox: OwnedFd,
    ends: OwnedFd,
    dumpable: DumpableBehavior,
    running: HashMap<u64, Running>,
    /// Runs without a namespace whose first process has ended: over when none of their processes is a child of this task.
    ending: HashMap<u64, (Running, Option<Reaped>)>,
    /// When the first of these has ended, since there were none.
    ending_since: Instant,
    next: u64,
    asleep: Asleep,
    gone: watch::Receiver<bool>,
    hogs: Hogs,
    slots: Slots,
    /// May choose the processors of other users' processes.
    masters_others: bool,
}

const WAKE: u64 = 0;
const LOOK_AROUND: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Who was killed may take its time to die.
const LOOK_AGAIN: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 2_000_000,
};
const LOOK_SELDOM: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};
/// Who has not died after so long is looked at seldom.
const LATE: Duration = Duration::from_millis(500);

impl Work {
    pub(super) fn new(ready: Option<Arc<Ready>>, spawner: &Spawner) -> Result<Self, Trouble> {
        if ready.is_some() {
            die_with_parent()?;
        } else {
            confined::outlive_host()?;
            spawner.marks.store(confined::marks(), Ordering::Release);
        }
        let root = rustix::process::geteuid().is_root();
        if root && ready.as_ref().is_none_or(|ready| ready.ids.is_some()) {
            step(Step::Identity, set_thread_groups(&[]))?;
            let bits = step(Step::Identity, capabilities_secure_bits())? | CapabilitiesSecureBits::NO_SETUID_FIXUP;
            step(Step::Identity, set_capabilities_secure_bits(bits))?;
            if ready.is_none() {
                // It executes nothing itself, and keeps what it has.
                step(Step::Capabilities, sys::empty_bounding_set())?;
            }
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let (post, letterbox) = step(Step::HandOut, pair)?;
        let own = step(Step::ParentWatch, pidfd_open(getpid(), PidfdFlags::empty()))?;
        let mut slots = step(Step::Pipes, Slots::new(own.as_fd(), &spawner.sweeper.floor))?;
        slots.reach(post.as_raw_fd());
        Ok(Self {
            ready,
            sweeper: Arc::downgrade(&spawner.sweeper),
            stack: step(Step::Thread, Stack::new(CHILD_STACK))?,
            post,
            letterbox,
            ends: step(Step::Pipes, epoll::create(epoll::CreateFlags::CLOEXEC))?,
            dumpable: spawner.mark,
            running: HashMap::new(),
            ending: HashMap::new(),
            ending_since: Instant::now(),
            next: WAKE,
            asleep: spawner.desk.asleep.clone(),
            gone: spawner.gone.subscribe(),
            hogs: spawner.hogs.clone(),
            slots,
            masters_others: capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_NICE)),
        })
    }

    pub(super) fn run(&mut self, spawner: &Spawner) -> Trouble {
        let flags = epoll::EventFlags::IN;
        if let Err(errno) = epoll::add(&self.ends, &spawner.wake, epoll::EventData::new_u64(WAKE), flags) {
            return Trouble {
                step: Step::Pipes,
                errno,
            };
        }
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        let mut closing = false;
        loop {
            events.clear();
            // What was adopted ends unseen.
            let patience = match self.ready {
                None if !self.ending.is_empty() && self.ending_since.elapsed() > LATE => Some(LOOK_SELDOM),
                None if !self.ending.is_empty() => Some(LOOK_AGAIN),
                None if !self.running.is_empty() || closing => Some(LOOK_AROUND),
                _ => None,
            };
            let waited = self
                .asleep
                .during(|| epoll::wait(&self.ends, spare_capacity(&mut events), patience.as_ref()));
            match waited {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => {
                    return Trouble {
                        step: Step::Wait,
                        errno,
                    };
                }
            }
            for event in &events {
                match event.data.u64() {
                    WAKE => {
                        rustix::io::read(&spawner.wake, &mut [0_u8; 8]).ok();
                    }
                    run => self.ended(run),
                }
            }
            if self.ready.is_none() && (events.is_empty() || !self.ending.is_empty()) {
                self.sweep();
            }
            // One at a time, so that nobody's end waits for everybody's start.
            let (request, closed, more) = {
                let mut queue = spawner.queue.lock();
                (queue.requests.pop_front(), queue.closed, !queue.requests.is_empty())
            };
            closing = closed;
            if more {
                spawner.wake();
            }
            match request {
                Some(Request { reply, .. }) if reply.is_closed() => {
                    spawner.load.fetch_sub(1, Ordering::Relaxed);
                }
                Some(Request { mut orders, reply }) => {
                    let started = self.start(spawner, &mut orders, more);
                    self.slots.empty(orders.into_descriptors());
                    spawner.load.fetch_sub(1, Ordering::Relaxed);
                    // If nobody wants it any more, that kills it. Its end is awaited as any other's.
                    drop(reply.send(started));
                }
                None if closed && self.running.is_empty() && self.ending.is_empty() && !self.reap_adopted() => {
                    return GONE;
                }
                None => {}
            }
        }
    }

    fn start(&mut self, spawner: &Spawner, orders: &mut Orders, busy: bool) -> Result<Started, Trouble> {
        if !orders.binds.is_empty() {
            self.fetch_trees(orders)?;
        }
        step(Step::Pipes, self.slots.fill(orders.descriptors()))?;
        for ground in orders.grants.grounds.iter().flat_map(|grounds| &*grounds.shared) {
            self.slots.reach(ground.path.as_raw_fd());
        }
        if let Some(network) = &orders.grants.network {
            step(Step::Enter, move_into(network.namespace(), LinkNameSpaceType::Network))?;
        }
        self.next += 1;
        let mark = (orders.kind != Kind::Sandboxed).then(|| confined::mark(self.next));
        orders.limits.extend(mark.map(|mark| (Resource::Rttime, mark)));
        let (pid, pidfd) = self.clone_child(spawner, orders).inspect_err(|_| {
            // It may have handed something out before.
            drop(self.receive());
        })?;
        let handed = if orders.kind == Kind::Sandboxed {
            match self.receive().and_then(|handed| all_of(handed, orders)) {
                Ok(handed) => handed,
                Err(trouble) => {
                    give_up(pid);
                    return Err(trouble);
                }
            }
        } else {
            Vec::new()
        };
        let pidfd = Arc::new(pidfd);
        let mounts = (orders.kind == Kind::Sandboxed && !busy)
            .then(|| sys::mount_namespace(pidfd.as_fd()).ok())
            .flatten()
            .map(|mounts| self.slots.floor().lift(mounts));
        let group = orders.grants.group.as_ref().map(|(group, _)| Arc::clone(group));
        let (end, ended) = oneshot::channel();
        let data = epoll::EventData::new_u64(self.next);
        let watched = epoll::add(&self.ends, &*pidfd, data, epoll::EventFlags::IN);
        let running = Running {
            pid,
            pidfd: Arc::clone(&pidfd),
            mounts,
            mark,
            group: group.clone(),
            id: orders.grants.id.take(),
            end,
        };
        if let Err(errno) = watched {
            let reaped = give_up(pid);
            // It has been executed, and may have started others.
            self.finish(self.next, running, reaped);
            return Err(Trouble {
                step: Step::Wait,
                errno,
            });
        }
        self.running.insert(self.next, running);
        Ok(Started {
            unwatched: Unwatched(Some(Arc::clone(&pidfd))),
            pidfd,
            mark,
            handed,
            sweeper: self.sweeper.clone(),
            network: orders.grants.network.take(),
            group,
            end: ended,
            gone: self.gone.clone(),
        })
    }

    /// Takes the trees that a run is shown out of the host's file system, where this task cannot look from the root.
    fn fetch_trees(&self, orders: &mut Orders) -> Result<(), Trouble> {
        let Some(ready) = &self.ready else {
            return Ok(());
        };
        step(Step::Enter, move_into(&ready.host, LinkNameSpaceType::Mount))?;
        let mut fetched = Ok(());
        for bind in &mut orders.binds {
            let tree = fetch(&bind.source);
            match tree {
                Ok((tree, folder)) => (bind.tree, bind.folder) = (Some(tree), folder),
                Err(trouble) => fetched = Err(trouble),
            }
        }
        step(Step::Enter, move_into(&ready.root, LinkNameSpaceType::Mount))?;
        fetched
    }

    fn clone_child(&mut self, spawner: &Spawner, orders: &Orders) -> Result<(Pid, OwnedFd), Trouble> {
        let argv = pointers(&orders.argv);
        let envp = pointers(&orders.envp);
        let mut brief = Brief {
            orders,
            argv: &argv,
            envp: &envp,
            post: self.post.as_fd(),
            spawner: self.slots.filler(),
            end: self.slots.end().unsigned_abs(),
            born: AtomicI32::new(-1),
            trouble: None,
        };
        let stay = if self.may_release(orders) {
            self.hogs.stay()
        } else {
            None
        };
        let result = self.become_customer(orders).and_then(|()| {
            let arg: *mut Brief<'_> = &raw mut brief;
            let asleep = self.asleep.clone();
            // SAFETY: this task sleeps by CLONE_VFORK until the child has left its memory; `brief` and what it refers
            // to live in this frame, which is there until then even if somebody kills this task; the stack is this task's
            // own and has one child at a time; the thread that made this task keeps `inside` for longer; signals are blocked
            // since that thread blocked them.
            let make = || unsafe {
                let inside = &spawner.inside;
                sys::clone(&mut self.stack, flags(orders.kind), child::main, arg.cast(), inside)
            };
            let made = asleep.during(make);
            // The kernel may not have written it if it dumps the child's core.
            spawner.inside.store(0, Ordering::SeqCst);
            step(Step::Clone, made)
        });
        if let (Some(stay), Ok(pid)) = (stay, &result) {
            stay.release(*pid);
        }
        let restored = self.become_host(orders);
        let pid = result?;
        let born = brief.born.load(Ordering::SeqCst);
        // SAFETY: the child has made it in the table that it shared, and told it to nobody else.
        let pidfd = (born >= 0).then(|| unsafe { sys::take_over(born) });
        match (brief.trouble.or_else(|| restored.err()), pidfd) {
            (None, Some(pidfd)) => Ok((pid, pidfd)),
            (trouble, _) => {
                give_up(pid);
                // It did not get so far as to say anything.
                let killed = Trouble {
                    step: Step::Wait,
                    errno: Errno::SRCH,
                };
                Err(trouble.unwrap_or(killed))
            }
        }
    }

    /// Whether a child's processors are this task's to say: in the run's user namespace it may do everything, outside of one
    /// not if the child has another user, and a container has taken the right to that.
    fn may_release(&self, orders: &Orders) -> bool {
        orders.kind == Kind::Sandboxed || orders.grants.id.is_none() || self.masters_others
    }

    /// Whether a run changes what the kernel thinks of this memory.
    fn touches(&self, orders: &Orders) -> bool {
        orders.grants.id.is_some() || self.dumpable != DumpableBehavior::Dumpable
    }

    /// The customer owns the run's user namespace and may map itself in it. Changes this task alone, and lets it and its
    /// child open their own files in /proc, which the kernel forbids after each change of user.
    fn become_customer(&self, orders: &Orders) -> Result<(), Trouble> {
        if orders.kind != Kind::Sandboxed || !self.touches(orders) {
            return Ok(());
        }
        if let Some(id) = &orders.grants.id {
            let (user, group) = (Uid::from_raw(id.number()), Gid::from_raw(id.number()));
            step(Step::Identity, set_thread_res_gid(None, group, None))?;
            step(Step::Identity, set_thread_res_uid(None, user, None))?;
        }
        step(Step::Identity, set_dumpable_behavior(DumpableBehavior::Dumpable))
    }

    /// Undoes it, and what the kernel did besides: the word that this task ends with the host is gone, and the host's
    /// memory is marked as not to be dumped, also by a confined child's change of user.
    fn become_host(&self, orders: &Orders) -> Result<(), Trouble> {
        if orders.kind == Kind::Sandboxed && orders.grants.id.is_some() {
            step(Step::Identity, set_thread_res_uid(None, Uid::ROOT, None))?;
            step(Step::Identity, set_thread_res_gid(None, Gid::ROOT, None))?;
            die_with_parent()?;
        }
        if self.touches(orders) {
            step(Step::Identity, set_dumpable_behavior(self.dumpable))?;
        }
        Ok(())
    }

    /// What the child handed out. It is there already, or never comes.
    fn receive(&self) -> Result<Vec<OwnedFd>, Trouble> {
        let mut byte = [0_u8; 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut word = [IoSliceMut::new(&mut byte)];
        step(
            Step::HandOut,
            recvmsg(&self.letterbox, &mut word, &mut control, RecvFlags::CMSG_CLOEXEC),
        )?;
        let mut handed = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                handed.extend(fds);
            }
        }
        Ok(handed)
    }
}

/// Ends a child that nobody has heard of, nor reaped.
fn give_up(pid: Pid) -> Option<Reaped> {
    kill_process(pid, Signal::KILL).ok();
    sys::reap(pid).ok()
}

/// The kernel leaves out those for which this process has no number free, and says nothing.
fn all_of(handed: Vec<OwnedFd>, orders: &Orders) -> Result<Vec<OwnedFd>, Trouble> {
    if handed.len() == 2 + usize::from(orders.listen) {
        return Ok(handed);
    }
    Err(Trouble {
        step: Step::HandOut,
        errno: Errno::MFILE,
    })
}

const fn flags(kind: Kind) -> c_int {
    // The table of descriptors is shared until the child makes its own. The kernel tells when it is in this memory.
    let told = libc::CLONE_PARENT_SETTID | libc::CLONE_CHILD_CLEARTID;
    let common = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES | told | libc::SIGCHLD;
    match kind {
        Kind::Sandboxed => {
            common
                | libc::CLONE_NEWUSER
                | libc::CLONE_NEWNS
                | libc::CLONE_NEWPID
                | libc::CLONE_NEWUTS
                | libc::CLONE_NEWIPC
                | libc::CLONE_NEWCGROUP
        }
        Kind::Confined | Kind::Bubblewrap => common,
    }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

fn fetch(source: &CString) -> Result<(OwnedFd, bool), Trouble> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = step(Step::Bind, open_tree(CWD, &**source, flags))?;
    step(Step::Bind, sys::make_read_only(tree.as_fd(), c"", false))?;
    let found = step(Step::Bind, rustix::fs::fstat(&tree))?;
    let folder = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
    Ok((tree, folder))
}
