//! Landlock: which files a run may reach, whether it may use TCP, and that it sends signals to nobody else.
//!
//! The second lock behind the mount namespace at `Sandboxed`, the first one at `Confined`. The rules are added by the
//! child itself, since a rule on a mount point says nothing about what is mounted there, and each run has a folder of
//! its own; that costs about 5 us.

use super::{
    step::{Step, Trouble, step},
    sys::landlock as sys,
};
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    io::fcntl_dupfd_cloexec,
};

const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;

const BIND_TCP: u64 = 1;
const CONNECT_TCP: u64 = 1 << 1;

/// Abstract unix sockets and signals.
const SCOPES: u64 = 0b11;

/// What this kernel's Landlock can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Landlock {
    version: i64,
}

/// What is allowed at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Reading and executing.
    Read,
    /// Everything.
    Own,
    /// Reading and writing of what is there: devices.
    Device,
}

impl Landlock {
    pub(super) fn probe() -> Result<Self, Trouble> {
        step(Step::Landlock, sys::version()).map(|version| Self { version })
    }

    pub(super) const fn version(self) -> i64 {
        self.version
    }

    /// Whether TCP can be refused.
    pub(super) const fn tcp(self) -> bool {
        self.version >= 4
    }

    /// Whether signals and abstract sockets stay inside.
    pub(super) const fn scopes(self) -> bool {
        self.version >= 6
    }

    /// Every access to files that this version knows.
    const fn files(self) -> u64 {
        let count = match self.version {
            ..=1 => 13,
            2 => 14,
            3 | 4 => 15,
            _ => 16,
        };
        (1 << count) - 1
    }

    const fn granted(self, access: Access, folder: bool) -> u64 {
        let wanted = match access {
            Access::Read => EXECUTE | READ_FILE | READ_DIR,
            Access::Own => !IOCTL_DEV,
            Access::Device => READ_FILE | WRITE_FILE | READ_DIR,
        };
        let possible = if folder {
            u64::MAX
        } else {
            EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
        };
        self.files() & wanted & possible
    }

    /// An empty set of rules: nothing is allowed. `confine_tcp`: TCP is refused but to ports that are allowed.
    pub(super) fn rules(self, confine_tcp: bool) -> Result<Rules, Trouble> {
        let net = if confine_tcp { BIND_TCP | CONNECT_TCP } else { 0 };
        let attributes = [self.files(), net, SCOPES];
        let known = match self.version {
            ..=3 => 1,
            4 | 5 => 2,
            _ => 3,
        };
        let attributes = attributes.get(..known).unwrap_or(&attributes);
        // Above the standard streams and the messages, which are put in their places while the rules are still open.
        let mut ruleset = step(Step::Landlock, sys::ruleset(attributes))?;
        if ruleset.as_raw_fd() < 4 {
            ruleset = step(Step::Landlock, fcntl_dupfd_cloexec(ruleset, 4))?;
        }
        Ok(Rules {
            landlock: self,
            ruleset,
        })
    }
}

/// Rules that are being collected. Nothing here allocates: the child does it.
#[derive(Debug)]
pub(super) struct Rules {
    landlock: Landlock,
    ruleset: OwnedFd,
}

impl Rules {
    pub(super) fn allow(&self, path: BorrowedFd<'_>, access: Access, folder: bool) -> Result<(), Trouble> {
        let access = self.landlock.granted(access, folder);
        step(Step::Landlock, sys::allow_path(self.ruleset.as_fd(), path, access))
    }

    /// Allows connections to a port; without effect where Landlock knows nothing of TCP.
    pub(super) fn allow_connect(&self, port: u16) -> Result<(), Trouble> {
        if !self.landlock.tcp() {
            return Ok(());
        }
        step(Step::Landlock, sys::allow_port(self.ruleset.as_fd(), port, CONNECT_TCP))
    }

    /// From here on the rules hold for this task and all that it starts.
    pub(super) fn enforce(&self) -> Result<(), Trouble> {
        step(Step::Landlock, sys::restrict(self.ruleset.as_fd()))
    }
}
