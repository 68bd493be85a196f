//! Every interleaving of a small world: one call, two workers, lost leases, crashes and a cancel.
//!
//! The model drives a real store. Each path is a list of steps, replayed from the start on a call of its own; after
//! the last step every rule is checked, and then a fair end is demanded: leases expire, a worker takes what is offered
//! and finishes it, and the call must end.
//! As every prefix of a path is a path as well, all reachable states are checked so.
//!
//! What a store must answer comes from a few facts that the world keeps itself: which fence is current, how many
//! attempts count, whether a cancel was asked for, whose reply was accepted.

mod step;
mod world;

use crate::Harness;
use std::time::Duration;
use step::Step;
use world::World;

/// What kind of call is explored, and how it comes into the store.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Case {
    name: &'static str,
    flow: bool,
    repeatable: bool,
    entry: Entry,
    /// Whether leases begin the work in the same commit.
    begin: bool,
    /// How long a failed attempt waits for the next one.
    delay: Duration,
    /// How long somebody waits for the call; zero if nobody does.
    hold: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Queue,
    Start,
    Adopt,
}

impl Case {
    const fn new(name: &'static str, flow: bool, entry: Entry) -> Self {
        Self {
            name,
            flow,
            repeatable: flow,
            entry,
            begin: true,
            delay: Duration::ZERO,
            hold: Duration::ZERO,
        }
    }

    /// A flow from the queue, begun by its lease.
    #[must_use]
    pub const fn queued_flow() -> Self {
        Self::new("queued flow", true, Entry::Queue)
    }

    /// A flow that workers prefetch and begin later, and whose failures wait.
    #[must_use]
    pub const fn prefetched_flow() -> Self {
        let mut case = Self::new("prefetched flow", true, Entry::Queue);
        case.begin = false;
        case.delay = Duration::from_secs(1);
        case
    }

    /// A flow that is leased to the first worker as it is stored.
    #[must_use]
    pub const fn started_flow() -> Self {
        Self::new("started flow", true, Entry::Start)
    }

    /// A service's call that must not be repeated.
    #[must_use]
    pub const fn call() -> Self {
        Self::new("call", false, Entry::Queue)
    }

    /// A service's call that must not be repeated once it has begun, and that workers prefetch.
    #[must_use]
    pub const fn prefetched_call() -> Self {
        let mut case = Self::new("prefetched call", false, Entry::Queue);
        case.begin = false;
        case
    }

    /// A service's call that may be repeated, and whose failures wait.
    #[must_use]
    pub const fn repeatable_call() -> Self {
        let mut case = Self::new("repeatable call", false, Entry::Queue);
        case.repeatable = true;
        case.delay = Duration::from_secs(1);
        case
    }

    /// A service's call that may be repeated, and for which somebody waits until a second lease is lost.
    #[must_use]
    pub const fn held_call() -> Self {
        let mut case = Self::repeatable_call();
        case.name = "held call";
        case.hold = Duration::from_secs(45);
        case
    }

    /// The same of a flow.
    #[must_use]
    pub const fn held_flow() -> Self {
        let mut case = Self::queued_flow();
        case.name = "held flow";
        case.hold = Duration::from_secs(45);
        case
    }

    /// A direct call that the first worker has adopted.
    #[must_use]
    pub const fn adopted_call() -> Self {
        Self::new("adopted call", false, Entry::Adopt)
    }
}

/// What was explored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explored {
    /// Paths, each with its checks and its fair end.
    pub paths: usize,
    /// How many of them ended with a reply of a worker.
    pub completed: usize,
}

/// How many paths share a store. Each has a customer and a target of its own and ends before the next begins.
const SHARED_BY: usize = 256;

/// Explores every path of up to `depth` steps.
///
/// # Panics
/// When a rule is broken, with the path that breaks it.
pub async fn explore<F, R>(harness: F, case: Case, depth: usize) -> Explored
where
    F: Fn() -> R,
    R: Future<Output = Harness>,
{
    let mut explored = Explored::default();
    let mut open: Vec<Vec<Step>> = vec![Vec::new()];
    let mut shared = harness().await;
    while let Some(path) = open.pop() {
        if explored.paths % SHARED_BY == SHARED_BY - 1 {
            shared = harness().await;
        }
        explored.paths += 1;
        let mut world = World::new(&shared, case, explored.paths, &path).await;
        for step in &path {
            world.take(*step).await;
        }
        world.verify().await;
        if path.len() < depth {
            open.extend(world.enabled().into_iter().map(|step| {
                let mut longer = path.clone();
                longer.push(step);
                longer
            }));
        }
        if world.complete().await {
            explored.completed += 1;
        }
    }
    explored
}

/// Explores a case, says how much it was, and makes sure that it was not too little to mean anything.
///
/// # Panics
/// As [`explore`], and when fewer paths were found than two ways to go on at every step make.
#[expect(clippy::print_stdout, reason = "how much was explored belongs in a test's output")]
pub async fn check<F, R>(harness: F, case: Case, depth: usize)
where
    F: Fn() -> R,
    R: Future<Output = Harness>,
{
    let explored = explore(harness, case, depth).await;
    println!("{}, {depth} steps: {explored:?}", case.name);
    let floor = 2_usize.pow(u32::try_from(depth).expect("small"));
    assert!(
        explored.paths >= floor,
        "{explored:?} for {}, at least {floor}",
        case.name
    );
    assert!(
        explored.completed > 0 && explored.completed < explored.paths,
        "{explored:?}"
    );
}
