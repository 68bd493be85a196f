//! What stands between clients and the pool: the gateway, or a peer that an example brings.

use crate::{
    Pool, RunStore, RunTime,
    case::Case,
    ledger::{customer_name, path_of},
    time::seconds,
};
use async_trait::async_trait;
use axum::{Router, body::Body};
use crosspoint_core::{Authenticate, Code, CustomerId, DispatchStore, Error, Principal, Result, TargetId, WorkerId};
use crosspoint_gateway::{Aimd, Config, CoolOff, Gateway, Gradient2, HoldOrder, Knee, Limit, Policy, Sticky, Vegas};
use http::{Request, Response, request::Parts};
use std::{
    convert::Infallible,
    fmt,
    sync::{Arc, atomic::AtomicUsize},
};
use tower::util::BoxCloneSyncService;
use tower_layer::Layer;

/// The header that names the customer.
pub const CUSTOMER: &str = "x-customer";

/// A service without its type.
pub type Entry = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Where a run takes place; what a [`Front`] builds on.
#[derive(Debug, Clone)]
pub struct Site {
    /// The case.
    pub case: Arc<Case>,
    /// The seed.
    pub seed: u64,
    /// The time.
    pub time: Arc<RunTime>,
    /// The target.
    pub pool: Pool,
    /// The store that all gateways share.
    pub store: Arc<RunStore>,
}

/// One process that clients can call.
#[derive(Clone)]
pub struct Door {
    /// Takes the calls.
    pub service: Entry,
    /// The gateway in it, if it is ours.
    pub gateway: Option<Gateway>,
    /// Where to ask for what was accepted.
    pub requests: Option<Router>,
    /// How many calls wait in it, for peers that have a queue.
    pub waiting: Arc<AtomicUsize>,
    /// Whether the limit is to follow the workers that are ready.
    pub known_limit: bool,
}

impl Door {
    /// A door of a peer.
    #[must_use]
    pub fn peer(service: Entry) -> Self {
        Self {
            service,
            gateway: None,
            requests: None,
            waiting: Arc::default(),
            known_limit: false,
        }
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door")
            .field("gateway", &self.gateway)
            .finish_non_exhaustive()
    }
}

/// Builds doors: what stands before the pool.
pub trait Front: Send + Sync {
    /// Opens the `number`-th door of the run, counted from 0; within the runtime.
    ///
    /// # Errors
    /// What the case asks for and cannot be had.
    fn open(&self, site: &Site, number: usize) -> Result<Door>;
}

/// The target's name.
#[must_use]
pub fn target() -> TargetId {
    #[expect(clippy::expect_used, reason = "the text is an id")]
    TargetId::new("pool").expect("an id")
}

/// The real gateway, as the case sets it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Crosspoint;

impl Front for Crosspoint {
    fn open(&self, site: &Site, number: usize) -> Result<Door> {
        open(site, number, site.pool.clone())
    }
}

/// The gateway of a case before any service that serves the pool.
///
/// # Errors
/// A policy that does not exist.
pub fn open<S>(site: &Site, number: usize, inner: S) -> Result<Door>
where
    S: tower_service::Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Unpin + Send + 'static,
{
    let settings = &site.case.gateway;
    let mut config = Config::default();
    config.hold = seconds(settings.hold);
    config.lease = seconds(settings.lease);
    config.worker = WorkerId::new(format!("gateway-{number}"))?;
    let store = Arc::clone(&site.store) as Arc<dyn DispatchStore>;
    let clock = Arc::clone(&site.time) as Arc<dyn crosspoint_core::Clock>;
    let gateway = Gateway::new(store, clock, config);
    let policy = policy_of(settings, site)?;
    let layer = |class: usize| {
        let layer = gateway
            .layer(target())
            .path(path_of(class))
            .repeatable(settings.repeatable);
        layer.customer(|parts| CustomerId::new(parts.headers.get(CUSTOMER)?.to_str().ok()?).ok())
    };
    let first = layer(0).policy(policy);
    let service = first.layer(layer(1).layer(inner));
    gateway.serve_queued(target(), service.clone())?;
    Ok(Door {
        service: BoxCloneSyncService::new(service),
        requests: Some(gateway.requests(Arc::new(ByHeader))),
        gateway: Some(gateway),
        waiting: Arc::default(),
        known_limit: settings.policy == "known",
    })
}

/// Customers are who they say they are.
#[derive(Debug)]
struct ByHeader;

#[async_trait]
impl Authenticate for ByHeader {
    async fn authenticate(&self, parts: &Parts) -> Result<Principal> {
        let name = parts.headers.get(CUSTOMER).and_then(|value| value.to_str().ok());
        let missing = || Error::new(Code::SessionMissing, "no customer");
        Ok(Principal::viewer(CustomerId::new(name.ok_or_else(missing)?)?, "client"))
    }
}

/// The policy that a case names.
fn policy_of(settings: &crate::case::Gateway, site: &Site) -> Result<Policy> {
    let wrong = || Error::new(Code::InputInvalid, "no such policy").with("policy", &settings.policy);
    let initial = settings.initial.map(|calls| calls.max(1.0) as u32);
    let knee = || initial.map_or_else(Knee::default, |calls| Knee::default().initial(calls));
    let policy = Policy::default().seed(site.seed);
    Ok(match settings.policy.split_once(':') {
        Some(("fixed", permits)) => policy.limit(Limit::Fixed(permits.parse().map_err(|_| wrong())?)),
        Some(_) => return Err(wrong()),
        None => match settings.policy.as_str() {
            "known" => policy.limit(Limit::Fixed(share(site.pool.workers(), settings.count))),
            "knee" => policy.limit(Limit::Knee(knee())),
            "fifo" => policy.limit(Limit::Knee(knee())).hold(HoldOrder::Fifo),
            "lifo" => policy.limit(Limit::Knee(knee())).hold(HoldOrder::Lifo),
            "sticky" => {
                let sticky = CoolOff::default().sticky(Sticky::default());
                policy.limit(Limit::Knee(knee())).cool_off(sticky)
            }
            "aimd" => policy.limit(Limit::Aimd(
                initial.map_or_else(Aimd::default, |calls| Aimd::default().initial(calls)),
            )),
            "gradient2" => policy.limit(Limit::Gradient2(Gradient2::default())),
            "vegas" => policy.limit(Limit::Vegas(Vegas::default())),
            _ => return Err(wrong()),
        },
    })
}

/// One gateway's part of the workers.
pub(crate) fn share(workers: u32, gateways: usize) -> u32 {
    (workers / u32::try_from(gateways).unwrap_or(1).max(1)).max(1)
}

/// A request of a call.
pub(crate) fn request(customer: usize, class: usize, number: usize) -> Request<Body> {
    let builder = Request::post(path_of(class));
    let builder = builder.header(CUSTOMER, customer_name(customer));
    let builder = builder.header(crate::pool::REQUEST, number.to_string());
    builder.body(Body::empty()).unwrap_or_default()
}

/// The state of a gate, by its name.
pub(crate) const fn state_of(gate: &crosspoint_gateway::gate::Snapshot) -> &'static str {
    gate.state.as_str()
}

/// What a gateway asks an autoscaler for, in calls at once.
pub(crate) fn demand_of(gateway: &Gateway) -> Option<f64> {
    gateway.demand(&target())
}
