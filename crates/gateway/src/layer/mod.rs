//! The tower layer: direct while there is capacity, through the store when there is none.
//!
//! The layer registers nothing, because routers build it again for every connection; everything that lasts lives in the
//! [`Gateway`]. Its inner service cannot replay a stored request (path parameters and extensions are gone by then), so
//! replays go through the whole router that was given to [`Gateway::serve_queued`] and pass through here by a mark.

mod attempt;
mod divert;
mod path;
mod patience;
mod service;

pub use attempt::Attempt;
pub use service::Dispatch;

use crate::{
    Eligible, Gateway, Limit, OnDisconnect, Policy,
    gate::{Gate, Permit, Refusal, RouteClass, Ticket},
    outcome::Outcome,
    target::Target,
};
use crosspoint_core::{CustomerId, TargetId};
use http::request::Parts;
use path::PathPattern;
use std::{fmt, sync::Arc, time::Duration};
use tower_layer::Layer;

type CustomerOf = Arc<dyn Fn(&Parts) -> Option<CustomerId> + Send + Sync>;
type PrincipalOf = Arc<dyn Fn(&Parts) -> Option<Arc<str>> + Send + Sync>;

/// Where an `Idempotency-Key` is honoured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Keys {
    /// By the target. The gateway attaches a repeat to a stored call with the same key, but a direct call is not
    /// recorded: the target itself has to recognise a repeat of that.
    #[default]
    Target,
    /// By the gateway: a call with a key is recorded before it is tried, at the price of a commit on the direct way.
    Gateway,
}

/// What the layer knows about its route.
#[derive(Clone)]
pub(crate) struct Route {
    gateway: Gateway,
    target: Arc<Target>,
    /// The target's, one step nearer.
    gate: Arc<Gate>,
    path: Option<PathPattern>,
    customer: Option<CustomerOf>,
    principal: Option<PrincipalOf>,
    hold: Option<Duration>,
    max_body: usize,
    repeatable: Option<bool>,
    eligible: Eligible,
    on_disconnect: OnDisconnect,
    honours_keys: bool,
    keys: Keys,
    adopt: bool,
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
                keys: Keys::Target,
                adopt: true,
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
        self.set(|route| route.path = Some(PathPattern::new(pattern)))
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
    /// calls (and one a second), and as often as the target's retry policy says. Over all layers of the target; the last
    /// setting counts. Default false: such an answer is the answer.
    pub fn retry_on_5xx(self, again: bool) -> Self {
        self.route.target.set_again_on_5xx(again);
        self
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
}

impl<S> Layer<S> for DispatchLayer {
    type Service = Dispatch<S>;

    fn layer(&self, inner: S) -> Dispatch<S> {
        Dispatch::new(inner, Arc::clone(&self.route))
    }
}

/// A permit of the direct way: the route, which is needed anyway, keeps the gate alive, so that a call costs one
/// reference count instead of two.
pub(crate) struct Admitted {
    held: Option<(Arc<Route>, Ticket)>,
}

impl Admitted {
    #[inline]
    fn new(route: &Arc<Route>) -> Result<Self, Refusal> {
        let ticket = route.gate.admit(RouteClass::default(), || None)?;
        Ok(Self {
            held: Some((Arc::clone(route), ticket)),
        })
    }

    fn route(&self) -> Option<&Arc<Route>> {
        self.held.as_ref().map(|(route, _)| route)
    }

    /// The route, with a permit of its own.
    fn into_permit(mut self) -> Option<(Arc<Route>, Permit)> {
        let (route, ticket) = self.held.take()?;
        let permit = route.gate.permit(ticket);
        Some((route, permit))
    }
}

impl Drop for Admitted {
    #[inline]
    fn drop(&mut self) {
        if let Some((route, ticket)) = self.held.take() {
            route.gate.leave(ticket, Outcome::Cancelled);
        }
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
