//! Clients as they are: bodies too large, cut off or slow, and connections that close at every stage. Over real TCP, with the
//! server that axum has, on the real clock.

use crate::site::{Site, from_ann};
use crosspoint_core::{CallState, TargetStats};
use crosspoint_gateway::Keys;
use crosspoint_testkit::{Method, When};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Long enough for anything that is meant to happen on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// How the site looks now.
#[derive(Debug)]
struct Look {
    stats: TargetStats,
    in_flight: u32,
    /// Whether the fault that was ordered has not happened yet.
    fault: bool,
}

struct Server {
    site: Site,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Server {
    async fn over(site: Site) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = site.app.clone();
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { site, address, serving }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends this text and leaves the connection open.
    async fn say(&self, text: &str) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// Takes the one permit.
    async fn busy(&self) -> TcpStream {
        let stream = self.say(&request("POST", 1, "", "")).await;
        let before = self.site.scanner.count();
        self.begun(before.max(1)).await;
        stream
    }

    async fn begun(&self, count: usize) {
        tokio::time::timeout(PATIENCE, self.site.scanner.begun(count))
            .await
            .unwrap();
    }

    /// Waits until it looks as wanted; real sockets give no event for what the server has noticed.
    async fn until(&self, what: &str, wanted: fn(&Look) -> bool) {
        let wait = async {
            while !wanted(&self.look().await) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("never: {what}; {:?}", self.look().await);
        }
    }

    async fn look(&self) -> Look {
        Look {
            stats: self.site.stats().await,
            in_flight: self.site.gate().in_flight,
            fault: self.site.faults.pending(),
        }
    }

    async fn idle(&self) {
        self.until("all permits are free", |look| look.in_flight == 0).await;
    }
}

fn head(method: &str, id: u32, headers: &str, length: usize) -> String {
    format!(
        "{method} /v1/scan/{id} HTTP/1.1\r\nhost: x\r\nx-customer: acme\r\nx-user: ann\r\ncontent-length: {length}\r\n{headers}\r\n"
    )
}

fn request(method: &str, id: u32, headers: &str, body: &str) -> String {
    format!("{}{body}", head(method, id, headers, body.len()))
}

/// The answer's status and everything else.
async fn answer(mut stream: TcpStream) -> (u16, String) {
    let mut text = Vec::new();
    let mut chunk = [0; 512];
    let complete = |text: &[u8]| {
        let text = String::from_utf8_lossy(text).to_ascii_lowercase();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head
            .split_once("content-length: ")?
            .1
            .lines()
            .next()?
            .parse::<usize>()
            .ok()?;
        (body.len() >= length).then_some(())
    };
    while complete(&text).is_none() {
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut chunk))
            .await
            .unwrap()
            .unwrap();
        if read == 0 {
            break;
        }
        text.extend_from_slice(&chunk[..read]);
    }
    let text = String::from_utf8(text).unwrap();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_default(), text)
}

/// A site whose hold is short on the real clock.
fn short() -> Site {
    Site::configured(
        |layer| layer.max_body(1024),
        |config| config.hold = Duration::from_millis(300),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_too_large_to_be_stored_is_refused_and_the_connection_goes_on() {
    let server = Server::over(short()).await;
    let busy = server.busy().await;
    let large = "x".repeat(1025);
    let stated = answer(server.say(&request("POST", 2, "", &large)).await).await;
    assert_eq!(stated.0, 413, "{}", stated.1);
    assert!(
        stated.1.contains("body-too-large") && stated.1.contains("retry-after"),
        "{}",
        stated.1
    );
    // Without a stated length it is noticed while it is read.
    let chunked = format!(
        "POST /v1/scan/2 HTTP/1.1\r\nhost: x\r\nx-customer: acme\r\ntransfer-encoding: chunked\r\n\r\n401\r\n{large}\r\n0\r\n\r\n"
    );
    let chunked = answer(server.say(&chunked).await).await;
    assert_eq!(chunked.0, 413, "{}", chunked.1);
    assert_eq!(server.site.stats().await.ready, 0, "nothing was stored");
    let fits = answer(
        server
            .say(&request("POST", 2, "prefer: respond-async\r\n", &"x".repeat(1024)))
            .await,
    )
    .await;
    assert_eq!(fits.0, 202, "{}", fits.1);
    drop(busy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_cut_off_is_neither_stored_nor_run() {
    let server = Server::over(short()).await;
    let busy = server.busy().await;
    let mut cut = server
        .say(&format!("{}half", head("POST", 2, "prefer: respond-async\r\n", 1000)))
        .await;
    cut.shutdown().await.unwrap();
    let (status, text) = answer(cut).await;
    // hyper may close at once when it sees the end; if it answers, it is a problem.
    assert!(matches!(status, 0 | 400), "{text}");
    assert_eq!(server.site.stats().await.ready, 0);
    drop(busy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_body_holds_no_permit_while_it_is_read_for_the_queue() {
    let server = Server::over(short()).await;
    let busy = server.busy().await;
    let mut slow = server.say(&format!("{}ha", head("POST", 2, "", 4))).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.site.gate().in_flight, 1, "only the one that runs");
    slow.write_all(b"lf").await.unwrap();
    server.until("it is queued", |look| look.stats.ready == 1).await;
    server.site.scanner.finish(2);
    let (status, text) = answer(slow).await;
    assert_eq!(status, 201, "{text}");
    assert!(
        text.contains("2 half acme/ann/1") && text.contains("server-timing: queue;dur="),
        "{text}"
    );
    assert_eq!(answer(busy).await.0, 201);
    server.idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_before_or_during_its_body_leaves_nothing_behind() {
    for keys in [Keys::Target, Keys::Gateway] {
        let site = Site::with(|layer| layer.keys(keys));
        let server = Server::over(site).await;
        // With a permit: the handler, or the record, waits for the body.
        drop(server.say(&head("POST", 1, "idempotency-key: k\r\n", 4)).await);
        drop(
            server
                .say(&format!("{}ha", head("POST", 1, "idempotency-key: l\r\n", 4)))
                .await,
        );
        server.idle().await;
        assert_eq!(server.site.scanner.count(), 0);
        // Without one: the queue does.
        let busy = server.busy().await;
        drop(server.say(&head("POST", 2, "", 4)).await);
        drop(server.say(&format!("{}ha", head("POST", 2, "", 4))).await);
        server.site.scanner.finish(1);
        assert_eq!(answer(busy).await.0, 201);
        server.idle().await;
        let stats = server.site.stats().await;
        assert_eq!((stats.ready, stats.leased, stats.dead), (0, 0, 0), "{keys:?}");
        assert_eq!(server.site.scanner.count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_call_ends_with_its_client() {
    let server = Server::over(Site::new()).await;
    drop(server.busy().await);
    server.idle().await;
    assert_eq!(server.site.stats().await.leased, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_while_it_is_held_keeps_its_permit_from_nobody() {
    let server = Server::over(Site::new()).await;
    let busy = server.busy().await;
    let held = server.say(&request("POST", 2, "", "x")).await;
    server.until("it is queued", |look| look.stats.ready == 1).await;
    drop(held);
    server.site.scanner.finish(2);
    assert_eq!(answer(busy).await.0, 201);
    // Whether work of a client that left is still done is for the queue to decide; in the end nothing is left of it.
    server
        .until("nothing waits or runs", |look| {
            look.stats.ready + look.stats.leased == 0
        })
        .await;
    server.idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_while_its_call_is_stored_takes_no_lease_along() {
    let site = Site::with(|layer| layer.keys(Keys::Gateway));
    let server = Server::over(site).await;
    // The record was written, and the gateway does not learn that.
    server.site.faults.fail(Method::Enqueue, 1, When::After);
    let stream = server.say(&request("POST", 1, "idempotency-key: k\r\n", "x")).await;
    server.until("it was tried", |look| !look.fault).await;
    drop(stream);
    server.idle().await;
    // The client leaves at some moment while its call is stored or begun.
    drop(server.say(&request("POST", 2, "idempotency-key: l\r\n", "x")).await);
    server.site.scanner.finish(1);
    server.idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adopted_call_does_not_need_its_client_any_more() {
    let server = Server::over(short()).await;
    let stream = server.busy().await;
    // It is adopted after the hold; the client leaves at the same time.
    server.until("it is adopted", |look| look.stats.leased == 1).await;
    drop(stream);
    server.site.scanner.finish(1);
    server.until("it has ended", |look| look.stats.leased == 0).await;
    server.idle().await;
    assert_eq!(server.site.scanner.count(), 1);

    let accepted = answer(server.say(&request("POST", 2, "", "y")).await).await;
    assert_eq!(accepted.0, 202, "{}", accepted.1);
    let id = accepted
        .1
        .split("location: /requests/")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap();
    server.site.scanner.finish(1);
    server.until("it has ended", |look| look.stats.leased == 0).await;
    assert_eq!(server.site.status(id).await.state, CallState::Completed);
    let get = from_ann("GET", &format!("/requests/{id}/response"));
    let stored = server.site.call(get.body(axum::body::Body::empty()).unwrap()).await;
    assert_eq!((stored.status, stored.body.as_str()), (201, "2 y direct"));
}
