//! A process of the same program in another role. It says where it listens, and ends when its parent does.

use std::{
    error::Error,
    future::Future,
    io,
    process::{ExitCode, Stdio},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::TcpListener,
    process::{Child, ChildStdin, Command},
};

/// What a child prints in front of its address.
const READY: &str = "ready ";

pub struct Process {
    child: Child,
    /// Closing it ends the child.
    input: ChildStdin,
    pub address: String,
}

impl Process {
    /// Starts this program with `arguments` and waits until it listens.
    pub async fn start(arguments: &[&str]) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("a child without pipes"));
        };
        let mut lines = BufReader::new(output).lines();
        while let Some(line) = lines.next_line().await? {
            if let Some(address) = line.strip_prefix(READY) {
                let address = address.to_owned();
                return Ok(Self { child, input, address });
            }
        }
        Err(io::Error::other("a child ended before it listened"))
    }

    #[allow(dead_code, reason = "only one of the two examples kills")]
    /// SIGKILL: no warning, no chance to clean up.
    pub async fn kill(mut self) -> io::Result<()> {
        self.child.kill().await
    }

    /// Ends it by closing its input.
    pub async fn end(self) -> io::Result<()> {
        let Self { mut child, input, .. } = self;
        drop(input);
        child.wait().await.map(drop)
    }
}

/// Listens on the loopback interface and tells the parent where. Port 0 takes any.
pub async fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("{READY}{}", listener.local_addr()?);
    Ok(listener)
}

/// Resolves when the parent has closed our input or is gone.
pub async fn parent_gone() {
    let mut all = Vec::new();
    let _ = tokio::io::stdin().read_to_end(&mut all).await;
}

type AnyResult = Result<(), Box<dyn Error + Send + Sync>>;

/// Does the work, or ends it on Ctrl-C so that processes and files are cleaned up.
pub async fn until_interrupted(work: impl Future<Output = AnyResult>) -> AnyResult {
    tokio::select! {
        ended = work => ended,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    }
}

/// Says what went wrong.
pub fn exit_code(example: &str, ended: AnyResult) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{example}: {error}");
            ExitCode::FAILURE
        }
    }
}
