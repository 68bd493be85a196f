//! Real clients, each in the way its documentation says.

use super::*;
use std::process::Stdio;
use tokio::process::Command;

/// Whether a test that needs a program can run; missing ones are a failure where everything has to be there.
fn has(program: &str) -> bool {
    let found = std::process::Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    let required = std::env::var_os("CROSSPOINT_REQUIRE_ALL").is_some_and(|v| v == "1");
    assert!(found || !required, "{program} is missing");
    if !found {
        eprintln!("skipped: {program} is missing");
    }
    found
}

/// What a program prints when it runs with the environment of a run.
async fn output(address: SocketAddr, program: &str, args: &[&str]) -> String {
    let at = format!("http://{address}");
    let proxy = [
        "XP_BROKER_URL",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "http_proxy",
        "https_proxy",
    ];
    let direct = ["NO_PROXY", "no_proxy"].map(|name| (name, "127.0.0.1,localhost"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let output = Command::new(program)
        .args(args)
        .env_clear()
        .env("PATH", path)
        .env("HOME", std::env::var_os("HOME").unwrap_or_default())
        .envs(proxy.map(|name| (name, &at)))
        .envs(direct)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    String::from_utf8(output.stdout).unwrap() + &errors
}

/// A host, a provider, and a service that lets a run reach both.
async fn world() -> (Host, Provider, Server, SocketAddr) {
    let host = Host::start("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello").await;
    let provider = Provider::echo();
    let rules = vec![host.rule("api.test")];
    let mut policy = allow(&rules);
    policy.connections.insert("shop".to_owned(), provider.client());
    let (server, address) = start(policy);
    (host, provider, server, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn curl() {
    if !has("curl") {
        return;
    }
    let (host, provider, server, address) = world().await;
    let plain = format!("http://{}/x", host.rule("api.test"));
    assert_eq!(output(address, "curl", &["-sS", &plain]).await, "hello");
    assert_eq!(
        output(address, "curl", &["-sSp", &plain]).await,
        "hello",
        "through a tunnel"
    );
    let at = format!("http://127.0.0.1:{}/c/shop/orders", address.port());
    let posted = output(address, "curl", &["-sS", "-d", "a=1", &at]).await;
    assert_eq!(posted, "a=1");
    let large = "x".repeat(3000);
    // Waits for `100 Continue`.
    assert_eq!(
        output(
            address,
            "curl",
            &["-sS", "-H", "expect: 100-continue", "-d", &large, &at]
        )
        .await,
        large
    );
    let proxied = output(address, "curl", &["-sS", "--noproxy", "", &at]).await;
    assert_eq!(proxied, "");
    assert_eq!(provider.seen().len(), 3);
    let refused = output(address, "curl", &["-sS", "https://169.254.169.254/"]).await;
    assert!(refused.contains("403"), "{refused}");
    assert!(log(server).await[0].contains("CONNECT 169.254.169.254:443"));
}

#[tokio::test(flavor = "multi_thread")]
async fn python() {
    if !has("python3") {
        return;
    }
    let (host, provider, _server, address) = world().await;
    let text = r"
import json, os, sys, urllib.error, urllib.request
plain = urllib.request.urlopen(sys.argv[1]).read().decode()
call = urllib.request.Request(os.environ['XP_BROKER_URL'] + '/c/shop/orders', data=b'{}', method='POST')
with urllib.request.urlopen(call) as answer:
    posted = answer.read().decode(), answer.headers['xp-effect-key'] is not None
try:
    urllib.request.urlopen('http://127.0.0.1:' + sys.argv[2] + '/c/other/')
except urllib.error.HTTPError as error:
    problem = error.code, json.load(error)['code']
try:
    urllib.request.urlopen('https://10.0.0.1/')
except OSError as error:
    refused = '403' in str(error)
print([plain, posted, problem, refused])
";
    let (plain, port) = (
        format!("http://{}/x", host.rule("api.test")),
        address.port().to_string(),
    );
    let printed = output(address, "python3", &["-c", text, &plain, &port]).await;
    assert_eq!(printed.trim(), "['hello', ('{}', True), (404, 'not-found'), True]");
    assert_eq!(
        provider.seen()[0].0.headers()["authorization"],
        format!("Bearer {CANARY}")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn node() {
    if !has("node") {
        return;
    }
    let (_host, provider, _server, address) = world().await;
    let text = r"
fetch(process.env.XP_BROKER_URL + '/c/shop/orders', { method: 'POST', body: '{}' })
  .then(async (answer) => console.log(answer.status, await answer.text()));
";
    assert_eq!(output(address, "node", &["-e", text]).await.trim(), "200 {}");
    assert_eq!(provider.seen().len(), 1);
}
