//! Attacks that take all there is of something.

use super::{ALONE, Host, isolated, levels, python, run, shell};
use crate::{
    machine::{self, PYTHON, has},
    processes::Process,
    sandbox::unusual,
    scripts::{failure, succeeded},
};
use crosspoint_core::{Code, Isolation, Limits, RunEnd, RunOutcome, Script};

const MIB: u64 = 1 << 20;

/// For scripts that write their result by `result(..)`.
const START: &str = "
import json, os, signal, socket, sys, threading, time
def result(value):
    open(os.environ['XP_RESULT_FILE'], 'w').write(json.dumps(value))
";

fn bomb(level: Isolation, text: &str) -> Script {
    python(level, &format!("{START}{text}"))
}

/// The number that the script counted up to.
fn count(outcome: &RunOutcome) -> u64 {
    succeeded(outcome).as_u64().expect("a number")
}

fn small(limits: &mut Limits) {
    limits.wall_ms = 60_000;
    limits.memory = 96 * MIB;
    limits.processes = 64;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_of_one_process() {
    if !has(PYTHON) {
        return;
    }
    let _alone = ALONE.lock().await;
    for level in levels().await {
        let text = "held = []\nwhile True: held.append(bytearray(b'x') * (4 << 20))";
        let outcome = run(bomb(level, text), small).await;
        let code = failure(&outcome).0;
        assert!(
            matches!(code, Code::ScriptFailed | Code::ScriptCrashed),
            "{level}: {outcome:?}"
        );
        assert!(outcome.usage.peak_memory < 160 * MIB, "{level}: {:?}", outcome.usage);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_of_many_processes() {
    if !has(PYTHON) {
        return;
    }
    let _alone = ALONE.lock().await;
    for level in levels().await {
        let text = "
for _ in range(12):
    if os.fork() == 0:
        held = bytearray(b'x') * (24 << 20)
        time.sleep(600)
time.sleep(600)";
        let outcome = run(bomb(level, text), small).await;
        let RunEnd::Failed(error) = &outcome.end else {
            panic!("{level}: {outcome:?}")
        };
        assert!(error.message().contains("more memory"), "{level}: {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_in_memory() {
    if !has(PYTHON) {
        return;
    }
    let _alone = ALONE.lock().await;
    for level in levels().await {
        let text = "
got = 0
try:
    path = (os.environ['TMPDIR'] if os.path.realpath('/dev/shm').startswith('/w/') else '/dev/shm') + f'/bomb-{os.getpid()}'
    file = open(path, 'wb', buffering=0)
    os.remove(path)
    for _ in range(40):
        got += file.write(bytes(4 << 20))
    time.sleep(2)
except OSError:
    pass
result(got)";
        let outcome = run(bomb(level, text), small).await;
        let got = match &outcome.end {
            RunEnd::Succeeded(value) => value.as_u64().unwrap(),
            _ => 0,
        };
        if level == Isolation::Process {
            assert_eq!(got, 160 * MIB, "{outcome:?}");
        } else {
            assert!(got < 96 * MIB, "{level}: {outcome:?}");
        }
    }
}

/// Nothing counts what lies in sockets. How much that can be, the limits on descriptors and processes decide.
#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_nobody_reads() {
    if !has(PYTHON) {
        return;
    }
    let _alone = ALONE.lock().await;
    for level in levels().await {
        let text = "
got, held = 0, []
try:
    while got < 128 << 20:
        held.append(socket.socketpair())
        for end in held[-1]:
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30)
            try:
                while True:
                    got += end.send(bytes(4096))
            except BlockingIOError:
                pass
except OSError:
    pass
result(got)";
        let outcome = run(bomb(level, text), small).await;
        assert!(
            count(&outcome) > 96 * MIB,
            "{level}: a limit counts it now: {outcome:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processor_time_on_many_threads() {
    if !has(PYTHON) {
        return;
    }
    let _alone = ALONE.lock().await;
    for level in levels().await {
        let text = "
import hashlib
def spin():
    while True: hashlib.sha256(bytes(1 << 20))
for _ in range(8): threading.Thread(target=spin).start()";
        let outcome = run(bomb(level, text), |limits| limits.cpu_ms = 1000).await;
        assert_eq!(failure(&outcome).0, Code::ScriptCrashed, "{level}: {outcome:?}");
        assert!(
            (500..4000).contains(&outcome.usage.cpu_ms),
            "{level}: {:?}",
            outcome.usage
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processor_time_in_many_processes() {
    if !has(PYTHON) {
        return;
    }
    let _alone = ALONE.lock().await;
    for level in levels().await {
        let text = "
children = []
for _ in range(6):
    child = os.fork()
    if child == 0:
        while True: pass
    children.append(child)
for child in children: os.waitpid(child, 0)";
        let outcome = run(bomb(level, text), |limits| limits.cpu_ms = 1000).await;
        if level == Isolation::Process {
            assert!(outcome.usage.cpu_ms >= 3000, "each has a second: {:?}", outcome.usage);
        } else {
            assert_eq!(failure(&outcome).0, Code::ScriptCrashed, "{level}: {outcome:?}");
            assert!(outcome.usage.cpu_ms < 4000, "{level}: {:?}", outcome.usage);
        }
    }
}

/// The nice values of the processes that have a word in their command line.
fn niceness(word: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).split('\0').any(|part| part == word) {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            found.extend(pid.and_then(Process::of).map(|process| process.nice));
        }
    }
    found
}

/// A run with a crowd of processes that all want to run gets no more of the processors than one with a single one: the
/// more they are, the nicer each.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_steps_back() {
    let _alone = ALONE.lock().await;
    for level in isolated().await {
        let host = Host::new();
        let spin = |count: u32, word: &str| {
            let child = format!("sh -c 'while :; do :; done' {word} &");
            shell(
                level,
                &format!("n=0; while [ $n -lt {count} ]; do {child} n=$((n+1)); done; wait"),
            )
        };
        let (single, few, many) = (unusual(), unusual(), unusual());
        let mut runs = Vec::new();
        for (count, word) in [(1, &single), (12, &few), (40, &many)] {
            // An ordinary user's three runs have their processes out of one number.
            let spec = crate::scripts::limits(|limits| limits.processes = 128);
            runs.push(host.start("acme", spin(count, word), spec).await.unwrap());
        }
        // Each is in its place when all its processes are there: a child inherits it, or the next look finds it.
        let placed = |word: &str, count: usize, place: std::ops::RangeInclusive<i32>| {
            let found = niceness(word);
            found.len() == count && found.iter().all(|nice| place.contains(nice))
        };
        let mut waited = 0;
        // 1.25 to the power of 12 is more than 12. Not all of them are seen to want to run at each look.
        while !(placed(&few, 12, 8..=13) && placed(&many, 40, 19..=19)) {
            waited += 1;
            assert!(waited < 1200, "{level}: {:?}, {:?}", niceness(&few), niceness(&many));
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(niceness(&single), [0], "{level}: one alone does not step back");
        // Who starts beside them begins on one processor, and may use all of them as soon as its program is there.
        let all = std::thread::available_parallelism().unwrap();
        let text = format!("until [ $(nproc) -ge {all} ]; do :; done; echo true > \"$XP_RESULT_FILE\"");
        let patience = crate::scripts::limits(|limits| limits.wall_ms = 20_000);
        let beside = host.run(shell(level, &text), patience).await;
        assert_eq!(succeeded(&beside), &serde_json::json!(true), "{level}");
    }
}

/// The kernel may give every session a share of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_share_for_each_session() {
    if !has(PYTHON) {
        return;
    }
    let text = "
child = os.fork()
if child == 0:
    try:
        os.setsid()
        os._exit(1)
    except PermissionError:
        os._exit(0)
result(os.waitpid(child, 0)[1] >> 8)";
    for level in levels().await {
        let outcome = run(bomb(level, text), |_| {}).await;
        assert_eq!(
            count(&outcome),
            u64::from(level == Isolation::Process),
            "{level}: {outcome:?}"
        );
    }
}

/// Not at `process`, where nothing would stop them.
#[tokio::test(flavor = "multi_thread")]
async fn forks_and_threads() {
    if !has(PYTHON) {
        return;
    }
    let _alone = ALONE.lock().await;
    let forks = "
got = 0
try:
    while got < 500:
        if os.fork() == 0:
            time.sleep(600)
        got += 1
except OSError:
    pass
result(got)";
    let threads = "
got = 0
try:
    while got < 500:
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        got += 1
except RuntimeError:
    pass
result(got)
sys.stdout.flush()
os._exit(0)";
    for level in isolated().await {
        for text in [forks, threads] {
            let outcome = run(bomb(level, text), |limits| limits.processes = 64).await;
            // At `confined` an ordinary user's other threads are allowed for, as they were a moment ago.
            assert!((16..128).contains(&count(&outcome)), "{level}: {outcome:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_farm_of_zombies() {
    if !has(PYTHON) {
        return;
    }
    let _alone = ALONE.lock().await;
    let text = "
got = 0
try:
    while got < 500:
        if os.fork() == 0:
            # Its own child outlives it, and is nobody's then. Where there is no room for one, it must not tell the result.
            try: os.fork()
            finally: os._exit(0)
        got += 1
except OSError:
    pass
result(got)";
    for level in isolated().await {
        let outcome = run(bomb(level, text), |limits| limits.processes = 64).await;
        // At `confined` an ordinary user's other threads count, and may end meanwhile.
        assert!((4..128).contains(&count(&outcome)), "{level}: {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn disk() {
    if !has(PYTHON) {
        return;
    }
    let text = "
def fill(name, most):
    got = 0
    try:
        file = open(os.environ['TMPDIR'] + '/' + name, 'wb', buffering=0)
        while got < most: got += file.write(bytes(1 << 20))
    except OSError:
        pass
    return got
one = fill('one', 64 << 20)
os.remove(os.environ['TMPDIR'] + '/one')
all = sum(fill(str(n), 6 << 20) for n in range(4))
for n in range(4): os.remove(os.environ['TMPDIR'] + f'/{n}')
result([one, all])";
    for level in levels().await {
        let outcome = run(bomb(level, text), |limits| limits.disk = 8 * MIB).await;
        let got = succeeded(&outcome);
        assert!(got[0].as_u64().unwrap() <= 8 * MIB, "{level}: {got}");
        let all = got[1].as_u64().unwrap();
        if level == Isolation::Sandboxed {
            assert!(all <= 8 * MIB, "{got}");
        } else {
            assert_eq!(all, 24 * MIB, "{level}: {got}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inodes() {
    if !has(PYTHON) {
        return;
    }
    let text = "
got = 0
try:
    while got < 20000:
        os.close(os.open(f\"{os.environ['TMPDIR']}/{got}\", os.O_CREAT | os.O_WRONLY))
        got += 1
    time.sleep(2)
except OSError:
    pass
for n in range(got): os.remove(f\"{os.environ['TMPDIR']}/{n}\")
result(got)";
    for level in levels().await {
        let outcome = run(bomb(level, text), |limits| limits.disk = 8 * MIB).await;
        if machine::is_bubblewrap() {
            assert_eq!(failure(&outcome).0, Code::ScriptCrashed, "the host looks: {outcome:?}");
            continue;
        }
        assert_eq!(
            count(&outcome) < 20_000,
            level == Isolation::Sandboxed,
            "{level}: {outcome:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptors() {
    if !has(PYTHON) {
        return;
    }
    let text = "
held = []
try:
    while len(held) < 5000: held.append(os.open('/dev/null', os.O_RDONLY))
except OSError:
    pass
got = len(held)
for fd in held: os.close(fd)
result(got)";
    for level in levels().await {
        let outcome = run(bomb(level, text), |limits| limits.open_files = 128).await;
        assert!((64..=128).contains(&count(&outcome)), "{level}: {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_leaves_no_core() {
    if !has(PYTHON) {
        return;
    }
    let text = "
import resource
def crash():
    child = os.fork()
    if child == 0: os.abort()
    return os.waitpid(child, 0)[1]
first = crash()
try:
    resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))
except (ValueError, OSError):
    pass
result([os.WCOREDUMP(first), os.WCOREDUMP(crash()) and os.getuid() != 0, len([n for n in os.listdir('.') if 'core' in n])])";
    for level in levels().await {
        let outcome = run(bomb(level, text), |_| {}).await;
        assert_eq!(succeeded(&outcome), &serde_json::json!([false, false, 0]), "{level}");
    }
}
