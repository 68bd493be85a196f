//! Every rule of the store traits, on a file.

use crate::world;
use crosspoint_core::Store;
use crosspoint_sqlite::{Options, Sqlite};
use crosspoint_testkit::{Harness, ManualClock};
use std::sync::Arc;

async fn sqlite() -> Harness {
    let (folder, path) = world::place();
    let clock = Arc::new(ManualClock::new());
    let options = Options::new().clock(clock.clone());
    let store = Sqlite::open_with(&path, options.clone()).await.expect("opens");
    // The crashed process's store stays open, as if its death had not been noticed: what is reopened is another.
    Harness::new(store, clock).keeping(folder).reopening(move || {
        let (path, options) = (path.clone(), options.clone());
        async move { Store::from(Sqlite::open_with(path, options).await.expect("opens again")) }
    })
}

crosspoint_testkit::conformance!(sqlite, depth = 4);

#[test]
fn random_lives_of_several_calls() {
    crosspoint_testkit::life::check(sqlite, 48);
}
