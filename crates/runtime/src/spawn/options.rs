//! What the host may choose.

use std::{ops::Range, path::PathBuf};

/// How scripts are isolated on this machine. The defaults suit most hosts; [`Subprocess`](crate::Subprocess) uses them.
///
/// ```
/// use crosspoint_runtime::SandboxOptions;
///
/// let options = SandboxOptions::new()
///     .read_only(["/opt/python3.12"])   // instead of what `PATH` leads to
///     .networks(32)                     // many runs start at once
///     .uids(300_000..400_000);          // the host runs as root
/// # let _ = options;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SandboxOptions {
    pub(super) read_only: Option<Vec<PathBuf>>,
    pub(super) uids: Option<Range<u32>>,
    pub(super) spawners: usize,
    pub(super) networks: usize,
    pub(super) kept_networks: usize,
    pub(super) network_uses: u32,
    pub(super) control_groups: bool,
    pub(super) cgroup: Option<PathBuf>,
    pub(super) bubblewrap: Option<PathBuf>,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl SandboxOptions {
    /// The defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            read_only: None,
            uids: None,
            spawners: 2,
            networks: 16,
            kept_networks: 64,
            network_uses: 256,
            control_groups: false,
            cgroup: None,
            bubblewrap: None,
        }
    }

    /// Folders that scripts may read besides the system's own (`/usr`, and what of `/etc` programs need), such as
    /// interpreters in `/opt`. They lie at the same paths inside. What lies below `/tmp`, `/var/tmp` or another folder that a
    /// sandboxed run has for itself can be shown at `confined` only; a warning says so.
    ///
    /// By default those that the programs of `PATH` lie in. Of a home folder only folders named `bin` with the `lib`
    /// beside them, and the folders of known version managers, are shown; never the home folder itself.
    #[must_use]
    pub fn read_only(mut self, paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        self.read_only = Some(paths.into_iter().map(Into::into).collect());
        self
    }

    /// Where the host runs as root: user and group ids from which every customer whose scripts run gets one, which no
    /// other customer has meanwhile. Nothing else on the machine may use them.
    ///
    /// By default 1,900,000,000 to 1,900,065,535, or in a container without such ids 61,184 to 65,519.
    #[must_use]
    pub fn uids(mut self, uids: Range<u32>) -> Self {
        self.uids = Some(uids);
        self
    }

    /// How many runs can be started at the same instant (2): more than there are processors only adds waiting.
    #[must_use]
    pub const fn spawners(mut self, spawners: usize) -> Self {
        self.spawners = if spawners == 0 { 1 } else { spawners };
        self
    }

    /// How many network namespaces are kept ready (16). Making one takes longer than starting a run in it.
    #[must_use]
    pub const fn networks(mut self, ahead: usize) -> Self {
        self.networks = if ahead == 0 { 1 } else { ahead };
        self
    }

    /// How many used network namespaces are kept for their customers' next runs (64), and how often each is used (256).
    /// With 0 or 1 uses, none serves twice. Where all places are taken, the one that has waited longest goes.
    #[must_use]
    pub const fn reuse_networks(mut self, kept: usize, uses: u32) -> Self {
        self.kept_networks = kept;
        self.network_uses = uses;
        self
    }

    /// Puts every run into a control group of its own, if such groups can be made here (no): in the host's group of
    /// version 2 if that is delegated to it, or as root in version 1.
    ///
    /// Then the kernel limits the memory of a whole run at once; without, it limits that of each process, and the host
    /// looks at all of them 5 to 20 times a second. Moving a process into a group waits for all processors, which makes
    /// a start slower by 10 ms now and then.
    #[must_use]
    pub const fn control_groups(mut self, wanted: bool) -> Self {
        self.control_groups = wanted;
        self
    }

    /// Puts every run into a control group of its own in this folder: of version 2, the host's to write to, and without
    /// processes.
    #[must_use]
    pub fn cgroup(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cgroup = Some(folder.into());
        self.control_groups(true)
    }

    /// Starts sandboxed runs through this program, which is [bubblewrap](https://github.com/containers/bubblewrap) 0.8 or
    /// later (no): for hosts that prefer an audited tool, or where only that may make user namespaces. Runs at `confined`
    /// stay as they are, and nothing is started in another way where this one fails.
    ///
    /// It has no Landlock, which is the second lock behind the mount namespace, no limit of the kernel's on the number of files in `/w`, and
    /// no loopback that somebody listens on: scripts reach the broker at a socket, and single hosts
    /// ([`Egress::Allow`](crosspoint_core::Egress::Allow)) not at all. `docs/isolation.md` says which attacks it stops. It
    /// must not be installed with set-user-id.
    ///
    /// ```
    /// use crosspoint_core::SystemClock;
    /// use crosspoint_runtime::{SandboxOptions, Subprocess};
    /// let through_bubblewrap = SandboxOptions::new().bubblewrap("/usr/bin/bwrap");
    /// let runner = Subprocess::new(std::sync::Arc::new(SystemClock::new())).sandbox(through_bubblewrap);
    /// # let _ = runner;
    /// ```
    #[must_use]
    pub fn bubblewrap(mut self, program: impl Into<PathBuf>) -> Self {
        self.bubblewrap = Some(program.into());
        self
    }
}
