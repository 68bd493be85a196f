//! What a hostile run can try against the service itself.

use super::*;
use tokio::time::Instant;

fn never() -> Provider {
    Provider::new(|request| panic!("it was reached: {request:?}"))
}

#[tokio::test]
async fn a_body_ends_where_it_says_and_nothing_follows_it() {
    let provider = Provider::echo();
    let (_server, address) = start(shop(&provider));
    let next = "GET /c/shop/smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    for framing in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 400\r\n",
        "Transfer-Encoding: chunked\r\n",
    ] {
        let text = format!("POST /c/shop/x HTTP/1.1\r\nhost: x\r\n{framing}\r\n2\r\nhi\r\n0\r\n\r\n{next}");
        let answer = exchange(address, text).await;
        assert_eq!(status(&answer), 200, "{framing}");
        assert_eq!(header(&answer, "connection"), Some("close"), "{framing}");
        assert_eq!(
            (answer.matches("HTTP/1.1").count(), body(&answer)),
            (1, "hi"),
            "{answer}"
        );
    }
    for (request, _) in provider.seen() {
        assert_eq!((request.uri().path(), &request.body()[..]), ("/x", &b"hi"[..]));
        for name in ["content-length", "transfer-encoding"] {
            assert!(!request.headers().contains_key(name), "{name}");
        }
    }
}

#[tokio::test]
async fn malformed_requests_get_an_error_or_nothing() {
    let (_server, address) = start(shop(&never()));
    let chunked = "POST /c/shop/x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
    for text in [
        "\r\n\r\n\r\n\r\nnonsense\r\n\r\n".to_owned(),
        "GET\r\n\r\n".to_owned(),
        "GET /c/shop/x HTTP/9.9\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "GET /c/shop/\0 HTTP/1.1\r\n\r\n".to_owned(),
        "GET /c/shop/x HTTP/1.1\r\nbad header\r\n\r\n".to_owned(),
        "GET /c/shop/x HTTP/1.1\r\nx : y\r\n\r\n".to_owned(),
        "POST /c/shop/x HTTP/1.1\r\ncontent-length: -1\r\n\r\n".to_owned(),
        "POST /c/shop/x HTTP/1.1\r\ncontent-length: +5\r\n\r\nhello".to_owned(),
        "POST /c/shop/x HTTP/1.1\r\ncontent-length: 5, 6\r\n\r\nhello".to_owned(),
        "POST /c/shop/x HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello".to_owned(),
        "POST /c/shop/x HTTP/1.1\r\ncontent-length: 18446744073709551616\r\n\r\nx".to_owned(),
        "POST /c/shop/x HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n".to_owned(),
        "POST /c/shop/x HTTP/1.1\r\ntransfer-encoding: chunked, gzip\r\n\r\n".to_owned(),
        "POST /c/shop/x HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        format!("{chunked}zz\r\n"),
        format!("{chunked}ffffffffffffffffff\r\n"),
        format!("{chunked}5\r\nhelloo\r\n0\r\n\r\n"),
        format!("{chunked}1;{}\r\n", "x".repeat(100_000)),
        format!("{chunked}0\r\n{}\r\n\r\n", "a: b\r\n".repeat(100_000)),
        format!("GET /c/shop/{} HTTP/1.1\r\n\r\n", "x".repeat(100_000)),
        format!("GET /c/shop/x HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200)),
        format!("GET /c/shop/x HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(40_000)),
    ] {
        let answer = exchange(address, &text).await;
        let short: String = text.chars().take(80).collect();
        assert!(
            answer.is_empty() || (400..=431).contains(&status(&answer)),
            "{short:?}: {answer}"
        );
    }
    // It is still there.
    assert_eq!(status(&send(address, "GET", "/", &[], "").await), 404);
}

/// Bytes that look a little like requests, from a generator without a seed of its own.
#[tokio::test]
async fn noise_ends_nothing_but_its_own_connection() {
    const PARTS: [&str; 20] = [
        "GET ",
        "POST ",
        "CONNECT ",
        "/c/shop/x",
        "http://",
        "api.test:443",
        "127.0.0.1",
        "[::1]",
        " HTTP/1.1",
        "\r\n",
        "\r\n\r\n",
        "content-length: ",
        "transfer-encoding: chunked",
        "connection: ",
        "9",
        "\0",
        ":",
        "%",
        "é",
        "xp-effect-key: ",
    ];
    let (server, address) = start(shop(&Provider::echo()));
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..300 {
        let mut text = String::new();
        for _ in 0..12 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.push_str(PARTS[usize::try_from(state % 20).unwrap()]);
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.shutdown().await.ok();
        stream.read_to_end(&mut Vec::new()).await.ok();
    }
    assert_eq!(body(&send(address, "POST", "/c/shop/x", &[], "still").await), "still");
    assert!(log(server).await.len() <= 51);
}

#[tokio::test]
async fn requests_in_a_row_are_answered_in_a_row() {
    let provider = Provider::new(|request| Ok(Response::new(Bytes::from(request.uri().path().to_owned()))));
    let (_server, address) = start(shop(&provider));
    let mut text = String::new();
    for n in 0..100 {
        let close = if n == 99 { "connection: close\r\n" } else { "" };
        text.push_str(&format!("GET /c/shop/{n} HTTP/1.1\r\n{close}\r\n"));
    }
    let answers = exchange(address, text).await;
    let found: Vec<_> = answers
        .split("\r\n\r\n/")
        .skip(1)
        .map(|rest| rest.split("HTTP").next().unwrap())
        .collect();
    let expected: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    assert_eq!(found, expected);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_never_ends_is_cut_off() {
    let (shared, near) = dial(shop(&never()));
    let limits = Limits::default();
    let began = Instant::now();
    let (mut read, mut write) = tokio::io::split(near);
    let drip = async {
        while write.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        () = drip => {}
        _ = read.read_to_end(&mut answer) => {}
    }
    let took = began.elapsed();
    assert!(
        (limits.head_time..limits.head_time + Duration::from_secs(2)).contains(&took),
        "{took:?}"
    );

    // Nothing at all, and nothing after the first request.
    for first in ["", "GET / HTTP/1.1\r\n\r\n"] {
        let began = Instant::now();
        exchange_over(dial_again(&shared), first).await;
        assert_eq!(began.elapsed().as_secs(), limits.head_time.as_secs(), "{first:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_cut_off() {
    let (shared, _) = dial(shop(&never()));
    for text in [
        "POST /c/shop/x HTTP/1.1\r\ncontent-length: 10\r\n\r\nhalf",
        "POST /c/shop/x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhe",
    ] {
        let began = Instant::now();
        let answer = exchange_over(dial_again(&shared), text).await;
        assert_eq!(
            (status(&answer), json(&answer)["code"].as_str()),
            (408, Some("body-too-slow"))
        );
        assert!(began.elapsed() < Limits::default().body_time * 2);
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_the_answer_is_cut_off() {
    let provider = Provider::new(|request| {
        let size = if request.uri() == "/large" { 9 << 20 } else { 5 };
        Ok(Response::new(Bytes::from(vec![b'x'; size])))
    });
    let mut policy = shop(&provider);
    policy.limits.calls = 1;
    let (shared, mut lazy) = dial(policy);
    lazy.write_all(b"GET /c/shop/large HTTP/1.1\r\n\r\n").await.unwrap();
    let mut first = [0; 16];
    lazy.read_exact(&mut first).await.unwrap();
    // The only place is taken until the lazy one is cut off.
    let began = Instant::now();
    let answer = exchange_over(dial_again(&shared), request("GET", "/c/shop/small", &[], "")).await;
    assert_eq!((status(&answer), body(&answer)), (200, "xxxxx"));
    assert_eq!(began.elapsed().as_secs(), Limits::default().idle.as_secs());
    let mut rest = Vec::new();
    lazy.read_to_end(&mut rest).await.ok();
    assert!(rest.len() < 200_000, "{}", rest.len());
}

#[tokio::test]
async fn a_client_that_has_gone_stops_its_call() {
    /// Tells when it is dropped before its end.
    #[derive(Debug)]
    struct Hangs(tokio::sync::mpsc::UnboundedSender<()>, tokio::sync::Notify);
    struct Tells(tokio::sync::mpsc::UnboundedSender<()>);
    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.send(()).ok();
        }
    }
    #[async_trait]
    impl Transport for Hangs {
        async fn send(&self, _: Request<Bytes>, _: &CallOptions) -> Result<Response<Bytes>> {
            let _tells = Tells(self.0.clone());
            self.1.notify_one();
            std::future::pending().await
        }
    }
    let (gone, mut told) = tokio::sync::mpsc::unbounded_channel();
    let hangs = Arc::new(Hangs(gone, tokio::sync::Notify::new()));
    let mut policy = policy(Egress::Broker);
    let client = ConnectionClient::new(Arc::clone(&hangs) as Arc<dyn Transport>);
    policy.connections.insert("shop".to_owned(), client);
    let (_server, address) = start(policy);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /c/shop/x HTTP/1.1\r\n\r\n").await.unwrap();
    hangs.1.notified().await;
    drop(stream);
    told.recv().await.unwrap();
}

/// Far more sockets than may be open: the rest waits in the kernel and takes its turn.
#[tokio::test]
async fn sockets_beyond_the_limit_wait() {
    let (server, address) = start(shop(&Provider::echo()));
    let idle: Vec<_> = futures(64, || TcpStream::connect(address)).await;
    let mut waiting = TcpStream::connect(address).await.unwrap();
    waiting
        .write_all(request("POST", "/c/shop/x", &[], "late").as_bytes())
        .await
        .unwrap();
    let answer = async {
        let mut answer = String::new();
        waiting.read_to_string(&mut answer).await.unwrap();
        answer
    };
    tokio::pin!(answer);
    assert!(
        tokio::time::timeout(Duration::from_millis(200), &mut answer)
            .await
            .is_err()
    );
    drop(idle);
    assert_eq!(body(&answer.await), "late");
    assert!(
        log(server)
            .await
            .iter()
            .any(|line| line.contains("as many connections are open"))
    );
}

async fn futures<T, F: Future<Output = std::io::Result<T>>>(n: usize, make: impl Fn() -> F) -> Vec<T> {
    let mut made = Vec::with_capacity(n);
    for _ in 0..n {
        made.push(make().await.unwrap());
    }
    made
}

#[tokio::test]
async fn ten_thousand_sockets_come_and_go() {
    let provider = Provider::echo();
    let mut policy = shop(&provider);
    policy.limits.pace = (1_000_000, 1_000);
    let (_server, address) = start(policy);
    for _ in 0..100 {
        let batch = futures(100, || TcpStream::connect(address)).await;
        drop(batch);
    }
    assert_eq!(body(&send(address, "POST", "/c/shop/x", &[], "still").await), "still");
}

#[tokio::test]
async fn connections_and_requests_are_numbered() {
    let provider = Provider::echo();
    let mut policy = shop(&provider);
    policy.limits.requests = 2;
    let (_server, address) = start(policy);
    let codes = [
        status(&send(address, "GET", "/c/shop/x", &[], "").await),
        status(&send(address, "GET", "/nowhere", &[], "").await),
        status(&send(address, "GET", "/c/shop/x", &[], "").await),
    ];
    assert_eq!((codes, provider.seen().len()), ([200, 404, 429], 1));

    let mut policy = shop(&provider);
    policy.limits.total = 2;
    let (server, address) = start(policy);
    for _ in 0..2 {
        assert_eq!(status(&send(address, "GET", "/c/shop/x", &[], "").await), 200);
    }
    // The listener is closed at once after the last.
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(log(server).await[0].contains("opened as many connections"));
}

#[tokio::test]
async fn bytes_have_a_limit_in_both_directions() {
    let provider = Provider::new(|_| Ok(Response::new(Bytes::from(vec![b'x'; 900_000]))));
    for (sent, received) in [(1 << 30, 200_000), (200_000, 1 << 30)] {
        let mut policy = shop(&provider);
        (policy.limits.sent, policy.limits.received) = (sent, received);
        let (server, address) = start(policy);
        let first = send(address, "POST", "/c/shop/x", &[], &"y".repeat(900_000)).await;
        assert!(first.len() < 900_000, "{}", first.len());
        let refused = send(address, "GET", "/c/shop/x", &[], "").await;
        if !refused.is_empty() {
            assert_eq!(
                (status(&refused), json(&refused)["rule"].as_str()),
                (403, Some("bytes"))
            );
        }
        let (usage, _) = server.finish().await;
        // A little more, for an answer, and for what was moved at once.
        assert!(usage.received <= received + (256 << 10), "{usage:?}");
        assert!(usage.sent <= sent + (256 << 10), "{usage:?}");
    }

    // A tunnel is cut where the cap is.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = format!("api.test:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::copy(&mut tokio::io::repeat(b'x'), &mut stream).await.ok();
    });
    let mut policy = allow(std::slice::from_ref(&place));
    policy.limits.received = 1_000_000;
    let (server, address) = start(policy);
    let got = exchange(address, format!("CONNECT {place} HTTP/1.1\r\n\r\n")).await;
    assert!((900_000..1_200_000).contains(&got.len()), "{}", got.len());
    assert!(log(server).await[0].contains("as many bytes"));
}

/// A run in a loop is slowed down.
#[tokio::test]
async fn requests_have_a_pace() {
    let provider = Provider::echo();
    let mut policy = shop(&provider);
    policy.limits.pace = (200, 10);
    let (_server, address) = start(policy);
    let mut text = "HEAD /c/shop/x HTTP/1.1\r\n\r\n".repeat(59);
    text.push_str(&request("GET", "/c/shop/x", &[], ""));
    let began = Instant::now();
    let answers = exchange(address, text).await;
    assert_eq!(answers.matches("200 OK").count(), 60);
    assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());
}
