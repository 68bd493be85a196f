//! The spawner: a task that starts runs, is their parent, and reaps them.

use super::{
    cgroup::Group,
    child::{self, Brief},
    confined::{self, Marked},
    filter::Kind,
    net::Lease,
    orders::{Orders, high},
    ready::Ready,
    step::{Step, Trouble, step},
    sweeper::Sweeper,
    sys::{self, Reaped, Stack},
    task::{self, Place, die_with_parent, move_into},
};
use rustix::{
    buffer::spare_capacity,
    event::{EventfdFlags, Timespec, epoll, eventfd},
    fd::{AsFd, OwnedFd},
    fs::{CWD, FileType, Gid, Uid},
    io::{Errno, IoSliceMut},
    mount::{OpenTreeFlags, open_tree},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg,
        socketpair,
    },
    process::{
        DumpableBehavior, Pid, PidfdFlags, Resource, Signal, dumpable_behavior, getpid, pidfd_open,
        set_dumpable_behavior,
    },
    thread::{
        CapabilitiesSecureBits, LinkNameSpaceType, capabilities_secure_bits, set_capabilities_secure_bits,
        set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};
use std::{
    collections::{HashMap, VecDeque},
    ffi::{CString, c_char, c_int},
    mem::MaybeUninit,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::oneshot;

const CHILD_STACK: usize = 128 * 1024;

/// What was started.
pub(super) struct Started {
    pub(super) pidfd: Arc<OwnedFd>,
    /// By which its processes are found, if it has no namespace for them.
    pub(super) mark: Option<u64>,
    /// The run's folder, its view of its processes, its listener.
    pub(super) handed: Vec<OwnedFd>,
    pub(super) network: Option<Lease>,
    pub(super) group: Option<Arc<Group>>,
    pub(super) id: Option<super::ids::Id>,
    /// Its end, once it was reaped.
    pub(super) end: oneshot::Receiver<Reaped>,
}

struct Request {
    orders: Box<Orders>,
    reply: oneshot::Sender<Result<Started, Trouble>>,
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Request>,
    closed: bool,
    /// Why nothing can be started here.
    dead: Option<Trouble>,
}

/// The host's side of a spawner.
pub(super) struct Spawner {
    queue: Mutex<Queue>,
    wake: OwnedFd,
    /// Requests that were not answered yet.
    pub(super) load: AtomicUsize,
}

impl Spawner {
    pub(super) fn start(name: &str, ready: Option<Arc<Ready>>, sweeper: Arc<Sweeper>) -> Result<Arc<Self>, Trouble> {
        let wake = step(Step::Pipes, eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK))?;
        let spawner = Arc::new(Self {
            queue: Mutex::default(),
            wake,
            load: AtomicUsize::new(0),
        });
        let mine = Arc::clone(&spawner);
        let place = ready.clone().map_or(Place::Host, Place::Ready);
        let main = move |entered: Result<(), Trouble>| {
            let work = entered.and_then(|()| Work::new(ready, sweeper));
            let end = match work {
                Ok(mut work) => work.run(&mine),
                Err(trouble) => trouble,
            };
            mine.end(end);
        };
        task::start(name, place, Box::new(main))?;
        Ok(spawner)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        rustix::io::write(&self.wake, &1_u64.to_ne_bytes()).ok();
    }

    /// Starts a run.
    pub(super) async fn request(&self, orders: Box<Orders>) -> Result<Started, Trouble> {
        let (reply, answer) = oneshot::channel();
        {
            let mut queue = self.lock();
            if let Some(trouble) = queue.dead {
                return Err(trouble);
            }
            self.load.fetch_add(1, Ordering::Relaxed);
            queue.requests.push_back(Request { orders, reply });
        }
        self.wake();
        answer.await.unwrap_or(Err(GONE))
    }

    /// Ends the task, after the end of all its runs.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake();
    }

    fn end(&self, why: Trouble) {
        let mut queue = self.lock();
        queue.dead = Some(why);
        for request in queue.requests.drain(..) {
            request.reply.send(Err(why)).ok();
        }
    }
}

const GONE: Trouble = Trouble {
    step: Step::Gone,
    errno: Errno::SRCH,
};

/// A run whose end is awaited.
struct Running {
    pid: Pid,
    pidfd: Arc<OwnedFd>,
    /// Kept past the run's end: the kernel takes its time to take a mount namespace down.
    mounts: Option<OwnedFd>,
    /// By which its processes are found, if it has no namespace for them.
    mark: Option<u64>,
    /// It can be removed only when nobody is left in it.
    group: Option<Arc<Group>>,
    end: oneshot::Sender<Reaped>,
}

/// The task's side.
struct Work {
    ready: Option<Arc<Ready>>,
    sweeper: Arc<Sweeper>,
    stack: Stack,
    post: OwnedFd,
    letterbox: OwnedFd,
    own: OwnedFd,
    ends: OwnedFd,
    dumpable: DumpableBehavior,
    running: HashMap<u64, Running>,
    next: u64,
}

const WAKE: u64 = 0;
const LOOK_AROUND: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

impl Work {
    fn new(ready: Option<Arc<Ready>>, sweeper: Arc<Sweeper>) -> Result<Self, Trouble> {
        match &ready {
            Some(_) => die_with_parent()?,
            None => confined::outlive_host()?,
        }
        let root = rustix::process::geteuid().is_root();
        if root && ready.as_ref().is_none_or(|ready| ready.ids.is_some()) {
            step(Step::Identity, set_thread_groups(&[]))?;
            let bits = step(Step::Identity, capabilities_secure_bits())? | CapabilitiesSecureBits::NO_SETUID_FIXUP;
            step(Step::Identity, set_capabilities_secure_bits(bits))?;
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let (post, letterbox) = step(Step::HandOut, pair)?;
        Ok(Self {
            ready,
            sweeper,
            stack: step(Step::Thread, Stack::new(CHILD_STACK))?,
            post,
            letterbox,
            own: high(step(Step::ParentWatch, pidfd_open(getpid(), PidfdFlags::empty()))?)?,
            ends: step(Step::Pipes, epoll::create(epoll::CreateFlags::CLOEXEC))?,
            dumpable: step(Step::Identity, dumpable_behavior())?,
            running: HashMap::new(),
            next: WAKE,
        })
    }

    fn run(&mut self, spawner: &Spawner) -> Trouble {
        let flags = epoll::EventFlags::IN;
        if let Err(errno) = epoll::add(&self.ends, &spawner.wake, epoll::EventData::new_u64(WAKE), flags) {
            return Trouble {
                step: Step::Pipes,
                errno,
            };
        }
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        loop {
            events.clear();
            // What was adopted ends unseen.
            let patience = (self.ready.is_none() && !self.running.is_empty()).then_some(LOOK_AROUND);
            match epoll::wait(&self.ends, spare_capacity(&mut events), patience.as_ref()) {
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
            if events.is_empty() && self.ready.is_none() {
                self.reap_adopted();
            }
            // One at a time, so that nobody's end waits for everybody's start.
            let (request, closed, more) = {
                let mut queue = spawner.lock();
                (queue.requests.pop_front(), queue.closed, !queue.requests.is_empty())
            };
            if more {
                spawner.wake();
            }
            match request {
                Some(Request { mut orders, reply }) => {
                    let started = self.start(&mut orders, more);
                    spawner.load.fetch_sub(1, Ordering::Relaxed);
                    if let Err(Ok(orphan)) = reply.send(started) {
                        // Nobody wants it any more. Its end is awaited as any other's.
                        rustix::process::pidfd_send_signal(&*orphan.pidfd, Signal::KILL).ok();
                    }
                }
                None if closed && self.running.is_empty() => return GONE,
                None => {}
            }
        }
    }

    fn ended(&mut self, run: u64) {
        let Some(running) = self.running.remove(&run) else {
            return;
        };
        epoll::delete(&self.ends, &*running.pidfd).ok();
        let reaped = sys::reap(running.pid);
        self.finish(running, reaped.ok());
    }

    fn finish(&mut self, running: Running, reaped: Option<Reaped>) {
        if let Some(mark) = running.mark {
            self.clear(mark);
        }
        drop(running.group);
        if let Some(reaped) = reaped {
            running.end.send(reaped).ok();
        }
        if let Some(mounts) = running.mounts {
            self.sweeper.keep(mounts);
        }
    }

    /// Ends what a run left behind: those that lost their parents are children of this task now.
    fn clear(&mut self, mark: u64) {
        if !self.reap_adopted() {
            return;
        }
        let children = std::fs::read_to_string("/proc/thread-self/children");
        let children = children.map_or(usize::MAX, |list| list.split_whitespace().count());
        if children > self.running.len() {
            confined::kill(Marked::Run(mark));
            self.reap_adopted();
        }
    }

    /// Answers whether children are left.
    fn reap_adopted(&mut self) -> bool {
        loop {
            let (pid, reaped) = match sys::reap_any() {
                Ok(Some(reaped)) => reaped,
                Ok(None) => return true,
                Err(_) => return false,
            };
            let run = self.running.iter().find(|(_, running)| running.pid == pid);
            let run = run.map(|(run, _)| *run);
            if let Some(running) = run.and_then(|run| self.running.remove(&run)) {
                epoll::delete(&self.ends, &*running.pidfd).ok();
                self.finish(running, Some(reaped));
            }
        }
    }

    fn start(&mut self, orders: &mut Orders, busy: bool) -> Result<Started, Trouble> {
        if !orders.binds.is_empty() {
            self.fetch_trees(orders)?;
        }
        if let Some(network) = &orders.grants.network {
            step(Step::Enter, move_into(network.namespace(), LinkNameSpaceType::Network))?;
        }
        self.next += 1;
        let mark = (orders.kind == Kind::Confined).then(|| confined::mark(self.next));
        orders.limits.extend(mark.map(|mark| (Resource::Rttime, mark)));
        let (pid, pidfd) = self.clone_child(orders)?;
        let pidfd = Arc::new(pidfd);
        let handed = if orders.kind == Kind::Sandboxed {
            self.receive()?
        } else {
            Vec::new()
        };
        let mounts = (orders.kind == Kind::Sandboxed && !busy)
            .then(|| sys::mount_namespace(pidfd.as_fd()).ok())
            .flatten();
        let group = orders.grants.group.take().map(|(group, _)| group);
        let (end, ended) = oneshot::channel();
        let data = epoll::EventData::new_u64(self.next);
        let watched = epoll::add(&self.ends, &*pidfd, data, epoll::EventFlags::IN);
        if let Err(errno) = watched {
            rustix::process::pidfd_send_signal(&*pidfd, Signal::KILL).ok();
            sys::reap(pid).ok();
            return Err(Trouble {
                step: Step::Wait,
                errno,
            });
        }
        let running = Running {
            pid,
            pidfd: Arc::clone(&pidfd),
            mounts,
            mark,
            group: group.clone(),
            end,
        };
        self.running.insert(self.next, running);
        Ok(Started {
            pidfd,
            mark,
            handed,
            network: orders.grants.network.take(),
            group,
            id: orders.grants.id.take(),
            end: ended,
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

    fn clone_child(&mut self, orders: &Orders) -> Result<(Pid, OwnedFd), Trouble> {
        let argv = pointers(&orders.argv);
        let envp = pointers(&orders.envp);
        let mut brief = Brief {
            orders,
            argv: &argv,
            envp: &envp,
            post: self.post.as_fd(),
            spawner: self.own.as_fd(),
            trouble: None,
        };
        let result = self.become_customer(orders).and_then(|()| {
            let mut pidfd = -1;
            let arg: *mut Brief<'_> = &raw mut brief;
            // SAFETY: this task sleeps by CLONE_VFORK until the child has left its memory; `brief` and what it refers
            // to live in this frame; the stack is this task's own and has one child at a time; signals are blocked
            // since the thread that made this task blocked them.
            let pid = unsafe { sys::clone(&mut self.stack, flags(orders.kind), child::main, arg.cast(), &mut pidfd) };
            let pid = step(Step::Clone, pid)?;
            // SAFETY: `clone` succeeded and wrote the descriptor, which nobody has seen yet.
            Ok((pid, unsafe { sys::take_pidfd(pidfd) }))
        });
        let restored = self.become_host(orders);
        let (pid, pidfd) = result?;
        if let Some(trouble) = brief.trouble.or_else(|| restored.err()) {
            rustix::process::pidfd_send_signal(&pidfd, Signal::KILL).ok();
            sys::reap(pid).ok();
            // It may have handed something out before.
            drop(self.receive());
            return Err(trouble);
        }
        Ok((pid, pidfd))
    }

    /// Whether a run changes what the kernel thinks of this memory.
    fn touches(&self, orders: &Orders) -> bool {
        orders.grants.id.is_some() || self.dumpable != DumpableBehavior::Dumpable
    }

    /// The customer owns the run's user namespace and may map itself in it. Changes this task alone, and lets it and its
    /// child open their own files in /proc, which the kernel forbids after each change of user.
    fn become_customer(&self, orders: &Orders) -> Result<(), Trouble> {
        if orders.kind == Kind::Confined || !self.touches(orders) {
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

const fn flags(kind: Kind) -> c_int {
    let common = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
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
        Kind::Confined => common,
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
