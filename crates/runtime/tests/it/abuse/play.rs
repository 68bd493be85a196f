//! Makes the attacks that are scripts.

use super::{
    Host, isolated, levels, own_users, python,
    table::{Attack, Holds, Proof, themes},
};
use crate::{
    machine::{self, PYTHON, has},
    scripts::{limits, succeeded},
};
use crosspoint_core::{Isolation, RunEnd, RunHandle, Script};
use serde_json::{Value, json};
use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixListener},
        },
    },
    path::PathBuf,
    time::Duration,
};

/// What a script of an attack starts with.
const PRELUDE: &str = include_str!("prelude.py");

/// A run that others attack: it has a secret in its environment and listens wherever it can.
const NEIGHBOUR: &str = r#"
import json, os, socket, time
mark = FACTS['mark']
held = []
def listen(family, kind, address):
    try:
        one = socket.socket(family, kind)
        one.bind(address)
        if kind == socket.SOCK_STREAM:
            one.listen()
        held.append(one)
    except OSError:
        pass
listen(socket.AF_UNIX, socket.SOCK_STREAM, '\0' + mark)
listen(socket.AF_INET, socket.SOCK_STREAM, ('127.0.0.1', FACTS['port']))
listen(socket.AF_INET, socket.SOCK_DGRAM, ('127.0.0.1', FACTS['port']))
try:
    held.append(os.memfd_create(mark))
    os.write(held[-1], b'secret')
except OSError:
    pass
print('up', flush=True)
open(os.environ['TMPDIR'] + '/' + mark, 'w').write('secret')
while True:
    time.sleep(60)
"#;

/// What there is of the host's to be reached.
struct Target {
    facts: Value,
    mark: String,
    folder: tempfile::TempDir,
    _sockets: (TcpListener, UdpSocket, UnixListener, UnixListener),
}

impl Target {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let private = folder.path().join("private");
        for (path, mode) in [(&private, 0o600), (&folder.path().join("public"), 0o644)] {
            fs::write(path, "secret").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let mark = folder
            .path()
            .file_name()
            .unwrap()
            .to_string_lossy()
            .trim_start_matches('.')
            .to_owned();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let name = SocketAddr::from_abstract_name(format!("{mark}-host")).unwrap();
        let hidden = UnixListener::bind_addr(&name).unwrap();
        let path = folder.path().join("socket");
        let named = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let facts = json!({
            "mark": mark, "folder": folder.path(), "private": private, "tcp": tcp.local_addr().unwrap().port(),
            "udp": udp.local_addr().unwrap().port(), "host": std::process::id(), "sys": super::kernel::numbers(), "arch": std::env::consts::ARCH,
        });
        Self {
            facts,
            mark,
            folder,
            _sockets: (tcp, udp, hidden, named),
        }
    }

    /// The files of the host are as they were.
    fn untouched(&self) -> bool {
        let private = self.folder.path().join("private");
        let modes = [("private", 0o600), ("public", 0o644)].map(|(name, mode)| {
            let about = fs::metadata(self.folder.path().join(name));
            about.is_ok_and(|about| about.permissions().mode() & 0o777 == mode)
        });
        let names = fs::read_dir(self.folder.path()).unwrap().count();
        modes == [true; 2] && names == 3 && fs::read_to_string(private).is_ok_and(|text| text == "secret")
    }

    fn script(&self, level: Isolation, port: u16, text: &str) -> Script {
        let mut facts = self.facts.clone();
        facts["port"] = json!(port);
        facts["level"] = json!(level);
        python(level, &format!("{PRELUDE}\n{text}")).env("FACTS", facts.to_string())
    }
}

/// Runs of the same and of another customer, up.
async fn neighbours(host: &Host, target: &Target, level: Isolation) -> Vec<Box<dyn RunHandle>> {
    let mut runs = Vec::new();
    let base = port();
    for (customer, port) in [("acme", base + 1), ("globex", base + 2)] {
        let script = target
            .script(level, port, NEIGHBOUR)
            .env("NEIGHBOUR_SECRET", &target.mark);
        runs.push(host.start(customer, script, limits(|_| {})).await.unwrap());
    }
    // Nobody tells of a run's first line; that its process is there and asleep is what can be seen of it.
    let mut waited = 0;
    while up(target) < 2 {
        waited += 1;
        assert!(waited < 6000, "{level}: the neighbours are not up after a minute");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    runs
}

/// How many interpreters have our mark in their environment and are asleep.
fn up(target: &Target) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let marked = |path: &PathBuf| {
        let environ = fs::read(path.join("environ")).unwrap_or_default();
        let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
        let secret = format!("NEIGHBOUR_SECRET={}", target.mark);
        stat.contains(") S ") && environ.windows(secret.len()).any(|part| part == secret.as_bytes())
    };
    processes.filter(marked).count()
}

/// What the script says it reached, or how it ended if it did not live to say so.
async fn reached(host: &Host, script: Script) -> Result<Vec<String>, String> {
    let limits = limits(|limits| limits.wall_ms = 60_000);
    let outcome = host.run(script, limits).await;
    if let RunEnd::Succeeded(_) = outcome.end {
        let reached = succeeded(&outcome).as_array().expect("a list").iter();
        return Ok(reached.map(|one| one.as_str().unwrap().to_owned()).collect());
    }
    Err(format!("{:?} {:?}", outcome.end, crate::scripts::texts(&outcome)))
}

/// What a finding says if an attack got through that should not have; such a one is not made again.
const ESCAPED: &str = "ESCAPED";

async fn attempt(host: &Host, target: &Target, level: Isolation, attack: &Attack, text: &str) -> Option<String> {
    let reached = reached(host, target.script(level, port(), text)).await;
    eprintln!("{level}: {}: {reached:?}", attack.name);
    judge(attack, level, &reached)
}

/// What is not as the table says.
fn judge(attack: &Attack, level: Isolation, reached: &Result<Vec<String>, String>) -> Option<String> {
    let holds = match attack.at(level) {
        Holds::OwnUser if own_users() => Holds::Stops,
        Holds::OwnUser => Holds::Open,
        other => other,
    };
    let name = attack.name;
    match (holds, reached) {
        (Holds::Varies, _) => None,
        (_, Err(end)) => Some(format!("{level}: {name}: the script of the attack failed: {end}")),
        (Holds::Stops, Ok(reached)) if !reached.is_empty() => Some(format!("{level}: {name}: {ESCAPED}: {reached:?}")),
        (Holds::Open, Ok(reached)) if reached.is_empty() => {
            Some(format!("{level}: {name}: was stopped; the table says it is not"))
        }
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_level_stops_what_the_table_says() {
    if !has(PYTHON) {
        return;
    }
    let host = Host::new();
    let mut wrong = Vec::new();
    let only = std::env::var("CROSSPOINT_ATTACK").unwrap_or_default();
    for level in levels().await {
        let target = Target::new();
        let _neighbours = neighbours(&host, &target, level).await;
        for attack in themes().iter().flat_map(|(_, attacks)| *attacks) {
            let Proof::Script(text) = attack.proof else { continue };
            if !attack.name.contains(&only) {
                continue;
            }
            let mut found = attempt(&host, &target, level, attack, text).await;
            if found.as_ref().is_some_and(|found| !found.contains(ESCAPED)) {
                // Too little room for it in that moment: other attacks are made at the same time.
                found = attempt(&host, &target, level, attack, text).await;
            }
            wrong.extend(found);
            if level == Isolation::Sandboxed || own_users() && level == Isolation::Confined {
                assert!(target.untouched(), "{level}: {}: the host's files changed", attack.name);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The first of the ports of this user's runs: the suite runs for root and for an ordinary user at once. The kernel gives none of
/// these to anybody who does not ask for it.
fn port() -> u16 {
    if machine::is_ordinary() { 27_200 } else { 27_100 }
}

/// That the attacks are attacks: what a level stops was not merely misspelt.
#[tokio::test(flavor = "multi_thread")]
async fn the_neighbours_are_there_to_be_reached() {
    if !has(PYTHON) {
        return;
    }
    let host = Host::new();
    for level in isolated().await {
        let target = Target::new();
        let runs = neighbours(&host, &target, level).await;
        assert_eq!(up(&target), 2, "{level}");
        drop(runs);
    }
}
