//! Requests over connections.

use super::*;
use crosspoint_core::{Code, Error, Retry};
use tokio::sync::Notify;

#[tokio::test]
async fn a_request_goes_out_with_the_credential_and_comes_back_without() {
    let provider = Provider::new(|request| {
        let echoed = request.headers()["authorization"].clone();
        let response = Response::builder()
            .status(201)
            .header("x-page", "2")
            .header("set-cookie", "session=1")
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .header("keep-alive", "1")
            .header("xp-error", "forged")
            .header("authorization", echoed)
            .header("content-length", "999");
        Ok(response.body(Bytes::from_static(b"made")).unwrap())
    });
    let (_server, address) = start(shop(&provider));
    let headers = [
        ("authorization", "Bearer mine"),
        ("cookie", "a=b"),
        ("proxy-authorization", "Basic eA=="),
        ("te", "trailers"),
        ("x-own", "kept"),
        ("accept", "application/json"),
    ];
    let answer = send(address, "PATCH", "/c/shop/orders/7?full=yes%20please", &headers, "{}").await;
    assert_eq!((status(&answer), body(&answer)), (201, "made"), "{answer}");
    assert_eq!(header(&answer, "x-page"), Some("2"));
    assert_eq!(header(&answer, "content-length"), Some("4"));
    for name in ["set-cookie", "x-hop", "keep-alive", "xp-error", "authorization"] {
        assert_eq!(header(&answer, name), None, "{name}");
    }
    assert!(!answer.contains(CANARY), "{answer}");

    let (request, options) = provider.seen().remove(0);
    assert_eq!(request.method(), "PATCH");
    assert_eq!(request.uri(), "/orders/7?full=yes%20please");
    assert_eq!(request.body(), "{}");
    let names: Vec<_> = request.headers().keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert_eq!(request.headers()["authorization"], format!("Bearer {CANARY}"));
    assert_eq!(request.headers()["x-own"], "kept");
    assert_eq!(request.headers()["accept"], "application/json");
    let key = options.effect_key.unwrap().to_string();
    assert_eq!(request.headers()["idempotency-key"], key);
    assert_eq!(header(&answer, "xp-effect-key"), Some(key.as_str()));
    assert!(options.deadline.is_some() && options.conceal);
}

#[tokio::test]
async fn a_connection_that_is_not_there_is_answered_with_those_that_are() {
    let mut policy = shop(&Provider::echo());
    policy.connections.insert("mail".to_owned(), Provider::echo().client());
    let (server, address) = start(policy);
    for target in ["/c/stripe/charges", "/c//", "/c/SHOP/", "/c/%73hopp"] {
        let answer = send(address, "GET", target, &[], "").await;
        assert_eq!(status(&answer), 404, "{answer}");
        assert_eq!(header(&answer, "content-type"), Some("application/problem+json"));
        assert_eq!(header(&answer, "xp-error"), Some("not-found"));
        let detail = json(&answer)["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("mail, shop"), "{detail}");
    }
    for target in ["/", "/c", "/shop", "*"] {
        assert_eq!(
            status(&send(address, "OPTIONS", target, &[], "").await),
            404,
            "{target}"
        );
    }
    assert!(
        log(server)
            .await
            .iter()
            .any(|line| line.contains("GET /c/stripe/charges"))
    );
}

#[tokio::test]
async fn a_client_that_sends_everything_to_the_proxy_reaches_the_broker_too() {
    let provider = Provider::echo();
    let (_server, address) = start(shop(&provider));
    for host in ["127.0.0.1", "localhost", "127.1", "LOCALHOST."] {
        let target = format!("http://{host}:{}/c/shop/me", address.port());
        assert_eq!(status(&send(address, "GET", &target, &[], "").await), 200, "{host}");
    }
    for target in [
        "http://127.0.0.1:1/c/shop/me".to_owned(),
        format!("http://shop.test:{}/c/shop/me", address.port()),
    ] {
        let answer = send(address, "GET", &target, &[], "").await;
        assert_eq!((status(&answer), json(&answer)["rule"].as_str()), (403, Some("broker")));
    }
    assert_eq!(provider.seen().len(), 4);
}

#[tokio::test]
async fn the_next_page_may_be_given_as_the_provider_said_it() {
    let provider = Provider::echo();
    let (_server, address) = start(shop(&provider));
    let answer = send(address, "GET", "/c/shop/https://api.shop.test/v2?page=2", &[], "").await;
    assert_eq!(status(&answer), 200);
    assert_eq!(provider.seen()[0].0.uri(), "https://api.shop.test/v2?page=2");
}

#[tokio::test]
async fn effects_have_the_same_keys_in_every_attempt() {
    let mut attempts = Vec::new();
    for _ in 0..2 {
        let provider = Provider::echo();
        let mut policy = shop(&provider);
        policy.connections.insert("other".to_owned(), provider.client());
        let (_server, address) = start(policy);
        let large = "x".repeat(600 * 1024);
        for (method, target, body) in [
            ("POST", "/c/shop/orders", "{}"),
            ("POST", "/c/shop/orders", "{}"),
            ("POST", "/c/shop/orders", "{1}"),
            ("PUT", "/c/shop/orders", "{}"),
            ("POST", "/c/shop/orders?x", "{}"),
            ("POST", "/c/other/orders", "{}"),
            ("DELETE", "/c/shop/orders", ""),
            ("POST", "/c/shop/large", &large),
            ("POST", "/c/shop/large", &large),
        ] {
            assert_eq!(status(&send(address, method, target, &[], body).await), 200);
        }
        let keys: Vec<_> = provider.keys().into_iter().map(Option::unwrap).collect();
        for (n, key) in keys.iter().enumerate() {
            assert!(!keys[..n].contains(key), "{n}");
        }
        attempts.push(keys);
    }
    assert_eq!(attempts[0].len(), 9);
    assert_eq!(attempts[0], attempts[1]);
}

#[tokio::test]
async fn only_changes_get_a_key_and_the_scripts_own_counts_more() {
    let provider = Provider::echo();
    let (_server, address) = start(shop(&provider));
    for method in ["GET", "HEAD", "OPTIONS"] {
        send(address, method, "/c/shop/x", &[("xp-effect-key", "a")], "").await;
    }
    send(address, "POST", "/c/shop/x", &[("Idempotency-Key", "mine")], "").await;
    for named in ["order-1", "order-1", "order-2"] {
        send(address, "POST", "/c/shop/x", &[("XP-Effect-Key", named)], named).await;
    }
    let keys = provider.keys();
    assert_eq!(keys[..3], [None, None, None]);
    assert_eq!(keys[3].as_deref(), Some("mine"));
    assert!(keys[4].is_some() && keys[4] == keys[5] && keys[5] != keys[6]);
    let seen = provider.seen();
    assert!(
        seen.iter()
            .all(|(request, _)| !request.headers().contains_key("xp-effect-key"))
    );
    assert_eq!(seen[3].1.effect_key, None);

    let malformed = send(address, "POST", "/c/shop/x", &[("xp-effect-key", "")], "").await;
    assert_eq!((status(&malformed), provider.seen().len()), (400, 7));
}

#[tokio::test]
async fn a_failure_says_what_a_script_should_do() {
    let now = SystemClock::new().now();
    for (error, code, verdict, wait) in [
        (Error::new(Code::ProviderUnreachable, "gone"), 502, "later", Some(5..=5)),
        (
            Error::new(Code::RateLimited, "slow").with_retry(Retry::At(now.plus(Duration::from_secs(40)))),
            429,
            "later",
            Some(30..=40),
        ),
        (
            Error::new(Code::TargetUnavailable, "rest").with_retry(Retry::At(at(0))),
            503,
            "later",
            Some(1..=1),
        ),
        (Error::new(Code::CredentialsRefused, "no"), 424, "reauthorize", None),
        (
            Error::new(Code::EgressRefused, "no").with("rule", "loopback"),
            403,
            "never",
            None,
        ),
        (Error::new(Code::DeadlineExceeded, "late"), 504, "later", Some(5..=5)),
    ] {
        let error = error.with("secret", CANARY).caused_by(std::io::Error::other(CANARY));
        let code_text = error.code().as_str();
        let error = Mutex::new(Some(error));
        let provider = Provider::new(move |_| Err(error.lock().unwrap().take().unwrap()));
        let (server, address) = start(shop(&provider));
        let answer = send(address, "GET", "/c/shop/x", &[], "").await;
        assert_eq!((status(&answer), header(&answer, "xp-error")), (code, Some(code_text)));
        assert_eq!(json(&answer)["code"], code_text);
        assert_eq!(json(&answer)["retry"], verdict);
        let found = header(&answer, "retry-after").map(|wait| wait.parse::<u64>().unwrap());
        match wait {
            Some(range) => assert!(range.contains(&found.unwrap()), "{answer}"),
            None => assert_eq!(found, None),
        }
        assert!(!answer.contains(CANARY), "{answer}");
        let log = log(server).await;
        assert!(
            log.len() == 1 && log[0].contains(code_text) && !log[0].contains(CANARY),
            "{log:?}"
        );
    }
}

#[tokio::test]
async fn a_provider_that_answers_badly_is_passed_on_or_told_of() {
    let provider = Provider::new(|request| {
        let response = Response::builder().status(request.uri().path().trim_start_matches('/').parse::<u16>().unwrap());
        Ok(response
            .header("retry-after", "7")
            .body(Bytes::from_static(b"as it is"))
            .unwrap())
    });
    let (_server, address) = start(shop(&provider));
    for code in [503, 401, 429, 404, 302] {
        let answer = send(address, "GET", &format!("/c/shop/{code}"), &[], "").await;
        assert_eq!((status(&answer), body(&answer)), (code, "as it is"));
        assert_eq!(
            (header(&answer, "retry-after"), header(&answer, "xp-error")),
            (Some("7"), None)
        );
    }
    for code in [204, 304] {
        let answer = send(address, "GET", &format!("/c/shop/{code}"), &[], "").await;
        assert_eq!((status(&answer), body(&answer)), (code, ""));
    }
    let answer = send(address, "GET", "/c/shop/101", &[], "").await;
    assert_eq!(
        (status(&answer), header(&answer, "xp-error")),
        (502, Some("provider-error"))
    );
    let answer = send(address, "HEAD", "/c/shop/200", &[], "").await;
    assert_eq!((status(&answer), body(&answer)), (200, ""));
}

#[tokio::test]
async fn trace_would_show_the_credential() {
    let provider = Provider::echo();
    let (_server, address) = start(shop(&provider));
    for method in ["TRACE", "TRACK"] {
        assert_eq!(status(&send(address, method, "/c/shop/x", &[], "").await), 405);
    }
    assert!(provider.seen().is_empty());
}

#[tokio::test]
async fn bodies_have_a_limit_in_both_directions() {
    let provider = Provider::echo();
    let mut policy = shop(&provider);
    policy.limits.body = 1000;
    let (_server, address) = start(policy);
    let fits = "x".repeat(1000);
    assert_eq!(body(&send(address, "POST", "/c/shop/x", &[], &fits).await), fits);
    let stated = send(address, "POST", "/c/shop/x", &[], &"x".repeat(1001)).await;
    assert_eq!(status(&stated), 413);
    let chunk = format!("3e8\r\n{fits}\r\n1\r\nx\r\n0\r\n\r\n");
    let chunked = format!("POST /c/shop/x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{chunk}");
    let chunked = exchange(address, chunked).await;
    assert_eq!(
        (status(&chunked), json(&chunked)["code"].as_str()),
        (413, Some("body-too-large"))
    );
    // A length that nobody has memory for.
    let huge = "POST /c/shop/x HTTP/1.1\r\nconnection: close\r\ncontent-length: 9223372036854775807\r\n\r\nx";
    assert_eq!(status(&exchange(address, huge).await), 413);
    assert_eq!(provider.seen().len(), 1);

    let provider = Provider::new(|_| Ok(Response::new(Bytes::from(vec![0; 1001]))));
    let mut policy = shop(&provider);
    policy.limits.body = 1000;
    let (_server, address) = start(policy);
    let answer = send(address, "GET", "/c/shop/x", &[], "").await;
    assert_eq!(
        (status(&answer), header(&answer, "xp-error")),
        (502, Some("response-too-large"))
    );
}

/// Answers when it is told to.
#[derive(Debug, Default)]
struct Slow {
    began: Notify,
    go: Notify,
    at_once: Mutex<(usize, usize)>,
}

#[async_trait]
impl Transport for Slow {
    async fn send(&self, request: Request<Bytes>, _: &CallOptions) -> Result<Response<Bytes>> {
        {
            let mut at_once = self.at_once.lock().unwrap();
            at_once.0 += 1;
            at_once.1 = at_once.1.max(at_once.0);
        }
        self.began.notify_one();
        self.go.notified().await;
        self.at_once.lock().unwrap().0 -= 1;
        Ok(Response::new(request.into_body()))
    }
}

#[tokio::test]
async fn only_so_many_calls_go_out_at_once() {
    let slow = Arc::new(Slow::default());
    let mut policy = policy(Egress::Broker);
    let client = ConnectionClient::new(Arc::clone(&slow) as Arc<dyn Transport>);
    policy.connections.insert("shop".to_owned(), client);
    policy.limits.calls = 2;
    let (_server, address) = start(policy);
    let calls: Vec<_> = (0..6)
        .map(|_| tokio::spawn(async move { send(address, "GET", "/c/shop/", &[], "").await }))
        .collect();
    for _ in 0..6 {
        slow.began.notified().await;
        slow.go.notify_one();
    }
    for call in calls {
        assert_eq!(status(&call.await.unwrap()), 200);
    }
    assert!(slow.at_once.lock().unwrap().1 <= 2);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_takes_long_is_waited_for() {
    let slow = Arc::new(Slow::default());
    let mut policy = policy(Egress::Broker);
    let client = ConnectionClient::new(Arc::clone(&slow) as Arc<dyn Transport>);
    policy.connections.insert("shop".to_owned(), client);
    let (_shared, near) = dial(policy);
    let call = tokio::spawn(exchange_over(near, request("GET", "/c/shop/", &[], "")));
    slow.began.notified().await;
    tokio::time::sleep(Limits::default().idle * 3).await;
    slow.go.notify_one();
    assert_eq!(status(&call.await.unwrap()), 200);
}

#[cfg(unix)]
#[tokio::test]
async fn it_serves_a_socket_in_a_folder_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let provider = Provider::echo();
    let server = Server::start(Listener::Unix(listener, Peers::All), shop(&provider)).unwrap();
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream
        .write_all(request("POST", "/c/shop/x", &[], "hello").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!((status(&answer), body(&answer)), (200, "hello"));
    assert!(server.finish().await.0.received > 0);
    assert!(tokio::net::UnixStream::connect(&path).await.is_err());
}

#[tokio::test]
async fn secrets_that_the_run_has_sent_are_not_in_the_log() {
    let mut policy = shop(&Provider::echo());
    let secrets = BTreeMap::from([("a".to_owned(), crosspoint_core::SecretString::from(CANARY))]);
    policy.redactor = Redactor::new(&secrets);
    let (server, address) = start(policy);
    send(address, "GET", &format!("/x/{CANARY}"), &[], "").await;
    send(address, "CONNECT", &format!("{CANARY}.evil.example:443"), &[], "").await;
    let log = log(server).await;
    assert!(
        log.len() == 2 && log.iter().all(|line| line.contains("[secret]")),
        "{log:?}"
    );
}
