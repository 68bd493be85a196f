//! Credentials that are refused: who is parked, and what becomes of the work.

use crate::world::{World, acme, fleet};
use async_trait::async_trait;
use crosspoint_core::{
    Clock, Code, Connection, ConnectionId, Error, ExecutionStatus, Failure, Flow, FlowContext, Health, Installation,
    InstallationState, Integration, NoConfig, Result, SaveInstallation, Trigger,
};
use crosspoint_testkit::VirtualClock;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Asks the provider, which refuses if the input says so.
#[derive(Clone, Default)]
struct Ask(Arc<AtomicUsize>);

#[async_trait]
impl Flow for Ask {
    type Config = NoConfig;
    type Input = Value;
    type Output = ();
    async fn run(&self, _: &FlowContext<NoConfig>, refused: Value) -> Result<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        if refused == json!(true) {
            return Err(Error::new(Code::CredentialsRefused, "the key was revoked"));
        }
        Ok(())
    }
}

struct Setup {
    world: World,
    clock: Arc<VirtualClock>,
    ask: Ask,
}

fn setup() -> Setup {
    let clock = Arc::new(VirtualClock::new());
    let ask = Ask::default();
    let demo = Integration::new("demo", "1.0.0").flow("ask", Trigger::call::<Value>(), ask.clone());
    Setup {
        world: World::on(clock.clone(), [demo.into()]),
        clock,
        ask,
    }
}

async fn connected(world: &World, health: Health) -> Installation {
    let id = ConnectionId::mint(&*world.clock);
    let mut connection = Connection::new(id, acme(), "shop", "api_key", world.clock.now());
    connection.health = health;
    world
        .store
        .connections
        .save((&fleet()).into(), &connection)
        .await
        .unwrap();
    world
        .store
        .connections
        .set_health((&fleet()).into(), id, health)
        .await
        .unwrap();
    let connect = |i: &mut Installation| i.connections.extend([("shop".to_owned(), id)]);
    world.install_with("demo", json!({}), connect).await
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_park_if_the_connection_needs_a_person() {
    for (health, expected) in [
        (Health::NeedsReconnect, InstallationState::NeedsAttention),
        (Health::Connected, InstallationState::Active),
    ] {
        let Setup { world, .. } = setup();
        let installation = connected(&world, health).await;
        let (failed, _) = world.run(&installation, "ask", json!(true)).await;
        assert_eq!((failed.status, failed.attempt), (ExecutionStatus::Failed, 1));
        let after = world.installation(installation.id).await;
        assert_eq!(after.state, expected, "{health:?}");
        let parked = expected == InstallationState::NeedsAttention;
        assert_eq!(
            after.attention.map(|why| why.code),
            parked.then_some(Code::CredentialsRefused)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_lease_is_over_parks_nothing() {
    let Setup { world, .. } = setup();
    let installation = connected(&world, Health::NeedsReconnect).await;
    world.call(&installation, "ask", json!(true)).await;
    let old = world.lease().await.unwrap();
    tokio::time::advance(Duration::from_secs(601)).await;
    let _new = world.lease().await.unwrap();
    let (_stop, handled) = world.deliver(&old);
    assert_eq!(handled.await.unwrap_err().code(), Code::LeaseStale);
    assert_eq!(
        world.installation(installation.id).await.state,
        InstallationState::Active
    );
}

#[tokio::test(start_paused = true)]
async fn queued_work_waits_for_the_reconnect_and_leaves_the_provider_alone() {
    let Setup { world, clock, ask } = setup();
    let mut installation = connected(&world, Health::NeedsReconnect).await;
    let id = world.call(&installation, "ask", Value::Null).await;
    installation.state = InstallationState::NeedsAttention;
    installation.attention = Some(Failure::new(Code::CredentialsRefused, "the key was revoked"));
    let mut installation = world.save(SaveInstallation::new(installation)).await;
    world.work().await;
    let waiting = world.execution(id).await;
    let minute = Duration::from_secs(60);
    assert_eq!(waiting.status, ExecutionStatus::Waiting);
    assert_eq!(waiting.next_attempt, Some(clock.now().plus(minute)));
    assert_eq!(ask.0.load(Ordering::SeqCst), 0);
    installation.state = InstallationState::Active;
    installation.attention = None;
    world.save(SaveInstallation::new(installation)).await;
    tokio::time::advance(minute).await;
    world.work().await;
    assert_eq!(world.execution(id).await.status, ExecutionStatus::Succeeded);
    assert_eq!(ask.0.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn queued_work_ends_by_its_policy_if_nobody_reconnects() {
    let Setup { world, ask, .. } = setup();
    let mut installation = connected(&world, Health::NeedsReconnect).await;
    let id = world.call(&installation, "ask", Value::Null).await;
    installation.state = InstallationState::NeedsAttention;
    installation.attention = Some(Failure::new(Code::CredentialsRefused, "the key was revoked"));
    world.save(SaveInstallation::new(installation)).await;
    for _ in 0..10 {
        world.work().await;
        tokio::time::advance(Duration::from_secs(60)).await;
    }
    let failed = world.execution(id).await;
    assert_eq!((failed.status, failed.attempt), (ExecutionStatus::Failed, 5));
    assert_eq!(failed.failure.unwrap().code, Code::CredentialsRefused);
    assert_eq!(ask.0.load(Ordering::SeqCst), 0);
}
