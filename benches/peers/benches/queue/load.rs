//! The load that every contender carries.

/// How many call at once, each waiting until its call is stored before it makes the next.
pub const CALLERS: usize = 32;

/// Calls from enqueue to settle in one measurement.
pub const CALLS: usize = 4000;

/// How many a worker leases at once.
pub const BATCH: usize = 100;

pub const REQUEST: &[u8] = &[b'q'; 256];
pub const REPLY: &[u8] = &[b'r'; 120];
