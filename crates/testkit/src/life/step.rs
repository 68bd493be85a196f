//! What can happen, and how often.

use proptest::{collection::vec, prelude::*};

/// What kind of call is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A service's call that must not be repeated once it has begun.
    Call,
    /// A service's call that may be repeated.
    Repeatable,
    /// A run of a flow.
    Flow,
}

/// Which lease of which worker: the number counts round those that the worker has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Whose {
    /// The worker, 0 or 1.
    pub worker: usize,
    /// The lease.
    pub lease: usize,
}

/// One thing that happens. Numbers of calls and leases count round those that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// A call is stored.
    Enqueue {
        /// What kind of call.
        kind: Kind,
        /// Of which of two customers.
        customer: usize,
        /// Under which of two ordering keys, if any.
        ordered: Option<usize>,
        /// After how many seconds it may begin.
        delay: u64,
        /// After how many seconds it must have begun.
        expires: Option<u64>,
        /// Whether the first worker wants it at once.
        start: bool,
        /// For how many seconds somebody waits for the answer.
        hold: Option<u64>,
    },
    /// A call is stored that is known.
    Again(usize),
    /// A worker asks for work.
    Lease {
        /// The worker.
        worker: usize,
        /// How much at most.
        max: usize,
        /// Whether it begins at once.
        begin: bool,
    },
    /// A worker begins what it has leased without beginning it.
    Begin(Whose),
    /// A heartbeat.
    Extend(Whose),
    /// An attempt succeeds, or a flow is closed.
    Succeed(Whose),
    /// An attempt fails, and the next one comes after so many seconds.
    Fail(Whose, u64),
    /// Work is given back.
    Release(Whose),
    /// A worker gives up a service's call.
    GiveUp(Whose),
    /// A worker does not know how a service's call ended.
    LoseTrack(Whose),
    /// A worker dies and comes back without memory.
    Crash(usize),
    /// Somebody asks for a call to stop.
    Cancel(usize),
    /// The wall clock moves by so many seconds, backwards if negative.
    Clock(i64),
    /// Calls that ended more than so many seconds ago are deleted, this many at most.
    Purge(u64, usize),
}

pub(super) fn lives() -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..40)
}

fn step() -> impl Strategy<Value = Step> {
    let whose = || (0..2_usize, 0..4_usize).prop_map(|(worker, lease)| Whose { worker, lease });
    let call = 0..8_usize;
    prop_oneof![
        6 => enqueue(),
        1 => call.clone().prop_map(Step::Again),
        6 => (0..2_usize, 1..4_usize, prop::bool::weighted(0.7))
            .prop_map(|(worker, max, begin)| Step::Lease { worker, max, begin }),
        2 => whose().prop_map(Step::Begin),
        2 => whose().prop_map(Step::Extend),
        4 => whose().prop_map(Step::Succeed),
        3 => (whose(), 0..50_u64).prop_map(|(whose, delay)| Step::Fail(whose, delay)),
        2 => whose().prop_map(Step::Release),
        1 => whose().prop_map(Step::GiveUp),
        1 => whose().prop_map(Step::LoseTrack),
        1 => (0..2_usize).prop_map(Step::Crash),
        2 => call.prop_map(Step::Cancel),
        3 => (1..40_i64).prop_map(Step::Clock),
        1 => (-60..-1_i64).prop_map(Step::Clock),
        1 => (0..40_u64, 1..3_usize).prop_map(|(age, limit)| Step::Purge(age, limit)),
    ]
}

fn enqueue() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![Just(Kind::Call), Just(Kind::Repeatable), Just(Kind::Flow)];
    let delay = prop_oneof![3 => Just(0), 1 => 1..40_u64];
    let some = |most: u64| prop::option::weighted(0.2, 1..most);
    let key = prop::option::weighted(0.3, 0..2_usize);
    let start = prop::bool::weighted(0.2);
    (kind, 0..2_usize, key, delay, some(60), start, some(20)).prop_map(
        |(kind, customer, ordered, delay, expires, start, hold)| Step::Enqueue {
            kind,
            customer,
            ordered,
            delay,
            expires,
            start,
            hold,
        },
    )
}
