//! The child processes: started, killed, stopped for a while, and what they say.

use crate::{Done, millis};
use std::{
    collections::HashSet,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Gateway,
    Worker,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Worker => "worker",
        }
    }
}

pub struct Processes {
    folder: PathBuf,
    target: Running,
    target_url: String,
    gateway: Running,
    port: u16,
    worker: Running,
    starts: u32,
    /// Names of processes whose leases were lost: they were killed, or stopped for too long.
    interrupted: HashSet<String>,
    /// When the worker was stopped and when it went on. Whoever is stopped in the middle of a commit stops everybody.
    stalls: Vec<(i64, i64)>,
    stale: Arc<AtomicU64>,
}

/// A process of this program; it ends with the value.
pub struct Running {
    pub name: String,
    child: Child,
}

impl Running {
    /// SIGKILL: no warning, no chance to clean up.
    pub fn kill(&mut self) -> Done<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Processes {
    pub async fn start(folder: PathBuf) -> Done<Self> {
        let stale = Arc::<AtomicU64>::default();
        let place = folder.to_string_lossy().into_owned();
        let (target, mut ready) = spawn("target", &["target", &place], &stale)?;
        let target_url = ready.recv().await.ok_or("the target did not start")?;
        // Free now, and nobody else's for as long as this runs, it is to be hoped.
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let words = ["gateway", &place, "gateway-0", &target_url, &port.to_string()];
        let (gateway, mut ready) = spawn("gateway-0", &words, &stale)?;
        ready.recv().await.ok_or("the gateway did not start")?;
        let (worker, mut ready) = spawn("worker-0", &["worker", &place, "worker-0", &target_url], &stale)?;
        ready.recv().await.ok_or("the worker did not start")?;
        Ok(Self {
            folder,
            target,
            target_url,
            gateway,
            port,
            worker,
            starts: 0,
            interrupted: HashSet::new(),
            stalls: Vec::new(),
            stale,
        })
    }

    pub fn gateway_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    const fn running(&mut self, kind: Kind) -> &mut Running {
        match kind {
            Kind::Gateway => &mut self.gateway,
            Kind::Worker => &mut self.worker,
        }
    }

    /// See [`Running::kill`].
    pub fn kill(&mut self, kind: Kind) -> Done<()> {
        let running = self.running(kind);
        running.kill()?;
        let name = running.name.clone();
        self.interrupted.insert(name);
        Ok(())
    }

    /// Starts a killed process again, under a name of its own.
    pub fn spawn(&mut self, kind: Kind) -> Done<()> {
        self.starts += 1;
        let name = format!("{}-{}", kind.name(), self.starts);
        let (place, port) = (self.folder.to_string_lossy().into_owned(), self.port.to_string());
        let mut words = vec![kind.name(), &place, &name, &self.target_url];
        if kind == Kind::Gateway {
            words.push(&port);
        }
        // Nobody waits until it is ready: that is part of the recovery.
        let (running, _) = spawn(&name, &words, &self.stale)?;
        *self.running(kind) = running;
        Ok(())
    }

    /// Stops a process for a while. It does not notice, and goes on with leases that are somebody else's by then.
    pub async fn stall(&mut self, kind: Kind, length: Duration) -> Done<()> {
        let (id, name) = (self.running(kind).child.id(), self.running(kind).name.clone());
        let began = millis();
        signal("-STOP", id)?;
        tokio::time::sleep(length).await;
        signal("-CONT", id)?;
        self.interrupted.insert(name);
        self.stalls.push((began, millis()));
        Ok(())
    }

    /// Whether a process had its leases taken from it at some time.
    pub fn was_interrupted(&self, name: &str) -> bool {
        self.interrupted.contains(name)
    }

    /// Whether the file may have been blocked by a stopped process between two moments.
    pub fn was_stalled(&self, from: i64, to: i64) -> bool {
        self.stalls.iter().any(|(began, ended)| *began <= to && *ended >= from)
    }

    pub fn stalls(&self) -> usize {
        self.stalls.len()
    }

    pub fn stale(&self) -> u64 {
        self.stale.load(Ordering::Relaxed)
    }

    /// Whether the target has outlived all others.
    pub fn target_lives(&mut self) -> bool {
        self.target.child.try_wait().is_ok_and(|ended| ended.is_none())
    }
}

fn signal(signal: &str, id: u32) -> Done<()> {
    let sent = Command::new("kill").args([signal, &id.to_string()]).status()?;
    if sent.success() {
        Ok(())
    } else {
        Err(format!("kill {signal} {id} failed").into())
    }
}

/// This program once more. The channel tells what it says when it is ready.
pub fn spawn(name: &str, words: &[&str], stale: &Arc<AtomicU64>) -> Done<(Running, mpsc::UnboundedReceiver<String>)> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("--role")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("no standard output")?;
    let (tell, ready) = mpsc::unbounded_channel();
    let stale = Arc::clone(stale);
    std::thread::spawn(move || listen(output, &tell, &stale));
    let name = name.to_owned();
    Ok((Running { name, child }, ready))
}

fn listen(output: ChildStdout, tell: &mpsc::UnboundedSender<String>, stale: &AtomicU64) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        if let Some(url) = line.strip_prefix("READY") {
            let _ = tell.send(url.trim().to_owned());
        } else if let Some(count) = line.strip_prefix("STALE ").and_then(|count| count.parse().ok()) {
            stale.fetch_add(count, Ordering::Relaxed);
        }
    }
}
