//! The way out of a sandbox: one HTTP/1.1 service per run, on a listener that only this run can reach.
//!
//! [`broker`] sends requests over the installation's connections; the credential is added by their transport and never
//! enters. [`tunnel`] and [`forward`] are a proxy to the hosts that the script's rules name; [`dial`] resolves their names
//! itself and refuses addresses that are not public, in whatever notation ([`host`]). [`meter`] counts, caps and paces,
//! [`numbers`] tells the host's metrics, [`journal`] keeps what the author should read, [`serve`] holds it together.
//!
//! Nothing that the run sends can make it keep more than the limits say, and when its handle goes, everything is closed.

mod answer;
mod broker;
mod dial;
mod forward;
mod host;
mod journal;
mod meter;
mod numbers;
mod resolver;
mod serve;
#[cfg(test)]
mod tests;
mod tunnel;

pub(crate) use numbers::describe;
pub(crate) use resolver::SystemResolver;

use crate::redact::Redactor;
use crosspoint_core::{
    Clock, Code, ConnectionClient, EffectKeys, Egress, EgressPolicy, ErrorExt, LogEntry, Resolve, Result, RunKey,
    RunSpec, Timestamp, Usage,
};
use dial::Dialer;
use journal::Notes;
use meter::{Meter, Pace};
use numbers::Numbers;
use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, oneshot},
    task::JoinHandle,
};

/// What is said when a cap on bytes was reached.
const FULL: &str = "the run has moved as many bytes over the network as it may";

/// Where the run's connections come in. It has to be one that nobody else can connect to: in the run's own network
/// namespace, or a socket in its private folder.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(std::net::TcpListener),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixListener, Peers),
}

/// Which processes may connect to a socket that has a name: other runs of the same user can find it.
#[derive(Clone)]
pub(crate) enum Peers {
    /// Whoever can.
    #[cfg(test)]
    All,
    /// Those for which it answers yes.
    Those(Arc<dyn Fn(i32) -> bool + Send + Sync>),
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Peers")
    }
}

impl Peers {
    fn admit(&self, stream: &tokio::net::UnixStream) -> bool {
        match self {
            #[cfg(test)]
            Self::All => true,
            Self::Those(admits) => {
                let peer = stream.peer_cred().ok().and_then(|peer| peer.pid());
                peer.is_some_and(|pid| admits(pid))
            }
        }
    }
}

/// Limits of one run's network. Those on times and sizes end the request or connection that crosses them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections at once (64); further ones wait.
    pub(crate) connections: usize,
    /// Connections in all (100,000).
    pub(crate) total: u32,
    /// Requests in all (250,000).
    pub(crate) requests: u64,
    /// Connections of the proxy to other hosts, in all (10,000).
    pub(crate) upstream: u32,
    /// Requests and connections in a second (2,000), above a burst of 500; further ones are slowed down.
    pub(crate) pace: (u32, u32),
    /// Calls of the broker at once (8); each keeps a request and an answer in memory.
    pub(crate) calls: usize,
    /// Size of the body of a request or answer of the broker, in bytes (10 MiB).
    pub(crate) body: usize,
    /// How long the body of a request to the broker may take (60 s).
    pub(crate) body_time: Duration,
    /// Size of the head of a request, in bytes (32 KiB), and of what is kept of a connection in either direction (64 KiB).
    pub(crate) head: usize,
    pub(crate) buffer: usize,
    /// How long the head of a request may take, from the end of the one before (30 s).
    pub(crate) head_time: Duration,
    /// How long a connection of the proxy may take to come about, with the look-up of the name (10 s).
    pub(crate) connect: Duration,
    /// How long nothing may move on a connection (5 min).
    pub(crate) idle: Duration,
    /// Bytes that the run may send (1 GiB) and receive (4 GiB).
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            total: 100_000,
            requests: 250_000,
            upstream: 10_000,
            pace: (2_000, 500),
            calls: 8,
            body: 10 << 20,
            body_time: Duration::from_secs(60),
            head: 32 << 10,
            buffer: 64 << 10,
            head_time: Duration::from_secs(30),
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            sent: 1 << 30,
            received: 4 << 30,
        }
    }
}

/// What a run may reach, and how.
#[derive(Debug)]
pub(crate) struct Policy {
    /// Which way out.
    pub(crate) egress: Egress,
    /// Clients of the installation's connections, by slot.
    pub(crate) connections: BTreeMap<String, ConnectionClient>,
    /// Turns names into addresses.
    pub(crate) resolve: Arc<dyn Resolve>,
    /// Hosts that may have addresses which are not public; a rule of `egress` has to name them all the same. Written by
    /// the host's programmer; none unless set.
    pub(crate) internal: EgressPolicy,
    /// The key of the run's effects.
    pub(crate) run_key: RunKey,
    /// When answers are of no use any more.
    pub(crate) deadline: Timestamp,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: Limits,
    /// Hides secrets that turn up in the log.
    pub(crate) redactor: Redactor,
}

impl Policy {
    /// What a run may reach, with the limits of every run.
    pub(crate) fn of(spec: &RunSpec, egress: Egress, resolve: Arc<dyn Resolve>, clock: Arc<dyn Clock>) -> Self {
        Self {
            egress,
            connections: spec.connections.clone(),
            resolve,
            internal: EgressPolicy::new(),
            run_key: spec.run_key,
            deadline: spec.deadline,
            clock,
            limits: Limits::default(),
            redactor: Redactor::new(&spec.secrets),
        }
    }
}

/// What all connections of a run share.
#[derive(Debug)]
struct Shared {
    egress: &'static str,
    connections: BTreeMap<String, ConnectionClient>,
    keys: Arc<EffectKeys>,
    dialer: Option<Dialer>,
    deadline: Timestamp,
    clock: Arc<dyn Clock>,
    limits: Limits,
    meter: Arc<Meter>,
    pace: Pace,
    notes: Notes,
    requests: AtomicU64,
    calls: Arc<Semaphore>,
    /// Where the run finds us.
    port: Option<u16>,
}

impl Shared {
    fn new(policy: Policy, port: Option<u16>) -> Result<(Arc<Self>, Redactor)> {
        let limits = policy.limits;
        let dialer = match &policy.egress {
            Egress::Allow(rules) => Some(Dialer::new(rules, policy.internal, policy.resolve, &limits)?),
            _ => None,
        };
        let numbers = Numbers::new(policy.egress.as_str());
        let shared = Self {
            egress: policy.egress.as_str(),
            connections: policy.connections,
            keys: Arc::new(EffectKeys::new(policy.run_key)),
            dialer,
            deadline: policy.deadline,
            notes: Notes::new(Arc::clone(&policy.clock)),
            clock: policy.clock,
            limits,
            meter: Arc::new(Meter::new(limits.sent, limits.received, numbers)),
            pace: Pace::new(limits.pace.0, limits.pace.1),
            requests: AtomicU64::new(0),
            calls: Arc::new(Semaphore::new(limits.calls)),
            port,
        };
        Ok((Arc::new(shared), policy.redactor))
    }
}

/// The service of one run. Dropping it closes everything.
#[derive(Debug)]
pub(crate) struct Server {
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    redactor: Redactor,
    stop: oneshot::Sender<()>,
    task: Task,
}

/// Ends with its handle.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Server {
    /// Starts to serve, on the runtime that calls it. With [`Egress::None`] and [`Egress::Open`] nothing listens.
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] if a rule of the script is none; [`Code::Internal`] if the listener cannot be used.
    pub(crate) fn start(listener: Listener, policy: Policy) -> Result<Self> {
        let listener = match policy.egress {
            Egress::Broker | Egress::Allow(_) => Accepting::new(listener),
            _ => return Ok(Self { running: None }),
        };
        let listener = listener.or_fail(Code::Internal, "the listener of a run cannot be used")?;
        let (shared, redactor) = Shared::new(policy, listener.port())?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve::serve(Arc::clone(&shared), listener, stopped));
        let running = Running {
            shared,
            redactor,
            stop,
            task: Task(task),
        };
        Ok(Self { running: Some(running) })
    }

    /// What has gone through so far; processor and memory stay zero.
    #[cfg(test)]
    pub(crate) fn usage(&self) -> Usage {
        let running = self.running.as_ref();
        running.map_or_else(Usage::default, |running| running.shared.meter.usage())
    }

    /// Closes everything. What went through, and what the integration's author should know of.
    pub(crate) async fn finish(self) -> (Usage, Vec<LogEntry>) {
        let Some(mut running) = self.running else {
            return (Usage::default(), Vec::new());
        };
        // If it has ended by itself already, so much the better.
        running.stop.send(()).ok();
        (&mut running.task.0).await.ok();
        let mut log = running.shared.notes.take();
        running.redactor.log(&mut log);
        (running.shared.meter.usage(), log)
    }
}

/// A listener in use.
#[derive(Debug)]
enum Accepting {
    Tcp(tokio::net::TcpListener),
    #[cfg(unix)]
    Unix(tokio::net::UnixListener, Peers),
}

/// A connection that came in.
#[derive(Debug)]
enum Accepted {
    Tcp(tokio::net::TcpStream),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
}

impl Accepting {
    fn new(listener: Listener) -> io::Result<Self> {
        Ok(match listener {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Self::Tcp(tokio::net::TcpListener::from_std(listener)?)
            }
            #[cfg(unix)]
            Listener::Unix(listener, peers) => {
                listener.set_nonblocking(true)?;
                Self::Unix(tokio::net::UnixListener::from_std(listener)?, peers)
            }
        })
    }

    fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(|address| address.port()),
            #[cfg(unix)]
            Self::Unix(..) => None,
        }
    }

    async fn accept(&self, numbers: &Numbers) -> io::Result<Accepted> {
        Ok(match self {
            Self::Tcp(listener) => Accepted::Tcp(listener.accept().await?.0),
            #[cfg(unix)]
            Self::Unix(listener, peers) => loop {
                let stream = listener.accept().await?.0;
                if peers.admit(&stream) {
                    break Accepted::Unix(stream);
                }
                numbers.refused(numbers::PEER);
                tracing::warn!("a process of another run tried to use a run's way out");
            },
        })
    }
}
