//! Real servers on the loopback interface, each on a runtime of its own so that it can die with everything it does.

use axum::{Router, body::Body};
use crosspoint_core::TargetId;
use crosspoint_gateway::{
    HttpTarget,
    outcome::{Outcome, Returned},
    remote::RemoteConfig,
};
use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{Semaphore, watch},
};
use tower::ServiceExt;

pub(super) struct Replica {
    runtime: Option<Runtime>,
    address: SocketAddr,
}

impl Replica {
    pub(super) fn start(app: Router) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), |_| app)
    }

    /// The router is made on the replica's own runtime.
    pub(super) fn at(address: SocketAddr, app: impl FnOnce(SocketAddr) -> Router) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        // As tokio does: a port that was in use a moment ago may be taken again.
        let listener = {
            let _guard = runtime.enter();
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(address).unwrap();
            socket.listen(1024).unwrap()
        };
        let address = listener.local_addr().unwrap();
        let app = {
            let _guard = runtime.enter();
            app(address)
        };
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self {
            runtime: Some(runtime),
            address,
        }
    }

    pub(super) fn uri(&self) -> Uri {
        format!("http://{}", self.address).parse().unwrap()
    }

    /// Ends it with all of its connections; answers where it was.
    pub(super) fn kill(mut self) -> SocketAddr {
        let runtime = self.runtime.take().unwrap();
        // Its port is free when this is done, which has to be waited for outside of any runtime.
        let ending = std::thread::spawn(move || runtime.shutdown_timeout(std::time::Duration::from_secs(10)));
        ending.join().unwrap();
        self.address
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// An address at which nobody listens.
pub(super) fn dead() -> Uri {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap()).parse().unwrap()
}

/// A service that counts its calls and finishes one for each permit in `go`.
#[derive(Debug, Clone)]
pub(super) struct Counted {
    pub(super) begun: Arc<watch::Sender<usize>>,
    pub(super) go: Arc<Semaphore>,
}

impl Counted {
    /// Free to answer this many calls.
    pub(super) fn new(free: usize) -> Self {
        Self {
            begun: Arc::new(watch::Sender::new(0)),
            go: Arc::new(Semaphore::new(free)),
        }
    }

    pub(super) async fn begun(&self, count: usize) {
        self.begun.subscribe().wait_for(|begun| *begun >= count).await.unwrap();
    }

    pub(super) fn count(&self) -> usize {
        *self.begun.borrow()
    }

    pub(super) async fn one(&self) {
        self.begun.send_modify(|begun| *begun += 1);
        self.go.acquire().await.unwrap().forget();
    }

    /// Answers with the body of the request.
    pub(super) fn router(&self) -> Router {
        let counted = self.clone();
        Router::new().fallback(move |body: axum::body::Bytes| async move {
            counted.one().await;
            body
        })
    }
}

/// Free to answer whatever comes.
pub(super) const ALWAYS: usize = 1_000_000;

pub(super) fn pool(replicas: &[Uri], configure: impl FnOnce(&mut RemoteConfig)) -> HttpTarget {
    let mut config = RemoteConfig::default();
    configure(&mut config);
    let pool = HttpTarget::new(TargetId::new("scan").unwrap(), config).unwrap();
    pool.set_replicas(replicas).unwrap();
    pool
}

pub(super) fn post(body: &'static str) -> Request<Body> {
    Request::post("/v1/scan?x=1").body(Body::from(body)).unwrap()
}

pub(super) async fn call(pool: &HttpTarget, request: Request<Body>) -> Response<Body> {
    pool.clone().oneshot(request).await.unwrap()
}

pub(super) async fn text(response: Response<Body>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// The outcome of a call that was not answered, and the body that came back.
pub(super) fn returned(response: &Response<Body>) -> impl Future<Output = Option<(Outcome, String)>> + Send + use<> {
    let returned = response.extensions().get::<Returned>().cloned();
    async move {
        let returned = returned?;
        let body = returned.take()?.into_body().collect().await.unwrap().to_bytes();
        Some((returned.outcome(), String::from_utf8(body.to_vec()).unwrap()))
    }
}
