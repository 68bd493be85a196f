//! Where credentials go, and the limits.

use crate::server::{KEY, NOW, Server, Still, answer, client, client_with, credential, get, http, permit, status};
use bytes::Bytes;
use crosspoint_connectors::HttpClient;
use crosspoint_core::{AuthScheme, Clock, Code, Result, Retry, Timestamp};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

#[tokio::test]
async fn every_scheme_reaches_the_provider_in_its_place() {
    let server = Server::start(|_| status(200)).await;
    let http = http(&[&server]);
    let custom = AuthScheme::ApiKeyHeader {
        header: "X-Api-Key".to_owned(),
        prefix: String::new(),
    };
    let query = AuthScheme::ApiKeyQuery {
        parameter: "key".to_owned(),
    };
    for scheme in [AuthScheme::bearer(), custom, query, AuthScheme::Basic, AuthScheme::None] {
        let client = client_with(&http, &format!("{}/v1/", server.url()), &scheme);
        client.send(get("/me?full=yes")).await.unwrap();
    }
    let seen = server.seen();
    let bearer = format!("Bearer {KEY}");
    assert_eq!(seen[0].header("authorization"), Some(bearer.as_str()));
    assert_eq!(seen[1].header("x-api-key"), Some(KEY));
    assert_eq!(seen[2].path, format!("/v1/me?full=yes&key={KEY}"));
    assert_eq!(seen[3].header("authorization"), Some("Basic YW5uOmNhbmFyeS13b3JkLTc3"));
    for at in [1, 2, 4] {
        assert_eq!(seen[at].header("authorization"), None, "{at}");
    }
    assert!(seen.iter().all(|one| one.path.starts_with("/v1/me?full=yes")));
}

#[tokio::test]
async fn a_caller_cannot_replace_host_or_credential() {
    let server = Server::start(|_| status(200)).await;
    let request = http::Request::get("/")
        .header("authorization", "Bearer of-somebody-else")
        .header("host", "metadata.internal")
        .header("transfer-encoding", "chunked")
        .header("x-mine", "kept")
        .body(Bytes::new())
        .unwrap();
    client(&[&server]).send(request).await.unwrap();
    let seen = server.only();
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {KEY}").as_str()));
    assert_eq!(seen.header("host"), Some(server.address.to_string().as_str()));
    assert_eq!(seen.header("transfer-encoding"), None);
    assert_eq!(seen.header("x-mine"), Some("kept"));
}

#[tokio::test]
async fn a_request_stays_with_its_connection() {
    let (server, other) = (
        Server::start(|_| status(200)).await,
        Server::start(|_| status(200)).await,
    );
    let client = client(&[&server, &other]);
    let refused = client.send(get(&format!("{}/x", other.url()))).await.unwrap_err();
    assert_eq!(refused.code(), Code::InputInvalid);
    assert!(other.seen().is_empty());
    client
        .send(get(&format!("{}/next?page=2", server.url())))
        .await
        .unwrap();
    assert_eq!(server.only().path, "/next?page=2");
}

/// A server that takes requests and never answers.
async fn silent() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            open.push(socket);
        }
    });
    address.to_string()
}

async fn call_silent(timeout: Duration, deadline: Option<Timestamp>) -> Code {
    let address = silent().await;
    let policy = permit(&[]).allow_host(&address).unwrap();
    let http = HttpClient::builder().egress(policy).timeout(timeout).build().unwrap();
    let mut client = client_with(&http, &format!("http://{address}"), &AuthScheme::None);
    if let Some(deadline) = deadline {
        client = client.with_deadline(deadline);
    }
    client.send(get("/")).await.unwrap_err().code()
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever() {
    let soon = Still.now().plus(Duration::from_millis(50));
    let later = Still.now().plus(Duration::from_secs(3600));
    let short = Duration::from_millis(50);
    assert_eq!(
        call_silent(Duration::from_secs(30), Some(soon)).await,
        Code::DeadlineExceeded
    );
    assert_eq!(call_silent(short, None).await, Code::ProviderUnreachable);
    assert_eq!(call_silent(short, Some(later)).await, Code::ProviderUnreachable);
}

#[tokio::test]
async fn a_deadline_that_passed_sends_nothing() {
    let server = Server::start(|_| status(200)).await;
    let late = client(&[&server]).with_deadline(NOW.parse().unwrap());
    let error = late.send(get("/")).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(server.seen().is_empty());
}

async fn sized(body: usize, limit: usize) -> Result<usize> {
    let server = Server::start(move |_| answer(200, &[], vec![b'x'; body])).await;
    let http = HttpClient::builder()
        .egress(permit(&[&server]))
        .max_response(limit)
        .build()
        .unwrap();
    let client = client_with(&http, &server.url(), &AuthScheme::None);
    client.send(get("/")).await.map(|response| response.body().len())
}

#[tokio::test]
async fn a_large_answer_is_refused() {
    assert_eq!(sized(1000, 1000).await.unwrap(), 1000);
    assert_eq!(sized(1001, 1000).await.unwrap_err().code(), Code::ResponseTooLarge);
}

/// A server that answers once with `head`, then sends `chunk` for as long as somebody reads, if there is one.
async fn raw(head: &'static str, chunk: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        let _ = socket.read(&mut request).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        if let Some(chunk) = chunk {
            while socket.write_all(chunk.as_bytes()).await.is_ok() {}
        }
    });
    address.to_string()
}

async fn call_raw(head: &'static str, chunk: Option<&'static str>) -> Code {
    let address = raw(head, chunk).await;
    let policy = permit(&[]).allow_host(&address).unwrap();
    let http = HttpClient::builder()
        .egress(policy)
        .max_response(100_000)
        .build()
        .unwrap();
    let client = client_with(&http, &format!("http://{address}"), &AuthScheme::None);
    client.send(get("/")).await.unwrap_err().code()
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let code = call_raw(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        Some("8\r\nxxxxxxxx\r\n"),
    )
    .await;
    assert_eq!(code, Code::ResponseTooLarge);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_answer() {
    let code = call_raw("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", None).await;
    assert_eq!(code, Code::ProviderUnreachable);
    assert_eq!(call_raw("nonsense\r\n\r\n", None).await, Code::ProviderUnreachable);
}

#[tokio::test]
async fn a_large_request_is_not_sent() {
    let server = Server::start(|_| status(200)).await;
    let http = HttpClient::builder()
        .egress(permit(&[&server]))
        .max_request(10)
        .build()
        .unwrap();
    let client = client_with(&http, &server.url(), &AuthScheme::None);
    let request = |size: usize| http::Request::post("/").body(Bytes::from(vec![b'x'; size])).unwrap();
    assert_eq!(client.send(request(11)).await.unwrap_err().code(), Code::BodyTooLarge);
    client.send(request(10)).await.unwrap();
    assert_eq!(server.only().body.len(), 10);
}

#[tokio::test]
async fn the_verdict_follows_the_status_and_nothing_is_tried_twice() {
    let server = Server::start(|seen| {
        let (code, after) = seen.path.trim_start_matches('/').split_once('/').unwrap();
        answer(
            code.parse().unwrap(),
            &[("retry-after", &after.replace('_', " "))],
            "{}",
        )
    })
    .await;
    let client = client(&[&server]);
    let at = |text: &str| Retry::At(text.parse().unwrap());
    let table = [
        ("/429/90", Code::RateLimited, at("2026-11-21T09:31:30Z")),
        (
            "/503/Sat,_21_Nov_2026_10:00:00_GMT",
            Code::ProviderError,
            at("2026-11-21T10:00:00Z"),
        ),
        ("/429/soon", Code::RateLimited, Retry::Backoff),
        ("/500/90", Code::ProviderError, Retry::Backoff),
        ("/401/90", Code::CredentialsRefused, Retry::Reauthorize),
        ("/403/90", Code::ProviderRejected, Retry::Never),
        ("/404/90", Code::ProviderRejected, Retry::Never),
    ];
    for (path, code, verdict) in table {
        let error = client
            .json::<(), serde_json::Value>(http::Method::GET, path, None)
            .await
            .unwrap_err();
        assert_eq!((error.code(), error.retry()), (code, verdict), "{path}");
    }
    assert_eq!(server.seen().len(), table.len());
}

#[tokio::test]
async fn a_provider_that_is_down_is_unreachable() {
    let address = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let policy = permit(&[]).allow_host(&address).unwrap();
    let http = HttpClient::builder().egress(policy).build().unwrap();
    let query = AuthScheme::ApiKeyQuery {
        parameter: "key".to_owned(),
    };
    let client = client_with(&http, &format!("http://{address}"), &query);
    let error = client.send(get("/?a=1")).await.unwrap_err();
    assert_eq!(
        (error.code(), error.retry()),
        (Code::ProviderUnreachable, Retry::Backoff)
    );
    assert!(!format!("{error:?}").contains(KEY), "{error:?}");
}

#[tokio::test]
async fn a_credential_that_no_header_can_carry_is_refused() {
    let server = Server::start(|_| status(200)).await;
    let mut fields = credential();
    fields.insert("api_key", "two\r\nlines".into());
    let error = http(&[&server])
        .client_for(&server.url(), &AuthScheme::bearer(), &fields, Arc::new(Still))
        .unwrap_err();
    assert_eq!(error.code(), Code::InputInvalid);
    assert!(!format!("{error:?}").contains("lines"), "{error:?}");
}

#[tokio::test]
async fn who_must_not_learn_the_credential_does_not_learn_it_from_a_careless_provider() {
    let server = Server::start(|seen| {
        let authorization = seen.header("authorization").unwrap_or_default().to_owned();
        let encoding = seen.header("accept-encoding").unwrap_or("none").to_owned();
        let body = format!("{{\"you\":\"{authorization}\",\"next\":\"https://x{}\"}}", seen.path);
        let link = format!("<https://x{}>; rel=next", seen.path);
        answer(200, &[("link", link.as_str()), ("x-encoding", encoding.as_str())], body)
    })
    .await;
    let http = http(&[&server]);
    let query = AuthScheme::ApiKeyQuery {
        parameter: "key".to_owned(),
    };
    for scheme in [AuthScheme::bearer(), query, AuthScheme::Basic] {
        let client = client_with(&http, &server.url(), &scheme);
        let request = || {
            let request = http::Request::get("/me?full=yes").header("accept-encoding", "gzip");
            request.body(Bytes::new()).unwrap()
        };
        let told = format!("{:?}", client.send(request()).await.unwrap());
        let concealed = format!("{:?}", client.concealing().send(request()).await.unwrap());
        let secrets = [KEY, "canary-word-77", "YW5uOmNhbmFyeS13b3JkLTc3"];
        assert!(secrets.iter().any(|secret| told.contains(secret)), "{told}");
        assert!(!secrets.iter().any(|secret| concealed.contains(secret)), "{concealed}");
        assert!(
            concealed.contains("[secret]") && concealed.contains("full=yes"),
            "{concealed}"
        );
        assert!(told.contains("\"x-encoding\": \"gzip\"") && concealed.contains("\"x-encoding\": \"none\""));
    }
}
