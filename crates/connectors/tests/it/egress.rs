//! The egress guard.

use crate::server::{Server, Still, client_with, credential, get, http, permit, status};
use async_trait::async_trait;
use crosspoint_connectors::HttpClient;
use crosspoint_core::{AuthScheme, Code, EgressPolicy, Kind, Resolve, Result, Retry};
use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Mutex},
};

/// Gives one answer after another, as the name server of an attacker does; the last one for ever.
#[derive(Debug)]
struct Rebinding(Mutex<VecDeque<&'static str>>);

impl Rebinding {
    fn new<const N: usize>(answers: [&'static str; N]) -> Arc<Self> {
        Arc::new(Self(Mutex::new(answers.into())))
    }
}

#[async_trait]
impl Resolve for Rebinding {
    async fn resolve(&self, _: &str) -> Result<Vec<IpAddr>> {
        let mut answers = self.0.lock().unwrap();
        let next = if answers.len() > 1 {
            answers.pop_front()
        } else {
            answers.front().copied()
        };
        Ok(next.into_iter().map(|text| text.parse().unwrap()).collect())
    }
}

#[tokio::test]
async fn loopback_needs_a_rule() {
    let server = Server::start(|_| status(200)).await;
    let closed = HttpClient::new().unwrap();
    let error = closed
        .client_for(&server.url(), &AuthScheme::None, &credential(), Arc::new(Still))
        .unwrap_err();
    assert_eq!(
        (error.code(), error.kind(), error.retry()),
        (Code::EgressRefused, Kind::Forbidden, Retry::Never)
    );

    let url = format!("https://{}", server.address);
    let error = closed
        .client_for(&url, &AuthScheme::None, &credential(), Arc::new(Still))
        .unwrap_err();
    assert!(error.to_string().contains("loopback"), "{error}");
    assert!(error.to_string().contains("allow_host"), "{error}");

    client_with(&http(&[&server]), &server.url(), &AuthScheme::None)
        .send(get("/"))
        .await
        .unwrap();
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_name_that_points_inside_is_refused_without_saying_where() {
    let server = Server::start(|_| status(200)).await;
    for inside in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        let http = HttpClient::builder()
            .egress(EgressPolicy::new().allow_plain_http("rebind.test").unwrap())
            .resolver(Rebinding::new([inside]))
            .build()
            .unwrap();
        let url = format!("http://rebind.test:{}", server.address.port());
        let error = client_with(&http, &url, &AuthScheme::bearer())
            .send(get("/"))
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::EgressRefused, "{error:?}");
        assert!(!format!("{error:?}").contains(inside), "{error:?}");
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn every_lookup_is_checked() {
    let server = Server::start(|_| status(200)).await;
    // Another answer each time: none of them is remembered as good.
    let http = HttpClient::builder()
        .egress(EgressPolicy::new().allow_plain_http("rebind.test").unwrap())
        .resolver(Rebinding::new(["10.1.1.1", "127.0.0.1", "169.254.169.254"]))
        .build()
        .unwrap();
    let url = format!("http://rebind.test:{}", server.address.port());
    let client = client_with(&http, &url, &AuthScheme::None);
    for _ in 0..3 {
        assert_eq!(client.send(get("/")).await.unwrap_err().code(), Code::EgressRefused);
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_rule_for_a_name_holds_for_its_port_only() {
    let (server, other) = (
        Server::start(|_| status(200)).await,
        Server::start(|_| status(200)).await,
    );
    let rule = format!("erp.test:{}", server.address.port());
    let policy = permit(&[])
        .allow_host(&rule)
        .and_then(|policy| policy.allow_plain_http("erp.test"))
        .unwrap();
    let http = HttpClient::builder()
        .egress(policy)
        .resolver(Rebinding::new(["127.0.0.1"]))
        .build()
        .unwrap();
    let url = |server: &Server| format!("http://erp.test:{}", server.address.port());
    client_with(&http, &url(&server), &AuthScheme::None)
        .send(get("/"))
        .await
        .unwrap();
    assert_eq!(server.seen().len(), 1);

    let error = client_with(&http, &url(&other), &AuthScheme::None)
        .send(get("/"))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::EgressRefused);
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn a_name_without_an_address_is_unreachable() {
    let http = HttpClient::builder().resolver(Rebinding::new([])).build().unwrap();
    let error = client_with(&http, "https://nowhere.test", &AuthScheme::None)
        .send(get("/"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.retry()),
        (Code::ProviderUnreachable, Retry::Backoff)
    );
}
