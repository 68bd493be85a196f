//! The tower layer: direct while there is capacity, through the store when there is none.
//!
//! The layer registers nothing, because routers build it again for every connection; everything that lasts lives in the
//! [`Gateway`]. Its inner service cannot replay a stored request (path parameters and extensions are gone by then), so
//! replays go through the whole router that was given to [`Gateway::serve_queued`] and pass through here by a mark.

mod admitted;
mod attempt;
mod boxed;
mod divert;
mod glance;
mod path;
mod record;
mod service;

use admitted::Admitted;
pub use admitted::PermitUntil;
pub use attempt::Attempt;
pub use boxed::{Boxed, BoxedDispatchLayer};
pub use service::Dispatch;

use crate::{
    Eligible, Gateway, Limit, OnDisconnect, Policy,
    callback::Contents,
    gate::{Gate, RouteClass},
    target::Target,
};
use crosspoint_core::{CustomerId, TargetId};
use glance::Glance;
use http::{HeaderName, Request, request::Parts};
use path::PathPattern;
use std::{fmt, sync::Arc, time::Duration};
use tower_layer::Layer;

/// How often a client is sent on at most.
pub(crate) const MOST_REDIRECTS: u8 = 16;

type CustomerOf = Arc<dyn Fn(&Parts) -> Option<CustomerId> + Send + Sync>;
type PrincipalOf = Arc<dyn Fn(&Parts) -> Option<Arc<str>> + Send + Sync>;

/// Where an `Idempotency-Key` is honoured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Keys {
    /// By the target. The gateway attaches a repeat to a call that was stored with the same key: one that was diverted. A
    /// direct call is not recorded, and if it outlives the hold it is adopted without its key, because its body has gone
    /// to the service and nobody can say any more whether a repeat is the same request. The target itself has to
    /// recognise repeats of those. ([`Gateway::call`] has the whole request and adopts it with its key.)
    #[default]
    Target,
    /// By the gateway: a call with a key is recorded before it is tried, at the price of a commit on the direct way. If the
    /// store does not acknowledge within [`Config::enqueue_timeout`](crate::Config::enqueue_timeout) the client gets 503.
    Gateway,
}

/// What the layer knows about its route.
#[derive(Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an independent choice for the route"
)]
pub(crate) struct Route {
    gateway: Gateway,
    target: Arc<Target>,
    /// The target's, one step nearer.
    gate: Arc<Gate>,
    class: RouteClass,
    path: Option<PathPattern>,
    customer: Option<CustomerOf>,
    principal: Option<PrincipalOf>,
    hold: Option<Duration>,
    max_body: usize,
    repeatable: Option<bool>,
    eligible: Eligible,
    on_disconnect: OnDisconnect,
    honours_keys: bool,
    again_on_5xx: Option<bool>,
    keys: Keys,
    adopt: bool,
    permit_until: PermitUntil,
    patience: Option<Duration>,
    recorded: bool,
    /// What callbacks contain where they are allowed.
    callbacks: Option<Contents>,
    require_key: bool,
    redirects: u8,
    never_store: Arc<[HeaderName]>,
}

impl Route {
    /// How long a call waits in memory for a permit before it is diverted.
    pub(super) fn patience(&self) -> Duration {
        self.patience.unwrap_or_else(|| self.target.patience())
    }

    /// Whether there is more to be done for a call than to admit it.
    #[inline]
    fn looks_closer(&self) -> bool {
        self.require_key || self.callbacks.is_some() || self.recorded || self.keys == Keys::Gateway
    }

    /// What has to be known of a request before it is admitted. What cannot be stored has nothing to prefer.
    #[inline]
    fn glance<B>(&self, request: &Request<B>) -> Glance {
        if self.customer.is_some() {
            Glance::at(request.headers())
        } else {
            Glance::default()
        }
    }

    /// Whether a direct call may be stored as started.
    #[inline]
    const fn may_adopt(&self) -> bool {
        self.adopt && self.customer.is_some()
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("target", &self.target.id)
            .field("path", &self.path)
            .field("hold", &self.hold)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// Protects a route (or a whole router) with a target's gate; made by [`Gateway::layer`].
///
/// A request for which [`customer`](Self::customer) names nobody is never stored: without a permit it is answered 503.
/// Neither is one whose body does not fit, or that wants to upgrade the connection.
///
/// ```
/// use axum::{Router, routing::post};
/// use crosspoint_core::{CustomerId, Memory, SystemClock, TargetId};
/// use crosspoint_gateway::{Config, Gateway};
/// use std::{sync::Arc, time::Duration};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> crosspoint_core::Result<()> {
/// let gateway = Gateway::new(Arc::new(Memory::new()), Arc::new(SystemClock::new()), Config::default());
/// let app: Router = Router::new().route("/v1/scan", post(|| async { "clean" })).layer(
///     gateway
///         .layer(TargetId::new("scan")?)
///         .path("/v1/scan")
///         .permits(16)
///         .hold(Duration::from_secs(10))
///         .customer(|parts| CustomerId::new(parts.headers.get("x-customer")?.to_str().ok()?).ok()),
/// );
/// gateway.serve_queued(TargetId::new("scan")?, app.clone())?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a layer does nothing until it is put on a router or a service"]
pub struct DispatchLayer {
    route: Arc<Route>,
}

impl Gateway {
    /// A layer that dispatches to `target`. Several layers may share one target, and with it one gate.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "an id is made for the call: `layer(TargetId::new(..)?)`"
    )]
    pub fn layer(&self, target: TargetId) -> DispatchLayer {
        let target = self.inner.target(&target);
        target.mark_layered();
        self.start_control(&target);
        DispatchLayer {
            route: Arc::new(Route {
                gateway: self.clone(),
                gate: Arc::clone(&target.gate),
                class: RouteClass::default(),
                target,
                path: None,
                customer: None,
                principal: None,
                hold: None,
                max_body: 256 * 1024,
                repeatable: None,
                eligible: Eligible::default(),
                on_disconnect: OnDisconnect::default(),
                honours_keys: false,
                again_on_5xx: None,
                keys: Keys::Target,
                adopt: true,
                permit_until: PermitUntil::Head,
                patience: None,
                recorded: false,
                callbacks: None,
                require_key: false,
                redirects: 0,
                never_store: Arc::default(),
            }),
        }
    }
}

impl DispatchLayer {
    fn set(mut self, change: impl FnOnce(&mut Route)) -> Self {
        change(Arc::make_mut(&mut self.route));
        self
    }

    /// Looks after requests with this path only, written as in axum (`/v1/orders/{id}`); all others pass untouched.
    /// The path is the one that the client sent, also within nested routers.
    pub fn path(self, pattern: &str) -> Self {
        self.set(|route| {
            route.path = Some(PathPattern::new(pattern));
            route.class = route.gate.class(pattern);
        })
    }

    /// Says whose request it is. Only requests of a known customer are ever stored.
    pub fn customer(self, of: impl Fn(&Parts) -> Option<CustomerId> + Send + Sync + 'static) -> Self {
        self.set(|route| route.customer = Some(Arc::new(of)))
    }

    /// Says which user sent it; a stored reply is then shown to nobody else. Default: to every user of the customer.
    pub fn principal(self, of: impl Fn(&Parts) -> Option<Arc<str>> + Send + Sync + 'static) -> Self {
        self.set(|route| route.principal = Some(Arc::new(of)))
    }

    /// How long a client is kept waiting at most. Default: [`Config::hold`](crate::Config::hold).
    pub fn hold(self, hold: Duration) -> Self {
        self.set(|route| route.hold = Some(hold))
    }

    /// The largest body that is stored, in bytes. Direct calls are not limited. Default 256 KiB.
    pub fn max_body(self, bytes: usize) -> Self {
        self.set(|route| route.max_body = bytes)
    }

    /// Whether a call may be made again when nobody knows how it ended. Default: if its method is idempotent.
    pub fn repeatable(self, repeatable: bool) -> Self {
        self.set(|route| route.repeatable = Some(repeatable))
    }

    /// Which requests may be stored. Default: all that can be replayed.
    pub fn eligible(self, eligible: Eligible) -> Self {
        self.set(|route| route.eligible = eligible)
    }

    /// Whether the service itself recognises a repeated `Idempotency-Key`, so that calls with a key may be made again when
    /// nobody knows how they ended. Default false.
    pub fn honours_keys(self, honours: bool) -> Self {
        self.set(|route| route.honours_keys = honours)
    }

    /// What becomes of a held call whose client leaves before it has begun. Default: it is cancelled.
    pub fn on_disconnect(self, then: OnDisconnect) -> Self {
        self.set(|route| route.on_disconnect = then)
    }

    /// Whether queued calls that the service has carried out and answered with 5xx are made again: at most one for ten
    /// calls of the target (and one a second), and as often as the target's retry policy says. It holds for the calls of this
    /// layer's [`path`](Self::path) in this process from the moment that the layer is put on a service; layers of one
    /// target that have the same path, or none, share the last setting. A process that only works the queue off has to
    /// put the layer on a service as well. Default false: such an answer is the answer.
    pub fn retry_on_5xx(self, again: bool) -> Self {
        self.set(|route| route.again_on_5xx = Some(again))
    }

    /// Where an `Idempotency-Key` is honoured. Default: by the target.
    pub fn keys(self, keys: Keys) -> Self {
        self.set(|route| route.keys = keys)
    }

    /// Whether a direct attempt that outlives the hold is stored and answered 202. Default true; without it the client
    /// stays connected as long as the attempt lasts.
    pub fn adopt(self, adopt: bool) -> Self {
        self.set(|route| route.adopt = adopt)
    }

    /// Until when a direct call keeps its permit. Default: until the head of the response.
    pub fn permit_until(self, until: PermitUntil) -> Self {
        self.set(|route| route.permit_until = until)
    }

    /// How long a call waits in memory for a permit before it is stored. No more calls wait than the target has permits,
    /// and none while stored calls wait for a permit; never longer than the hold. Default: [`Policy::patience`].
    pub fn patience(self, patience: Duration) -> Self {
        self.set(|route| route.patience = Some(patience))
    }

    /// Whether every call that can be stored is recorded before it is tried, for one commit: what [`Keys::Gateway`] does for
    /// calls with a key. Needed where the handler answers [`later`](crate::later). Default false.
    pub fn recorded(self, recorded: bool) -> Self {
        self.set(|route| route.recorded = recorded)
    }

    /// Lets clients ask to be told when a call that was answered 202 has ended, by the header
    /// `Crosspoint-Callback: https://..`, and says what they are told. Needs [`Gateway::serve_callbacks`]; see
    /// [`callback`](crate::callback). Default: the header means nothing.
    pub fn callbacks(self, contents: Contents) -> Self {
        self.set(|route| route.callbacks = Some(contents))
    }

    /// Whether a call needs an `Idempotency-Key`; without one it is answered 400. Safe methods (GET, HEAD, OPTIONS, TRACE)
    /// never need one. Default false.
    pub fn require_key(self, required: bool) -> Self {
        self.set(|route| route.require_key = required)
    }

    /// For clients that know nothing of 202: when the hold has passed they are sent by `303` to a URL that keeps them
    /// waiting for as long again, and from there onwards up to `times` times (at most 16), until the answer is there. Most
    /// clients give up after 10 to 20 redirects. After the last one they get the status. Default 0: `202` after the hold.
    pub fn redirects(self, times: u8) -> Self {
        self.set(|route| route.redirects = times.min(MOST_REDIRECTS))
    }

    /// How many calls of the target run at once in this process, always, over all of its layers; the last setting
    /// counts. Default: learnt, as in [`Policy`].
    pub fn permits(self, permits: u32) -> Self {
        let policy = Policy::clone(&self.route.target.control.policy());
        self.policy(policy.limit(Limit::Fixed(permits)))
    }

    /// How the target is protected, over all of its layers; the last setting counts. See [`Policy::validate`] for
    /// what makes no sense: it is taken as near as possible.
    pub fn policy(self, policy: Policy) -> Self {
        self.route.target.set_policy(policy);
        self
    }

    /// Headers of this route's requests that carry secrets of its own: a request is queued, and replayed, without them.
    /// Never kept are `Authorization`, `Cookie`, `Proxy-Authorization`, `X-Api-Key`, `Api-Key`, `X-Auth-Token`,
    /// `X-Access-Token`, `X-Csrf-Token`, and values that are marked as sensitive. Each call replaces the list; default: none.
    pub fn never_store(self, headers: &[HeaderName]) -> Self {
        self.set(|route| route.never_store = headers.into())
    }
}

impl<S> Layer<S> for DispatchLayer {
    type Service = Dispatch<S>;

    fn layer(&self, inner: S) -> Dispatch<S> {
        if let Some(again) = self.route.again_on_5xx {
            let path = self.route.path.as_ref();
            let class = path.map_or("", |pattern| pattern.text());
            self.route.target.set_again_on_5xx(class, again);
        }
        Dispatch::new(inner, Arc::clone(&self.route))
    }
}

/// Marks a request that the drain replays, so that the layer of the same target lets it pass under the drain's permit.
#[derive(Debug, Clone)]
pub(crate) struct Passage(pub(crate) Arc<Gate>);

impl Passage {
    fn is_through(&self, gate: &Arc<Gate>) -> bool {
        Arc::ptr_eq(&self.0, gate)
    }
}
