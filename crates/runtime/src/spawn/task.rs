//! Tasks: processes that share the host's memory and descriptors, made once and living long.
//!
//! A thread cannot enter a user namespace, and forking the host would copy its page tables; such a task can, and costs
//! nothing. It runs on a stack of its own, but with the thread-local storage of the thread that made it. That thread
//! sleeps in a system call of its own, all signals blocked, until the task ends, so that the storage has one user. It
//! does not sleep by `CLONE_VFORK`: a thread suspended so counts as load and stops debuggers.
//!
//! A task ends when its `main` returns. Nobody should kill one while the host lives, since it may hold a lock of the
//! allocator's or of tokio's at that moment, which is lost then. What is shared with one here waits for no such lock (see
//! [`frail`](super::frail)). If somebody kills one, its thread hears of it, cleans up after it, and says so.

use super::{
    ready::Ready,
    step::{Step, Trouble, io_step, step},
    sys::{self, Stack},
};
use rustix::{
    fd::{AsFd, IntoRawFd},
    process::{PidfdFlags, Signal, getpid, pidfd_open, set_parent_process_death_signal},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use std::{
    ffi::{c_int, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering},
    },
    thread::Builder,
};

/// What a task does.
type Main = Box<dyn FnOnce(Result<(), Trouble>) + Send>;

/// Where a task lives.
pub(super) enum Place {
    /// Where the host lives.
    Host,
    /// In the ready namespaces.
    Ready(Arc<Ready>),
    /// In new namespaces, of which it is the first process. Its number is written here before `main` is called.
    New(Arc<AtomicU32>),
}

const STACK: usize = 512 * 1024;
const SMALL_STACK: usize = 64 * 1024;

/// What all tasks share with the thread that makes them.
const SHARED: c_int = libc::CLONE_VM | libc::CLONE_FILES | libc::SIGCHLD;

struct Start {
    place: Place,
    /// For a task that is made by a task.
    inner: Stack,
    main: Option<Main>,
    /// A descriptor of the task that `main` runs in, told by itself.
    task: AtomicI32,
    /// `main` has returned.
    finished: AtomicBool,
}

impl Start {
    /// Tells the thread which task it is that `main` runs in.
    fn tell(&self) {
        let own = pidfd_open(getpid(), PidfdFlags::empty());
        self.task
            .store(own.map_or(-1, IntoRawFd::into_raw_fd), Ordering::Release);
    }

    fn call(&mut self, result: Result<(), Trouble>) {
        if let Some(main) = self.main.take() {
            // Nothing to unwind into: the task ends here.
            drop(catch_unwind(AssertUnwindSafe(|| main(result))));
            self.finished.store(true, Ordering::Release);
        }
    }
}

/// What a task works with, which its thread owns, so that nothing of it is lost with a task that is killed.
struct Lent<T>(*const T);

// SAFETY: it is used as a `&T`, which may go to another thread if `T` is `Sync`.
unsafe impl<T: Sync> Send for Lent<T> {}

impl<T> Lent<T> {
    /// # Safety
    /// What it points to lives for as long as the answer is used.
    unsafe fn get<'a>(self) -> &'a T {
        // SAFETY: the caller's promise.
        unsafe { &*self.0 }
    }
}

/// Starts a task on a thread of its own, which ends with it.
///
/// `main` is called in the task; with the trouble, in whatever task there is, if the right place could not be reached.
/// `killed` is called on the thread if the task has ended and `main` has not; the task's memory is there until it returns.
pub(super) fn start<T: Send + Sync + 'static>(
    name: &str,
    place: Place,
    owner: Arc<T>,
    main: impl FnOnce(&T, Result<(), Trouble>) + Send + 'static,
    killed: impl FnOnce(&T) + Send + 'static,
) -> Result<(), Trouble> {
    let lent = Lent(Arc::as_ptr(&owner));
    let main: Main = Box::new(move |entered| {
        // SAFETY: the thread owns it, below, until the task has ended.
        let lent = unsafe { lent.get() };
        main(lent, entered);
    });
    let outer = step(Step::Thread, Stack::new(STACK))?;
    let inner = step(Step::Thread, Stack::new(STACK))?;
    let start = Start {
        place,
        inner,
        main: Some(main),
        task: AtomicI32::new(-1),
        finished: AtomicBool::new(false),
    };
    let builder = Builder::new().name(name.to_owned()).stack_size(4 * SMALL_STACK);
    let thread = move || lend(start, outer, || killed(&owner));
    io_step(Step::Thread, builder.spawn(thread)).map(drop)
}

/// How a task has ended.
enum End {
    /// By itself.
    Finished,
    Killed,
    /// Nobody knows whether it is dead.
    Unknown,
}

/// The thread's whole life.
#[expect(
    clippy::mem_forget,
    reason = "a task of which nobody knows that it is dead needs its stack"
)]
fn lend(mut start: Start, mut stack: Stack, killed: impl FnOnce()) {
    let end = parent(&mut start, &mut stack);
    if !matches!(end, End::Finished) {
        killed();
    }
    if matches!(end, End::Unknown) {
        std::mem::forget((start, stack));
    }
}

/// Makes the task, and lends it this thread's thread-local storage until it ends.
fn parent(start: &mut Start, stack: &mut Stack) -> End {
    if let Err(errno) = sys::block_signals() {
        start.call(Err(Trouble {
            step: Step::Thread,
            errno,
        }));
        return End::Finished;
    }
    let (flags, failing) = match start.place {
        Place::Host | Place::Ready(_) => (SHARED, Step::Clone),
        Place::New(_) => {
            let new = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_PARENT_SETTID;
            (SHARED | new, Step::UserNamespace)
        }
    };
    let number = match &start.place {
        Place::New(number) => Arc::clone(number),
        _ => Arc::default(),
    };
    let entry = match start.place {
        Place::Ready(_) => enter as extern "C" fn(*mut c_void) -> c_int,
        _ => run,
    };
    let arg: *mut Start = &raw mut *start;
    // SAFETY: the memory is shared and the thread-local storage is not replaced; `arg`, the stack and the storage stay
    // untouched here until `await_end` has returned; signals are blocked.
    match unsafe { sys::clone(stack, flags, entry, arg.cast(), &number) } {
        Ok(pid) => sys::await_end(pid),
        Err(errno) => start.call(Err(Trouble { step: failing, errno })),
    }
    let task = start.task.load(Ordering::Acquire);
    // SAFETY: the task has made the descriptor and told it to nobody else.
    let task = (task >= 0).then(|| unsafe { sys::take_over(task) });
    if start.finished.load(Ordering::Acquire) {
        return End::Finished;
    }
    let Some(task) = task else { return End::Unknown };
    // If `enter` was killed, the task that it has made hears of it, and may live for an instant longer.
    sys::await_end_by(task.as_fd());
    End::Killed
}

/// The first half of the way into the ready namespaces: a process enters a PID namespace only by being born in it.
extern "C" fn enter(arg: *mut c_void) -> c_int {
    // SAFETY: `parent` passes a `Start` that lives until this task has ended, and does not touch it meanwhile.
    let start = unsafe { &mut *arg.cast::<Start>() };
    let Place::Ready(ready) = &start.place else { return 1 };
    let entered = die_with_parent()
        .and_then(|()| step(Step::Enter, move_into(&ready.user, LinkNameSpaceType::User)))
        .and_then(|()| step(Step::Enter, move_into(&ready.pids, LinkNameSpaceType::ProcessID)))
        // Entering a user namespace may have cleared it.
        .and_then(|()| die_with_parent());
    if let Err(trouble) = entered {
        start.call(Err(trouble));
        return 1;
    }
    let inner: *mut Stack = &raw mut start.inner;
    let unused = AtomicU32::new(0);
    // SAFETY: as in `parent`: this task does nothing but wait; the inner stack is used by the new task alone.
    match unsafe { sys::clone(&mut *inner, SHARED, run_inside, arg, &unused) } {
        Ok(pid) => sys::await_end(pid),
        Err(errno) => start.call(Err(Trouble {
            step: Step::Enter,
            errno,
        })),
    }
    0
}

extern "C" fn run_inside(arg: *mut c_void) -> c_int {
    // SAFETY: as in `enter`, which waits for this task's end.
    let start = unsafe { &mut *arg.cast::<Start>() };
    let Place::Ready(ready) = &start.place else { return 1 };
    let entered = die_with_parent().and_then(|()| step(Step::Enter, move_into(&ready.root, LinkNameSpaceType::Mount)));
    prepare();
    start.tell();
    start.call(entered);
    0
}

extern "C" fn run(arg: *mut c_void) -> c_int {
    // SAFETY: `parent` passes a `Start` that lives until this task has ended, and does not touch it meanwhile.
    let start = unsafe { &mut *arg.cast::<Start>() };
    prepare();
    start.tell();
    start.call(Ok(()));
    0
}

/// Signals get their default actions, here and thus in all that this task starts; files are made readable for others.
fn prepare() {
    sys::reset_handlers();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
}

/// This task ends when the thread that made it does, whatever ends that.
pub(super) fn die_with_parent() -> Result<(), Trouble> {
    step(Step::ParentWatch, set_parent_process_death_signal(Some(Signal::KILL)))
}

pub(super) fn move_into(namespace: impl AsFd, kind: LinkNameSpaceType) -> rustix::io::Result<()> {
    move_into_link_name_space(namespace.as_fd(), Some(kind))
}
