//! What a run has come to, and tables of several.

use crate::{
    case::{Case, Goal},
    ledger::{End, Sample},
};
use std::fmt::Write as _;

/// The figures of one run. Shares are percentages, times are seconds.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// The case.
    pub case: String,
    /// The seed.
    pub seed: u64,
    /// Every figure, in order.
    pub figures: Vec<Figure>,
    /// How things stood, every tenth of a second.
    pub samples: Vec<Sample>,
    /// Every call.
    pub timeline: Vec<Point>,
}

/// A figure with its name.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Figure {
    /// The name; the README says what it means.
    pub name: &'static str,
    /// The value; NaN if there is nothing to say.
    pub value: f64,
}

/// One call of a run.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Point {
    /// When it should have been sent.
    pub at: f64,
    /// How long after that it was over.
    pub after: f64,
    /// How it ended; `None` if it has not.
    pub end: Option<End>,
}

impl Report {
    /// A figure; NaN if there is none of this name.
    #[must_use]
    pub fn figure(&self, name: &str) -> f64 {
        self.figures
            .iter()
            .find(|figure| figure.name == name)
            .map_or(f64::NAN, |figure| figure.value)
    }

    /// All figures in one line, for comparing runs.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut text = String::new();
        for figure in &self.figures {
            let _ = write!(text, "{}={:.9} ", figure.name, figure.value);
        }
        let limits: u64 = self.samples.iter().map(|sample| u64::from(sample.limit)).sum();
        let held: usize = self.samples.iter().map(|sample| sample.held).sum();
        let _ = write!(text, "limits={limits} held={held}");
        text
    }

    /// What every run must keep, whatever its policy: each broken rule in words.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        let rules = [
            ("definite", 100.0),
            ("lost", 0.0),
            ("unstored_202", 0.0),
            ("stored_twice", 0.0),
        ];
        let wrong = rules
            .iter()
            .filter(|(name, right)| (self.figure(name) - right).abs() > 1e-9);
        wrong
            .map(|(name, right)| format!("{name} is {} instead of {right}", self.figure(name)))
            .collect()
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let figures: serde_json::Map<String, serde_json::Value> = self
            .figures
            .iter()
            .map(|figure| (figure.name.to_owned(), figure.value.into()))
            .collect();
        serde_json::json!({ "case": self.case, "seed": self.seed, "figures": figures })
    }
}

/// Mean and range of every figure over several runs of a case, with its goals.
#[must_use]
pub fn table(case: &Case, reports: &[Report]) -> String {
    let mut text = format!("{}: {} ({} seeds)\n", case.name, case.title, reports.len());
    let Some(first) = reports.first() else { return text };
    for figure in &first.figures {
        let values: Vec<f64> = reports
            .iter()
            .map(|report| report.figure(figure.name))
            .filter(|v| v.is_finite())
            .collect();
        if values.is_empty() {
            continue;
        }
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let (low, high) = values
            .iter()
            .fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
        let goal = case.goals.iter().find(|goal| goal.figure == figure.name);
        let goal = goal.map_or_else(String::new, |goal| beside(goal, mean));
        let row = format!(
            "  {:<26}{:>12} ({} to {})",
            figure.name,
            number(mean),
            number(low),
            number(high)
        );
        let _ = writeln!(text, "{row:<66}{goal}");
    }
    text
}

fn beside(goal: &Goal, value: f64) -> String {
    let least = goal.at_least.map(|least| format!("at least {}", number(least)));
    let most = goal.at_most.map(|most| format!("at most {}", number(most)));
    let wanted: Vec<String> = least.into_iter().chain(most).collect();
    let reached = if goal.reached(value) { "reached" } else { "MISSED" };
    format!("goal: {} {reached}", wanted.join(", "))
}

fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
