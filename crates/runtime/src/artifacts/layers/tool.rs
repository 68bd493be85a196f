//! Running a package manager.

use super::{Dependencies, failed};
use crosspoint_core::{Error, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use std::{ffi::OsString, path::Path, process::Stdio};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
};

/// How much of the end of the output is kept, in bytes.
const KEPT: usize = 8 << 10;

/// Runs a program to its end and answers what it wrote to standard output. It gets `PATH`, a home folder in `work`, and
/// the variables that the operators list.
///
/// # Errors
/// `dependencies-failed` with the end of its output if it fails, is missing, or takes too long: then every process of its
/// group is killed.
pub(super) async fn run(
    program: &str,
    args: &[OsString],
    own: &[(&str, &str)],
    work: &Path,
    dependencies: &Dependencies,
) -> Result<String> {
    let home = work.join("home");
    let made = std::fs::create_dir_all(&home);
    made.map_err(|e| failed("a home folder for the package manager cannot be made").caused_by(e))?;
    let mut command = Command::new(program);
    command
        .args(args)
        .current_dir(work)
        .env_clear()
        .env(
            "PATH",
            std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()),
        )
        .env("LANG", "C.UTF-8")
        .env("HOME", &home)
        .env("TMPDIR", &home)
        .envs(own.iter().copied())
        .envs(&dependencies.variables)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|e| {
        let message = format!("`{program}` cannot be started: it has to be installed on the host and found in PATH");
        failed(message).caused_by(e)
    })?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let ended = tokio::time::timeout(dependencies.limit, async {
        let (out, err, status) = tokio::join!(tail(stdout), tail(stderr), child.wait());
        (out, err, status)
    });
    let Ok((out, err, status)) = ended.await else {
        drop(group);
        let seconds = dependencies.limit.as_secs();
        return Err(failed(format!(
            "`{program}` had not ended after {seconds} s and was stopped"
        )));
    };
    let status = status.map_err(|e| failed(format!("`{program}` cannot be waited for")).caused_by(e))?;
    drop(group);
    if status.success() {
        return Ok(out);
    }
    let mut output = err;
    if output.trim().is_empty() {
        output = out;
    }
    Err(told(program, &output, dependencies).with("status", status))
}

/// The end of the output, without what only the operators know.
fn told(program: &str, output: &str, dependencies: &Dependencies) -> Error {
    let mut output = output.trim().to_owned();
    for (name, value) in &dependencies.variables {
        let value = value.to_string_lossy();
        if value.len() >= 6 {
            output = output.replace(value.as_ref(), &format!("[{name}]"));
        }
    }
    failed(format!("`{program}` could not install the packages:\n{output}"))
}

/// Reads to the end and keeps the last of it.
async fn tail(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else { return String::new() };
    let mut buffer = vec![0; 4096];
    while let Ok(count) = stream.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        kept.extend_from_slice(buffer.get(..count).unwrap_or_default());
        if kept.len() > 2 * KEPT {
            kept.drain(..kept.len() - KEPT);
        }
    }
    let from = kept.len().saturating_sub(KEPT);
    String::from_utf8_lossy(kept.get(from..).unwrap_or_default()).into_owned()
}

/// Kills every process of the group when it goes.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // There may be nobody left.
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}
