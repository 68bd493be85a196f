//! System calls that reach into the kernel or the machine.

use super::table::{
    Attack,
    Holds::{Open, Stops, Varies},
    script,
};
use serde_json::Value;

/// The numbers of system calls here, for the scripts.
const NUMBERS: &[(&str, libc::c_long)] = &[
    ("ptrace", libc::SYS_ptrace),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("kcmp", libc::SYS_kcmp),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("bpf", libc::SYS_bpf),
    ("userfaultfd", libc::SYS_userfaultfd),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("add_key", libc::SYS_add_key),
    ("request_key", libc::SYS_request_key),
    ("keyctl", libc::SYS_keyctl),
    ("mount", libc::SYS_mount),
    ("umount2", libc::SYS_umount2),
    ("pivot_root", libc::SYS_pivot_root),
    ("chroot", libc::SYS_chroot),
    ("open_tree", libc::SYS_open_tree),
    ("move_mount", libc::SYS_move_mount),
    ("fsopen", libc::SYS_fsopen),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("setns", libc::SYS_setns),
    ("unshare", libc::SYS_unshare),
    ("clone", libc::SYS_clone),
    ("clone3", libc::SYS_clone3),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("fanotify_init", libc::SYS_fanotify_init),
    ("sethostname", libc::SYS_sethostname),
    ("setdomainname", libc::SYS_setdomainname),
    ("clock_settime", libc::SYS_clock_settime),
    ("clock_adjtime", libc::SYS_clock_adjtime),
    ("settimeofday", libc::SYS_settimeofday),
    ("syslog", libc::SYS_syslog),
    ("personality", libc::SYS_personality),
    ("memfd_create", libc::SYS_memfd_create),
    ("memfd_secret", libc::SYS_memfd_secret),
    ("shmget", libc::SYS_shmget),
    ("semget", libc::SYS_semget),
    ("msgget", libc::SYS_msgget),
    ("mq_open", libc::SYS_mq_open),
    ("quotactl", libc::SYS_quotactl),
    ("acct", libc::SYS_acct),
    ("swapon", libc::SYS_swapon),
    ("vhangup", libc::SYS_vhangup),
    ("reboot", libc::SYS_reboot),
    ("init_module", libc::SYS_init_module),
    ("kexec_load", libc::SYS_kexec_load),
    ("prlimit64", libc::SYS_prlimit64),
    ("setpriority", libc::SYS_setpriority),
    ("sched_setaffinity", libc::SYS_sched_setaffinity),
    ("ioprio_set", libc::SYS_ioprio_set),
    ("sched_setscheduler", libc::SYS_sched_setscheduler),
    ("sched_setattr", libc::SYS_sched_setattr),
    ("getpid", libc::SYS_getpid),
    ("process_madvise", libc::SYS_process_madvise),
    ("ioctl", libc::SYS_ioctl),
    ("capset", libc::SYS_capset),
    ("prctl", libc::SYS_prctl),
    #[cfg(target_arch = "x86_64")]
    ("iopl", libc::SYS_iopl),
    #[cfg(target_arch = "x86_64")]
    ("ioperm", libc::SYS_ioperm),
    #[cfg(target_arch = "x86_64")]
    ("modify_ldt", libc::SYS_modify_ldt),
];

pub(super) fn numbers() -> Value {
    NUMBERS
        .iter()
        .map(|(name, number)| ((*name).to_owned(), Value::from(*number)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

const GUARDED: [super::table::Holds; 3] = [Varies, Stops, Stops];

pub(super) const ATTACKS: &[Attack] = &[
    script(
        "unshare and clone into new namespaces",
        GUARDED,
        r#"
for flags in (0x10000000, 0x00020000, 0x40000000, 0x20000000, 0x04000000, 0x08000000, 0x02000000, 0x80):
    call('unshare', flags) if flags != 0x80 else None
def clone(flags):
    answer = ask(SYS['clone'], flags | signal.SIGCHLD, 0, 0, 0, 0)
    if answer == 0:
        os._exit(0)
    if answer > 0:
        os.waitpid(answer, 0)
        reached(f'clone {flags:#x}')
for flags in (0x10000000, 0x10020000, 0x50000000, 0x02000000):
    clone(flags)
# The upper half of the flags is ignored by the kernel, and must not lead past the filter.
clone(0x1_10000000)
"#,
    ),
    script(
        "clone3, whose flags no filter can see",
        GUARDED,
        r#"
args = (ctypes.c_uint64 * 11)(0x10000000, 0, 0, 0, signal.SIGCHLD)
answer = ask(SYS['clone3'], ctypes.byref(args), ctypes.sizeof(args))
if answer == 0:
    os._exit(0)
if answer > 0:
    reached('clone3')
"#,
    ),
    script(
        "setns into the namespaces of others",
        GUARDED,
        r#"
for pid in (1, os.getppid(), FACTS['host'], os.getpid()):
    for kind in ('mnt', 'net', 'user', 'pid', 'ipc', 'uts', 'cgroup'):
        try:
            fd = os.open(f'/proc/{pid}/ns/{kind}', os.O_RDONLY)
        except OSError:
            continue
        if in_child(lambda: 7 if -ask(SYS['setns'], fd, 0) not in REFUSED | {errno.EINVAL} else 0) == 7 << 8:
            reached(f'{pid} {kind}')
        os.close(fd)
answer = -ask(SYS['setns'], 0, 0)
if answer not in REFUSED | {errno.EINVAL, errno.EBADF}:
    reached(answer)
"#,
    ),
    script(
        "mounts, old and new interface",
        GUARDED,
        r#"
none = b'none'
call('mount', none, b'/tmp', b'nosuchfs', 0, 0)
call('mount', b'/', b'/tmp', 0, 4096 | 32, 0) if LEVEL != 'process' else None
call('umount2', b'/nowhere', 0)
call('pivot_root', b'/nowhere', b'/nowhere')
call('open_tree', -100, b'/', 1)
call('fsopen', b'nosuchfs', 0)
call('move_mount', -1, b'', -1, b'', 0)
call('mount_setattr', -1, b'', 0, 0, 0)
"#,
    ),
    script(
        "chroot and the way out of it",
        GUARDED,
        r#"
os.mkdir('jail')
def out():
    fd = os.open('/', os.O_RDONLY)
    os.chroot('jail')
    os.fchdir(fd)
    os.chdir('../../../../..')
    os.chroot('.')
    return 7
if in_child(out) == 7 << 8:
    reached('chroot')
call('chroot', b'/nowhere')
"#,
    ),
    script(
        "files by handle (open_by_handle_at)",
        GUARDED,
        r#"
handle = ctypes.create_string_buffer(struct.pack('iiQ', 8, 1, 2) + bytes(128))
call('open_by_handle_at', -100, handle, 0)
call('fanotify_init', 0, 0)
call('quotactl', 0, 0, 0, 0)
"#,
    ),
    script(
        "bpf, perf_event_open, userfaultfd",
        GUARDED,
        r#"
call('bpf', 0, 0, 0)
call('perf_event_open', 0, 0, -1, -1, 0)
call('userfaultfd', 0)
call('userfaultfd', 1)
"#,
    ),
    script(
        "io_uring",
        GUARDED,
        r#"
params = ctypes.create_string_buffer(120)
call('io_uring_setup', 1, params)
"#,
    ),
    script(
        "keys of the kernel",
        GUARDED,
        r#"
call('add_key', b'user', b'x', b'x', 1, -3)
call('request_key', b'user', b'x', 0, 0)
call('keyctl', 0, -3, 0)
"#,
    ),
    script(
        "the clock, the host's name",
        GUARDED,
        r#"
bad = ctypes.create_string_buffer(struct.pack('qq', 0, -1))
call('clock_settime', 0, bad)
call('settimeofday', bad, 0)
call('sethostname', 0, -1)
call('setdomainname', 0, -1)
call('clock_adjtime', 9999, ctypes.create_string_buffer(4096)) if LEVEL != 'process' else None
"#,
    ),
    script(
        "the kernel's log, accounting, swap, terminals",
        GUARDED,
        r#"
call('syslog', 3, ctypes.create_string_buffer(64), 64)
call('acct', b'/nowhere')
call('swapon', b'/nowhere', 0)
call('vhangup') if LEVEL != 'process' else None
"#,
    ),
    script(
        "modules, kexec, reboot",
        GUARDED,
        r#"
# These kill; so each in a child, which must not live to tell.
for name, args in (('init_module', (0, 0, b'')), ('kexec_load', (0, 0, 0, -1)), ('reboot', (0, 0, 0, 0))):
    if in_child(lambda: 7 if -ask(SYS[name], *args) not in REFUSED else 0) == 7 << 8:
        reached(name)
"#,
    ),
    script(
        "ports of the machine, segments (iopl, ioperm, modify_ldt)",
        GUARDED,
        r#"
call('iopl', 99)
call('ioperm', 0x80, 1, 1)
call('modify_ldt', 1, ctypes.create_string_buffer(16), 16)
"#,
    ),
    script(
        "addresses that are not random (personality)",
        [Open, Stops, Stops],
        r#"
if ask(SYS['personality'], 0x0040000) >= 0:
    reached('ADDR_NO_RANDOMIZE')
    ask(SYS['personality'], 0)
if ask(SYS['personality'], 0x0400000) >= 0:
    reached('READ_IMPLIES_EXEC')
    ask(SYS['personality'], 0)
"#,
    ),
    script(
        "system calls of 32 bits (int 0x80)",
        GUARDED,
        r#"
import mmap
if FACTS['arch'] == 'x86_64':
    # mov eax, 20 (getpid); int 0x80; ret
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b'\xb8\x14\0\0\0\xcd\x80\xc3')
    enter = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    if in_child(lambda: 7 if enter() == os.getpid() else 0) == 7 << 8:
        reached('getpid by int 0x80')
"#,
    ),
    script(
        "system calls of x32",
        GUARDED,
        r#"
if FACTS['arch'] == 'x86_64':
    for number in (39, 57, 165):
        if in_child(lambda: 7 if ask(0x40000000 | number, 0, 0, 0, 0, 0) >= 0 else 0) == 7 << 8:
            reached(number)
"#,
    ),
    script(
        "system calls that nobody knows yet",
        GUARDED,
        r#"
for number in (463, 470, 500, 1000, 0x3fffffff):
    if -ask(number, 0, 0, 0, 0, 0, 0) not in REFUSED | {errno.ENOSYS}:
        reached(number)
"#,
    ),
    script(
        "capabilities, by capset, setuid and ambient sets",
        GUARDED,
        r#"
status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines() if ':' in line)
for name in ('CapEff', 'CapPrm', 'CapInh', 'CapAmb'):
    if int(status[name], 16):
        reached(f'{name} {status[name].strip()}')
if LEVEL != 'process':
    tries('setuid', lambda: os.setuid(0) or 'root')
    tries('setgroups', lambda: os.setgroups([0]) or 'groups')
    if ask(SYS['prctl'], 47, 2, 21, 0, 0) >= 0:
        reached('ambient')
"#,
    ),
    script(
        "privileges by setuid programs",
        [Varies, Stops, Stops],
        r#"
import shutil, subprocess
status = open('/proc/self/status').read()
if 'NoNewPrivs:\t1' not in status:
    reached('new privileges may be gained')
for name in ('su', 'sudo', 'mount', 'passwd', 'chsh', 'newgrp'):
    path = shutil.which(name)
    try:
        if path and os.stat(path).st_mode & 0o4000 and os.getuid() != 0:
            asked = [path, '-c', 'id -u'] if name == 'su' else [path, '--version']
            told = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, timeout=20).stdout
            if told.strip() == b'0':
                reached(path)
    except (OSError, subprocess.TimeoutExpired):
        pass
"#,
    ),
    script(
        "input for a terminal (TIOCSTI)",
        [Varies, Stops, Stops],
        r#"
import termios
tries('a terminal', lambda: os.open('/dev/tty', os.O_RDWR))
# The upper half of the command is ignored by the kernel.
for command in (termios.TIOCSTI, 0x1_0000_5412, 0x541C):
    call('ioctl', 0, command, b'x')
"#,
    ),
    script(
        "memory of the kernel that no limit counts: semaphores, message queues, shared segments, memfd",
        [Open, Stops, Stops],
        r#"
for name, args in (('semget', (0, 1, 0o1600)), ('msgget', (0, 0o1600)), ('shmget', (0, 4096, 0o1600)), ('memfd_create', (b'x', 0)),
                   ('memfd_secret', (0,)), ('mq_open', (b'x', 0o102, 0o600, 0))):
    answer = ask(SYS[name], *args)
    if answer >= 0:
        reached(name)
        if name in ('semget', 'msgget', 'shmget'):
            os.system(f'ipcrm -{dict(semget="s", msgget="q", shmget="m")[name]} {answer} 2>/dev/null')
"#,
    ),
    script(
        "the word that it dies with the host (PR_SET_PDEATHSIG)",
        [Varies, Stops, Stops],
        r#"
if ask(SYS['prctl'], 1, 0, 0, 0, 0) >= 0:
    reached('cleared')
"#,
    ),
];
