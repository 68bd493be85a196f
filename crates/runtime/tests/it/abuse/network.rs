//! Everything that is reached by a socket.

use super::table::{
    Attack,
    Holds::{Open, Stops, Varies},
    script,
};

pub(super) const ATTACKS: &[Attack] = &[
    script(
        "the host's loopback by TCP and UDP",
        [Open, Stops, Stops],
        r#"
def tcp():
    one = socket.socket()
    one.settimeout(10)
    one.connect(('127.0.0.1', FACTS['tcp']))
    return 'connected'
def udp():
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.connect(('127.0.0.1', FACTS['udp']))
    one.send(b'x')
    one.settimeout(0.3)
    try:
        one.recv(1)
    except TimeoutError:
        return 'sent, and nobody refused it'
tries('tcp', tcp)
tries('udp', udp)
tries('ipv6', lambda: socket.create_connection(('::1', FACTS['tcp']), 10) and 'connected')
tries('0.0.0.0', lambda: socket.create_connection(('0.0.0.0', FACTS['tcp']), 10) and 'connected')
"#,
    ),
    script(
        "other runs' loopback, of the same and of another customer",
        [Open, Stops, Stops],
        r#"
# An ordinary user's runs listen elsewhere: the suite runs for both users at once.
base = 27100 if os.getuid() != 54321 else 27200
for port in (base + 1, base + 2):
    tries(port, lambda: socket.create_connection(('127.0.0.1', port), 10) and 'connected')
    def udp():
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.connect(('127.0.0.1', port))
        one.send(b'x')
        one.settimeout(0.3)
        try:
            one.recv(1)
        except TimeoutError:
            return 'sent, and nobody refused it'
    tries(f'{port} udp', udp)
"#,
    ),
    script(
        "the cloud's metadata address",
        [Varies, Stops, Stops],
        r#"
for address in ('169.254.169.254', '169.254.170.2', '100.100.100.200', 'fd00:ec2::254', '::ffff:169.254.169.254'):
    tries(address, lambda: socket.create_connection((address, 80), 2) and 'connected')
"#,
    ),
    script(
        "any other address",
        [Varies, Stops, Stops],
        r#"
for address in ('1.1.1.1', '8.8.8.8', '10.0.0.1', '192.168.1.1', '2606:4700:4700::1111'):
    tries(address, lambda: socket.create_connection((address, 443), 2) and 'connected')
    def udp():
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        return one.sendto(b'x', (address, 53))
    tries(f'{address} udp', udp)
"#,
    ),
    script(
        "names (DNS)",
        [Varies, Stops, Stops],
        r#"
for name in ('example.com', 'metadata.google.internal'):
    tries(name, lambda: socket.getaddrinfo(name, 80) or None)
"#,
    ),
    script(
        "the host by any name of it",
        [Varies, Stops, Stops],
        r#"
tries('hostname', lambda: socket.create_connection((socket.gethostname(), FACTS['tcp']), 5) and 'connected')
try:
    lines = open('/proc/self/net/fib_trie').read()
except OSError:
    lines = ''
import re
for address in set(re.findall(r'\d+\.\d+\.\d+\.\d+', lines)) - {'127.0.0.0', '127.0.0.1', '127.255.255.255', '0.0.0.0'}:
    tries(address, lambda: socket.create_connection((address, FACTS['tcp']), 2) and 'connected')
"#,
    ),
    script(
        "raw, packet, netlink and other sockets",
        [Varies, Stops, Stops],
        r#"
for family, kind, protocol in ((2, 3, 1), (2, 3, 255), (10, 3, 58), (17, 3, 3), (16, 3, 0), (16, 3, 12), (40, 1, 0), (44, 3, 0), (38, 5, 0), (31, 3, 1),
                               (29, 3, 1), (21, 5, 0), (30, 5, 0), (15, 3, 2)):
    tries(f'{family} {kind} {protocol}', lambda: socket.socket(family, kind, protocol) and 'made')
"#,
    ),
    script(
        "sockets of the host as the kernel lists them (/proc/net)",
        [Open, Open, Stops],
        r#"
port = format(FACTS['tcp'], '04X')
for name in ('tcp', 'udp', 'unix'):
    try:
        text = open('/proc/self/net/' + name, errors='replace').read()
    except OSError:
        continue
    if f':{port} ' in text or FACTS['mark'] in text:
        reached(name)
"#,
    ),
    script(
        "the listener of the way out, by SCM_RIGHTS or by binding its port again",
        [Varies, Stops, Stops],
        r#"
# It was handed outside before the script began: there is nothing left to pass on, and nothing to take its place.
for fd in range(3, 64):
    try:
        socket.socket(fileno=fd).getsockname()
        reached(fd)
    except OSError:
        pass
def again():
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind(('127.0.0.1', 8899))
    one.listen()
    return 'bound'
if LEVEL != 'process':
    tries('8899', again)
"#,
    ),
    script(
        "devices and routes of a network of its own",
        [Varies, Stops, Stops],
        r#"
import fcntl
def up():
    one = socket.socket()
    return fcntl.ioctl(one, 0x8914, struct.pack('16sh', b'lo', 0)) and 'lo is down'
if LEVEL != 'process':
    tries('lo', up)
tries('tun', lambda: os.open('/dev/net/tun', os.O_RDWR))
names = [line.split(':')[0].strip() for line in open('/proc/self/net/dev').read().splitlines()[2:]] if LEVEL == 'sandboxed' else ['lo']
if names != ['lo']:
    reached(names)
"#,
    ),
    script(
        "the same port as another run",
        [Open, Stops, Stops],
        r#"
# Both may have it at `sandboxed`: each has a network of its own, where Landlock refuses to listen at all.
def bind():
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(('127.0.0.1', 27100 if os.getuid() != 54321 else 27200))
    one.listen()
    return 'listens where others would connect'
tries('bind', bind)
"#,
    ),
];
