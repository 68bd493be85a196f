//! How many interpreters wait.

use std::time::Duration;

/// How many interpreters are kept ready for scripts that ask for it. The defaults suit most hosts.
///
/// A script's interpreters are those of one customer and one way to start it. It gets some when it has been used twice
/// within [`idle`](Self::idle), and then as many as it was started within a second lately, up to the limits. Python with
/// `ssl` and `urllib` holds about 10 MiB.
///
/// ```
/// use crosspoint_runtime::WarmOptions;
/// use std::time::Duration;
///
/// let options = WarmOptions::new()
///     .per_script(16)                      // 40 runs a second of one customer
///     .memory(256 << 20)
///     .idle(Duration::from_secs(600));     // scripts that run every few minutes
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WarmOptions {
    pub(super) per_script: usize,
    pub(super) per_customer: usize,
    pub(super) total: usize,
    pub(super) memory: u64,
    pub(super) idle: Duration,
}

impl Default for WarmOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl WarmOptions {
    /// The defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            per_script: 8,
            per_customer: 16,
            total: 64,
            memory: 1 << 30,
            idle: Duration::from_secs(60),
        }
    }

    /// Interpreters for one script of one customer (8). With 0 none is kept ready.
    #[must_use]
    pub const fn per_script(mut self, most: usize) -> Self {
        self.per_script = most;
        self
    }

    /// Interpreters for one customer (16).
    #[must_use]
    pub const fn per_customer(mut self, most: usize) -> Self {
        self.per_customer = most;
        self
    }

    /// Interpreters for all customers together (64). Beyond it, those of the script that was used longest ago make room
    /// for one that was used at least ten seconds later.
    #[must_use]
    pub const fn total(mut self, most: usize) -> Self {
        self.total = most;
        self
    }

    /// Bytes of memory of all together (1 GiB), each measured when it is ready. Beyond it as with [`total`](Self::total).
    #[must_use]
    pub const fn memory(mut self, most: u64) -> Self {
        self.memory = most;
        self
    }

    /// How long a script's interpreters stay while it is not used (one minute).
    #[must_use]
    pub const fn idle(mut self, time: Duration) -> Self {
        self.idle = time;
        self
    }
}

/// What [`Subprocess::warm_stats`](crate::Subprocess::warm_stats) tells. The counters are of all time.
///
/// ```
/// use crosspoint_runtime::WarmStats;
/// assert_eq!(WarmStats::default().hits, 0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WarmStats {
    /// Interpreters that wait.
    pub ready: usize,
    /// Interpreters that import their modules.
    pub warming: usize,
    /// Bytes of memory of those that wait.
    pub memory: u64,
    /// Runs that an interpreter was ready for.
    pub hits: u64,
    /// Runs of scripts that ask for one, started as all others for want of it.
    pub misses: u64,
    /// Interpreters that ended before their run began, which then got another or was started as all others.
    pub lost: u64,
}
