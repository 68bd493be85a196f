//! What the host grants to those who publish.

use crosspoint_core::{Isolation, Limits};

/// What the operators of a host grant to the authors of artifacts. What goes beyond it is refused when it is published.
///
/// ```
/// use crosspoint_core::Isolation;
/// use crosspoint_runtime::artifacts::AuthorPolicy;
/// // For a host whose authors are its own people, on a machine without sandboxes.
/// let trusting = AuthorPolicy::new().isolation(Isolation::Process);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct AuthorPolicy {
    /// The isolation that scripts run at unless they ask for more ([`Isolation::Sandboxed`]). A script that is content
    /// with less is refused.
    pub isolation: Isolation,
    /// Whether a script may ask for [`Egress::Open`](crosspoint_core::Egress::Open), which reaches the host's own network
    /// (no).
    pub open_egress: bool,
    /// The highest limits that a script may ask for: four times the usual ones, and an hour of time.
    pub most: Limits,
}

impl AuthorPolicy {
    /// The defaults.
    pub fn new() -> Self {
        let usual = Limits::default();
        let mut most = usual;
        most.wall_ms = 60 * 60 * 1000;
        most.cpu_ms = usual.cpu_ms * 4;
        most.grace_ms = 60_000;
        most.memory = usual.memory * 4;
        most.disk = usual.disk * 4;
        most.processes = usual.processes * 4;
        most.open_files = usual.open_files * 4;
        most.log_bytes = usual.log_bytes * 4;
        most.result_bytes = usual.result_bytes * 4;
        most.state_bytes = usual.state_bytes * 4;
        Self {
            isolation: Isolation::Sandboxed,
            open_egress: false,
            most,
        }
    }

    /// What scripts run at unless they ask for more.
    pub const fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// Lets scripts ask for the whole network that the host itself reaches.
    pub const fn open_egress(mut self, open: bool) -> Self {
        self.open_egress = open;
        self
    }

    /// The highest limits that a script may ask for.
    pub const fn most(mut self, most: Limits) -> Self {
        self.most = most;
        self
    }

    /// Which of these limits are too high: the field's name, and the most.
    pub(super) fn beyond(&self, limits: &Limits) -> Vec<(&'static str, u64)> {
        let most = &self.most;
        [
            ("wall_ms", limits.wall_ms, most.wall_ms),
            ("grace_ms", limits.grace_ms, most.grace_ms),
            ("cpu_ms", limits.cpu_ms, most.cpu_ms),
            ("memory", limits.memory, most.memory),
            ("disk", limits.disk, most.disk),
            ("processes", limits.processes.into(), most.processes.into()),
            ("open_files", limits.open_files.into(), most.open_files.into()),
            ("log_bytes", limits.log_bytes, most.log_bytes),
            ("result_bytes", limits.result_bytes, most.result_bytes),
            ("state_bytes", limits.state_bytes, most.state_bytes),
        ]
        .into_iter()
        .filter(|(_, asked, most)| asked > most)
        .map(|(name, _, most)| (name, most))
        .collect()
    }
}

impl Default for AuthorPolicy {
    fn default() -> Self {
        Self::new()
    }
}
