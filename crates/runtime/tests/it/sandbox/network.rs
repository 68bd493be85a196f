//! What a run can reach: its own loopback, and through it what is served from outside.

use super::*;
use std::net::TcpListener;
use tokio::io::AsyncWriteExt;

/// What a connection to a port of the loopback ends in.
fn connect(port: u16) -> Job {
    perl(&format!(
        "use Socket; socket(my $s, PF_INET, SOCK_STREAM, 0) or die; \
         print connect($s, sockaddr_in({port}, inet_aton('127.0.0.1'))) ? 'in' : $!{{ECONNREFUSED}} ? 'refused' : \
         $!{{EACCES}} ? 'denied' : $!"
    ))
}

#[tokio::test]
async fn the_hosts_loopback_is_out_of_reach() {
    if !has("perl") {
        return;
    }
    let host = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = host.local_addr().unwrap().port();
    assert_eq!(told(connect(port)).await, "denied");
    let mut job = connect(port);
    job.network = true;
    assert_eq!(told(job).await, "denied");
}

#[tokio::test]
async fn nothing_but_a_loopback_device_exists() {
    if !has("perl") {
        return;
    }
    let out = told(shell(
        "cat /proc/self/net/dev /proc/self/net/route | grep -c :; cat /proc/self/net/unix | wc -l",
    ))
    .await;
    assert_eq!(out, "1\n1\n");
}

#[tokio::test]
async fn the_listener_is_served_from_outside() {
    if !has("perl") {
        return;
    }
    let mut job = perl(
        "use IO::Socket::INET; my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1:8899') or die $!; \
         print $s \"GET / HTTP/1.0\\r\\n\\r\\n\"; local $/; print <$s>",
    );
    job.network = true;
    let mut child = sandbox().launch(SANDBOXED, job, &customer("acme")).await.unwrap();
    let listener = tokio::net::TcpListener::from_std(child.listener.take().unwrap()).unwrap();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 18];
        stream.read_exact(&mut request).await.unwrap();
        assert_eq!(&request, b"GET / HTTP/1.0\r\n\r\n");
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello").await.unwrap();
    };
    let (told, ()) = tokio::join!(finish(&mut child), serve);
    assert_eq!(told.out, "HTTP/1.0 200 OK\r\n\r\nhello", "{told:?}");
}

#[tokio::test]
async fn a_network_serves_one_customer_again_and_no_other() {
    let sandbox = Sandbox::new(SandboxOptions::new().networks(1));
    let mut last = std::collections::HashMap::<&str, String>::new();
    let mut again = 0;
    for round in 0..10 {
        for name in ["acme", "globex"] {
            let mut job = shell("readlink /proc/self/ns/net");
            job.network = round % 2 == 0;
            let mut child = sandbox.launch(SANDBOXED, job, &customer(name)).await.unwrap();
            let told = finish(&mut child).await;
            drop(child);
            let other = if name == "acme" { "globex" } else { "acme" };
            assert_ne!(last.get(other), Some(&told.out));
            let before = last.insert(name, told.out.clone());
            again += u32::from(before == Some(told.out));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    assert!(again > 0, "none was used again");
}

#[tokio::test]
async fn a_customer_who_stays_away_keeps_no_network_from_others() {
    let sandbox = Sandbox::new(SandboxOptions::new().networks(1).reuse_networks(1, 1000));
    let name = async |of: &str| {
        let job = shell("readlink /proc/self/ns/net");
        let mut child = sandbox.launch(SANDBOXED, job, &customer(of)).await.unwrap();
        finish(&mut child).await.out
    };
    for of in ["acme", "globex"] {
        // Until what it used has been looked at and kept.
        let mut last = name(of).await;
        let mut tries = 0;
        loop {
            let next = name(of).await;
            if next == last {
                break;
            }
            last = next;
            tries += 1;
            assert!(tries < 1000, "{of} has never got the same again");
        }
    }
}

#[tokio::test]
async fn a_network_with_a_socket_left_in_it_is_given_up() {
    let sandbox = Sandbox::new(SandboxOptions::new().networks(1));
    let mut job = shell("readlink /proc/self/ns/net");
    job.network = true;
    let mut child = sandbox.launch(SANDBOXED, job.clone(), &customer("acme")).await.unwrap();
    let held = child.listener.take();
    let first = finish(&mut child).await.out;
    drop(child);
    for _ in 0..5 {
        let mut child = sandbox.launch(SANDBOXED, job.clone(), &customer("acme")).await.unwrap();
        assert_ne!(finish(&mut child).await.out, first);
    }
    drop(held);
}
