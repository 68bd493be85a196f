//! The in-memory store against every rule of the store traits, and its timers under paused time.

mod speed;
mod timers;

use crosspoint_core::Memory;
use crosspoint_testkit::{Harness, ManualClock};
use std::sync::Arc;

async fn memory() -> Harness {
    let clock = Arc::new(ManualClock::new());
    Harness::new(Memory::with_clock(clock.clone()), clock)
}

crosspoint_testkit::conformance!(memory, depth = 7);

#[test]
fn random_lives_of_several_calls() {
    crosspoint_testkit::life::check(memory, 512);
}
