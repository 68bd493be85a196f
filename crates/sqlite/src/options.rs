//! How a store is opened.

use crosspoint_core::{Clock, SystemClock};
use std::sync::Arc;

/// How a store is opened; the defaults are right for a host's own data folder.
///
/// ```
/// use crosspoint_sqlite::Options;
/// let options = Options::new().readers(2);
/// # drop(options);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// The store's clock, by which leases and delays end. The machine's, unless a test moves time.
    pub clock: Arc<dyn Clock>,
    /// How many connections read at once, 1 to 16 (3).
    pub readers: usize,
    /// Whether to trust any file system. SQLite's locks do not work over a network, so a store there is refused
    /// (`store-on-network`); set this only for one that is known to be local and looks as if it were not.
    pub any_file_system: bool,
    /// Whether the clock is the machine's, whose jumps are watched for.
    pub(crate) machine_clock: bool,
}

impl Options {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            readers: 3,
            any_file_system: false,
            machine_clock: true,
        }
    }

    /// With this clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self.machine_clock = false;
        self
    }

    /// With so many connections for reading.
    #[must_use]
    pub const fn readers(mut self, readers: usize) -> Self {
        self.readers = readers;
        self
    }

    /// On whatever file system.
    #[must_use]
    pub const fn any_file_system(mut self, any: bool) -> Self {
        self.any_file_system = any;
        self
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}
