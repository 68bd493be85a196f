//! The SQLite queue against a floor and a peer: `cargo bench --bench queue` in this folder, `PEERS_QUICK=1` for a short run,
//! `PEERS_SEED=n` for another order of the rounds.
//!
//! The machine's load moves wall time more than the code does, so contenders run in rounds, see [`rounds`]; criterion gets
//! the times of those rounds. What counts are the ratios at the end, with their range.

mod apalis;
mod cpu;
mod disk;
mod floor;
mod heartbeats;
mod load;
mod ours;
mod rounds;

use criterion::Criterion;
use load::{BATCH, CALLERS, CALLS, REPLY, REQUEST};
use ours::{Callers, Queue};
use rounds::{Times, Verdicts, contender, rounds};
use std::time::Duration;
use tokio::runtime::Runtime;

const FLOOR: &str = "floor_sqlite_full";
const OURS: &str = "crosspoint_sqlite_full";
/// 50 customers, whose callers wait for the answer.
const HELD: &str = "crosspoint_held_50";
const APALIS: &str = "apalis_sqlite_full";

/// Calls that are drained in one measurement of the groups `depth` and `finished`.
const DRAINED: usize = 2000;
const SHALLOW: usize = 1000;

struct Plan {
    rounds: usize,
    apalis: usize,
    deep: usize,
    finished: usize,
    /// No round of a group is begun after this, so that a busy disk makes fewer rounds and not a longer run.
    patience: Duration,
    /// How long each of several processes is busy.
    busy: Duration,
    seed: u64,
    only: Option<String>,
}

impl Plan {
    fn of_environment() -> Self {
        let quick = std::env::var("PEERS_QUICK").is_ok_and(|quick| quick != "0");
        let seed = std::env::var("PEERS_SEED").ok().and_then(|seed| seed.parse().ok());
        Self {
            rounds: if quick { 5 } else { 15 },
            apalis: if quick { 2 } else { 5 },
            deep: if quick { 20_000 } else { 100_000 },
            finished: if quick { 20_000 } else { 100_000 },
            patience: Duration::from_secs(if quick { 8 } else { 45 }),
            busy: Duration::from_secs(if quick { 2 } else { 10 }),
            seed: seed.unwrap_or(1),
            only: std::env::args().skip(1).find(|argument| !argument.starts_with('-')),
        }
    }

    /// Whether a group is among those that were asked for on the command line, as `group` or `group/id`.
    fn wants(&self, group: &str) -> bool {
        let only = self.only.as_deref().and_then(|only| only.split('/').next());
        only.is_none_or(|only| group.contains(only) || only.contains(group))
    }
}

fn main() {
    let plan = Plan::of_environment();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    if heartbeats::is_child(&runtime, plan.busy) {
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    preface(&plan);
    let mut verdicts = Verdicts::default();
    if plan.wants("end_to_end") {
        end_to_end(&plan, &mut criterion, &runtime, &mut verdicts);
    }
    if plan.wants("customers") || plan.wants("held") {
        customers_and_held(&plan, &mut criterion, &runtime, &mut verdicts);
    }
    if plan.wants("depth") {
        depth(&plan, &mut criterion, &runtime, &mut verdicts);
    }
    if plan.wants("finished") {
        finished(&plan, &mut criterion, &runtime, &mut verdicts);
    }
    if plan.wants("heartbeats") {
        heartbeats::print(plan.busy);
    }
    verdicts.print();
    criterion.final_summary();
}

fn preface(plan: &Plan) {
    let (p50, p99) = disk::fdatasync();
    let folder = std::env::temp_dir();
    println!(
        "SQLite queues, all with journal_mode=WAL and synchronous=FULL, one file each, a new file for each measurement"
    );
    println!(
        "  load      {CALLS} calls, {CALLERS} callers at once, one worker; request {} bytes, reply {} bytes",
        REQUEST.len(),
        REPLY.len()
    );
    println!(
        "  backlog   nothing waits at the start: what waits later is what the worker is behind by. `depth`: {SHALLOW} and {}; `finished`: {} kept",
        plan.deep, plan.finished
    );
    println!("  floor     one writer thread, group commit, lease batch {BATCH}, woken by an enqueue");
    println!("  ours      lease batch {BATCH}, woken by an enqueue (no poll); in `end_to_end` 50 customers");
    println!(
        "  apalis    apalis-sqlite 1.0.0, one connection, batch {BATCH}, poll interval {:?}, concurrency {CALLERS}",
        apalis::POLL
    );
    println!(
        "  disk      fdatasync after an append of 4 KiB in {}: p50 {p50:.3?}, p99 {p99:.3?}",
        folder.display()
    );
    println!(
        "  rounds    {} ({} with apalis), seed {}\n",
        plan.rounds, plan.apalis, plan.seed
    );
}

fn end_to_end(plan: &Plan, criterion: &mut Criterion, runtime: &Runtime, verdicts: &mut Verdicts) {
    let contenders = vec![
        contender(FLOOR, || floor::end_to_end(runtime)),
        contender(OURS, || ours::end_to_end(runtime, 50, Callers::Leave)),
        contender(APALIS, || apalis::end_to_end(runtime)),
    ];
    let times = rounds(plan.apalis, plan.patience, plan.seed, contenders);
    times.report(criterion, "end_to_end", |_| false);
    times.print_writers(CALLS);
    println!(
        "floor {:.0}/s, apalis {:.0}/s",
        times.rate(FLOOR, CALLS),
        times.rate(APALIS, CALLS)
    );
    verdict(verdicts, &times, "50 customers, against the floor", (OURS, FLOOR), 0.40);
    verdict(
        verdicts,
        &times,
        "50 customers, against apalis-sqlite",
        (OURS, APALIS),
        20.0,
    );
}

/// One set of rounds for both groups, with one floor.
fn customers_and_held(plan: &Plan, criterion: &mut Criterion, runtime: &Runtime, verdicts: &mut Verdicts) {
    let ours = |customers, callers| move || ours::end_to_end(runtime, customers, callers);
    let contenders = vec![
        contender(FLOOR, || floor::end_to_end(runtime)),
        contender("crosspoint_1", ours(1, Callers::Leave)),
        contender("crosspoint_50", ours(50, Callers::Leave)),
        contender("crosspoint_5000", ours(5000, Callers::Leave)),
        contender(HELD, ours(50, Callers::AreHeld)),
    ];
    let times = rounds(plan.rounds, plan.patience, plan.seed, contenders);
    times.report(criterion, "customers", |name| name == HELD);
    times.report(criterion, "held", |name| name != HELD);
    times.print_writers(CALLS);
    verdict(
        verdicts,
        &times,
        "1 customer, against the floor",
        ("crosspoint_1", FLOOR),
        0.40,
    );
    verdict(
        verdicts,
        &times,
        "50 customers, against the floor",
        ("crosspoint_50", FLOOR),
        0.40,
    );
    verdict(
        verdicts,
        &times,
        "5,000 customers, against the floor",
        ("crosspoint_5000", FLOOR),
        0.30,
    );
    let held = "held until settled, against the floor (callers do not wait)";
    verdict(verdicts, &times, held, (HELD, FLOOR), 0.35);
}

fn depth(plan: &Plan, criterion: &mut Criterion, runtime: &Runtime, verdicts: &mut Verdicts) {
    for (customers, aim) in [(1, 0.80), (50, 0.60), (5000, 0.80)] {
        let (shallow, deep) = (SHALLOW.to_string(), plan.deep.to_string());
        let (mut few, mut many) = runtime.block_on(async {
            let (mut few, mut many) = (Queue::open(customers).await, Queue::open(customers).await);
            few.fill(SHALLOW).await;
            many.fill(plan.deep).await;
            (few, many)
        });
        let contenders = vec![
            contender(&shallow, || runtime.block_on(few.drain_at_depth(DRAINED))),
            contender(&deep, || runtime.block_on(many.drain_at_depth(DRAINED))),
        ];
        let times = rounds(plan.rounds, plan.patience, plan.seed, contenders);
        times.report(criterion, &format!("depth_{customers}_customers"), |_| false);
        let what = format!("drain with {deep} waiting, against {shallow}; {customers} customers");
        verdicts.add(
            &what,
            times.rate(&deep, DRAINED),
            times.ratio(&deep, &shallow),
            times.count(),
            aim,
        );
    }
}

fn finished(plan: &Plan, criterion: &mut Criterion, runtime: &Runtime, verdicts: &mut Verdicts) {
    let (mut without, mut with) = runtime.block_on(async {
        let (mut without, mut with) = (Queue::open(50).await, Queue::open(50).await);
        with.fill(plan.finished).await;
        with.drain(plan.finished).await;
        without.fill(SHALLOW).await;
        with.fill(SHALLOW).await;
        (without, with)
    });
    let kept = plan.finished.to_string();
    let contenders = vec![
        contender("none", || runtime.block_on(without.drain_at_depth(DRAINED))),
        contender(&kept, || runtime.block_on(with.drain_at_depth(DRAINED))),
    ];
    let times = rounds(plan.rounds, plan.patience, plan.seed, contenders);
    times.report(criterion, "finished", |_| false);
    let what = format!("drain with {kept} finished kept, against none; 50 customers");
    verdicts.add(
        &what,
        times.rate(&kept, DRAINED),
        times.ratio(&kept, "none"),
        times.count(),
        0.70,
    );
}

fn verdict(verdicts: &mut Verdicts, times: &Times, what: &str, (ours, theirs): (&str, &str), aim: f64) {
    let what = format!("end to end, {what}");
    verdicts.add(
        &what,
        times.rate(ours, CALLS),
        times.ratio(ours, theirs),
        times.count(),
        aim,
    );
}
