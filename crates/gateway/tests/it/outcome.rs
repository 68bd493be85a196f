//! What real errors of real clients say about the call.

use axum::body::Body;
use bytes::Bytes;
use crosspoint_gateway::outcome::{Fallible, Outcome, Returned, classify};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use std::{convert::Infallible, error::Error, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

type BoxError = Box<dyn Error + Send + Sync>;

/// What a server does with each connection.
#[derive(Debug, Clone, Copy)]
enum Server {
    /// There is none.
    Dead,
    ClosesUnread,
    ClosesAfterRequest,
    HalfHead,
    HalfBody,
    Nonsense,
    Silent,
    Answers,
}

impl Server {
    async fn start(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/", listener.local_addr().unwrap());
        if !matches!(self, Self::Dead) {
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(self.talk(stream));
                }
            });
        }
        uri
    }

    async fn talk(self, mut stream: TcpStream) {
        let answer: &[u8] = match self {
            Self::Dead | Self::ClosesUnread => return,
            Self::ClosesAfterRequest | Self::Silent => b"",
            Self::HalfHead => b"HTTP/1.1 200 OK\r\ncontent-le",
            Self::HalfBody => b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
            Self::Nonsense => b"SSH-2.0-OpenSSH\r\n",
            Self::Answers => b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole",
        };
        let mut request = vec![0; 4096];
        drop(stream.read(&mut request).await);
        drop(stream.write_all(answer).await);
        if matches!(self, Self::Silent) {
            std::future::pending::<()>().await;
        }
    }
}

fn connector() -> HttpConnector {
    HttpConnector::new()
}

async fn by_hyper(connector: HttpConnector, uri: &str, body: Body) -> Result<Bytes, BoxError> {
    let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build(connector);
    let response = client.request(Request::post(uri).body(body)?).await?;
    Ok(response.into_body().collect().await?.to_bytes())
}

async fn by_reqwest(builder: reqwest::ClientBuilder, uri: &str) -> Result<Bytes, BoxError> {
    let client = builder.no_proxy().build()?;
    Ok(client.post(uri).body("x").send().await?.bytes().await?)
}

#[tokio::test]
async fn the_errors_of_http_clients_are_understood() {
    let table = [
        (Server::Dead, Outcome::NotStarted),
        (Server::ClosesAfterRequest, Outcome::Unknown),
        (Server::HalfHead, Outcome::Unknown),
        (Server::HalfBody, Outcome::Unknown),
        (Server::Nonsense, Outcome::Unknown),
    ];
    for (server, wanted) in table {
        let uri = server.start().await;
        let error = by_hyper(connector(), &uri, Body::from("x")).await.unwrap_err();
        assert_eq!(classify(&*error), wanted, "hyper, {server:?}: {error:?}");
        let error = by_reqwest(reqwest::Client::builder(), &uri).await.unwrap_err();
        assert_eq!(classify(&*error), wanted, "reqwest, {server:?}: {error:?}");
    }
    // Whether a byte was written before the end was noticed is a race, and both answers are true.
    let uri = Server::ClosesUnread.start().await;
    let error = by_hyper(connector(), &uri, Body::from("x")).await.unwrap_err();
    assert!(
        matches!(classify(&*error), Outcome::NotStarted | Outcome::Unknown),
        "{error:?}"
    );
    let uri = Server::Answers.start().await;
    assert_eq!(by_hyper(connector(), &uri, Body::from("x")).await.unwrap(), "whole");
    assert_eq!(by_reqwest(reqwest::Client::builder(), &uri).await.unwrap(), "whole");
}

#[tokio::test]
async fn a_timeout_says_not_started_only_while_connecting() {
    let uri = Server::Silent.start().await;
    let soon = Duration::from_millis(50);
    let error = by_reqwest(reqwest::Client::builder().timeout(soon), &uri)
        .await
        .unwrap_err();
    assert_eq!(classify(&*error), Outcome::Unknown, "{error:?}");
    let late = service_fn(|uri: String| async move { by_hyper(connector(), &uri, Body::from("x")).await });
    let late = ServiceBuilder::new().timeout(soon).service(late);
    let error = late.oneshot(uri.clone()).await.unwrap_err();
    assert_eq!(classify(&*error), Outcome::Unknown, "{error:?}");

    let (uri, _full) = nobody_accepts().await;
    let mut impatient = connector();
    impatient.set_connect_timeout(Some(soon));
    let error = by_hyper(impatient, &uri, Body::from("x")).await.unwrap_err();
    assert_eq!(classify(&*error), Outcome::NotStarted, "{error:?}");
    let error = by_reqwest(reqwest::Client::builder().connect_timeout(soon), &uri)
        .await
        .unwrap_err();
    assert_eq!(classify(&*error), Outcome::NotStarted, "{error:?}");
}

/// An address whose connections are never made, because as many wait as may.
async fn nobody_accepts() -> (String, impl Sized) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
    }
    (format!("http://{address}/"), (listener, waiting))
}

#[tokio::test]
async fn sockets_speak_for_themselves() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (other, _) = listener.accept().await.unwrap();
    drop((other, listener));
    let error = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(classify(&error), Outcome::Unknown, "by whom? {error:?}");
    let error = stream.read_exact(&mut [0]).await.unwrap_err();
    assert_eq!(classify(&error), Outcome::Unknown, "{error:?}");
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_has_not_carried_the_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    sender.ready().await.unwrap();
    drop(server);
    drop(connection.await.unwrap());
    let error = sender.send_request(Request::new(Body::empty())).await.unwrap_err();
    assert_eq!(classify(&error), Outcome::NotStarted, "{error:?}");
}

#[tokio::test]
async fn a_request_body_that_breaks_off_is_the_callers_own() {
    let uri = Server::Silent.start().await;
    let frames: Vec<Result<Bytes, std::io::Error>> = vec![
        Ok(Bytes::from_static(b"x")),
        Err(std::io::ErrorKind::UnexpectedEof.into()),
    ];
    let body = Body::from_stream(futures_util::stream::iter(frames));
    let error = by_hyper(connector(), &uri, body).await.unwrap_err();
    assert_eq!(classify(&*error), Outcome::Cancelled, "{error:?}");
}

#[tokio::test]
async fn what_is_not_known_is_not_guessed() {
    let full = service_fn(|()| async { Ok::<_, Infallible>(()) });
    let mut full = ServiceBuilder::new().load_shed().concurrency_limit(0).service(full);
    let error = full.ready().await.unwrap().call(()).await.unwrap_err();
    assert_eq!(classify(&*error), Outcome::Overloaded { retry_after: None });
    let strange: BoxError = "out of luck".into();
    assert_eq!(classify(&*strange), Outcome::Unknown);
    let wrapped = std::io::Error::other(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
    assert_eq!(classify(&wrapped), Outcome::Unknown);
}

#[tokio::test]
async fn only_a_service_that_does_nothing_else_may_take_a_refused_connection_for_its_targets() {
    let refused = || std::io::Error::other(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
    let service = service_fn(move |_: Request<Body>| async move { Err::<Response<Body>, _>(refused()) });
    for (service, wanted) in [
        (Fallible::new(service), Outcome::Unknown),
        (Fallible::new(service).only_connects(), Outcome::NotStarted),
    ] {
        let response = service.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.extensions().get::<Returned>().unwrap().outcome(), wanted);
    }
}

#[tokio::test]
async fn a_fallible_service_gives_the_request_back() {
    let uri = Server::Dead.start().await;
    let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build(connector());
    let service = service_fn(move |mut request: Request<Body>| {
        *request.uri_mut() = uri.parse().unwrap();
        client.request(request)
    });
    let service = Fallible::new(service);
    let request = Request::post("/v1/scan")
        .header("x-user", "ann")
        .body(Body::from("text"));
    let response: Response<Body> = service.clone().oneshot(request.unwrap()).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (503, &"1".parse().unwrap())
    );
    let returned = response.extensions().get::<Returned>().unwrap();
    assert_eq!(returned.outcome(), Outcome::NotStarted);
    let request = returned.take().unwrap();
    assert_eq!(
        (request.uri().path(), &request.headers()["x-user"]),
        ("/v1/scan", &"ann".parse().unwrap())
    );
    assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "text");
}

#[tokio::test]
async fn a_body_that_has_passed_is_not_given_back() {
    let uri = Server::ClosesAfterRequest.start().await;
    let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build(connector());
    let service = service_fn(move |mut request: Request<Body>| {
        *request.uri_mut() = uri.parse().unwrap();
        client.request(request)
    });
    for (keep, kept) in [(4, true), (3, false)] {
        let service = Fallible::new(service.clone()).keep(keep);
        let response = service
            .oneshot(Request::post("/").body(Body::from("text")).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status(), 504);
        let returned = response.extensions().get::<Returned>();
        assert_eq!(returned.is_some(), kept);
        assert!(returned.is_none_or(|returned| returned.outcome() == Outcome::Unknown));
    }
}
