//! The proxy to the hosts of the rules.

use super::*;
use crate::numbers::sums::Sums;

fn rules(rules: &[&str]) -> Vec<String> {
    rules.iter().map(|rule| (*rule).to_owned()).collect()
}

/// A proxy that permits nothing which is not public.
fn guarded(rules_: &[&str], answers: &[&[&str]]) -> (Policy, Answers) {
    let answers = Answers::new(answers);
    let mut policy = policy(Egress::Allow(rules(rules_)));
    policy.resolve = Arc::new(answers.clone());
    (policy, answers)
}

/// Opens a tunnel, says something in it, and reads to the end.
async fn connect(address: SocketAddr, place: &str) -> String {
    let head = format!("CONNECT {place} HTTP/1.1\r\nhost: {place}\r\nconnection: close\r\n\r\n");
    exchange(address, head + "ping").await
}

fn refusal(answer: &str) -> (u16, String) {
    let problem = json(answer);
    assert_eq!(problem["code"], "egress-refused", "{answer}");
    (status(answer), problem["rule"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_to_the_end_of_each() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = format!("api.test:{}", listener.local_addr().unwrap().port());
    let (server, address) = start(allow(std::slice::from_ref(&place)));
    let far = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        stream.write_all(&got).await.unwrap();
        got.len()
    });
    let mut near = TcpStream::connect(address).await.unwrap();
    // What follows the head at once belongs to the tunnel already.
    near.write_all(format!("CONNECT {place} HTTP/1.1\r\n\r\nGET / not http").as_bytes())
        .await
        .unwrap();
    let mut head = [0; 19];
    near.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK\r\nda");
    let mut rest = String::new();
    let payload = vec![b'z'; 1_000_000];
    near.write_all(&payload).await.unwrap();
    near.shutdown().await.unwrap();
    near.read_to_string(&mut rest).await.unwrap();
    let echoed = rest.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(echoed.len(), payload.len() + 14);
    assert_eq!(far.await.unwrap(), payload.len() + 14);
    let (usage, log) = server.finish().await;
    assert!(
        usage.sent > 1_000_000 && usage.received > 1_000_000 && log.is_empty(),
        "{usage:?} {log:?}"
    );
}

#[tokio::test]
async fn only_hosts_of_the_rules_are_reached() {
    let host = Host::start("hello").await;
    let port = host.address.port();
    let (server, address) = start(allow(&[
        host.rule("api.test"),
        host.rule("*.wild.test"),
        "plain.test".to_owned(),
    ]));
    for place in ["api.test", "API.Test.", "a.wild.test", "a.b.wild.test"] {
        let answer = connect(address, &format!("{place}:{port}")).await;
        assert_eq!((status(&answer), body(&answer)), (200, "hello"), "{place}");
    }
    for place in [
        "other.test",
        "wild.test",
        "evilwild.test",
        "api.test.evil.test",
        "xapi.test",
        "127.0.0.1",
        "plain.test",
    ] {
        let answer = connect(address, &format!("{place}:{port}")).await;
        assert_eq!(refusal(&answer), (403, "allow".to_owned()), "{place}");
        assert!(
            json(&answer)["detail"].as_str().unwrap().contains("plain.test:443"),
            "{answer}"
        );
    }
    assert_eq!(refusal(&connect(address, "api.test:443").await).1, "allow");
    let log = log(server).await;
    assert_eq!(log.len(), 8, "{log:?}");
    assert_eq!(host.seen().len(), 4);
}

/// By mode and reason, and by nothing that a script can choose.
#[tokio::test(flavor = "current_thread")]
async fn what_goes_out_is_counted() {
    let sums = Sums::default();
    let _recorder = metrics::set_default_local_recorder(&sums);
    let host = Host::start("hello").await;
    let port = host.address.port();
    let (server, address) = start(allow(&[host.rule("api.test")]));
    assert_eq!(status(&connect(address, &format!("api.test:{port}")).await), 200);
    for place in ["other.test", "secret.example", "127.0.0.1"] {
        assert_eq!(refusal(&connect(address, &format!("{place}:{port}")).await).0, 403);
    }
    let (guarded, _) = guarded(&["*.test"], &[&["10.0.0.1"]]);
    let (inner, there) = start(guarded);
    assert_eq!(refusal(&connect(there, "api.test:443").await).0, 403);
    let moved = server.finish().await.0;
    inner.finish().await;
    let broker = start(policy(Egress::Broker));
    assert_eq!(refusal(&connect(broker.1, "api.test:443").await).0, 403);
    broker.0.finish().await;
    let sums = sums.take();
    assert_eq!(sums["crosspoint_egress_connections_total allow"], 5.0);
    assert_eq!(sums["crosspoint_egress_connections_total broker"], 1.0);
    assert_eq!(sums["crosspoint_egress_refused_total allow allow"], 3.0);
    assert_eq!(sums["crosspoint_egress_refused_total allow address"], 1.0);
    assert_eq!(sums["crosspoint_egress_refused_total broker broker"], 1.0);
    for (name, least) in [("sent", moved.sent), ("received", moved.received)] {
        let counted = sums[&format!("crosspoint_egress_{name}_bytes_total allow")];
        assert!(
            least > 0 && counted >= f64::from(u32::try_from(least).unwrap()),
            "{name}: {counted}"
        );
    }
    assert_eq!(sums.len(), 9, "no label is a host's: {sums:?}");
}

#[tokio::test]
async fn malformed_places_never_reach_the_resolver() {
    let (policy, answers) = guarded(&["*.test", "api.test"], &[&["127.0.0.1"]]);
    let (_server, address) = start(policy);
    for place in [
        "api.test",
        "api.test:",
        "api.test:0",
        "api.test:99999",
        "u:p@api.test:443",
        "a%2etest:443",
        "256.1:443",
    ] {
        let answer = connect(address, place).await;
        assert_eq!(status(&answer), 400, "{place}: {answer}");
    }
    let with_body = "CONNECT api.test:443 HTTP/1.1\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello";
    assert_eq!(status(&exchange(address, with_body).await), 400);
    assert!(answers.asked().is_empty());
}

/// Also where a rule names the address itself, however it is written.
#[tokio::test]
async fn the_metadata_address_is_refused_in_every_notation() {
    let v4 = "169.254.169.254:80";
    let (policy, answers) = guarded(
        &[v4, "[::ffff:169.254.169.254]:80", "[fd00:ec2::254]:80", "127.0.0.1:80"],
        &[&[]],
    );
    let (_server, address) = start(policy);
    for (place, rule) in [
        (v4, "link-local"),
        ("2852039166:80", "link-local"),
        ("0xa9fea9fe:80", "link-local"),
        ("0xa9.0xfe.0xa9.0xfe:80", "link-local"),
        ("0251.0376.0251.0376:80", "link-local"),
        ("169.254.43518:80", "link-local"),
        ("169.254.169.254.:80", "link-local"),
        ("[::ffff:169.254.169.254]:80", "IPv4 within IPv6"),
        ("[::ffff:a9fe:a9fe]:80", "IPv4 within IPv6"),
        ("[0:0:0:0:0:ffff:a9fe:a9fe]:80", "IPv4 within IPv6"),
        ("[fd00:ec2::254]:80", "private network"),
        ("127.1:80", "loopback"),
        ("[::169.254.169.254]:80", "allow"),
        ("[64:ff9b::a9fe:a9fe]:80", "allow"),
        ("0:80", "allow"),
    ] {
        let answer = connect(address, place).await;
        assert_eq!(refusal(&answer), (403, rule.to_owned()), "{place}");
        let answer = send(address, "GET", &format!("http://{place}/latest/meta-data"), &[], "").await;
        assert_eq!(refusal(&answer), (403, rule.to_owned()), "{place}");
    }
    assert!(answers.asked().is_empty());
}

#[tokio::test]
async fn a_name_that_turns_private_is_refused() {
    for (found, rule) in [
        ("127.0.0.1", "loopback"),
        ("10.0.0.7", "private network"),
        ("169.254.169.254", "link-local"),
        ("::ffff:127.0.0.1", "IPv4 within IPv6"),
        ("64:ff9b::7f00:1", "translated or tunnelled IPv4"),
        ("0.0.0.0", "unspecified"),
        ("100.64.0.1", "carrier NAT"),
    ] {
        let (policy, answers) = guarded(&["rebind.test", "rebind.test:80"], &[&[found]]);
        let (_server, address) = start(policy);
        let answer = connect(address, "rebind.test:443").await;
        assert_eq!(refusal(&answer), (403, rule.to_owned()), "{found}");
        assert!(!answer.contains(found), "{answer}");
        let answer = send(address, "GET", "http://rebind.test/", &[], "").await;
        assert_eq!(refusal(&answer), (403, rule.to_owned()), "{found}");
        assert_eq!(answers.asked(), ["rebind.test", "rebind.test"]);
    }
}

/// One answer of the resolver is one connection: what it says the second time plays no part in the first.
#[tokio::test]
async fn a_name_is_resolved_once_and_its_address_kept() {
    use super::super::{dial::Dialer, host::Place};
    let public: &[&str] = &["9.9.9.9", "10.0.0.1", "2620:fe::9"];
    let answers = Answers::new(&[public, &["127.0.0.1"]]);
    let limits = Limits::default();
    let dialer = Dialer::new(
        &rules(&["rebind.test"]),
        EgressPolicy::new(),
        Arc::new(answers.clone()),
        &limits,
    )
    .unwrap();
    let place = Place::read(&"rebind.test:443".parse().unwrap(), None).unwrap();
    let found = dialer.addresses(&place).await.unwrap();
    let expected = ["9.9.9.9:443", "[2620:fe::9]:443"].map(|text| text.parse().unwrap());
    assert_eq!(found, expected);
    assert_eq!(answers.asked().len(), 1);
    assert_eq!(
        dialer.addresses(&place).await.unwrap_err().code(),
        crosspoint_core::Code::EgressRefused
    );

    // The same over sockets: the first answer is a host of this machine that a rule of the host permits, the second is not.
    let host = Host::start("hello").await;
    let rule = host.rule("rebind.test");
    let answers = Answers::new(&[&["127.0.0.1"], &["192.0.2.1"]]);
    let mut policy = allow(std::slice::from_ref(&rule));
    policy.resolve = Arc::new(answers.clone());
    let (_server, address) = start(policy);
    assert_eq!(body(&connect(address, &rule).await), "hello");
    assert_eq!((answers.asked().len(), host.seen().len()), (1, 1));
}

#[tokio::test]
async fn plain_http_needs_a_rule_that_names_the_port() {
    let host =
        Host::start("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nset-cookie: a=b\r\nkeep-alive: 9\r\n\r\nhello").await;
    let (server, address) = start(allow(&[host.rule("api.test"), "tls.test".to_owned()]));
    let target = format!("http://api.test:{}/x?y=1", host.address.port());
    let headers = [
        ("proxy-authorization", "Basic eA=="),
        ("proxy-connection", "keep-alive"),
        ("x-own", "1"),
        ("cookie", "mine=1"),
    ];
    let answer = send(address, "POST", &target, &headers, "body").await;
    assert_eq!((status(&answer), body(&answer)), (200, "hello"), "{answer}");
    assert_eq!(
        (header(&answer, "set-cookie"), header(&answer, "keep-alive")),
        (Some("a=b"), None)
    );
    let seen = host.seen().remove(0).to_ascii_lowercase();
    let (head, sent) = seen.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("post /x?y=1 http/1.1\r\n"), "{seen}");
    assert!(head.contains(&format!("host: {}", host.rule("api.test"))), "{seen}");
    assert!(head.contains("x-own: 1") && head.contains("cookie: mine=1"), "{seen}");
    assert!(!head.contains("proxy") && !head.contains("connection"), "{seen}");
    assert_eq!(sent, "body");

    for (target, rule) in [
        ("http://tls.test/", "allow"),
        ("http://tls.test:443/", "https"),
        ("https://tls.test/", "scheme"),
        ("ftp://tls.test/", "scheme"),
    ] {
        let answer = send(address, "GET", target, &[], "").await;
        assert_eq!(refusal(&answer), (403, rule.to_owned()), "{target}");
    }
    let log = log(server).await;
    assert!(
        log.len() == 3 && log.iter().any(|line| line.ends_with("(2 times)")),
        "{log:?}"
    );
}

#[tokio::test]
async fn a_forwarded_request_is_framed_once() {
    let host = Host::start("HTTP/1.1 204 No Content\r\n\r\n").await;
    let (_server, address) = start(allow(&[host.rule("api.test")]));
    let authority = host.rule("api.test");
    let both = format!(
        "POST http://{authority}/a HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n\
         2\r\nhi\r\n0\r\n\r\nGET http://{authority}/smuggled HTTP/1.1\r\n\r\n"
    );
    let answer = exchange(address, both).await;
    assert_eq!(status(&answer), 204);
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    let seen = host.seen();
    assert_eq!(seen.len(), 1);
    let head = seen[0].to_ascii_lowercase();
    assert!(
        head.contains("transfer-encoding: chunked") && !head.contains("content-length"),
        "{head}"
    );
    assert!(!head.contains("smuggled"), "{head}");
}

#[tokio::test]
async fn a_host_that_answers_nonsense_does_no_harm() {
    for (answer, code) in [
        ("", 502),
        ("220 smtp ready\r\n", 502),
        (
            "HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            502,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
            502,
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\nhello", 502),
    ] {
        let host = Host::start(answer).await;
        let (_server, address) = start(allow(&[host.rule("api.test")]));
        let got = send(address, "GET", &format!("http://{}/", host.rule("api.test")), &[], "").await;
        assert_eq!(status(&got), code, "{answer:?}: {got}");
    }
    // The body ends too early: so does the answer, visibly.
    let host = Host::start("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello").await;
    let (_server, address) = start(allow(&[host.rule("api.test")]));
    let got = send(address, "GET", &format!("http://{}/", host.rule("api.test")), &[], "").await;
    assert_eq!((header(&got, "content-length"), body(&got)), (Some("50"), "hello"));
}

#[tokio::test]
async fn hosts_that_are_not_there_are_a_problem_that_may_pass() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let place = format!("api.test:{}", closed.port());
    let (server, address) = start(allow(std::slice::from_ref(&place)));
    let answer = connect(address, &place).await;
    assert_eq!((status(&answer), header(&answer, "retry-after")), (502, Some("5")));
    assert_eq!(json(&answer)["code"], "provider-unreachable");
    assert!(log(server).await[0].contains(&place));

    let (policy, _) = guarded(&["api.test"], &[&[]]);
    let (_server, address) = start(policy);
    assert_eq!(status(&connect(address, "api.test:443").await), 502);
}

/// Never answers.
#[derive(Debug)]
struct Silent;

#[async_trait]
impl Resolve for Silent {
    async fn resolve(&self, _: &str) -> Result<Vec<IpAddr>> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_hangs_holds_nobody_for_ever() {
    let mut policy = policy(Egress::Allow(rules(&["*.test"])));
    policy.resolve = Arc::new(Silent);
    let (_server, address) = start(policy);
    let began = tokio::time::Instant::now();
    // More than are looked up at once.
    let calls: Vec<_> = (0..12)
        .map(|n| tokio::spawn(async move { connect(address, &format!("n{n}.test:443")).await }))
        .collect();
    for call in calls {
        assert_eq!(status(&call.await.unwrap()), 502);
    }
    assert!(began.elapsed() < Limits::default().connect + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_on_which_nothing_moves_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = format!("api.test:{}", listener.local_addr().unwrap().port());
    let (server, address) = start(allow(std::slice::from_ref(&place)));
    let mut near = TcpStream::connect(address).await.unwrap();
    near.write_all(format!("CONNECT {place} HTTP/1.1\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let (far, _) = listener.accept().await.unwrap();
    let mut answer = String::new();
    near.read_to_string(&mut answer).await.unwrap();
    assert_eq!(status(&answer), 200);
    drop(far);
    let log = log(server).await;
    assert!(log.len() == 1 && log[0].contains("nothing moved"), "{log:?}");
}

#[tokio::test]
async fn connections_to_other_hosts_are_numbered() {
    let host = Host::start("hello").await;
    let rule = host.rule("api.test");
    let mut policy = allow(std::slice::from_ref(&rule));
    policy.limits.upstream = 2;
    let (_server, address) = start(policy);
    for _ in 0..2 {
        assert_eq!(status(&connect(address, &rule).await), 200);
    }
    assert_eq!(refusal(&connect(address, &rule).await), (403, "connections".to_owned()));
    assert_eq!(host.seen().len(), 2);
}
