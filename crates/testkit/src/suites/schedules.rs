//! Schedules: due, and fired once.

use super::installations::{draft, save, schedule};
use crate::{Harness, envelope, race, scope};
use crosspoint_core::{Envelope, ExecutionStatus, Fire, SaveInstallation, Saved, Schedule, Timestamp};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

async fn scheduled(h: &Harness, customer: &str, ticks: &[(&str, Option<Timestamp>)]) -> Vec<Schedule> {
    let mut change = SaveInstallation::new(draft(h, customer));
    let all: Vec<_> = ticks
        .iter()
        .map(|(flow, next)| schedule(&change.installation, flow, *next))
        .collect();
    change.schedules = Some(all.clone());
    assert_eq!(save(h, change).await, Saved::Applied);
    all
}

fn tick(h: &Harness, of: &Schedule, at: Timestamp) -> Envelope {
    let parts = ["tick", &of.installation.to_string(), &of.flow, &at.to_string()];
    envelope::derived(h.flow("flows", of.customer.as_str()), &parts)
}

async fn next(h: &Harness, of: &Schedule) -> Option<Timestamp> {
    let all = h
        .store
        .schedules
        .of((&scope::fleet()).into(), of.installation)
        .await
        .unwrap();
    all.into_iter().find(|s| s.flow == of.flow).expect("kept").next
}

/// Due is what has a next tick at or before the time asked for, soonest first, no more than asked for.
pub async fn the_soonest_are_due_first(h: &Harness) {
    let now = h.now();
    let at = |minutes: u32| Some(now.plus(MINUTE * minutes));
    scheduled(h, "acme", &[("third", at(3)), ("first", at(1)), ("never", None)]).await;
    scheduled(h, "globex", &[("second", at(2))]).await;
    let due = |minutes: u32, limit| async move {
        let due = h
            .store
            .schedules
            .due(&scope::fleet(), now.plus(MINUTE * minutes), limit)
            .await
            .unwrap();
        due.into_iter().map(|schedule| schedule.flow).collect::<Vec<_>>()
    };
    assert!(due(0, 9).await.is_empty());
    assert_eq!(due(1, 9).await, ["first"]);
    assert_eq!(due(9, 9).await, ["first", "second", "third"]);
    assert_eq!(due(9, 2).await, ["first", "second"]);
    assert_eq!(h.store.schedules.soonest(&scope::fleet()).await.unwrap(), at(1));
}

/// A schedule comes back as it was saved.
pub async fn a_schedule_is_kept_whole(h: &Harness) {
    let mut change = SaveInstallation::new(draft(h, "acme"));
    let mut saved = schedule(&change.installation, "announce", Some(h.now()));
    saved.spec = crosspoint_core::ScheduleSpec::cron("0 3 * * MON")
        .timezone("Europe/Berlin")
        .overlap(crosspoint_core::Overlap::Skip)
        .missed(crosspoint_core::Missed::Skip);
    saved.spec.jitter_ms = 500;
    change.schedules = Some(vec![saved.clone()]);
    save(h, change).await;
    assert_eq!(
        h.store.schedules.due(&scope::fleet(), h.now(), 9).await.unwrap(),
        [saved]
    );
}

/// Any number of schedulers fire a tick once: one moves the schedule on and starts the execution.
pub async fn a_tick_is_fired_once(h: &Harness) {
    let now = h.now();
    let all = scheduled(h, "acme", &[("announce", Some(now))]).await;
    let following = Some(now.plus(MINUTE));
    let answers = race(8, |_| {
        let fire = Fire::new(&all[0], now, following, vec![tick(h, &all[0], now)]);
        let store = h.store.clone();
        async move { store.schedules.fire(&scope::fleet(), fire).await.unwrap() }
    })
    .await;
    assert_eq!(
        answers.iter().filter(|a| **a == Saved::Applied).count(),
        1,
        "{answers:?}"
    );
    assert_eq!(next(h, &all[0]).await, following);
    let id = tick(h, &all[0], now).id();
    assert_eq!(h.execution(id).await.status, ExecutionStatus::Queued);
    assert_eq!(h.lease("flows", 9).await.len(), 1);
}

/// A tick that is not the next one any more starts nothing and moves nothing.
pub async fn a_stale_tick_starts_nothing(h: &Harness) {
    let now = h.now();
    let all = scheduled(h, "acme", &[("announce", Some(now.plus(MINUTE)))]).await;
    let fire = Fire::new(&all[0], now, Some(now.plus(MINUTE * 9)), vec![tick(h, &all[0], now)]);
    assert_eq!(
        h.store.schedules.fire(&scope::fleet(), fire).await.unwrap(),
        Saved::Stale
    );
    assert_eq!(next(h, &all[0]).await, Some(now.plus(MINUTE)));
    assert!(h.try_status(tick(h, &all[0], now).id()).await.is_none());
    let mut gone = all[0].clone();
    gone.flow = "gone".to_owned();
    let fire = Fire::new(&gone, now, None, vec![tick(h, &gone, now)]);
    assert_eq!(
        h.store.schedules.fire(&scope::fleet(), fire).await.unwrap(),
        Saved::Stale
    );
    assert!(h.try_take("flows").await.is_none());
}

/// A skipped tick starts nothing and moves the schedule on; the last one ends it.
pub async fn a_tick_may_be_skipped(h: &Harness) {
    let now = h.now();
    let all = scheduled(h, "acme", &[("announce", Some(now)), ("other", Some(now))]).await;
    let fire = Fire::new(&all[0], now, Some(now.plus(MINUTE)), Vec::new());
    assert_eq!(
        h.store.schedules.fire(&scope::fleet(), fire).await.unwrap(),
        Saved::Applied
    );
    assert!(h.try_take("flows").await.is_none());
    let last = Fire::new(&all[0], now.plus(MINUTE), None, Vec::new());
    assert_eq!(
        h.store.schedules.fire(&scope::fleet(), last).await.unwrap(),
        Saved::Applied
    );
    assert_eq!(next(h, &all[0]).await, None);
    assert_eq!(next(h, &all[1]).await, Some(now), "other schedules stay where they are");
}

/// A tick whose execution is known already (it was fired before a restore, say) is not doubled.
pub async fn a_tick_has_one_identity(h: &Harness) {
    let now = h.now();
    let all = scheduled(h, "acme", &[("announce", Some(now))]).await;
    h.queue(tick(h, &all[0], now)).await;
    let fire = Fire::new(&all[0], now, Some(now.plus(MINUTE)), vec![tick(h, &all[0], now)]);
    assert_eq!(
        h.store.schedules.fire(&scope::fleet(), fire).await.unwrap(),
        Saved::Applied
    );
    assert_eq!(next(h, &all[0]).await, Some(now.plus(MINUTE)));
    assert_eq!(h.lease("flows", 9).await.len(), 1);
}

async fn pause(h: &Harness, of: &Schedule, paused: Option<Timestamp>, next: Option<Timestamp>) -> Option<Schedule> {
    let (fleet, schedules) = (scope::fleet(), &h.store.schedules);
    let answer = schedules.pause((&fleet).into(), of.installation, &of.flow, paused, next);
    answer.await.unwrap()
}

/// One that is paused has no tick, fires none that was read before, and goes on at the time it is given.
pub async fn a_paused_one_rests(h: &Harness) {
    let (now, fleet) = (h.now(), scope::fleet());
    let ticks = [("a", Some(now)), ("b", Some(now.plus(MINUTE)))];
    let all = scheduled(h, "acme", &ticks).await;
    let of = all.first().expect("two");
    let mut resting = of.clone();
    (resting.paused, resting.next) = (Some(now), None);
    assert_eq!(pause(h, of, Some(now), Some(now)).await, Some(resting.clone()));
    h.advance(MINUTE);
    assert_eq!(
        pause(h, of, Some(h.now()), None).await,
        Some(resting.clone()),
        "since the first time"
    );
    let due = h.store.schedules.due(&fleet, h.now(), 9).await.unwrap();
    assert_eq!(due.iter().map(|one| one.flow.as_str()).collect::<Vec<_>>(), ["b"]);
    let start = tick(h, of, now);
    let id = start.id();
    let late = Fire::new(of, now, Some(now.plus(MINUTE)), vec![start]);
    assert_eq!(h.store.schedules.fire(&fleet, late).await.unwrap(), Saved::Stale);
    assert!(h.try_status(id).await.is_none());

    let again = h.now().plus(MINUTE);
    let mut goes = of.clone();
    goes.next = Some(again);
    assert_eq!(pause(h, of, None, Some(again)).await, Some(goes));
    assert_eq!(next(h, of).await, Some(again));

    let mut unknown = of.clone();
    unknown.flow = "nothing".to_owned();
    assert_eq!(pause(h, &unknown, Some(now), None).await, None);
    let globex = scope::customer("globex");
    let schedules = &h.store.schedules;
    let foreign = schedules.pause((&globex).into(), of.installation, &of.flow, Some(now), None);
    assert_eq!(foreign.await.unwrap(), None, "somebody else's");
    assert_eq!(next(h, of).await, Some(again));
}

/// A save that replaces the schedules leaves at rest what rests, until it is gone with its flow.
pub async fn a_save_lets_it_rest(h: &Harness) {
    let (now, fleet) = (h.now(), scope::fleet());
    let all = scheduled(h, "acme", &[("a", Some(now)), ("b", Some(now))]).await;
    let of = all.first().expect("two").clone();
    pause(h, &of, Some(now), None).await;
    let replace = async |flows: &[&str]| {
        let found = h
            .store
            .installations
            .get((&fleet).into(), of.installation)
            .await
            .unwrap();
        let mut change = SaveInstallation::new(found.expect("saved"));
        let fresh = flows.iter().map(|flow| schedule(&change.installation, flow, Some(now)));
        change.schedules = Some(fresh.collect());
        assert_eq!(save(h, change).await, Saved::Applied);
        let mut kept = h.store.schedules.of((&fleet).into(), of.installation).await.unwrap();
        kept.sort_by(|a, b| a.flow.cmp(&b.flow));
        kept.into_iter().map(|one| (one.paused, one.next)).collect::<Vec<_>>()
    };
    let (rests, goes) = ((Some(now), None), (None, Some(now)));
    assert_eq!(replace(&["a", "b"]).await, [rests, goes]);
    assert_eq!(replace(&["b"]).await, [goes]);
    assert_eq!(replace(&["a", "b"]).await, [goes, goes], "it is another schedule");
}
