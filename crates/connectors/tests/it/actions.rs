//! The generic action.

use crate::server::{Server, answer, client, status};
use crosspoint_connectors::http::{Method, Send, SendRequest};
use crosspoint_core::{Action, Code, DynAction, RunKey};
use serde_json::json;

#[tokio::test]
async fn it_sends_what_it_is_given() {
    let server = Server::start(|_| {
        let headers = [
            ("content-type", "application/vnd.acme+json; charset=utf-8"),
            ("x-page", "2"),
        ];
        answer(201, &headers, r#"{"id":7}"#)
    })
    .await;
    let request = SendRequest::post("/orders?dry=1")
        .query("note", "a b&c")
        .header("x-trace", "t1")
        .body(json!({ "total": 12 }));
    let response = Send.call(&client(&[&server]), request).await.unwrap();
    assert_eq!((response.status, response.body), (201, json!({ "id": 7 })));
    assert_eq!(response.headers["x-page"], "2");

    let seen = server.only();
    assert_eq!(
        (seen.method.as_str(), seen.path.as_str()),
        ("POST", "/orders?dry=1&note=a+b%26c")
    );
    assert_eq!(&seen.body[..], br#"{"total":12}"#);
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("x-trace"), Some("t1"));
    assert_eq!(seen.header("idempotency-key"), None, "the call has no effect key");
}

#[tokio::test]
async fn a_method_that_repeats_its_effect_carries_the_effects_key() {
    let server = Server::start(|_| status(200)).await;
    let key = RunKey::derive(&["run", "1"]);
    let client = client(&[&server]).with_effect_key(key);
    for method in [Method::Post, Method::Patch, Method::Put, Method::Get, Method::Delete] {
        Send.call(&client, SendRequest::new(method, "/x")).await.unwrap();
    }
    let own = SendRequest::post("/x").header("Idempotency-Key", "mine");
    Send.call(&client, own).await.unwrap();

    let key = key.to_string();
    let sent: Vec<_> = server
        .seen()
        .iter()
        .map(|one| one.header("idempotency-key").map(str::to_owned))
        .collect();
    assert_eq!(
        sent,
        [Some(key.clone()), Some(key), None, None, None, Some("mine".to_owned())]
    );
}

#[tokio::test]
async fn an_error_status_is_an_error_unless_it_is_asked_for() {
    let server = Server::start(|_| answer(409, &[("content-type", "text/plain")], "taken")).await;
    let client = client(&[&server]);
    let error = Send.call(&client, SendRequest::get("/x")).await.unwrap_err();
    assert_eq!(error.code(), Code::ProviderRejected);
    let response = Send
        .call(&client, SendRequest::get("/x").accept_errors())
        .await
        .unwrap();
    assert_eq!((response.status, response.body), (409, json!("taken")));
}

#[tokio::test]
async fn bodies_are_read_by_what_they_say_they_are() {
    let server = Server::start(|seen| match seen.path.as_str() {
        "/empty" => answer(204, &[], ""),
        "/broken" => answer(200, &[("content-type", "application/json")], "{"),
        _ => answer(200, &[("content-type", "image/png")], vec![0x89, 0xff]),
    })
    .await;
    let client = client(&[&server]);
    let empty = Send.call(&client, SendRequest::get("/empty")).await.unwrap();
    assert!(empty.body.is_null());
    let broken = Send.call(&client, SendRequest::get("/broken")).await.unwrap_err();
    assert_eq!(broken.code(), Code::ProviderError);
    let binary = Send.call(&client, SendRequest::get("/image")).await.unwrap_err();
    assert_eq!(binary.code(), Code::ProviderRejected);
}

#[tokio::test]
async fn a_malformed_request_is_refused_with_its_problems() {
    let server = Server::start(|_| status(200)).await;
    let client = client(&[&server]);
    let headers = SendRequest::get("/x").header("two words", "x").header("x-y", "a\nb");
    let error = Send.call(&client, headers).await.unwrap_err();
    assert_eq!((error.code(), error.problems().len()), (Code::InputInvalid, 2));
    for path in ["", "x y", "orders", "/two words"] {
        let error = Send.call(&client, SendRequest::get(path)).await.unwrap_err();
        assert_eq!(error.code(), Code::InputInvalid, "{path}");
    }
    let erased: &dyn DynAction = &Send;
    let error = erased
        .call_value(&client, json!({ "path": "/x", "url": "http://x" }))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::InputInvalid);
    let answer = erased
        .call_value(&client, json!({ "method": "GET", "path": "/x" }))
        .await
        .unwrap();
    assert_eq!(answer["status"], 200);
    assert_eq!(server.only().path, "/x");
}
