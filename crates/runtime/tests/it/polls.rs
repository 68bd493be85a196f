//! Polls: the cursor and what it started are one.

use crate::{scripts::sh, world::World};
use async_trait::async_trait;
use crosspoint_core::{
    Code, Error, ExecutionStatus, Flow, FlowContext, Installation, Integration, NoConfig, Poll, Polled, Result, Retry,
};
use serde_json::json;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

/// What a provider has, and what was asked of it.
#[derive(Debug, Default, Clone)]
struct Provider(Arc<Mutex<Shelf>>);

#[derive(Debug, Default)]
struct Shelf {
    orders: Vec<u64>,
    /// How many orders a page has; 0 for all.
    page: usize,
    asked: Vec<Option<u64>>,
    failures: VecDeque<Error>,
    booked: Vec<u64>,
}

#[async_trait]
impl Poll for Provider {
    type Config = NoConfig;
    type Cursor = u64;
    type Item = u64;

    async fn poll(&self, _: &FlowContext<NoConfig>, cursor: Option<u64>) -> Result<Polled<u64, u64>> {
        let mut shelf = self.0.lock().unwrap();
        shelf.asked.push(cursor);
        if let Some(error) = shelf.failures.pop_front() {
            return Err(error);
        }
        let after = cursor.unwrap_or(0);
        let size = if shelf.page == 0 { usize::MAX } else { shelf.page };
        let new: Vec<u64> = shelf
            .orders
            .iter()
            .copied()
            .filter(|order| *order > after)
            .take(size)
            .collect();
        let last = new.last().copied().unwrap_or(after);
        let more = shelf.orders.iter().any(|order| *order > last);
        Ok(Polled::new(last).items(new, ToString::to_string).more(more))
    }
}

#[async_trait]
impl Flow for Provider {
    type Config = NoConfig;
    type Input = u64;
    type Output = ();
    async fn run(&self, _: &FlowContext<NoConfig>, order: u64) -> Result<()> {
        self.0.lock().unwrap().booked.push(order);
        Ok(())
    }
}

async fn setup() -> (World, Provider, Installation) {
    let provider = Provider::default();
    let demo =
        Integration::new("demo", "1.0.0").poll("book", Duration::from_secs(60), provider.clone(), provider.clone());
    let world = World::new([demo.into()]);
    let installation = world.install("demo", json!({})).await;
    (world, provider, installation)
}

async fn poll(world: &World, installation: &Installation) {
    let tick = json!({ "scheduled": "2026-01-01T00:00:00Z" });
    world.call(installation, "book-poll", tick).await;
    world.work().await;
}

#[tokio::test(start_paused = true)]
async fn each_item_is_handled_once_and_the_cursor_goes_on() {
    let (world, provider, installation) = setup().await;
    provider.0.lock().unwrap().orders = vec![1, 2, 3];
    poll(&world, &installation).await;
    provider.0.lock().unwrap().orders.extend([4, 5]);
    poll(&world, &installation).await;
    poll(&world, &installation).await;
    let shelf = provider.0.lock().unwrap();
    assert_eq!(shelf.asked, [None, Some(3), Some(5)]);
    let mut booked = shelf.booked.clone();
    booked.sort_unstable();
    assert_eq!(booked, [1, 2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_fails_moves_nothing() {
    let (world, provider, installation) = setup().await;
    provider.0.lock().unwrap().orders = vec![1];
    poll(&world, &installation).await;
    {
        let mut shelf = provider.0.lock().unwrap();
        shelf.orders.push(2);
        let error = Error::new(Code::ProviderRejected, "no").with_retry(Retry::Never);
        shelf.failures.push_back(error);
    }
    poll(&world, &installation).await;
    poll(&world, &installation).await;
    let shelf = provider.0.lock().unwrap();
    assert_eq!(shelf.asked, [None, Some(1), Some(1)]);
    assert_eq!(shelf.booked, [1, 2]);
}

/// A provider whose cursor goes back, or that names an item again, starts nothing twice.
#[tokio::test(start_paused = true)]
async fn an_item_that_comes_again_is_not_handled_again() {
    let (world, provider, installation) = setup().await;
    provider.0.lock().unwrap().orders = vec![7, 7, 8];
    poll(&world, &installation).await;
    assert_eq!(provider.0.lock().unwrap().booked, [7, 8]);
}

#[tokio::test(start_paused = true)]
async fn a_long_backlog_is_read_page_by_page_and_by_further_polls() {
    let (world, provider, installation) = setup().await;
    {
        let mut shelf = provider.0.lock().unwrap();
        shelf.orders = (1..=250).collect();
        shelf.page = 1;
    }
    poll(&world, &installation).await;
    assert_eq!(
        provider.0.lock().unwrap().asked.len(),
        250,
        "more pages than one poll reads"
    );
    let mut booked = provider.0.lock().unwrap().booked.clone();
    booked.sort_unstable();
    assert_eq!(booked, (1..=250).collect::<Vec<_>>());
}

/// The poll is the host's own code; what handles the items need not be.
#[tokio::test]
async fn a_script_gets_what_a_poll_finds_one_item_at_a_time() {
    let provider = Provider::default();
    provider.0.lock().unwrap().orders = vec![1, 2, 3];
    let script = sh("cp \"$XP_INPUT_FILE\" \"$XP_RESULT_FILE\"");
    let demo = Integration::new("demo", "1.0.0").poll_script("book", Duration::from_secs(60), provider, script);
    let world = World::new([demo.into()]);
    let installation = world.install("demo", json!({})).await;
    poll(&world, &installation).await;
    poll(&world, &installation).await;
    let mut handled = Vec::new();
    for execution in world.executions(&installation).await {
        assert_eq!(execution.status, ExecutionStatus::Succeeded, "{execution:?}");
        if execution.flow == "book" {
            handled.push(world.reply(execution.id).await);
        }
    }
    handled.sort_by_key(serde_json::Value::as_u64);
    assert_eq!(handled, [json!(1), json!(2), json!(3)]);
    assert_eq!(world.state(&installation, "book-poll").await, json!(3));
}
