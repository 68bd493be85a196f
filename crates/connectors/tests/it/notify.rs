//! Notifications to URLs of customers.

use crate::server::{NOW, Server, Still, answer, http, permit, status};
use async_trait::async_trait;
use bytes::Bytes;
use crosspoint_connectors::{HttpClient, Notifier};
use crosspoint_core::{Code, Deliver, Resolve, Result, Timestamp};
use http::HeaderMap;
use std::{net::IpAddr, sync::Arc, time::Duration};

fn notifier(client: HttpClient) -> Notifier {
    Notifier::new(client, Arc::new(Still))
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("webhook-id", "41".parse().unwrap());
    headers
}

#[tokio::test]
async fn what_is_sent_arrives_and_the_answer_is_told() {
    let server = Server::start(|seen| match seen.path.as_str() {
        "/ok?x=1" => status(204),
        _ => answer(503, &[("retry-after", "30")], "later"),
    })
    .await;
    let notifier = notifier(http(&[&server]));
    let url = format!("{}/ok?x=1#part", server.url());
    let taken = notifier
        .deliver(&url, headers(), Bytes::from_static(b"{}"))
        .await
        .unwrap();
    assert!(taken.is_taken());
    let seen = server.only();
    assert_eq!(
        (seen.method.as_str(), seen.path.as_str(), &seen.body[..]),
        ("POST", "/ok?x=1", &b"{}"[..])
    );
    assert_eq!(seen.header("webhook-id"), Some("41"));

    let busy = notifier
        .deliver(&format!("{}/busy", server.url()), headers(), Bytes::new())
        .await
        .unwrap();
    let now: Timestamp = NOW.parse().unwrap();
    assert_eq!(
        (busy.status.as_u16(), busy.retry_at),
        (503, Some(now.plus(Duration::from_secs(30))))
    );
}

#[tokio::test]
async fn no_redirect_is_followed() {
    let other = Server::start(|_| status(200)).await;
    let location = other.url();
    let server = Server::start(move |_| answer(307, &[("location", &location)], "")).await;
    let notifier = notifier(
        HttpClient::builder()
            .egress(permit(&[&server, &other]))
            .build()
            .unwrap(),
    );
    let answer = notifier.deliver(&server.url(), headers(), Bytes::new()).await.unwrap();
    assert_eq!(answer.status.as_u16(), 307);
    assert!(!answer.is_taken() && other.seen().is_empty());
}

#[derive(Debug)]
struct Inside;

#[async_trait]
impl Resolve for Inside {
    async fn resolve(&self, _: &str) -> Result<Vec<IpAddr>> {
        Ok(vec!["127.0.0.1".parse().unwrap()])
    }
}

#[tokio::test]
async fn what_is_not_public_is_refused_when_it_is_named_and_when_it_is_called() {
    let notifier = notifier(HttpClient::builder().resolver(Arc::new(Inside)).build().unwrap());
    for (url, code) in [
        ("nonsense", Code::InputInvalid),
        ("http://hooks.example/", Code::EgressRefused),
        ("ftp://hooks.example/", Code::EgressRefused),
        ("https://user:word@hooks.example/", Code::EgressRefused),
        ("https://127.0.0.1/", Code::EgressRefused),
        ("https://2130706433/", Code::EgressRefused),
        ("https://[fd00::1]/", Code::EgressRefused),
        ("https://169.254.169.254/latest/meta-data", Code::EgressRefused),
    ] {
        assert_eq!(notifier.check(url).unwrap_err().code(), code, "{url}");
        let sent = notifier.deliver(url, headers(), Bytes::new()).await;
        assert_eq!(sent.unwrap_err().code(), code, "{url}");
    }
    // A name says nothing; what it resolves to does.
    notifier.check("https://hooks.example/").unwrap();
    let sent = notifier
        .deliver("https://hooks.example/", headers(), Bytes::new())
        .await;
    assert_eq!(sent.unwrap_err().code(), Code::EgressRefused);
}
