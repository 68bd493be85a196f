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
pub use step::{Kind, Step, Whose};
use world::World;

/// Lives `cases` random lives, each of up to 40 steps, on a store of its own. `CROSSPOINT_SEED` draws others, and
/// `CROSSPOINT_CASES` draws more.
///
/// # Panics
/// When a rule is broken, with the shortest life that breaks it.
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
    let outcome = runner.run(&step::lives(), |steps| {
        runtime.block_on(async {
            let harness = harness().await;
            live(&harness, &steps).await.map_err(TestCaseError::fail)
        })
    });
    match outcome {
        Ok(()) => println!("{cases} lives, seed {seed}"),
        Err(TestError::Fail(why, steps)) => panic!("seed {seed}: {why}\n{steps:#?}"),
        Err(other) => panic!("seed {seed}: {other}"),
    }
}

/// Lives one life.
///
/// # Errors
/// The rule that was broken.
pub async fn live(harness: &Harness, steps: &[Step]) -> Result<(), String> {
    let mut world = World::new(harness);
    for (number, step) in steps.iter().enumerate() {
        let broken = |why: String| format!("step {number}, {step:?}: {why}");
        world.take(step).await.map_err(broken)?;
        // A clock that moves is not seen to move: two jumps may follow each other before anybody looks.
        if !matches!(step, Step::Clock(_)) {
            world.verify().await.map_err(broken)?;
        }
    }
    world.end().await.map_err(|why| format!("at the end: {why}"))
}
