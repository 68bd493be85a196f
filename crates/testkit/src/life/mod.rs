//! Random lives of several calls at once: two workers, lost leases, crashes, cancels, clocks that jump.
//!
//! [`model`](crate::model) walks through every life of one call; this draws lives of many, in which calls stand before each
//! other (ordering keys, customers), leases come in batches, calls expire, and the wall clock goes backwards as well. Each
//! answer of the store is compared with a small reference model. Which ready call is leased first is the store's to choose;
//! whether a call may be leased at all, and what every write under every lease must answer, is not.
//!
//! A life that breaks a rule is shrunk to the shortest one that does.

mod call;
mod step;
mod world;

use crate::Harness;
use proptest::{
    prelude::ProptestConfig,
    test_runner::{RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};
use std::cell::Cell;
pub use step::{Kind, Step, Whose};
use world::World;

/// How much was lived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lived {
    /// Calls that were stored.
    pub calls: usize,
    /// Calls with a reply.
    pub completed: usize,
    /// Dead letters.
    pub dead: usize,
    /// Calls whose outcome nobody can know.
    pub unknown: usize,
    /// Calls that were cancelled.
    pub cancelled: usize,
    /// Calls that were not begun in time.
    pub expired: usize,
    /// Calls that were deleted after their end.
    pub purged: usize,
    /// Writes that were refused because their lease was not the current one.
    pub stale: usize,
}

impl Lived {
    const fn plus(self, more: Self) -> Self {
        Self {
            calls: self.calls + more.calls,
            completed: self.completed + more.completed,
            dead: self.dead + more.dead,
            unknown: self.unknown + more.unknown,
            cancelled: self.cancelled + more.cancelled,
            expired: self.expired + more.expired,
            purged: self.purged + more.purged,
            stale: self.stale + more.stale,
        }
    }

    /// Whether every way to end was gone, and somebody came too late.
    const fn is_full(&self) -> bool {
        let (ended, closed) = (
            self.completed > 0 && self.dead > 0,
            self.cancelled > 0 && self.expired > 0,
        );
        ended && closed && self.unknown > 0 && self.purged > 0 && self.stale > 0
    }
}

/// Lives `cases` random lives, each of up to 40 steps, on a store of its own. `CROSSPOINT_SEED` draws others, and
/// `CROSSPOINT_CASES` draws more.
///
/// # Panics
/// When a rule is broken, with the shortest life that breaks it, and when the lives did not go every way that a call can end.
#[expect(clippy::print_stdout, reason = "how much was lived belongs in a test's output")]
pub fn check<F, R>(harness: F, cases: u32)
where
    F: Fn() -> R,
    R: Future<Output = Harness>,
{
    let from = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seed = from("CROSSPOINT_SEED").unwrap_or(1);
    let cases = from("CROSSPOINT_CASES").map_or(cases, |cases| u32::try_from(cases).expect("a number of cases"));
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut bytes = [0; 32];
    for (to, from) in bytes.iter_mut().zip(seed.to_le_bytes()) {
        *to = from;
    }
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let all = Cell::new(Lived::default());
    let outcome = runner.run(&step::lives(), |steps| {
        runtime.block_on(async {
            let harness = harness().await;
            let lived = live(&harness, &steps).await.map_err(TestCaseError::fail)?;
            all.set(all.get().plus(lived));
            Ok(())
        })
    });
    match outcome {
        Ok(()) => println!("{cases} lives, seed {seed}: {:?}", all.get()),
        Err(TestError::Fail(why, steps)) => panic!("seed {seed}: {why}\n{steps:#?}"),
        Err(other) => panic!("seed {seed}: {other}"),
    }
    assert!(
        all.get().is_full(),
        "too little was lived to mean anything: {:?}",
        all.get()
    );
}

/// Lives one life.
///
/// # Errors
/// The rule that was broken.
pub async fn live(harness: &Harness, steps: &[Step]) -> Result<Lived, String> {
    let mut world = World::new(harness);
    for (number, step) in steps.iter().enumerate() {
        let broken = |why: String| format!("step {number}, {step:?}: {why}");
        world.take(step).await.map_err(broken)?;
        // A clock that moves is not seen to move: two jumps may follow each other before anybody looks.
        if !matches!(step, Step::Clock(_)) {
            world.verify().await.map_err(broken)?;
        }
    }
    world.end().await.map_err(|why| format!("at the end: {why}"))?;
    Ok(world.lived())
}
