//! The spawn core by itself: what a run can see, reach and use, at each level.

mod inside;

use crosspoint_core::{CustomerId, Isolation};
use crosspoint_runtime::bare::{Child, Ended, Input, Job, Sandbox, SandboxOptions};
use std::time::Duration;
use tokio::io::AsyncReadExt;

pub(crate) fn customer(name: &str) -> CustomerId {
    CustomerId::new(name).unwrap()
}

pub(crate) fn shell(script: &str) -> Job {
    let mut job = Job::new("/bin/sh").arg("-c").arg(script);
    job.env = vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())];
    job
}

/// What a run wrote, and how it ended.
pub(crate) struct Told {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) ended: Ended,
}

/// Reads both outputs to their ends.
pub(crate) async fn finish(child: &mut Child) -> Told {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let all = async {
        let (one, two) = tokio::join!(stdout.read_to_end(&mut out), stderr.read_to_end(&mut err));
        one.and(two).unwrap();
        child.wait().await.unwrap()
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), all)
        .await
        .expect("a run ends");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Told {
        out: text(&out),
        err: text(&err),
        ended,
    }
}

pub(crate) async fn run(sandbox: &Sandbox, level: Isolation, job: Job) -> Told {
    let mut child = sandbox.launch(level, job, &customer("acme")).await.unwrap();
    finish(&mut child).await
}
