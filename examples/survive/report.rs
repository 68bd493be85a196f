//! What came of it.

use crate::{
    clients::{Acknowledged, Known},
    processes::Processes,
    recovery::Recovery,
    target::Effect,
};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};

#[derive(Debug)]
pub struct Report {
    /// Calls that were acknowledged.
    accepted: usize,
    on_connection: usize,
    by_id: usize,
    /// Ended with a definite answer that is no success.
    failed: usize,
    /// Acknowledged, and without an end or without the effect that was claimed.
    pub lost: usize,
    unacknowledged: u64,
    twice: usize,
    /// Of those, the ones that no kill and no stop explains.
    unexplained: usize,
    stale: u64,
    stalls: usize,
    /// The longest time from a kill to the next answer to any client.
    first_answer: Duration,
    /// One for each kill.
    recoveries: Vec<Recovery>,
    reasons: Vec<String>,
}

impl Report {
    pub fn new(
        acknowledged: &Acknowledged,
        unfinished: usize,
        effects: &[Effect],
        processes: &Processes,
        first_answer: Duration,
    ) -> Self {
        let mut done: BTreeMap<u64, Vec<&Effect>> = BTreeMap::new();
        for effect in effects {
            done.entry(effect.call).or_default().push(effect);
        }
        let mut report = Self {
            accepted: acknowledged.calls.len(),
            on_connection: 0,
            by_id: 0,
            failed: 0,
            lost: 0,
            unacknowledged: acknowledged.unacknowledged,
            twice: 0,
            unexplained: 0,
            stale: processes.stale(),
            stalls: processes.stalls(),
            first_answer,
            recoveries: acknowledged.recoveries.clone(),
            reasons: Vec::new(),
        };
        for (call, known) in &acknowledged.calls {
            report.count(*call, known, done.contains_key(call));
        }
        if unfinished > 0 {
            report.reasons.push(format!("{unfinished} calls had not ended in time"));
        }
        for again in done.values().filter(|effects| effects.len() > 1) {
            report.twice += 1;
            let explained = again
                .windows(2)
                .all(|pair| processes.was_interrupted(&pair[0].by) || processes.was_stalled(pair[0].at, pair[1].at));
            if !explained {
                report.unexplained += 1;
                report.reasons.push(format!("twice without a cause: {again:?}"));
            }
        }
        report
    }

    fn count(&mut self, call: u64, known: &Known, effect: bool) {
        let lost = match known {
            Known::Answered => {
                self.on_connection += 1;
                !effect
            }
            Known::AnsweredById => {
                self.by_id += 1;
                !effect
            }
            Known::Failed(body) => {
                self.failed += 1;
                self.reasons.push(format!("call {call} failed: {body}"));
                false
            }
            Known::Accepted | Known::Forgotten => true,
        };
        if lost {
            self.lost += 1;
            self.reasons
                .push(format!("call {call} is lost: {known:?}, effect seen: {effect}"));
        }
    }

    /// The longest time from a kill until every call that had been accepted and was open then had its end.
    fn recovery(&self) -> Duration {
        let took = self.recoveries.iter().filter_map(|kill| kill.took);
        took.max().unwrap_or_default()
    }

    pub fn json(&self, kills: u32, seed: u64) -> String {
        json!({
            "kills": kills,
            "seed": seed,
            "stalls": self.stalls,
            "accepted": self.accepted,
            "answered": self.on_connection + self.by_id + self.failed,
            "on_connection": self.on_connection,
            "by_id": self.by_id,
            "failed": self.failed,
            "lost": self.lost,
            "unacknowledged": self.unacknowledged,
            "effects_twice": self.twice,
            "effects_twice_unexplained": self.unexplained,
            "stale_settles_refused": self.stale,
            "longest_recovery_ms": self.recovery().as_millis(),
            "longest_next_answer_ms": self.first_answer.as_millis(),
        })
        .to_string()
    }

    pub fn print(&self) {
        for (kill, Recovery { calls, took, .. }) in (1..).zip(&self.recoveries) {
            let took = took.map_or("never".to_owned(), |took| format!("after {:>5} ms", took.as_millis()));
            println!("kill {kill:>3}: {calls:>3} accepted calls were open; the last of them ended {took}");
        }
        println!();
        for (count, what) in [
            (
                self.accepted as u64,
                "calls accepted: acknowledged with an answer or an id",
            ),
            (self.on_connection as u64, "  answered on the connection"),
            (self.by_id as u64, "  answered by id"),
            (self.failed as u64, "  answered by id with a failure"),
            (self.lost as u64, "  lost"),
            (
                self.unacknowledged,
                "calls that nobody acknowledged: refused, or the gateway was killed",
            ),
            (self.twice as u64, "effects seen twice"),
            (
                self.unexplained as u64,
                "  of which without a kill or a stop to explain them",
            ),
            (self.stale, "stale settles refused"),
            (self.stalls as u64, "stops of the worker for longer than its lease"),
        ] {
            println!("{count:>8}  {what}");
        }
        println!(
            "{:>5} ms  longest recovery: from a kill until every accepted call that was open then had ended",
            self.recovery().as_millis()
        );
        println!(
            "{:>5} ms  the longest from a kill to the next answer to any client",
            self.first_answer.as_millis()
        );
        for reason in self.reasons.iter().take(20) {
            println!("  {reason}");
        }
    }
}
