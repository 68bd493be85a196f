//! To which hosts, and to which of their addresses, a connection is made.
//!
//! A name is resolved once, here, and what comes out is checked; the connection goes to exactly those addresses. Nothing
//! that a name resolves to later plays a part.

use super::{
    Limits,
    answer::refused,
    host::{Host, Place},
};
use crosspoint_core::{Code, EgressPolicy, Error, ErrorExt, HostRule, Resolve, Result};
use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};

/// The port of a rule that names none.
const HTTPS: u16 = 443;

/// How many rules a refusal lists.
const LISTED: usize = 20;

/// How many names of one run are looked up at once.
const LOOKUPS: usize = 4;

/// How many addresses of a name are tried, and how long each but the last may take.
const TRIES: usize = 4;
const EACH: Duration = Duration::from_secs(3);

/// Makes the connections that the rules permit.
#[derive(Debug)]
pub(super) struct Dialer {
    rules: Vec<HostRule>,
    /// Hosts that may have addresses which are not public.
    internal: EgressPolicy,
    resolve: Arc<dyn Resolve>,
    lookups: Arc<Semaphore>,
    left: AtomicU32,
    within: Duration,
}

impl Dialer {
    pub(super) fn new(
        rules: &[String],
        internal: EgressPolicy,
        resolve: Arc<dyn Resolve>,
        limits: &Limits,
    ) -> Result<Self> {
        let rules = rules.iter().map(|rule| HostRule::parse(rule));
        Ok(Self {
            rules: rules.collect::<Result<_>>()?,
            internal,
            resolve,
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
            left: AtomicU32::new(limits.upstream),
            within: limits.connect,
        })
    }

    /// Whether a rule permits a tunnel to this place.
    pub(super) fn check(&self, place: &Place) -> Result<()> {
        let host = place.host.to_string();
        let fits = |rule: &HostRule| rule.clone().or_port(HTTPS).covers(&host, place.port);
        if self.rules.iter().any(fits) {
            return Ok(());
        }
        Err(refused(
            "allow",
            format!(
                "`{place}` is none of the hosts that this script may reach: {}",
                self.listed()
            ),
        ))
    }

    /// Whether a rule permits plain http to this place: it has to name the port, so that nobody sends in the clear what
    /// was meant for TLS.
    pub(super) fn check_plain(&self, place: &Place) -> Result<()> {
        self.check(place)?;
        let host = place.host.to_string();
        let named = |rule: &HostRule| rule.port() == Some(place.port) && rule.covers(&host, place.port);
        if place.port != HTTPS && self.rules.iter().any(named) {
            return Ok(());
        }
        Err(refused(
            "https",
            format!("`{place}` may be reached over TLS only; a rule that names its port permits plain http"),
        ))
    }

    fn listed(&self) -> String {
        let shown = |rule: &HostRule| rule.clone().or_port(HTTPS).to_string();
        let mut list: Vec<_> = self.rules.iter().take(LISTED).map(shown).collect();
        if self.rules.len() > LISTED {
            list.push("..".to_owned());
        }
        list.join(", ")
    }

    /// The addresses that may be connected to, in the order of the resolver.
    pub(super) async fn addresses(&self, place: &Place) -> Result<Vec<SocketAddr>> {
        let found = match &place.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => self.look_up(name).await?,
        };
        let host = place.host.to_string();
        let mut first = None;
        let mut usable = Vec::new();
        for address in found {
            match self.internal.check_address(&host, place.port, address) {
                Ok(()) => usable.push(SocketAddr::new(address, place.port)),
                Err(error) => first = first.or(Some(error)),
            }
        }
        match (usable.is_empty(), first) {
            (false, _) => Ok(usable),
            (true, Some(error)) => {
                let rule = super::answer::rule(&error).unwrap_or_default();
                Err(refused(
                    rule,
                    format!("the address of `{place}` is not public ({rule})"),
                ))
            }
            (true, None) => Err(unreachable("the host name has no address")),
        }
    }

    async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>> {
        let turn = Arc::clone(&self.lookups).acquire_owned().await;
        let turn = turn.or_fail(Code::ShuttingDown, "the run is over")?;
        let (resolve, name) = (Arc::clone(&self.resolve), name.to_owned());
        // A task of its own keeps the turn until the resolver is done, also when nobody waits any more.
        let found = tokio::spawn(async move {
            let found = resolve.resolve(&name).await;
            drop(turn);
            found
        });
        match found.await {
            Ok(found) => found,
            Err(lost) => Err(Error::new(Code::Internal, "a look-up of a name was lost").caused_by(lost)),
        }
    }

    /// Connects.
    pub(super) async fn connect(&self, place: &Place) -> Result<TcpStream> {
        let spent = |left: u32| left.checked_sub(1);
        if self.left.fetch_update(Relaxed, Relaxed, spent).is_err() {
            return Err(refused(
                "connections",
                "this run has made as many connections as it may",
            ));
        }
        let end = Instant::now() + self.within;
        let addresses = timeout_at(end, self.addresses(place)).await;
        let addresses = addresses.map_err(|_| unreachable("the host name did not resolve in time"))??;
        let mut why = unreachable("the host did not answer in time");
        let mut tries = addresses.iter().take(TRIES).peekable();
        while let Some(address) = tries.next() {
            let left = end.saturating_duration_since(Instant::now());
            let within = if tries.peek().is_some() { left.min(EACH) } else { left };
            match timeout(within, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true).ok();
                    return Ok(stream);
                }
                Ok(Err(error)) => why = unreachable("no connection to the host").caused_by(error),
                Err(_) => {}
            }
        }
        Err(why.with("host", place))
    }
}

pub(super) fn unreachable(message: &str) -> Error {
    Error::new(Code::ProviderUnreachable, message)
}
