//! What was seen of the calls of a gate.

/// A route class of one gate: the calls that are compared with one another. The first 31 names of a gate have one each;
/// all later names share the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct RouteClass(pub(super) u8);

/// What was seen since the last reading.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readings {
    /// Latencies by route class; classes without a sample are left out.
    pub(crate) classes: Vec<ClassReading>,
    /// Calls that ended, by outcome, results of earlier generations left out.
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) unknown: u64,
    pub(crate) not_started: u64,
    pub(crate) overloaded: u64,
    /// Of these completions, those of calls that came from the queue.
    pub(crate) drained: u64,
    /// Direct calls that came, whether they were admitted or not.
    pub(crate) arrived: u64,
    /// Of these, those that were not admitted.
    pub(crate) diverted: u64,
    /// Whether permits ran out.
    pub(crate) saturated: bool,
    pub(crate) in_flight: u32,
    pub(crate) waiting_held: u32,
}

/// The latencies of one route class.
#[derive(Debug, Clone)]
pub(crate) struct ClassReading {
    pub(crate) class: RouteClass,
    /// Seconds in the middle of each bucket that is not empty, in rising order, with its samples.
    pub(crate) buckets: Vec<(f64, u32)>,
    pub(crate) count: u64,
    /// Seconds.
    pub(crate) sum: f64,
}
