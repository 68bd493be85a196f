//! A process of the `saas` example, and a small HTTP client that keeps its cookie.

use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

pub struct Saas {
    child: Option<Child>,
    address: String,
    cookie: String,
}

impl Saas {
    /// Starts it on a free port and signs in.
    pub fn start(data: &Path, user: &str, provider_port: u16) -> Self {
        let test = std::env::current_exe().unwrap();
        let program = test.parent().unwrap().parent().unwrap().join("examples/saas");
        let mut child = Command::new(&program)
            .args(["--data", data.to_str().unwrap()])
            .env("PORT", "0")
            .env("PROVIDER_PORT", provider_port.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; `cargo test` builds it", program.display()));
        let mut lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let line = lines
            .find(|line| line.trim_start().starts_with("open"))
            .expect("it says what to open");
        let address = line
            .split("http://")
            .nth(1)
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .to_owned();
        // Somebody has to read what it prints, or it would block one day.
        std::thread::spawn(move || lines.for_each(drop));
        let mut saas = Self {
            child: Some(child),
            address,
            cookie: String::new(),
        };
        saas.sign_in(user);
        saas
    }

    /// The same process seen by another user; somebody whom it does not know stays signed out.
    pub fn as_user(&self, user: &str) -> Self {
        let mut other = Self {
            child: None,
            address: self.address.clone(),
            cookie: String::new(),
        };
        other.sign_in(user);
        other
    }

    fn sign_in(&mut self, user: &str) {
        let answer = self.send(
            "POST",
            "/login",
            "application/x-www-form-urlencoded",
            &format!("user={user}"),
        );
        let cookie = answer.header("set-cookie").and_then(|cookie| cookie.split(';').next());
        self.cookie = cookie.unwrap_or_default().to_owned();
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", "")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, "application/json", &body.to_string())
    }

    pub fn send(&self, method: &str, path: &str, content_type: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let length = body.len();
        let kind = if content_type.is_empty() {
            String::new()
        } else {
            format!("content-type: {content_type}\r\n")
        };
        let (host, cookie) = (&self.address, &self.cookie);
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\nx-crosspoint: 1\r\ncookie: {cookie}\r\n{kind}content-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole answer");
        Answer {
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    /// No warning, no chance to clean up.
    pub fn kill(mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// As Ctrl-C does; answers whether it ended well.
    pub fn interrupt(mut self) -> bool {
        let mut child = self.child.take().unwrap();
        let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        assert!(interrupted.unwrap().success());
        child.wait().unwrap().success()
    }
}

impl Drop for Saas {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub struct Answer {
    head: String,
    pub body: String,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.head, self.body))
    }

    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status(), status, "{}", self.body);
        self
    }
}

/// Asks another process until it says so; there is no event to wait for across a process.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    for _ in 0..600 {
        if let Some(answer) = ask() {
            return answer;
        }
        #[expect(clippy::disallowed_methods, reason = "a plain thread asks another process")]
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("not within a minute: {what}");
}
