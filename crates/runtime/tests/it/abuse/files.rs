//! Files of the host and of other runs.

use super::table::{
    Attack,
    Holds::{Open, OwnUser, Stops, Varies},
    script,
};

pub(super) const ATTACKS: &[Attack] = &[
    script(
        "reading the files of the host's user",
        [Open, Stops, Stops],
        r#"
tries('private', lambda: read(FACTS['private']))
tries('by the working folder', lambda: read('../../../../../../../../../..' + FACTS['private']))
tries('by /proc/self/root', lambda: read('/proc/self/root' + FACTS['private']))
tries('by /proc/self/cwd', lambda: read('/proc/self/cwd/../../../../../../..' + FACTS['private']))
os.symlink(FACTS['private'], 'link')
tries('by a link', lambda: read('link'))
tries('by a second name', lambda: os.link(FACTS['private'], 'second') or read('second'))
"#,
    ),
    script(
        "reading files that everybody on the machine may read",
        [Open, Stops, Stops],
        r#"
tries('public', lambda: read(FACTS['folder'] + '/public'))
tries('folder', lambda: os.listdir(FACTS['folder']) or None)
for path in ('/var/lib', '/var/log', '/srv', '/run', '/boot', '/mnt', '/media'):
    tries(path, lambda: os.listdir(path) or None)
for path in ('/etc/shadow', '/etc/ssh', '/etc/ssl/private', '/etc/fstab', '/etc/machine-id'):
    tries(path, lambda: (os.listdir(path) if os.path.isdir(path) else read(path)) or None)
"#,
    ),
    script(
        "that files of the host exist (stat)",
        [Open, Open, Stops],
        r#"
tries('private', lambda: os.stat(FACTS['private']))
"#,
    ),
    script(
        "writing, making, renaming, removing files of the host",
        [Open, Stops, Stops],
        r#"
place = FACTS['folder'] + '/new'
tries('write', lambda: open(place, 'w').write('x'))
tries('remove', lambda: os.remove(place) or 'removed')
tries('mkdir', lambda: os.mkdir(place) or os.rmdir(place) or 'made')
tries('mkfifo', lambda: os.mkfifo(place) or os.remove(place) or 'made')
tries('symlink', lambda: os.symlink('x', place) or os.remove(place) or 'made')
tries('append', lambda: open(FACTS['private'], 'a') and 'open')
tries('truncate', lambda: os.truncate(FACTS['private'], 6) or 'truncated')
for path in ('/usr/x', '/etc/x', '/x', '/var/x', '/opt/x', '/bin/x', '/lib/x', '/dev/x', '/proc/x', '/run/x'):
    tries(path, lambda: (open(path, 'w'), os.remove(path)) and 'written')
tries('/tmp', lambda: (open('/tmp/' + FACTS['mark'], 'w'), os.remove('/tmp/' + FACTS['mark'])) and LEVEL != 'sandboxed' or None)
"#,
    ),
    script(
        "modes, owners, times and attributes of the host user's files",
        [Open, OwnUser, Stops],
        r#"
path = FACTS['private']
# To what they are, so that nothing is lost where it works.
tries('chmod', lambda: os.chmod(path, 0o600) or 'changed')
tries('utime', lambda: os.utime(path) or 'changed')
tries('chown', lambda: os.chown(path, os.getuid(), -1) or 'changed')
tries('setxattr', lambda: os.setxattr(path, 'user.x', b'x') or os.removexattr(path, 'user.x') or 'changed')
"#,
    ),
    script(
        "sockets of the host user's other programs, by path",
        [Open, OwnUser, Stops],
        r#"
def attempt():
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(10)
    one.connect(FACTS['folder'] + '/socket')
    return 'connected'
tries('socket', attempt)
"#,
    ),
    script(
        "files of other runs",
        [Varies, Stops, Stops],
        r#"
# Found by their names, which `process` and `confined` show in the command lines.
own = os.path.realpath(os.environ['HOME'] + '/..')
for pid in processes():
    try:
        words = open(f'/proc/{pid}/cmdline', 'rb').read().split(b'\0')
    except OSError:
        continue
    for word in words:
        if word.endswith(b'/script') and not word.startswith(own.encode() + b'/'):
            tries(word, lambda: read(word))
            tries(word, lambda: os.listdir(os.path.dirname(word)) or None)
            tries(word, lambda: open(word, 'r+b') and 'writable')
"#,
    ),
    script(
        "the interpreter's own files",
        [Varies, Stops, Stops],
        r#"
import json as module, sys
for path in (sys.executable, os.path.realpath(sys.executable), module.__file__, '/bin/sh', '/usr/bin/env', '/lib/x86_64-linux-gnu/libc.so.6'):
    tries(path, lambda: open(path, 'r+b') and 'writable')
    tries(path, lambda: os.chmod(path, 0o777) if LEVEL != 'process' else None)
    tries(path + ' renamed', lambda: os.rename(path, path + '.old') or 'renamed' if LEVEL != 'process' else None)
if LEVEL != 'process':
    tries('a module', lambda: open(os.path.dirname(module.__file__) + '/evil.py', 'w') and 'written')
"#,
    ),
    script(
        "the running program (/proc/self/exe)",
        [Varies, Stops, Stops],
        r#"
# The pattern of CVE-2019-5736: open it by /proc, wait until it may be written.
for path in ('/proc/self/exe', f'/proc/{os.getppid()}/exe', '/proc/1/exe', f'/proc/{FACTS["host"]}/exe'):
    if os.getpid() == 1 and path == '/proc/1/exe':
        continue
    def attempt():
        fd = os.open(path, os.O_PATH)
        return os.open(f'/proc/self/fd/{fd}', os.O_WRONLY)
    tries(path, attempt)
"#,
    ),
    script(
        "devices: disks, memory, KVM, terminals",
        [Varies, Stops, Stops],
        r#"
for name in ('vda', 'sda', 'nvme0n1', 'mem', 'kmem', 'port', 'kvm', 'fuse', 'net/tun', 'loop-control', 'kmsg', 'tty', 'ptmx', 'console', 'uinput',
             'vhost-net', 'userfaultfd'):
    tries(name, lambda: os.open('/dev/' + name, os.O_RDONLY))
    tries(name, lambda: os.open('/dev/' + name, os.O_WRONLY))
import stat
tries('mknod', lambda: os.mknod('disk', stat.S_IFBLK | 0o600, os.makedev(254, 0)) or os.open('disk', os.O_RDONLY))
"#,
    ),
    script(
        "/dev/shm",
        [Open, Stops, Stops],
        r#"
path = '/dev/shm/' + FACTS['mark']
tries(path, lambda: (open(path, 'w'), os.path.realpath(path).startswith('/w/') or reached(path), os.remove(path)) and None)
"#,
    ),
    script(
        "/sys",
        [Varies, Stops, Stops],
        r#"
tries('/sys', lambda: os.listdir('/sys') or None)
tries('/sys/kernel', lambda: os.listdir('/sys/kernel') or None)
tries('uevent', lambda: open('/sys/kernel/uevent_helper', 'w') and 'writable')
"#,
    ),
    script(
        "control groups",
        [Varies, Stops, Stops],
        r#"
tries('list', lambda: os.listdir('/sys/fs/cgroup') or None)
for base, folders, names in os.walk('/sys/fs/cgroup'):
    for name in ('cgroup.procs', 'tasks', 'memory.limit_in_bytes', 'pids.max', 'release_agent'):
        tries(base + name, lambda: open(base + '/' + name, 'w') and 'writable')
    break
"#,
    ),
    script(
        "settings and symbols of the kernel (/proc/sys, kallsyms, kcore)",
        [Varies, Varies, Stops],
        r#"
for path in ('/proc/sys', '/proc/kallsyms', '/proc/kcore', '/proc/kmsg', '/proc/config.gz', '/proc/keys', '/proc/timer_list', '/proc/sched_debug',
             '/proc/interrupts', '/proc/iomem', '/proc/cmdline', '/proc/mounts', '/proc/version', '/proc/modules', '/proc/diskstats'):
    # What is covered up has a name and nothing more.
    if path != '/proc/mounts':
        tries(path, lambda: (os.listdir(path) if os.path.isdir(path) else os.open(path, os.O_RDONLY | os.O_NONBLOCK)) or None)
"#,
    ),
];
