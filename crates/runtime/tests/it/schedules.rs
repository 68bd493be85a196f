//! The scheduler, on simulated time.

use crate::world::{ACME, World, fleet, scope};
use async_trait::async_trait;
use crosspoint_core::{
    Clock, Code, Control, Event, Execution, ExecutionStatus, Flow, FlowContext, Installation, InstallationState,
    Integration, Missed, NoConfig, Overlap, Result, SaveInstallation, Schedule, ScheduleSpec, StopSource, Tick,
    Timestamp, Timetable, Trigger, TriggerKind,
};
use crosspoint_runtime::CronTimetable;
use crosspoint_testkit::VirtualClock;
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

/// Notes its ticks.
#[derive(Default, Clone)]
struct Note(Arc<Mutex<Vec<Timestamp>>>);

#[async_trait]
impl Flow for Note {
    type Config = NoConfig;
    type Input = Tick;
    type Output = ();
    async fn run(&self, _: &FlowContext<NoConfig>, tick: Tick) -> Result<()> {
        self.0.lock().unwrap().push(tick.scheduled);
        Ok(())
    }
}

struct Setup {
    world: World,
    clock: Arc<VirtualClock>,
    note: Note,
}

/// January 2026 begins, and nothing has been installed yet.
fn setup() -> Setup {
    let clock = Arc::new(VirtualClock::new());
    let note = Note::default();
    let demo = Integration::new("demo", "1.0.0").flow("note", Trigger::schedule("0 0 1 1 *"), note.clone());
    Setup {
        world: World::on(clock.clone(), [demo.into()]),
        clock,
        note,
    }
}

impl Setup {
    async fn install(&self, spec: ScheduleSpec) -> Installation {
        let installation = self.world.install("demo", json!({})).await;
        let next = CronTimetable::new().next(&spec, self.clock.now()).unwrap();
        self.schedule(installation, spec, next).await
    }

    async fn schedule(&self, installation: Installation, spec: ScheduleSpec, next: Option<Timestamp>) -> Installation {
        let schedule = Schedule::new(installation.id, installation.customer.clone(), "note", spec, next);
        let mut save = SaveInstallation::new(installation);
        save.schedules = Some(vec![schedule]);
        self.world.save(save).await
    }

    /// Lets the scheduler run for a while, and answers what it started.
    async fn scheduler(&self, time: Duration, installation: &Installation) -> Vec<Execution> {
        self.schedulers(1, time).await;
        self.world.executions(installation).await
    }

    async fn schedulers(&self, count: usize, time: Duration) {
        let stop = StopSource::new();
        let runtime = self.world.runtime.clone().poll(Duration::from_secs(3600));
        let tasks: Vec<_> = (0..count)
            .map(|_| {
                let (runtime, stop) = (runtime.clone(), stop.signal());
                tokio::spawn(async move { runtime.run_scheduler(stop).await })
            })
            .collect();
        tokio::time::sleep(time).await;
        stop.stop(crosspoint_core::StopReason::Draining);
        for task in tasks {
            task.await.unwrap();
        }
    }

    async fn next(&self, installation: &Installation) -> Option<Timestamp> {
        let schedules = self
            .world
            .store
            .schedules
            .of((&fleet()).into(), installation.id)
            .await
            .unwrap();
        schedules[0].next
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test(start_paused = true)]
async fn a_month_of_hours_is_fired_once_each_by_many_schedulers() {
    let setup = setup();
    let spec = ScheduleSpec::cron("0 * * * *").overlap(Overlap::Allow);
    let mut installed = Vec::new();
    for _ in 0..3 {
        installed.push(setup.install(spec.clone()).await);
    }
    setup.schedulers(4, DAY * 31 + Duration::from_secs(1)).await;
    setup.world.work().await;
    for installation in &installed {
        assert_eq!(
            setup
                .world
                .store
                .executions
                .active(&fleet(), installation.id, "note")
                .await
                .unwrap(),
            0
        );
    }
    let ticks = setup.note.0.lock().unwrap().clone();
    let unique: HashSet<_> = ticks.iter().collect();
    assert_eq!((ticks.len(), unique.len()), (3 * 31 * 24, 31 * 24));
}

/// March 2026, in which New York's clocks go forward on the 8th and Berlin's on the 29th. Schedulers come and go every
/// week, two or three at once.
#[tokio::test(start_paused = true)]
async fn a_month_with_a_change_of_clocks_is_fired_once_each() {
    let cron = |text: &str, zone: &str| ScheduleSpec::cron(text).timezone(zone);
    let kinds = [
        // On the day without 02:30 it runs right after the gap: one a day.
        (cron("30 2 * * *", "Europe/Berlin"), 31),
        (cron("30 2 * * *", "America/New_York"), 31),
        // Through the gap, since it is an interval: two an hour that really passes.
        (cron("*/30 * * * *", "Europe/Berlin"), 31 * 48),
        // The 1st is a Sunday.
        (cron("0 9 * * 1-5", "Europe/Berlin"), 22),
        (cron("15 6 1,15,30 * *", "Asia/Kolkata"), 3),
        (ScheduleSpec::every(Duration::from_secs(90 * 60)), 31 * 16),
    ];
    for (spec, expected) in kinds {
        let setup = setup();
        tokio::time::advance(DAY * (31 + 28)).await;
        let installation = setup.install(spec.clone().overlap(Overlap::Allow)).await;
        let week = DAY * 7;
        setup.schedulers(2, week).await;
        setup.schedulers(3, week).await;
        setup.schedulers(2, week).await;
        // One that begins with April counts, as the one that began March does not.
        setup.schedulers(3, DAY * 10 + Duration::from_secs(1)).await;
        let next = setup.next(&installation).await.unwrap();
        assert!(next >= "2026-04-01T00:00:00Z".parse().unwrap(), "{spec:?}: {next}");
        setup.world.work().await;
        let ticks = setup.note.0.lock().unwrap().clone();
        let unique: HashSet<_> = ticks.iter().collect();
        assert_eq!((ticks.len(), unique.len()), (expected, expected), "{spec:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tick_waits_behind_the_one_that_runs_and_further_ones_coalesce() {
    for (overlap, expected) in [(Overlap::CoalesceOne, 1), (Overlap::Skip, 1), (Overlap::Allow, 10)] {
        let setup = setup();
        let installation = setup.install(ScheduleSpec::cron("* * * * *").overlap(overlap)).await;
        let started = setup.scheduler(Duration::from_secs(630), &installation).await;
        assert_eq!(started.len(), expected, "{overlap:?} while nothing has begun");
    }
    for (overlap, expected) in [(Overlap::CoalesceOne, 2), (Overlap::Skip, 1)] {
        let setup = setup();
        let installation = setup.install(ScheduleSpec::cron("* * * * *").overlap(overlap)).await;
        setup.scheduler(Duration::from_secs(90), &installation).await;
        let _running = setup.world.lease().await.unwrap();
        let started = setup.scheduler(Duration::from_secs(300), &installation).await;
        assert_eq!(started.len(), expected, "{overlap:?} while one runs");
    }
}

#[tokio::test(start_paused = true)]
async fn what_passed_while_nobody_looked_is_fired_once_or_not_at_all() {
    for (missed, expected) in [(Missed::FireOnce, 1), (Missed::Skip, 0)] {
        let setup = setup();
        let installation = setup.install(ScheduleSpec::cron("0 0 * * *").missed(missed)).await;
        tokio::time::advance(DAY * 10 + DAY / 2).await;
        let started = setup.scheduler(Duration::from_secs(1), &installation).await;
        assert_eq!(started.len(), expected, "{missed:?}");
        assert_eq!(
            setup.next(&installation).await,
            Some("2026-01-12T00:00:00Z".parse().unwrap())
        );
        setup.world.work().await;
        let ticks = setup.note.0.lock().unwrap().clone();
        let last: Vec<Timestamp> = vec!["2026-01-11T00:00:00Z".parse().unwrap()];
        assert_eq!(ticks, last[..expected], "the last of them");
    }
}

#[tokio::test(start_paused = true)]
async fn everything_that_was_missed_is_fired_in_order_up_to_a_number() {
    for (max, expected) in [(3, vec![9, 10, 11]), (100, (2..=11).collect())] {
        let setup = setup();
        let spec = ScheduleSpec::cron("0 0 * * *").missed(Missed::FireAll { max });
        let installation = setup.install(spec.overlap(Overlap::Queue { max: 100 })).await;
        tokio::time::advance(DAY * 10 + DAY / 2).await;
        assert_eq!(
            setup.scheduler(Duration::from_secs(1), &installation).await.len(),
            expected.len()
        );
        setup.world.work().await;
        let ticks = setup.note.0.lock().unwrap().clone();
        let days: Vec<Timestamp> = expected
            .iter()
            .map(|day| format!("2026-01-{day:02}T00:00:00Z").parse().unwrap())
            .collect();
        assert_eq!(ticks, days);
    }
}

#[tokio::test(start_paused = true)]
async fn overlapping_ticks_are_capped_queued_or_take_the_place_of_others() {
    for (overlap, expected) in [
        (Overlap::AtMost { max: 3 }, 3),
        (Overlap::Queue { max: 3 }, 4),
        (Overlap::Replace, 10),
    ] {
        let setup = setup();
        let installation = setup.install(ScheduleSpec::cron("* * * * *").overlap(overlap)).await;
        let started = setup.scheduler(Duration::from_secs(630), &installation).await;
        assert_eq!(started.len(), expected, "{overlap:?}");
        if overlap == Overlap::Replace {
            setup.world.work().await;
            let ended = setup.world.executions(&installation).await;
            let cancelled = ended.iter().filter(|e| e.status == ExecutionStatus::Cancelled).count();
            let done = ended.iter().filter(|e| e.status == ExecutionStatus::Succeeded).count();
            assert_eq!((cancelled, done), (9, 1), "only the newest has run");
            let ticks = setup.note.0.lock().unwrap().clone();
            assert_eq!(ticks, ["2026-01-01T00:10:00Z".parse().unwrap()]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn queued_ticks_run_one_after_the_other() {
    let setup = setup();
    let spec = ScheduleSpec::cron("* * * * *").overlap(Overlap::Queue { max: 10 });
    let installation = setup.install(spec).await;
    setup.scheduler(Duration::from_secs(190), &installation).await;
    let first = setup.world.lease().await;
    assert!(first.is_some());
    assert!(setup.world.lease().await.is_none(), "the others wait behind it");
}

#[tokio::test(start_paused = true)]
async fn intervals_stand_on_the_clock_and_not_on_the_start_of_a_process() {
    let setup = setup();
    tokio::time::advance(Duration::from_secs(125)).await;
    let spec = ScheduleSpec::every(Duration::from_secs(15 * 60)).overlap(Overlap::Allow);
    let installation = setup.install(spec).await;
    setup.schedulers(2, Duration::from_secs(3600)).await;
    setup.schedulers(1, Duration::from_secs(1800)).await;
    setup.world.work().await;
    let _ = installation;
    let ticks = setup.note.0.lock().unwrap().clone();
    let expected: Vec<Timestamp> = ["00:15", "00:30", "00:45", "01:00", "01:15", "01:30"]
        .map(|time| format!("2026-01-01T{time}:00Z").parse().unwrap())
        .into();
    assert_eq!(ticks, expected);
}

#[tokio::test(start_paused = true)]
async fn a_tick_that_is_a_little_late_was_not_missed() {
    let setup = setup();
    let installation = setup
        .install(ScheduleSpec::cron("0 0 * * *").missed(Missed::Skip))
        .await;
    tokio::time::advance(DAY + Duration::from_secs(30)).await;
    assert_eq!(setup.scheduler(Duration::from_secs(1), &installation).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_fired_for_an_installation_that_is_paused() {
    let setup = setup();
    let mut installation = setup.install(ScheduleSpec::cron("0 * * * *")).await;
    installation.state = InstallationState::Paused;
    let installation = setup.world.save(SaveInstallation::new(installation)).await;
    assert!(
        setup
            .scheduler(DAY + Duration::from_secs(1), &installation)
            .await
            .is_empty()
    );
    assert!(
        setup.next(&installation).await.unwrap() > setup.clock.now(),
        "its schedule goes on"
    );
}

#[tokio::test(start_paused = true)]
async fn a_schedule_that_cannot_be_read_parks_its_installation_and_not_the_scheduler() {
    let setup = setup();
    let good = setup.install(ScheduleSpec::cron("0 * * * *")).await;
    let bad = setup.world.install("demo", json!({})).await;
    let broken = ScheduleSpec::cron("every day");
    let bad = setup.schedule(bad, broken, Some(setup.clock.now())).await;
    assert_eq!(setup.scheduler(Duration::from_secs(3700), &good).await.len(), 1);
    let parked = setup.world.installation(bad.id).await;
    assert_eq!(parked.attention.unwrap().code, Code::ScheduleInvalid);
    assert_eq!(setup.next(&bad).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_scheduler_without_the_version_leaves_the_tick_to_others() {
    let setup = setup();
    let installation = setup.install(ScheduleSpec::cron("0 * * * *")).await;
    let due = setup.next(&installation).await;
    let other = World::over(setup.world.store.clone(), setup.world.clock.clone(), []);
    let stop = StopSource::new();
    let (runtime, signal) = (other.runtime.clone(), stop.signal());
    let task = tokio::spawn(async move { runtime.run_scheduler(signal).await });
    tokio::time::sleep(Duration::from_secs(3700)).await;
    stop.stop(crosspoint_core::StopReason::Draining);
    task.await.unwrap();
    assert!(setup.world.executions(&installation).await.is_empty());
    assert_eq!(setup.next(&installation).await, due, "the tick is still to be fired");
    assert_eq!(
        setup.world.installation(installation.id).await.state,
        InstallationState::Active
    );
    assert_eq!(setup.scheduler(Duration::from_secs(1), &installation).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_back_lets_its_installations_run_again() {
    let setup = setup();
    let installation = setup.install(ScheduleSpec::cron("0 0 1 1 *")).await;
    let other = World::over(setup.world.store.clone(), setup.world.clock.clone(), []);
    let parked = other.runtime.check_installations().await.unwrap();
    assert_eq!(parked, [installation.id]);
    let stop = StopSource::new();
    let (runtime, signal) = (setup.world.runtime.clone(), stop.signal());
    let task = tokio::spawn(async move { runtime.run_scheduler(signal).await });
    tokio::time::sleep(Duration::from_secs(62)).await;
    stop.stop(crosspoint_core::StopReason::Draining);
    task.await.unwrap();
    let released = setup.world.installation(installation.id).await;
    assert_eq!((released.state, released.attention), (InstallationState::Active, None));
}

#[tokio::test(start_paused = true)]
async fn jitter_is_stable_and_within_its_window() {
    let setup = setup();
    let mut spec = ScheduleSpec::cron("0 * * * *").overlap(Overlap::Allow);
    spec.jitter_ms = 60_000;
    let mut delays = HashSet::new();
    for _ in 0..5 {
        let installation = setup.install(spec.clone()).await;
        let schedule = Schedule::new(
            installation.id,
            installation.customer.clone(),
            "note",
            spec.clone(),
            None,
        );
        let starter = setup.world.handler.starter();
        let delay = |at: &str| {
            let at = at.parse().unwrap();
            let envelope = starter.for_tick(&installation, &schedule, at).unwrap();
            envelope.not_before.unwrap().since(at)
        };
        let first = delay("2026-01-01T01:00:00Z");
        assert_eq!(first, delay("2026-01-01T02:00:00Z"));
        assert!(first < Duration::from_secs(60));
        delays.insert(first);
    }
    assert!(delays.len() > 1, "installations are spread");
}

#[derive(Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
struct OrderCreated {
    number: u64,
}

impl Event for OrderCreated {
    const NAME: &'static str = "order.created";
}

struct Announce;

#[async_trait]
impl Flow for Announce {
    type Config = NoConfig;
    type Input = OrderCreated;
    type Output = Value;
    async fn run(&self, cx: &FlowContext<NoConfig>, order: OrderCreated) -> Result<Value> {
        Ok(json!({ "number": order.number, "event": cx.run().event, "trigger": cx.run().trigger }))
    }
}

fn announcer() -> World {
    let demo = Integration::new("demo", "1.0.0").flow("announce", Trigger::event::<OrderCreated>(), Announce);
    World::on(Arc::new(VirtualClock::new()), [demo.into()])
}

#[tokio::test(start_paused = true)]
async fn an_event_starts_the_flows_of_active_installations() {
    let world = announcer();
    let active = world.install("demo", json!({})).await;
    let paused = world
        .install_with("demo", json!({}), |i| i.state = InstallationState::Paused)
        .await;
    let customer = crate::world::acme();
    let ids = world.runtime.emit(&customer, OrderCreated { number: 7 }).await.unwrap();
    world.work().await;
    assert_eq!(ids.len(), 1);
    let reply = world.reply(ids[0]).await;
    assert_eq!(
        reply,
        json!({ "number": 7, "event": "order.created", "trigger": "event" })
    );
    assert_eq!(world.execution(ids[0]).await.trigger, TriggerKind::Event);
    assert_eq!(world.execution(ids[0]).await.installation, active.id);
    assert!(world.executions(&paused).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_event_with_an_id_counts_once() {
    let world = announcer();
    let installation = world.install("demo", json!({})).await;
    let customer = crate::world::acme();
    let order = json!({ "number": 7 });
    for expected in [1, 0] {
        let ids = world.runtime.emit_value(&customer, "order-7", "order.created", &order);
        assert_eq!(ids.await.unwrap().len(), expected);
    }
    let other = crosspoint_core::CustomerId::new("other").unwrap();
    let foreign = world.runtime.emit_value(&other, "order-7", "order.created", &order);
    assert!(foreign.await.unwrap().is_empty());
    assert_eq!(world.executions(&installation).await.len(), 1);
}

/// When the simulated time begins.
const START: &str = "2026-01-01T00:00:00Z";
const HOUR: Duration = Duration::from_secs(3600);

impl Setup {
    async fn rest(&self, installation: &Installation, paused: bool) -> Schedule {
        let acme = scope(ACME);
        let pause = self
            .world
            .runtime
            .pause_schedule(&acme, installation.id, "note", paused);
        pause.await.unwrap()
    }

    /// The hours of the first day that were fired.
    async fn hours(&self, installation: &Installation) -> Vec<i64> {
        self.world.work().await;
        let mut hours = Vec::new();
        for execution in self.world.executions(installation).await {
            let since = execution.created.as_millis() - START.parse::<Timestamp>().unwrap().as_millis();
            hours.push(since / 3_600_000);
        }
        hours
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_schedule_fires_nothing_and_makes_up_for_nothing() {
    for missed in [Missed::FireOnce, Missed::FireAll { max: 9 }, Missed::Skip] {
        let setup = setup();
        let spec = ScheduleSpec::cron("0 * * * *").overlap(Overlap::Allow).missed(missed);
        let (rests, goes) = (setup.install(spec.clone()).await, setup.install(spec).await);
        setup.schedulers(4, HOUR * 3 + Duration::from_secs(1)).await;
        let since = setup.clock.now();
        let paused = setup.rest(&rests, true).await;
        assert_eq!((paused.paused, paused.next), (Some(since), None));
        setup.schedulers(4, HOUR * 5).await;
        assert_eq!(setup.rest(&rests, true).await, paused, "it rests already");
        let resumed = setup.rest(&rests, false).await;
        let next = START.parse::<Timestamp>().unwrap().plus(HOUR * 9);
        assert_eq!((resumed.paused, resumed.next), (None, Some(next)));
        assert_eq!(setup.rest(&rests, false).await, resumed, "it goes already");
        setup.schedulers(4, HOUR).await;
        assert_eq!(setup.hours(&rests).await, [1, 2, 3, 9], "{missed:?}");
        assert_eq!(setup.hours(&goes).await, [1, 2, 3, 4, 5, 6, 7, 8, 9], "{missed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_schedule_is_paused_under_running_schedulers() {
    let setup = setup();
    let spec = ScheduleSpec::cron("0 * * * *").overlap(Overlap::Allow);
    let rests = setup.install(spec).await;
    let at_half = async {
        tokio::time::sleep(HOUR * 5 / 2).await;
        setup.rest(&rests, true).await;
        tokio::time::sleep(HOUR * 2).await;
        setup.rest(&rests, false).await;
    };
    tokio::join!(setup.schedulers(4, HOUR * 13 / 2), at_half);
    assert_eq!(setup.hours(&rests).await, [1, 2, 5, 6]);
}

#[tokio::test(start_paused = true)]
async fn what_was_due_when_a_pause_began_is_not_made_up_for_either() {
    let setup = setup();
    let spec = ScheduleSpec::cron("0 * * * *").missed(Missed::FireAll { max: 9 });
    let rests = setup.install(spec).await;
    // Nobody schedules for three hours.
    tokio::time::sleep(HOUR * 3 + Duration::from_secs(1)).await;
    setup.rest(&rests, true).await;
    setup.rest(&rests, false).await;
    setup.schedulers(2, HOUR).await;
    assert_eq!(setup.hours(&rests).await, [4]);
}

#[tokio::test(start_paused = true)]
async fn a_schedule_of_an_installation_that_rests_goes_on_with_it() {
    let setup = setup();
    let mut installation = setup.install(ScheduleSpec::cron("0 * * * *")).await;
    setup.rest(&installation, true).await;
    installation = setup.world.installation(installation.id).await;
    installation.state = InstallationState::Paused;
    setup.world.save(SaveInstallation::new(installation.clone())).await;
    let resumed = setup.rest(&installation, false).await;
    assert_eq!(
        (resumed.paused, resumed.next),
        (None, None),
        "it is not what keeps it back"
    );
    let (stranger, acme) = (scope("stranger"), scope(ACME));
    let foreign = setup
        .world
        .runtime
        .pause_schedule(&stranger, installation.id, "note", true);
    assert_eq!(foreign.await.unwrap_err().code(), Code::NotFound);
    let unknown = setup
        .world
        .runtime
        .pause_schedule(&acme, installation.id, "nothing", true);
    assert_eq!(unknown.await.unwrap_err().code(), Code::NotFound);
}
