//! Other processes: the host, its other programs, other runs.

use super::table::{
    Attack,
    Holds::{Open, Stops, Varies},
    script,
};

pub(super) const ATTACKS: &[Attack] = &[
    script(
        "the list of the machine's processes",
        [Open, Open, Stops],
        r#"
others = [pid for pid in processes() if pid not in (os.getpid(), os.getppid())]
if others:
    reached(others)
"#,
    ),
    script(
        "command lines of other runs",
        [Open, Open, Stops],
        r#"
for pid in processes():
    if pid != os.getpid():
        tries(pid, lambda: read(f'/proc/{pid}/cmdline'))
"#,
    ),
    script(
        "environment of other runs and of the host",
        [Varies, Stops, Stops],
        r#"
for pid in processes() + [FACTS['host']]:
    if pid != os.getpid():
        tries(pid, lambda: read(f'/proc/{pid}/environ'))
"#,
    ),
    script(
        "memory, files and root of other processes by /proc",
        [Varies, Stops, Stops],
        r#"
for pid in processes() + [FACTS['host']]:
    if pid == os.getpid():
        continue
    tries(f'{pid} mem', lambda: open(f'/proc/{pid}/mem', 'rb') and 'open')
    tries(f'{pid} maps', lambda: read(f'/proc/{pid}/maps'))
    tries(f'{pid} root', lambda: os.listdir(f'/proc/{pid}/root') or None)
    tries(f'{pid} cwd', lambda: os.listdir(f'/proc/{pid}/cwd') or None)
    tries(f'{pid} fd', lambda: [os.readlink(f'/proc/{pid}/fd/{fd}') for fd in os.listdir(f'/proc/{pid}/fd')] or None)
    tries(f'{pid} auxv', lambda: read(f'/proc/{pid}/auxv'))
    tries(f'{pid} syscall', lambda: read(f'/proc/{pid}/syscall'))
"#,
    ),
    script(
        "files in memory of other runs (memfd)",
        [Varies, Stops, Stops],
        r#"
for pid in processes():
    if pid == os.getpid():
        continue
    try:
        for fd in os.listdir(f'/proc/{pid}/fd'):
            if 'memfd' in os.readlink(f'/proc/{pid}/fd/{fd}'):
                tries(pid, lambda: read(f'/proc/{pid}/fd/{fd}'))
    except OSError:
        pass
"#,
    ),
    script(
        "ptrace, process_vm_readv, kcmp, pidfd_getfd",
        [Varies, Stops, Stops],
        r#"
call('kcmp', os.getpid(), os.getpid(), 0, 0, 0)
call('process_vm_readv', FACTS['host'], 0, 0, 0, 0, 0)
call('process_vm_writev', FACTS['host'], 0, 0, 0, 0, 0)
call('pidfd_getfd', -1, 0, 0)
call('process_madvise', -1, 0, 0, 0, 0)
def trace():
    parent = os.getppid()
    answer = ask(SYS['ptrace'], 16, parent, 0, 0)
    if answer == 0:
        # It can be let go once it has stopped, and would stay so if it were left.
        os.waitpid(parent, 0x40000000)
        ask(SYS['ptrace'], 17, parent, 0, 0)
        return 7
if in_child(trace) == 7 << 8:
    reached('PTRACE_ATTACH')
"#,
    ),
    script(
        "signals to the host, to other runs, to process 1",
        [Varies, Stops, Stops],
        r#"
own = {os.getpid()}
for pid in processes() + [FACTS['host'], os.getppid()]:
    if pid in own or pid == 0:
        continue
    tries(f'{pid}', lambda: os.kill(pid, 0) or 'may be killed')
    tries(f'{pid} by pidfd', lambda: signal.pidfd_send_signal(os.pidfd_open(pid), 0) or 'may be killed')
for pid in (os.getppid(), FACTS['host']):
    if pid:
        tries(f'group of {pid}', lambda: os.killpg(os.getpgid(pid), 0) if os.getpgid(pid) != os.getpgid(0) else None)
"#,
    ),
    script(
        "kill(-1): everybody at once",
        [Varies, Stops, Stops],
        r#"
# Nobody who has something to lose tries that at `process`.
if LEVEL != 'process':
    tries('kill', lambda: os.kill(-1, signal.SIGKILL))
    for pid in (FACTS['host'], 1):
        if pid != os.getpid() and LEVEL == 'confined' and not os.path.exists(f'/proc/{pid}'):
            reached(f'{pid} is gone')
"#,
    ),
    script(
        "limits of the host or of other runs (prlimit)",
        [Varies, Stops, Stops],
        r#"
limit = ctypes.create_string_buffer(16)
for pid in processes() + [FACTS['host']]:
    if pid != os.getpid():
        if ask(SYS['prlimit64'], pid, 7, 0, limit) >= 0:
            reached(f'{pid} read')
        # Set to what it is, so that nothing is lost where it works.
        if ask(SYS['prlimit64'], pid, 7, limit, 0) >= 0:
            reached(f'{pid} set')
"#,
    ),
    script(
        "priority and processors of the host or of other runs",
        [Varies, Stops, Stops],
        r#"
# At `process` of the host alone: nobody else's are changed where that works.
targets = [FACTS['host']] + (processes() if LEVEL != 'process' else [])
cpus = os.sched_getaffinity(0)
mask = ctypes.create_string_buffer(sum(1 << cpu for cpu in cpus).to_bytes(128, 'little'))
param = ctypes.create_string_buffer(struct.pack('i', 0))
for pid in targets:
    if pid != os.getpid():
        if -ask(SYS['sched_setaffinity'], pid, 128, mask) not in REFUSED | {errno.ESRCH}:
            reached(f'{pid} affinity')
        if -ask(SYS['sched_setscheduler'], pid, 0, param) not in REFUSED | {errno.ESRCH}:
            reached(f'{pid} scheduler')
        if -ask(SYS['setpriority'], 0, pid, 1) not in REFUSED | {errno.ESRCH} and LEVEL != 'process':
            reached(f'{pid} priority')
if LEVEL == 'confined':
    # All of a user's processes.
    for which in (1, 2):
        if ask(SYS['setpriority'], which, 0, 1) >= 0 and os.getpriority(0, FACTS['host']) > 0:
            reached(f'priority of the host by {which}')
"#,
    ),
    script(
        "abstract sockets of the host and of other runs",
        [Open, Stops, Stops],
        r#"
for name in (FACTS['mark'], FACTS['mark'] + '-host'):
    def attempt():
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(10)
        one.connect('\0' + name)
        return name
    tries('abstract', attempt)
"#,
    ),
    script(
        "the broker of another run",
        [Varies, Stops, Stops],
        r#"
# It lies in the other run's folder; where it does, the kernel tells everybody.
own = os.environ.get('XP_NETWORK_SOCKET', '')
for line in open('/proc/self/net/unix', errors='replace').read().splitlines()[1:]:
    path = line.split()[-1]
    if not path.startswith('/') or path == own or os.path.basename(path) != os.path.basename(own):
        continue
    def attempt():
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(10)
        one.connect(path)
        one.sendall(b'GET /c/shop/orders HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n')
        return one.recv(100) or None
    tries(path, attempt)
"#,
    ),
    script(
        "descriptors that were left open",
        [Varies, Stops, Stops],
        r#"
for fd in range(3, 4096):
    tries(fd, lambda: os.fstat(fd) and os.readlink(f'/proc/self/fd/{fd}'))
"#,
    ),
    script(
        "the host's own streams behind standard input, output and error",
        [Stops; 3],
        r#"
for fd in (0, 1, 2):
    link = os.readlink(f'/proc/self/fd/{fd}')
    if not link.startswith('pipe:') and link != '/dev/null':
        reached(link)
    if link.startswith('pipe:'):
        # The other end is the supervisor's.
        tries(link, lambda: os.read(os.open(f'/proc/self/fd/{fd}', os.O_RDONLY | os.O_NONBLOCK), 1) or None)
"#,
    ),
    script(
        "messages to every process (sysrq, oom_score_adj, comm of others)",
        [Varies, Stops, Stops],
        r#"
for path in ('/proc/sysrq-trigger', '/proc/sys/kernel/core_pattern', '/proc/sys/vm/drop_caches', f'/proc/{FACTS["host"]}/oom_score_adj',
             f'/proc/{FACTS["host"]}/comm', '/proc/sys/kernel/hostname', '/proc/sys/kernel/modprobe'):
    tries(path, lambda: os.open(path, os.O_WRONLY))
tries('own oom_score_adj', lambda: open('/proc/self/oom_score_adj', 'w').write('-1000') and open('/proc/self/oom_score_adj').read(1) == '-' or None)
"#,
    ),
];
