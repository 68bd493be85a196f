//! The pool as a service and as a handler.

use super::{
    RemoteConfig,
    context::Context,
    forward::{Http, Unanswered, forward, is_upgrade, is_well, refuse_upgrade},
    metric,
    pool::Pool,
    replica::ReplicaState,
};
use crate::{
    Replayed,
    outcome::{Kept, unanswered, undelivered},
    replay::{Sent, WITHOUT_REQUEST, collect},
};
use async_trait::async_trait;
use axum::body::Body;
use axum::extract::OriginalUri;
use crosspoint_core::{
    Code, CustomerId, Error, Handler, Invocation, InvocationId, Reply, Result, Retry, RunKey, SystemClock, TargetId,
};
use http::{Request, Response, Uri, request::Parts};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context as Task, Poll},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tower_service::Service;

type CustomerOf = Arc<dyn Fn(&Parts) -> Option<CustomerId> + Send + Sync>;
type PrincipalOf = Arc<dyn Fn(&Parts) -> Option<Arc<str>> + Send + Sync>;

/// How often gauges are brought up to date.
const PERIOD: Duration = Duration::from_secs(1);

/// A pool of remote replicas as one service. Cheap to clone; all clones are one pool.
///
/// Each call goes to the replica with the least calls in flight for its share. It is sent to another one once, and only
/// if it is known that the first has not started it. Bodies stream through in both directions. A call that no replica
/// has answered becomes a problem response that carries the request back as
/// [`Returned`](crate::outcome::Returned), so that a [`DispatchLayer`](crate::DispatchLayer) above can queue it.
///
/// Requests that ask for another protocol (`Upgrade`, `CONNECT`) are answered 501. Headers of the connection are
/// removed; `Host`, `Forwarded` and `traceparent` pass as they came. Whatever a client sends under `crosspoint-*` is
/// removed as well: those headers tell the replica's [`Gateway::serve`](crate::Gateway::serve) the call's id, attempt,
/// customer, principal and the time left.
///
/// ```
/// use axum::Router;
/// use crosspoint_core::{CustomerId, TargetId};
/// use crosspoint_gateway::remote::{HttpTarget, RemoteConfig};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> crosspoint_core::Result<()> {
/// let pods = HttpTarget::new(TargetId::new("scan")?, RemoteConfig::default())?
///     .customer(|parts| CustomerId::new(parts.headers.get("x-customer")?.to_str().ok()?).ok());
/// pods.set_replicas(&["http://10.0.0.1:8080".parse().unwrap(), "http://10.0.0.2:8080".parse().unwrap()])?;
/// let app: Router = Router::new().fallback_service(pods.clone());
/// assert_eq!(pods.replicas().len(), 2);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct HttpTarget {
    pool: Arc<Pool>,
    http: Http,
    customer: Option<CustomerOf>,
    principal: Option<PrincipalOf>,
}

/// One replica of an [`HttpTarget`] at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicaStatus {
    /// Its address.
    pub base: Uri,
    /// Whether it gets calls.
    pub state: ReplicaState,
    /// How many of ours it works on.
    pub in_flight: u32,
}

impl HttpTarget {
    /// A pool without replicas; `target` names it in metrics. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] outside a runtime, and for settings that make no sense ([`RemoteConfig::validate`]).
    pub fn new(target: TargetId, config: RemoteConfig) -> Result<Self> {
        config.validate()?;
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::new(
                Code::SetupInvalid,
                "a pool of replicas is made within a tokio runtime",
            ));
        }
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(config.connect));
        connector.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(config.idle)
            .build(connector);
        metric::describe();
        let pool = Arc::new(Pool::new(target, config));
        if pool.config.check.is_some() {
            tokio::spawn(check_always(Arc::downgrade(&pool), http.clone()));
        }
        tokio::spawn(publish_always(Arc::downgrade(&pool)));
        Ok(Self {
            pool,
            http,
            customer: None,
            principal: None,
        })
    }

    /// Says whose request a direct call is, for the replica. Queued calls know it by themselves.
    #[must_use]
    pub fn customer(mut self, of: impl Fn(&Parts) -> Option<CustomerId> + Send + Sync + 'static) -> Self {
        self.customer = Some(Arc::new(of));
        self
    }

    /// Says which user sent a direct call.
    #[must_use]
    pub fn principal(mut self, of: impl Fn(&Parts) -> Option<Arc<str>> + Send + Sync + 'static) -> Self {
        self.principal = Some(Arc::new(of));
        self
    }

    /// Replaces the replicas: `http://host:port`, with a path if theirs begin below one. Those that stay keep their
    /// record, those that are new start slowly, and calls at those that go are finished.
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] if one is no such address; nothing is changed then.
    pub fn set_replicas(&self, bases: &[Uri]) -> Result<()> {
        self.pool.set(bases)
    }

    /// How the replicas stand.
    #[must_use]
    pub fn replicas(&self) -> Vec<ReplicaStatus> {
        let now = Instant::now();
        let status = |replica: &Arc<super::replica::Replica>| ReplicaStatus {
            base: replica.base.clone(),
            state: replica.state(now),
            in_flight: replica.in_flight(),
        };
        self.pool.replicas().iter().map(status).collect()
    }

    /// How many replicas get calls now. With none, calls end at once as not started.
    #[must_use]
    pub fn serving(&self) -> usize {
        self.pool.count(ReplicaState::Serving)
    }

    fn context(&self, parts: &Parts) -> Context {
        if let Some(replayed) = parts.extensions.get::<Replayed>() {
            return Context::of_replay(replayed);
        }
        let id = match parts.extensions.get::<Sent>() {
            Some(Sent(id)) => *id,
            None => InvocationId::mint(&SystemClock::new()),
        };
        Context {
            id: Some(id),
            attempt: Some(1),
            run_key: Some(RunKey::from_uuid(*id.as_uuid())),
            customer: self.customer.as_ref().and_then(|of| of(parts)),
            principal: self.principal.as_ref().and_then(|of| of(parts)),
            ..Context::default()
        }
    }

    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        if is_upgrade(&parts) {
            return refuse_upgrade();
        }
        let context = self.context(&parts);
        let id = context.id;
        let kept = Kept::new(body, self.pool.config.keep);
        // The replica sees the path that the client has sent, also where this service is nested in a router.
        let seen = parts.uri.clone();
        if let Some(OriginalUri(uri)) = parts.extensions.get() {
            parts.uri = uri.clone();
        }
        let answer = forward(&self.pool, &self.http, &parts, &kept, context).await;
        answer.unwrap_or_else(|lost| {
            self.note(&lost);
            parts.uri = seen;
            // Should it come again, it is the same call.
            if let Some(id) = id {
                parts.extensions.insert(Sent(id));
            }
            unanswered(lost.outcome, parts, &kept)
        })
    }

    fn note(&self, lost: &Unanswered) {
        tracing::info!(target = %self.pool.target, outcome = ?lost.outcome, why = lost.why, "a call was not answered");
    }
}

impl Service<Request<Body>> for HttpTarget {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.clone().answer(request);
        Box::pin(async move { Ok(answer.await) })
    }
}

/// For [`Gateway::register`](crate::Gateway::register) and [`Gateway::call`](crate::Gateway::call): the same pool without
/// a router in front. What was not started is to be tried again; what nobody knows ends as
/// [`Code::OutcomeUnknown`].
#[async_trait]
impl Handler for HttpTarget {
    async fn handle(&self, invocation: Invocation) -> Result<Reply> {
        let Invocation { meta, request, .. } = invocation;
        if request.headers().contains_key(WITHOUT_REQUEST) {
            let message = "the call was adopted while it ran, and its request was not kept";
            return Err(Error::new(Code::OutcomeUnknown, message).with_retry(Retry::Never));
        }
        let (parts, body) = request.into_parts();
        let most = body.len();
        let kept = Kept::new(Body::from(body), most);
        let answer = forward(&self.pool, &self.http, &parts, &kept, Context::of_meta(&meta)).await;
        match answer {
            Ok(response) => collect(response, self.pool.config.max_reply, &meta.target).await,
            Err(lost) => Err(undelivered(lost.outcome, &meta.target, lost.why)),
        }
    }
}

impl fmt::Debug for HttpTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTarget")
            .field("target", &self.pool.target)
            .field("replicas", &self.replicas())
            .finish_non_exhaustive()
    }
}

/// Keeps one checking task for each replica, until the pool is gone.
async fn check_always(pool: Weak<Pool>, http: Http) {
    let mut tasks: HashMap<Uri, tokio::task::JoinHandle<()>> = HashMap::new();
    loop {
        let Some(alive) = pool.upgrade() else { break };
        let replicas = alive.replicas();
        tasks.retain(|base, task| {
            let stays = replicas.iter().any(|replica| replica.base == *base);
            if !stays {
                task.abort();
            }
            // One that has ended looked after a replica that went and has come back since.
            stays && !task.is_finished()
        });
        for replica in replicas.iter() {
            tasks.entry(replica.base.clone()).or_insert_with(|| {
                let (pool, replica, http) = (pool.clone(), Arc::downgrade(replica), http.clone());
                tokio::spawn(check(pool, replica, http))
            });
        }
        drop(replicas);
        tokio::select! {
            () = alive.set.notified() => {}
            () = sleep(PERIOD) => {}
        }
    }
    tasks.into_values().for_each(|task| task.abort());
}

async fn check(pool: Weak<Pool>, replica: Weak<super::replica::Replica>, http: Http) {
    loop {
        let (Some(pool), Some(replica)) = (pool.upgrade(), replica.upgrade()) else {
            return;
        };
        let Some(check) = pool.config.check.clone() else { return };
        let well = is_well(&http, &replica.base, &check.path, check.timeout).await;
        if let Some(verdict) = replica.checked(well) {
            tracing::info!(target = %pool.target, replica = %replica.base, well = verdict, "a replica's health has changed");
            pool.publish();
        }
        drop((pool, replica));
        sleep(check.interval).await;
    }
}

async fn publish_always(pool: Weak<Pool>) {
    while let Some(alive) = pool.upgrade() {
        alive.publish();
        drop(alive);
        sleep(PERIOD).await;
    }
}
