//! The system calls that `rustix` does not have, each behind the smallest function that can be argued about.
//!
//! What is called between `clone` and `execve` allocates nothing, takes no lock and touches nothing thread-local but
//! `errno` (see the module's own text for why that is allowed).

use super::step::{Step, Trouble, step};
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    io::Errno,
    process::Pid,
};
use std::{
    ffi::{CStr, c_char, c_int, c_long, c_uint, c_void},
    sync::atomic::{AtomicU32, Ordering},
};

/// The answer of a raw system call, with `errno` taken at once.
fn checked(answer: c_long) -> Result<c_long, Errno> {
    if answer >= 0 {
        return Ok(answer);
    }
    let errno = std::io::Error::last_os_error().raw_os_error();
    Err(errno.map_or(Errno::IO, Errno::from_raw_os_error))
}

/// Memory for the stack of a task, with a page below it that may not be touched.
#[derive(Debug)]
pub(super) struct Stack {
    base: *mut c_void,
    len: usize,
}

// SAFETY: a `Stack` is the only owner of its mapping and gives nothing of it away but by `clone`, below.
unsafe impl Send for Stack {}

const PAGE: usize = 64 * 1024;

impl Stack {
    pub(super) fn new(len: usize) -> Result<Self, Errno> {
        use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};
        let flags = MapFlags::PRIVATE | MapFlags::STACK | MapFlags::NORESERVE;
        let len = len.next_multiple_of(PAGE) + PAGE;
        // SAFETY: a fresh anonymous mapping at an address that the kernel chooses overlaps nothing.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags) }?;
        let stack = Self { base, len };
        // SAFETY: the lowest `PAGE` bytes of the mapping that was just made; nobody uses them.
        unsafe { mprotect(base, PAGE, MprotectFlags::empty()) }?;
        Ok(stack)
    }

    fn top(&self) -> *mut c_void {
        // SAFETY: one past the end of the mapping, which is still in bounds of the allocation. It is a multiple of 16.
        unsafe { self.base.byte_add(self.len) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours; whoever ran on it has ended, since `clone` borrows the stack for as long.
        let unmapped = unsafe { rustix::mm::munmap(self.base, self.len) };
        debug_assert!(unmapped.is_ok(), "a stack could not be unmapped");
    }
}

/// `clone` with the memory shared: `main(arg)` runs as another process on `stack`.
///
/// With `CLONE_PARENT_SETTID` the kernel writes the new process's number into `number` before that runs; with
/// `CLONE_CHILD_CLEARTID` it writes 0 there, and wakes who waits for it, when the process has left the memory.
///
/// # Safety
/// - `flags` hold `CLONE_VM`, and no `CLONE_THREAD`, `CLONE_SIGHAND` or `CLONE_SETTLS`;
/// - until the new process ends or executes another program, the caller touches nothing thread-local: it is suspended
///   by `CLONE_VFORK`, or it does nothing but [`await_end`];
/// - `stack` is used by nobody else for as long, and `number` lives for as long;
/// - `arg` is what `main` expects, and lives for as long;
/// - all signals are blocked in the calling thread.
pub(super) unsafe fn clone(
    stack: &mut Stack,
    flags: c_int,
    main: extern "C" fn(*mut c_void) -> c_int,
    arg: *mut c_void,
    number: &AtomicU32,
) -> Result<Pid, Errno> {
    let nothing = std::ptr::null_mut::<c_void>();
    let number = number.as_ptr();
    // SAFETY: the stack is a live mapping whose top is aligned; the rest is the caller's promise.
    let pid = unsafe { libc::clone(main, stack.top(), flags, arg, number, nothing, number) };
    let pid = checked(c_long::from(pid))?;
    i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::INVAL)
}

/// Waits until a child of this thread has ended. Touches nothing thread-local: the call is made by hand, not by libc.
pub(super) fn await_end(pid: Pid) {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    while matches!(waitid(WaitId::Pid(pid), WaitIdOptions::EXITED), Err(Errno::INTR)) {}
}

/// Asks for this thread to be run soon when it has something to do, for a tenth of a millisecond at a time. Its share stays the
/// same. Kernels before 6.12 do not know of it.
pub(super) fn be_prompt() -> Result<(), Errno> {
    // `struct sched_attr`: size and policy (0, the usual one), flags, nice and priority, then three times in nanoseconds.
    let attributes: [u64; 6] = [48, 0, 0, 100_000, 0, 0];
    // SAFETY: the kernel reads the 48 bytes that the first four of them name, and writes only those on an error of size.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, attributes.as_ptr().cast_mut(), 0_u32) };
    checked(answer).map(drop)
}

/// Waits until the kernel has written 0 there.
pub(super) fn await_zero(number: &AtomicU32) {
    use rustix::thread::futex;
    loop {
        let now = number.load(Ordering::SeqCst);
        if now == 0 {
            return;
        }
        // Not a private one: the kernel does not wake such.
        futex::wait(number, futex::Flags::empty(), now, None).ok();
    }
}

/// Waits until the process of a descriptor has ended.
pub(super) fn await_end_by(pidfd: BorrowedFd<'_>) {
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(
        pidfd,
        rustix::event::PollFlags::IN,
    )];
    while matches!(rustix::event::poll(&mut fds, None), Err(Errno::INTR)) {}
}

/// Blocks every signal of this thread, those that libc keeps for itself included.
pub(super) fn block_signals() -> Result<(), Errno> {
    set_mask(u64::MAX)
}

/// Lets one signal through; all others stay blocked.
pub(super) fn unblock_only(signal: c_int) -> Result<(), Errno> {
    set_mask(!(1 << (signal - 1)))
}

/// Sets what this task does on a signal.
pub(super) fn handle(signal: c_int, handler: extern "C" fn(c_int)) -> Result<(), Errno> {
    // SAFETY: `sigaction` is numbers and pointers; all zero is a value of it.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    // SAFETY: `action` lives over the call; the handler has the type that is called without SA_SIGINFO.
    let answer = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    checked(c_long::from(answer)).map(drop)
}

/// Has the kernel reap this task's children.
pub(super) fn leave_no_zombies() -> Result<(), Errno> {
    // SAFETY: `sigaction` is numbers and pointers; all zero is a value of it.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = libc::SIG_IGN;
    // SAFETY: `action` lives over the call; there is no handler to be of the right type.
    let answer = unsafe { libc::sigaction(libc::SIGCHLD, &raw const action, std::ptr::null_mut()) };
    checked(c_long::from(answer)).map(drop)
}

/// Ends this task at once.
pub(super) fn end() -> ! {
    // SAFETY: ends this process alone, without running anything of the host's.
    unsafe { libc::_exit(0) }
}

pub(super) fn unblock_signals() -> Result<(), Errno> {
    set_mask(0)
}

fn set_mask(mask: u64) -> Result<(), Errno> {
    let old = std::ptr::null_mut::<u64>();
    // SAFETY: the kernel reads eight bytes, and `mask` has eight; nothing is written.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            old,
            8_usize,
        )
    };
    checked(answer).map(drop)
}

/// Gives every signal its default action, in a task that shares its handlers with nobody.
pub(super) fn reset_handlers() {
    // What the kernel calls `struct sigaction`: all zero is the default action without flags.
    let default = [0_u64; 4];
    for signal in 1..=64_i32 {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        let old = std::ptr::null_mut::<u64>();
        // SAFETY: the kernel reads one `struct sigaction` of at most 32 bytes; nothing is written.
        let answer = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), old, 8_usize) };
        debug_assert_eq!(answer, 0, "signal {signal} has a default action");
    }
}

/// Marks all descriptors from `first` on to be closed when another program is executed.
pub(super) fn close_on_exec_from(first: c_uint) -> Result<(), Errno> {
    // SAFETY: three numbers; no memory is touched and nothing is closed yet.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    checked(answer).map(drop)
}

/// Gives this child a table of descriptors of its own, with copies of those below `end`.
pub(super) fn own_descriptors(end: c_uint) -> Result<(), Errno> {
    let flags = libc::CLOSE_RANGE_UNSHARE;
    // SAFETY: three numbers; what is closed is closed in a table that is this child's alone, and where nobody owns anything.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, end, c_uint::MAX, flags) };
    checked(answer).map(drop)
}

/// Makes `new` the descriptor number `old` has, open over `execve`.
pub(super) fn dup_onto(old: BorrowedFd<'_>, new: c_int) -> Result<(), Errno> {
    // SAFETY: called in a child with a table of descriptors of its own: what `new` was there belongs to nobody.
    let answer = unsafe { libc::dup2(old.as_raw_fd(), new) };
    checked(c_long::from(answer)).map(drop)
}

/// Takes every capability out of the bounding set, for this task and all that it will start.
pub(super) fn empty_bounding_set() -> Result<(), Errno> {
    for capability in 0..64_u64 {
        // SAFETY: numbers only.
        let answer = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0_u64, 0_u64, 0_u64) };
        match checked(c_long::from(answer)) {
            Ok(_) => {}
            // Beyond the last one that the kernel knows.
            Err(Errno::INVAL) if capability > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Takes every capability out of the other sets.
pub(super) fn drop_capabilities() -> Result<(), Errno> {
    let none = rustix::thread::CapabilitySet::empty();
    let sets = rustix::thread::CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    rustix::thread::set_capabilities(None, sets)
}

/// Loads a seccomp filter for this thread, for ever.
pub(super) fn load_filter(filter: &[libc::sock_filter]) -> Result<(), Errno> {
    let len = u16::try_from(filter.len()).map_err(|_| Errno::TOOBIG)?;
    let program = libc::sock_fprog {
        len,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies `len` instructions and writes nothing.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0_u32,
            &raw const program,
        )
    };
    checked(answer).map(drop)
}

/// Executes another program. Answers only if that fails.
///
/// # Safety
/// `argv` and `envp` are arrays of pointers to C strings that live, ended by a null pointer.
pub(super) unsafe fn execute(program: &CStr, argv: *const *const c_char, envp: *const *const c_char) -> Errno {
    // SAFETY: the caller's promise.
    let answer = unsafe { libc::execve(program.as_ptr(), argv, envp) };
    checked(c_long::from(answer)).err().unwrap_or(Errno::IO)
}

/// How a child ended and what it used, its own children included as far as they were waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reaped {
    pub(super) status: c_int,
    pub(super) cpu: std::time::Duration,
}

/// Reaps a child of this process.
pub(super) fn reap(pid: Pid) -> Result<Reaped, Errno> {
    wait(pid.as_raw_nonzero().get(), 0)?
        .map(|(_, reaped)| reaped)
        .ok_or(Errno::CHILD)
}

/// Reaps some child that has ended, if there is one; an error if there are no children at all.
pub(super) fn reap_any() -> Result<Option<(Pid, Reaped)>, Errno> {
    wait(-1, libc::WNOHANG)
}

fn wait(whom: c_int, options: c_int) -> Result<Option<(Pid, Reaped)>, Errno> {
    let mut status = 0;
    // SAFETY: `rusage` is numbers; all zero is a value of it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let answer = loop {
        // SAFETY: both pointers are to live values of the right types.
        let answer = unsafe { libc::wait4(whom, &raw mut status, options, &raw mut usage) };
        match checked(c_long::from(answer)) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let time = |t: libc::timeval| {
        let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
        let micros = u64::try_from(t.tv_usec).unwrap_or(0);
        std::time::Duration::from_secs(seconds) + std::time::Duration::from_micros(micros)
    };
    let reaped = Reaped {
        status,
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
    };
    let pid = i32::try_from(answer).ok().and_then(Pid::from_raw);
    Ok(pid.map(|pid| (pid, reaped)))
}

/// A descriptor of the mount namespace of a running process, by its own descriptor.
pub(super) fn mount_namespace(pidfd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    const PIDFD_GET_MNT_NAMESPACE: u32 = 0xFF03;
    // SAFETY: this request takes no argument and touches no memory.
    let answer = unsafe { libc::syscall(libc::SYS_ioctl, pidfd.as_raw_fd(), PIDFD_GET_MNT_NAMESPACE, 0) };
    // SAFETY: the answer is a new descriptor that nobody else has.
    checked(answer).and_then(|fd| unsafe { owned(fd) })
}

/// # Safety
/// `fd` is a descriptor that was just made and that nobody else owns.
unsafe fn owned(fd: c_long) -> Result<OwnedFd, Errno> {
    let fd = c_int::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the caller's promise.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes over a descriptor by its number.
///
/// # Safety
/// The descriptor is open and nobody owns it.
pub(super) unsafe fn take_over(fd: c_int) -> OwnedFd {
    // SAFETY: the caller's promise.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Makes a mount, and all below it, read-only, without devices and without set-user-id.
pub(super) fn make_read_only(at: BorrowedFd<'_>, path: &CStr, devices: bool) -> Result<(), Errno> {
    let mut set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID;
    if !devices {
        set |= libc::MOUNT_ATTR_NODEV;
    }
    // `struct mount_attr`: set, clear, propagation, user namespace.
    let attributes = [set, 0, libc::MS_PRIVATE, 0];
    let flags = libc::AT_RECURSIVE | libc::AT_EMPTY_PATH;
    // SAFETY: the path is a C string and `attributes` has the 32 bytes that are named; nothing is written.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at.as_raw_fd(),
            path.as_ptr(),
            flags,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    checked(answer).map(drop)
}

/// A new mount or network namespace for this task.
pub(super) fn new_namespace(kind: rustix::thread::UnshareFlags) -> Result<(), Errno> {
    debug_assert!(
        !kind.contains(rustix::thread::UnshareFlags::FILES),
        "descriptors stay shared"
    );
    // SAFETY: only `FILES` would make descriptors of one task unusable for another.
    unsafe { rustix::thread::unshare_unsafe(kind - rustix::thread::UnshareFlags::FILES) }
}

/// Switches the loopback device of this task's network namespace on.
pub(super) fn loopback_up() -> Result<(), Trouble> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    let socket = step(Step::Loopback, socket)?;
    // SAFETY: `ifreq` is numbers; all zero is a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *to = c_char::try_from(*from).unwrap_or(0);
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(1);
    // SAFETY: the kernel reads one `ifreq` for this request.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_ioctl,
            socket.as_fd().as_raw_fd(),
            libc::SIOCSIFFLAGS,
            &raw const request,
        )
    };
    step(Step::Loopback, checked(answer)).map(drop)
}

/// Landlock's three calls. `struct landlock_ruleset_attr` is three numbers of 64 bits.
pub(super) mod landlock {
    use super::{BorrowedFd, Errno, OwnedFd, c_int, checked, owned};
    use rustix::fd::AsRawFd;

    /// The version of the interface; an error where there is none.
    pub(in super::super) fn version() -> Result<i64, Errno> {
        let nothing = std::ptr::null::<u64>();
        // SAFETY: with this flag the kernel reads no memory.
        checked(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, 1_u32) })
    }

    pub(in super::super) fn ruleset(attributes: &[u64]) -> Result<OwnedFd, Errno> {
        let size = size_of_val(attributes);
        // SAFETY: the kernel reads `size` bytes of `attributes`.
        let answer = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, attributes.as_ptr(), size, 0_u32) };
        // SAFETY: the answer is a new descriptor that nobody else has.
        checked(answer).and_then(|fd| unsafe { owned(fd) })
    }

    #[repr(C, packed)]
    struct PathBeneath {
        access: u64,
        parent: c_int,
    }

    /// Allows `access` below a folder, or to a file.
    pub(in super::super) fn allow_path(
        ruleset: BorrowedFd<'_>,
        path: BorrowedFd<'_>,
        access: u64,
    ) -> Result<(), Errno> {
        let rule = PathBeneath {
            access,
            parent: path.as_raw_fd(),
        };
        add(ruleset, 1, (&raw const rule).cast())
    }

    /// Allows `access` to a TCP port.
    pub(in super::super) fn allow_port(ruleset: BorrowedFd<'_>, port: u16, access: u64) -> Result<(), Errno> {
        let rule = [access, u64::from(port)];
        add(ruleset, 2, rule.as_ptr().cast())
    }

    fn add(ruleset: BorrowedFd<'_>, kind: c_int, rule: *const u8) -> Result<(), Errno> {
        // SAFETY: both callers pass a live rule of the kind that they name.
        let answer = unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), kind, rule, 0_u32) };
        checked(answer).map(drop)
    }

    pub(in super::super) fn restrict(ruleset: BorrowedFd<'_>) -> Result<(), Errno> {
        // SAFETY: numbers only.
        checked(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0_u32) }).map(drop)
    }
}

/// A limit of another process, by its number.
pub(super) fn hard_limit(pid: Pid, resource: u32) -> Result<u64, Errno> {
    let mut limits = [0_u64; 2];
    let none = std::ptr::null::<u64>();
    let pid = pid.as_raw_nonzero().get();
    // SAFETY: the kernel writes the two numbers of `struct rlimit64` and reads nothing.
    let answer = unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, none, limits.as_mut_ptr()) };
    checked(answer).map(|_| limits[1])
}

/// Takes a thread out of whatever class it has put itself into, to the usual one.
pub(super) fn make_usual(thread: Pid) -> Result<(), Errno> {
    // SAFETY: `sched_param` is numbers; all zero is a value of it.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    let thread = thread.as_raw_nonzero().get();
    // SAFETY: the kernel reads the parameters of this frame.
    let answer = unsafe { libc::sched_setscheduler(thread, libc::SCHED_OTHER, &raw const parameters) };
    checked(c_long::from(answer)).map(drop)
}

/// Kills the group that a process leads or has led, all at once: none of it can start another one. Kernels before 6.9 refuse.
pub(super) fn kill_group(leader: BorrowedFd<'_>) -> Result<(), Errno> {
    const PROCESS_GROUP: c_uint = 1 << 2;
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a call on a borrowed descriptor; without further information there is nothing to read.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            leader.as_raw_fd(),
            libc::SIGKILL,
            none,
            PROCESS_GROUP,
        )
    };
    checked(answer).map(drop)
}

/// Whether a process has ended, reaped or not. Allocates nothing.
pub(super) fn has_ended(pid: Pid) -> bool {
    use rustix::process::{PidfdFlags, pidfd_open};
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(errno) => return errno == Errno::SRCH,
    };
    has_ended_by(pidfd.as_fd())
}

/// Whether the process of a descriptor has ended. Allocates nothing.
pub(super) fn has_ended_by(pidfd: BorrowedFd<'_>) -> bool {
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(
        pidfd,
        rustix::event::PollFlags::IN,
    )];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// In what /proc counts processor time.
pub(super) fn ticks_per_second() -> u32 {
    u32::try_from(rustix::param::clock_ticks_per_second())
        .unwrap_or(100)
        .max(1)
}
