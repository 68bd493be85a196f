//! Finds out what this machine can enforce, by starting a run and letting it try.

use super::{Sandbox, cgroup::Groups, job::Job, landlock::Landlock, running::Child};
use crosspoint_core::{Code, CustomerId, Error, Isolation, IsolationReport, Limits, Retry};
use std::{ffi::OsString, time::Duration};
use tokio::{io::AsyncReadExt, time::timeout};

/// Longer than any trial.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the trial prints, one line each: what it is called, how it is looked at, and what must come out.
type Check = (&'static str, &'static str, &'static str);

/// Its own name: nobody but Landlock refuses that.
const LANDLOCK: Check = (
    "landlock",
    "(echo x > /proc/$$/comm) 2>/dev/null && echo free || echo held",
    "held",
);

const PROCESSES: Check = ("private-proc", "ls /proc | grep -c -v -e '^[0-9]*$' -e self", "0");

/// What both levels promise.
const COMMON: &[Check] = &[
    (
        "empty-capabilities",
        "sed -n 's/^Cap[EPIA].*:.//p' /proc/self/status | sort -u",
        "0000000000000000",
    ),
    (
        "no-new-privileges",
        "sed -n 's/^NoNewPrivs:.//p' /proc/self/status",
        "1",
    ),
    ("seccomp", "sed -n 's/^Seccomp:.//p' /proc/self/status", "2"),
    ("resource-limits", "ulimit -n; ulimit -c", "64\n0"),
    (
        "closed-descriptors",
        "sh -c 'exec ls -1 /proc/self/fd > fds'; wc -l < fds",
        "4",
    ),
    (
        "clean-environment",
        "env | grep -v ^PWD= | grep -v ^_= | tr '\\n' ' '",
        "PATH=/usr/bin:/bin ",
    ),
];

/// What bubblewrap does instead of [`LANDLOCK`] and [`PROCESSES`].
const BUBBLEWRAP: &[Check] = &[(
    "masked-proc",
    "for f in /proc/*; do case $f in /proc/[0-9]*|*self|*/mounts|*/net) ;; *) (ls -A $f/ || cat $f) 2>/dev/null | head -c 1;; esac; \
     done | wc -c",
    "0",
)];

/// What a host gives up that has bubblewrap start its runs.
const GIVEN_UP: &[&str] = &[
    "landlock, the second lock behind the mount namespace",
    "a limit on the number of files in /w by the kernel; it is looked at several times a second",
    "egress `allow`; scripts reach the broker, at a socket",
];

const SANDBOXED: &[Check] = &[
    ("user-namespace", "id -u", "1000"),
    (
        "bounding-set",
        "sed -n 's/^CapBnd:.//p' /proc/self/status",
        "0000000000000000",
    ),
    ("pid-namespace", "echo $$", "1"),
    ("host-name", "hostname 2>/dev/null || uname -n", "sandbox"),
    (
        "own-root",
        "ls -A / | grep -c -e '^home$' -e '^boot$' -e '^sys$' -e '^srv$'",
        "0",
    ),
    (
        "read-only-root",
        "(echo > /usr/x) 2>/dev/null && echo free || echo held",
        "held",
    ),
    (
        "capped-tmpfs",
        "head -c 4194304 /dev/zero 2>/dev/null > /w/tmp/x; [ $(wc -c < /w/tmp/x) -le 1048576 ] && echo held; rm /w/tmp/x",
        "held",
    ),
    (
        "network-namespace",
        "grep : /proc/self/net/dev | grep -c -v ' *lo:'",
        "0",
    ),
];

const CONFINED: &[Check] = &[
    ("own-folder", "echo x > own && cat own", "x"),
    (
        "no-other-files",
        "ls /root /home /tmp /var/log 2>/dev/null | wc -l",
        "0",
    ),
];

impl Sandbox {
    /// Starts a run at each level, and reports the strongest one that holds what it promises, and what the next one lacks.
    pub async fn probe(&self) -> IsolationReport {
        self.look().await.0
    }

    /// The same, and the error of a trial that failed for a reason that may have passed: with more luck it holds more.
    pub(crate) async fn look(&self) -> (IsolationReport, Option<Error>) {
        let mut mechanisms = Vec::new();
        let mut missing = Vec::new();
        let mut passing = None;
        let sandboxed = self
            .try_level(Isolation::Sandboxed, &mut mechanisms, &mut missing, &mut passing)
            .await;
        if sandboxed {
            mechanisms.push(self.memory_limit().to_owned());
            if let Some(version) = self.bubblewrap().await {
                mechanisms.push(format!("bubblewrap:{version}"));
                missing.extend(GIVEN_UP.iter().map(|what| format!("bubblewrap: {what}")));
            }
            return (IsolationReport::new(Isolation::Sandboxed, mechanisms, missing), None);
        }
        mechanisms.clear();
        let confined = self
            .try_level(Isolation::Confined, &mut mechanisms, &mut missing, &mut passing)
            .await;
        let level = if confined {
            mechanisms.push(self.memory_limit().to_owned());
            Isolation::Confined
        } else {
            Isolation::Process
        };
        (IsolationReport::new(level, mechanisms, missing), passing)
    }

    /// What a run went through just now.
    fn memory_limit(&self) -> &'static str {
        let groups = self.inner.groups.get().and_then(Option::as_ref);
        let groups = groups.filter(|groups| !groups.refused());
        groups.map_or("memory-limit:per-process-and-polled", Groups::describe)
    }

    async fn try_level(
        &self,
        level: Isolation,
        mechanisms: &mut Vec<String>,
        missing: &mut Vec<String>,
        passing: &mut Option<Error>,
    ) -> bool {
        let checks: Vec<Check> = match level {
            Isolation::Sandboxed if self.is_bubblewrap() => [COMMON, SANDBOXED, BUBBLEWRAP].concat(),
            Isolation::Sandboxed => [COMMON, &[LANDLOCK, PROCESSES], SANDBOXED].concat(),
            _ => [COMMON, &[LANDLOCK], CONFINED].concat(),
        };
        let through = level == Isolation::Sandboxed && self.is_bubblewrap();
        let before = missing.len();
        match self.trial(level, &checks).await {
            Ok(said) => {
                if !through {
                    let version = Landlock::probe().map_or(0, Landlock::version);
                    mechanisms.push(format!("landlock-version:{version}"));
                }
                for ((name, _, expected), got) in checks.iter().zip(said) {
                    if got == *expected {
                        mechanisms.push((*name).to_owned());
                    } else {
                        missing.push(format!(
                            "{level}: {name}: a trial run found `{got}` and not `{expected}`"
                        ));
                    }
                }
            }
            Err(error) => {
                missing.push(format!("{level}: {}", why(&error)));
                if error.retry() == Retry::Backoff {
                    *passing = Some(error);
                }
            }
        }
        if level == Isolation::Confined
            && !rustix::process::geteuid().is_root()
            && !Landlock::probe().is_ok_and(Landlock::scopes)
        {
            missing.push(
                "confined: without Landlock's version 6 (Linux 6.12) a run could signal the host's own processes; update \
                 the kernel"
                    .to_owned(),
            );
        }
        missing.len() == before
    }

    /// Lets a shell look at what it finds, and kills a tree. Answers what each look said.
    async fn trial(&self, level: Isolation, checks: &[Check]) -> Result<Vec<String>, Error> {
        const MARK: &str = "\u{1e}\n";
        let failed = |why| crate::isolation_unavailable(level, Isolation::Process, why);
        let mut script = String::new();
        for (_, look, _) in checks {
            script.push_str(look);
            script.push_str("\nprintf '\\036\\n'\n");
        }
        // Whoever holds the output keeps it open: it must be dead before the trial is over.
        script.push_str("(sleep 600 &); exit 0\n");
        let customer = CustomerId::new("crosspoint.probe")?;
        let mut job = Job::new("/bin/sh").arg("-c").arg(script);
        job.env = vec![(OsString::from("PATH"), OsString::from("/usr/bin:/bin"))];
        let mut limits = Limits::default();
        limits.disk = 1 << 20;
        limits.open_files = 64;
        job.limits = limits;
        job.network = level == Isolation::Sandboxed && !self.is_bubblewrap();
        let folder = if level == Isolation::Confined {
            let folder = tempfile::tempdir().map_err(|error| {
                let message = format!("the trial has no folder of its own: {error}");
                Error::new(Code::ScriptNotStarted, message).with_retry(Retry::Backoff)
            })?;
            job.folder = Some(folder.path().to_owned());
            job.dir = folder.path().to_owned();
            Some(folder)
        } else {
            None
        };
        let mut child = self.launch(level, job, &customer).await?;
        if level == Isolation::Sandboxed && !self.is_bubblewrap() && child.listener.is_none() {
            return Err(failed("no listener came out of the network namespace"));
        }
        let said = timeout(PATIENCE, read(&mut child)).await;
        drop(folder);
        let said = said.map_err(|_| failed("what a run leaves behind is not killed with it"))?;
        Ok(said
            .split_terminator(MARK)
            .map(|part| part.trim_end_matches('\n').to_owned())
            .collect())
    }
}

/// Everything that it says, until nobody is left to say more.
async fn read(child: &mut Child) -> String {
    let mut said = Vec::new();
    if let Some(mut out) = child.stdout.take() {
        out.read_to_end(&mut said).await.ok();
    }
    child.wait().await.ok();
    String::from_utf8_lossy(&said).into_owned()
}

/// What an error says is missing.
fn why(error: &Error) -> String {
    let missing = error.context().iter().find(|(name, _)| *name == "missing");
    missing.map_or_else(|| error.to_string(), |(_, missing)| missing.clone())
}
