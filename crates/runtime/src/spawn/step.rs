//! The steps of a start, and what it means when one fails.

use crosspoint_core::{Code, Error, Isolation, Retry};
use rustix::io::Errno;

/// A step on the way to a running program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Thread,
    UserNamespace,
    IdMaps,
    HostView,
    Root,
    RootTree,
    RootProc,
    RootDevices,
    Enter,
    NetworkNamespace,
    Loopback,
    Folder,
    Identity,
    Pipes,
    Clone,
    ControlGroup,
    Hostname,
    Proc,
    Tmpfs,
    Inputs,
    Bind,
    WorkFolder,
    Listener,
    HandOut,
    Stdio,
    Session,
    Limits,
    Descriptors,
    Capabilities,
    ParentWatch,
    NoNewPrivileges,
    Landlock,
    Seccomp,
    Execute,
    Bubblewrap,
    Wait,
    Gone,
}

/// What the failure of a step says about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// This machine does not allow what the level needs.
    Machine,
    /// The program, its folder or its files.
    Job,
    /// Too little of something at the moment.
    Now,
}

const USER_NAMESPACES: &str = "allow unprivileged user namespaces: sysctl user.max_user_namespaces above 0, \
    kernel.unprivileged_userns_clone=1 or kernel.apparmor_restrict_unprivileged_userns=0 where they exist; in a \
    container a seccomp profile that permits clone, unshare, setns, mount and pivot_root";

const BUBBLEWRAP: &str = "bubblewrap 0.8 or later, without set-user-id, must lie where `SandboxOptions::bubblewrap` says, \
    and may make user namespaces";

impl Step {
    /// The name, and how to get what is missing.
    const fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::Thread => ("spawner thread", "raise the limit of threads (ulimit -u, pids.max)"),
            Self::UserNamespace => ("user namespaces", USER_NAMESPACES),
            Self::IdMaps => (
                "id maps",
                "as root the host needs CAP_SETUID and CAP_SETGID, and the range of user ids must exist here: see \
                 `SandboxOptions::uids`",
            ),
            Self::HostView | Self::Root | Self::RootTree | Self::RootDevices => (
                "mount namespace with a root of its own",
                "allow mount, pivot_root, mount_setattr (Linux 5.12) and tmpfs inside user namespaces",
            ),
            Self::RootProc | Self::Proc => (
                "fresh /proc",
                "a container must not mask parts of /proc (Kubernetes: procMount: Unmasked; Docker: \
                 --security-opt systempaths=unconfined)",
            ),
            Self::Enter => ("entering the ready namespaces", "allow setns"),
            Self::NetworkNamespace => ("network namespaces", "sysctl user.max_net_namespaces above 0"),
            Self::Loopback => (
                "loopback in a network namespace",
                "the kernel must permit ioctl(SIOCSIFFLAGS) there",
            ),
            Self::Folder => ("private folder", "the folder must be owned by the host's user"),
            Self::Identity => (
                "user id of the customer",
                "as root the host needs CAP_SETUID and CAP_SETGID; see `SandboxOptions::uids`",
            ),
            Self::Pipes => ("pipes", "raise the limit of open files (ulimit -n)"),
            Self::Clone => (
                "namespaces of the run",
                "raise user.max_*_namespaces and the limit of processes",
            ),
            Self::ControlGroup => ("control group", "see `SandboxOptions::cgroup`"),
            Self::Hostname => ("host name", "UTS namespaces must work"),
            Self::Tmpfs => ("capped tmpfs", "tmpfs must be mountable in user namespaces"),
            Self::Inputs => ("input files", "the limit `disk` must hold the inputs"),
            Self::Bind => (
                "read-only folders of the run",
                "the folder must exist and be readable by everybody; inside it lies at /app, /layer/0 to /layer/7 or below /w",
            ),
            Self::WorkFolder => ("working folder", "it must be visible inside"),
            Self::Listener => (
                "listener on the loopback",
                "the loopback of the network namespace must work",
            ),
            Self::HandOut => ("handing out descriptors", "unix sockets must work"),
            Self::Stdio => ("standard streams", "the limit `open_files` must be at least 8"),
            Self::Session => ("session", "setsid must be permitted"),
            Self::Limits => ("resource limits", "a seccomp profile must permit prlimit64"),
            Self::Descriptors => ("closing of descriptors", "Linux 5.11 has close_range with CLOEXEC"),
            Self::Capabilities => ("empty capability sets", "capset and prctl must be permitted"),
            Self::ParentWatch => ("end with the host", "prctl(PR_SET_PDEATHSIG) must be permitted"),
            Self::NoNewPrivileges => ("no_new_privs", "prctl(PR_SET_NO_NEW_PRIVS) must be permitted"),
            Self::Landlock => (
                "Landlock",
                "a kernel with CONFIG_SECURITY_LANDLOCK, and `landlock` in the boot parameter `lsm=`",
            ),
            Self::Seccomp => ("seccomp", "a kernel with CONFIG_SECCOMP_FILTER"),
            Self::Execute => (
                "execution of the program",
                "the program must exist inside, be executable, and lie in a folder that is visible: see \
                 `SandboxOptions::read_only`",
            ),
            Self::Bubblewrap => ("bubblewrap", BUBBLEWRAP),
            Self::Wait => (
                "word of the end",
                "the spawner was killed; do not kill the host's helper processes",
            ),
            Self::Gone => (
                "spawner",
                "the spawner has ended; do not kill the host's helper processes",
            ),
        }
    }

    /// How to get what is missing.
    pub(super) const fn cure(self) -> &'static str {
        self.text().1
    }

    const fn about(self, errno: Errno) -> About {
        match (self, errno) {
            (_, Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::TIMEDOUT)
            | (Self::Gone | Self::Wait, _)
            | (Self::Listener, Errno::ADDRINUSE) => About::Now,
            (Self::Folder | Self::Inputs | Self::Bind | Self::WorkFolder | Self::Execute, _) => About::Job,
            _ => About::Machine,
        }
    }
}

/// A step that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) step: Step,
    pub(super) errno: Errno,
}

/// Names the step of a failure.
pub(super) fn step<T>(step: Step, result: Result<T, Errno>) -> Result<T, Trouble> {
    result.map_err(|errno| Trouble { step, errno })
}

/// The same for what the standard library answers.
pub(super) fn io_step<T>(step: Step, result: std::io::Result<T>) -> Result<T, Trouble> {
    result.map_err(|error| Trouble {
        step,
        errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
    })
}

impl Trouble {
    pub(super) fn about(self) -> About {
        self.step.about(self.errno)
    }

    /// For a report: what is missing, why, and how to get it.
    pub(super) fn missing(self) -> String {
        let (name, cure) = self.step.text();
        format!("{name}: {}; {cure}", self.reason())
    }

    fn reason(self) -> String {
        std::io::Error::from(self.errno).to_string()
    }

    /// As the error of a run that asked for `asked`.
    pub(super) fn error(self, asked: Isolation) -> Error {
        let (name, cure) = self.step.text();
        let error = match self.about() {
            About::Machine => crate::isolation_unavailable(asked, Isolation::Process, &self.missing()),
            About::Job => {
                let message = format!("the script could not be started: {name}: {}", self.reason());
                Error::new(Code::ScriptNotStarted, message)
            }
            About::Now => {
                let message = format!("the script could not be started for now: {name}: {}", self.reason());
                Error::new(Code::ScriptNotStarted, message).with_retry(Retry::Backoff)
            }
        };
        error.with("step", name).with("cure", cure).caused_by(self.errno)
    }
}
