//! What the store and the journal say in the end.

use super::{
    Life, MARGIN, Plan, in_millis,
    journal::{Begin, Journal},
    worker::{COUNTERS, Memory},
};
use crate::{Done, LEASE};
use crosspoint::{
    core::{Execution, ExecutionFilter, ExecutionStatus, FleetScope, InstallationId, Page, Scope},
    prelude::*,
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

#[derive(Debug, Default)]
pub struct Verdict {
    /// Executions in the store.
    stored: u64,
    succeeded: u64,
    /// Attempts of all of them.
    attempts: u64,
    /// Runs whose memory was less than that of a run before them.
    went_back: u64,
    /// Runs that began again, because their worker was killed.
    again: u64,
    /// Runs that began again although nobody was killed.
    unexplained: u64,
    /// From the kill of a worker until one of its runs began elsewhere, in milliseconds; while another worker lived, and
    /// where a new one had to come first.
    reclaims: Vec<i64>,
    reclaims_by_new: Vec<i64>,
    /// Runs that began again after a claim whose worker was killed too before the run could begin.
    unseen: u64,
    /// Of all those, the ones that came later than `MARGIN` after the lease's end, or after the first worker since then.
    late: Vec<String>,
    killed: u64,
    problems: Vec<String>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the operator of this demonstration looks at everything"
)]
fn fleet() -> FleetScope {
    FleetScope::trusted()
}

/// How many executions have not ended.
pub async fn open(platform: &Platform, installations: &[(CustomerId, InstallationId)]) -> Done<u64> {
    let (fleet, mut open) = (fleet(), 0);
    for (_, installation) in installations {
        for flow in COUNTERS {
            open += platform.store().executions.active(&fleet, *installation, flow).await?;
        }
    }
    Ok(open)
}

impl Verdict {
    pub async fn of(
        platform: &Platform,
        installations: &[(CustomerId, InstallationId)],
        journal: &Journal,
        lives: &BTreeMap<String, Life>,
    ) -> Done<Self> {
        let mut verdict = Self {
            killed: lives.values().filter(|life| life.killed.is_some()).count() as u64,
            ..Self::default()
        };
        for (customer, installation) in installations {
            for flow in COUNTERS {
                verdict.counter(platform, customer, *installation, flow).await?;
            }
        }
        verdict.journal(journal, lives);
        Ok(verdict)
    }

    /// One flow of one installation: its executions have each succeeded with a number of its own, from 1 without a gap, and
    /// its memory is the last one.
    async fn counter(
        &mut self,
        platform: &Platform,
        customer: &CustomerId,
        installation: InstallationId,
        flow: &str,
    ) -> Done<()> {
        let executions = executions(platform, installation, flow).await?;
        let mut numbers = BTreeSet::new();
        for execution in &executions {
            self.stored += 1;
            self.attempts += u64::from(execution.attempt);
            if execution.status != ExecutionStatus::Succeeded {
                self.problems.push(format!("{execution:?}"));
                continue;
            }
            self.succeeded += 1;
            let reply = platform.wait(customer, execution.id, Duration::ZERO).await?;
            numbers.insert(serde_json::from_slice::<u64>(reply.body())?);
        }
        let count = executions.len() as u64;
        if !numbers.iter().copied().eq(1..=count) {
            let problem = format!("{customer}, {flow}: {count} executions answered {numbers:?}");
            self.problems.push(problem);
        }
        let fleet = fleet();
        let state = platform
            .store()
            .state
            .state(Scope::Fleet(&fleet), installation, flow)
            .await?;
        let memory: Option<Memory> = serde_json::from_value(state.value)?;
        let memory = memory.unwrap_or_default().count;
        if memory != count {
            let problem = format!("{customer}, {flow}: remembers {memory} of {count} executions");
            self.problems.push(problem);
        }
        Ok(())
    }

    fn journal(&mut self, journal: &Journal, lives: &BTreeMap<String, Life>) {
        let mut memories: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        let mut last: BTreeMap<&str, &Begin> = BTreeMap::new();
        let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
        for begin in &journal.0 {
            let memory = memories.entry((&begin.customer, &begin.flow)).or_default();
            if begin.count < *memory {
                self.went_back += 1;
                self.problems.push(format!("remembered {memory} before: {begin:?}"));
            }
            *memory = begin.count.max(*memory);
            if *owners.entry(&begin.key).or_insert(&begin.execution) != begin.execution {
                self.problems.push(format!("the key of another execution: {begin:?}"));
            }
            if let Some(before) = last.insert(&begin.execution, begin) {
                self.repeated(before, begin, lives);
            }
        }
    }

    fn repeated(&mut self, before: &Begin, begin: &Begin, lives: &BTreeMap<String, Life>) {
        self.again += 1;
        if before.key != begin.key || begin.attempt <= before.attempt {
            self.problems.push(format!("not the same work: {before:?}, {begin:?}"));
        }
        let Some(killed) = lives.get(&before.worker).and_then(|life| life.killed) else {
            self.unexplained += 1;
            self.problems
                .push(format!("again without a kill: {before:?}, {begin:?}"));
            return;
        };
        let over = |killed: i64| killed + in_millis(LEASE);
        let free = |killed: i64| due(over(killed), lives.values()).unwrap_or(over(killed));
        let mut due = free(killed);
        if begin.attempt > before.attempt + 1 {
            self.unseen += 1;
        } else if due > over(killed) {
            self.reclaims_by_new.push(begin.at - killed);
        } else {
            self.reclaims.push(begin.at - killed);
        }
        // Claims between: in time, by a worker that was killed before the run should have begun. Which one is not known.
        for _ in before.attempt + 1..begin.attempt {
            let latest = begin.at.min(due + 2 * in_millis(MARGIN));
            let kills = lives.values().filter_map(|life| life.killed);
            let last = kills.filter(|kill| *kill > killed && *kill <= latest).max();
            due = last.map_or(due, free);
        }
        if begin.at > due + in_millis(MARGIN) {
            self.late
                .push(format!("{} ms late: {before:?}, {begin:?}", begin.at - due));
        }
    }

    /// Whether everything is as it should be.
    pub fn good(&self, plan: Plan) -> bool {
        self.stored == plan.executions
            && self.succeeded == plan.executions
            && self.problems.is_empty()
            && (self.late.is_empty() || !plan.on_time)
    }

    pub fn json(&self, plan: Plan, took: Duration) -> String {
        json!({
            "workers": plan.workers,
            "executions": plan.executions,
            "seed": plan.seed,
            "kills": self.killed,
            "stored": self.stored,
            "succeeded": self.succeeded,
            "lost": plan.executions.saturating_sub(self.succeeded),
            "attempts": self.attempts,
            "went_back": self.went_back,
            "begun_again": self.again,
            "begun_again_after_unseen_claims": self.unseen,
            "begun_again_unexplained": self.unexplained,
            "longest_reclaim_ms": longest(&self.reclaims),
            "longest_reclaim_by_new_worker_ms": longest(&self.reclaims_by_new),
            "reclaims_late": self.late.len(),
            "lease_ms": LEASE.as_millis(),
            "problems": self.problems.len(),
            "seconds": took.as_secs(),
        })
        .to_string()
    }

    pub fn print(&self, plan: Plan, took: Duration) {
        println!();
        for (count, what) in [
            (plan.executions, "executions were started"),
            (self.stored, "are in the store"),
            (
                self.succeeded,
                "  of which have succeeded, each with a number of its own",
            ),
            (self.attempts, "attempts in all"),
            (self.killed, "workers were killed"),
            (self.again, "runs began again, because their worker had been killed"),
            (
                self.unseen,
                "  of which after a claim whose worker was killed before the run began",
            ),
            (self.unexplained, "runs began again without that"),
            (self.went_back, "runs remembered less than one before them"),
        ] {
            println!("{count:>8}  {what}");
        }
        let lease = LEASE.as_millis();
        println!(
            "{:>5} ms  from a kill until a run of the dead worker began elsewhere, at most; its lease is {lease} ms",
            longest(&self.reclaims)
        );
        if !self.reclaims_by_new.is_empty() {
            println!(
                "{:>5} ms  the same where all workers had been killed, and one had to start first",
                longest(&self.reclaims_by_new)
            );
        }
        println!("{:>7} s  in all", took.as_secs());
        for problem in self.problems.iter().chain(&self.late).take(20) {
            println!("  {problem}");
        }
    }
}

/// From when on a lease that was over at `over` could be taken up: by the first worker that then lived for long enough.
fn due<'a>(over: i64, lives: impl Iterator<Item = &'a Life>) -> Option<i64> {
    let from = |life: &Life| {
        let from = life.ready?.max(over);
        let long_enough = life.killed.is_none_or(|killed| killed >= from + in_millis(MARGIN));
        long_enough.then_some(from)
    };
    lives.filter_map(from).min()
}

fn longest(reclaims: &[i64]) -> i64 {
    reclaims.iter().copied().max().unwrap_or(0)
}

async fn executions(platform: &Platform, installation: InstallationId, flow: &str) -> Done<Vec<Execution>> {
    let fleet = fleet();
    let mut filter = ExecutionFilter::installation(installation);
    filter.flow = Some(flow.to_owned());
    let (mut all, mut page) = (Vec::new(), Page::first(100));
    loop {
        let found = platform
            .store()
            .executions
            .list(Scope::Fleet(&fleet), &filter, page)
            .await?;
        all.extend(found.items);
        match found.next {
            Some(next) => page = Page::after(next, 100),
            None => return Ok(all),
        }
    }
}
