//! Bodies that are large, slow or broken.

use super::replica::{ALWAYS, Counted, Replica, call, pool, post, returned};
use axum::{Router, body::Body};
use bytes::Bytes;
use crosspoint_gateway::outcome::Outcome;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
    time::{Instant, timeout},
};

const CHUNK: usize = 64 * 1024;
const CHUNKS: usize = 640;
const SOON: Duration = Duration::from_secs(30);

/// 40 MiB that count how much of them was taken.
fn large(taken: Arc<AtomicUsize>) -> Body {
    Body::from_stream(stream::iter(0..CHUNKS).map_chunks(taken))
}

trait Chunks {
    fn map_chunks(self, taken: Arc<AtomicUsize>) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>>;
}

impl<S: futures_util::Stream<Item = usize>> Chunks for S {
    fn map_chunks(self, taken: Arc<AtomicUsize>) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> {
        futures_util::StreamExt::map(self, move |_| {
            taken.fetch_add(1, Ordering::Relaxed);
            Ok(Bytes::from_static(&[7; CHUNK]))
        })
    }
}

/// Waits until nothing more is taken.
async fn settled(taken: &AtomicUsize) -> usize {
    let mut before = usize::MAX;
    loop {
        let now = taken.load(Ordering::Relaxed);
        if now == before && now > 0 {
            return now;
        }
        before = now;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn large_bodies_stream_through_both_ways_and_wait_for_whoever_reads() {
    let (read, sent, received) = (
        Arc::new(Notify::new()),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let service = {
        let (read, sent) = (Arc::clone(&read), Arc::clone(&sent));
        move |body: Body| {
            let (read, sent) = (Arc::clone(&read), Arc::clone(&sent));
            async move {
                read.notified().await;
                let mut body = body;
                let mut bytes = 0;
                while let Some(frame) = body.frame().await {
                    bytes += frame.unwrap().into_data().unwrap().len();
                }
                assert_eq!(bytes, CHUNK * CHUNKS);
                large(sent)
            }
        }
    };
    let replica = Replica::start(Router::new().fallback(service));
    let pool = pool(&[replica.uri()], |_| {});
    let request = Request::post("/").body(large(Arc::clone(&received))).unwrap();
    let answer = tokio::spawn(async move { call(&pool, request).await });
    // What lies in the sockets' buffers is the kernel's, not ours; it is far less than the whole.
    let taken = timeout(SOON, settled(&received)).await.unwrap();
    assert!(
        taken < CHUNKS / 2,
        "nobody reads, and {taken} of {CHUNKS} chunks were taken from the client"
    );
    read.notify_one();
    let mut body = timeout(SOON, answer).await.unwrap().unwrap().into_body();
    assert_eq!(received.load(Ordering::Relaxed), CHUNKS);
    let taken = timeout(SOON, settled(&sent)).await.unwrap();
    assert!(
        taken < CHUNKS / 2,
        "nobody reads, and {taken} of {CHUNKS} chunks were taken from the replica"
    );
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(bytes, CHUNK * CHUNKS);
}

/// Answers every connection with `text`, a byte every ten milliseconds.
async fn dribbling(text: &'static str) -> http::Uri {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                drop(stream.read(&mut [0; 4096]).await);
                for byte in text.bytes().chain(std::iter::repeat(b'x')) {
                    if stream.write_all(&[byte]).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
        }
    });
    uri
}

#[tokio::test]
async fn a_head_that_dribbles_ends_at_its_limit() {
    let pool = pool(&[dribbling("HTTP/1.1 200 OK\r\nx-a: ").await], |config| {
        config.head = Duration::from_millis(300);
    });
    let began = Instant::now();
    let answer = timeout(SOON, call(&pool, post("kept"))).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(returned(&answer).await, Some((Outcome::Unknown, "kept".to_owned())));
    assert_eq!(pool.replicas()[0].in_flight, 0);
}

#[tokio::test]
async fn a_body_that_dribbles_ends_at_the_limit_of_the_whole_call() {
    let slow = dribbling("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await;
    let pool = pool(&[slow], |config| config.call = Duration::from_secs(2));
    let answer = timeout(SOON, call(&pool, post("a"))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{:?}", returned(&answer).await);
    assert_eq!(pool.replicas()[0].in_flight, 1, "until the last byte");
    let broken: Result<_, _> = timeout(SOON, answer.into_body().collect()).await.unwrap();
    assert!(broken.unwrap_err().to_string().contains("longer than it may"));
    assert_eq!(pool.replicas()[0].in_flight, 0);
}

#[tokio::test]
async fn a_client_that_breaks_off_is_not_the_replicas_fault() {
    let service = Counted::new(ALWAYS);
    let replica = Replica::start(service.router());
    let pool = pool(&[replica.uri()], |config| config.eject_after = 1);
    let frames: Vec<Result<Bytes, std::io::Error>> = vec![
        Ok(Bytes::from_static(b"half")),
        Err(std::io::ErrorKind::UnexpectedEof.into()),
    ];
    let request = Request::post("/")
        .body(Body::from_stream(stream::iter(frames)))
        .unwrap();
    let answer: Response<Body> = call(&pool, request).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert!(returned(&answer).await.is_none());
    assert_eq!((service.count(), pool.serving()), (0, 1));
}
