//! When a target is left alone, and how it comes back.
//!
//! ```text
//!            3 calls in a row not started, most calls fail
//!   Direct ────────────────────────────────────────────────▶ CoolOff ◀─┐ a probe fails,
//!     ▲                                                      │         │ two bad ramp steps
//!     │ 0.7 × last good limit            N calls or T elapsed│         │
//!     └────────── Ramping ◀───────────────────────── Probing ◀─────────┘
//!                 from 4, doubling      5 good answers       the queue's drain, 10 % of the last good limit
//! ```
//!
//! A busy target never leaves `Direct`: calls without a permit are diverted one by one. (With
//! [`Sticky`](crate::Sticky) one such call opens a cool-off during which only the queue is worked off, with all permits,
//! and which leads straight back.)

use super::{policy::CoolOff, random::Random};
use crate::gate::State;
use std::{collections::VecDeque, time::Duration};

/// So many good answers of probes open the ramp.
const GOOD_PROBES: u64 = 5;
/// The share of the last good limit that probes may use.
const PROBE_SHARE: f64 = 0.1;
/// Where the ramp begins, and at which share of the last good limit it hands over to the algorithm.
const RAMP_START: f64 = 4.0;
const RAMP_END: f64 = 0.7;
/// A step of the ramp is bad if more than one in so many calls was refused or lost.
const RAMP_BAD_SHARE: u64 = 5;
/// More than this share of at least so many calls within a second: the target fails.
const ERROR_SHARE: f64 = 0.5;
const ERROR_CALLS: u64 = 20;
const ERROR_SPAN: f64 = 1.0;
/// After so much health earlier cool-offs are forgotten.
const FORGET: Duration = Duration::from_secs(60);

/// Why a state was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Calls could not be started, or a probe failed.
    Unavailable,
    /// Most calls failed.
    Errors,
    /// It was far too slow.
    Degraded,
    /// One call found no permit, and the policy is sticky.
    Saturated,
    /// The time of the cool-off was over.
    Elapsed,
    /// So many calls were diverted.
    Calls,
    /// Probes were answered.
    Answered,
    /// The ramp is done.
    Recovered,
}

impl Reason {
    /// As in metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Errors => "errors",
            Self::Degraded => "degraded",
            Self::Saturated => "saturated",
            Self::Elapsed => "elapsed",
            Self::Calls => "calls",
            Self::Answered => "answered",
            Self::Recovered => "recovered",
        }
    }
}

/// A change of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Transition {
    pub(super) from: State,
    pub(super) to: State,
    pub(super) reason: Reason,
}

/// How calls of the present state ended since the last look.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Results {
    pub(super) succeeded: u64,
    /// Answered with an error of the target's own.
    pub(super) failed: u64,
    /// Sent, and never answered.
    pub(super) unknown: u64,
    /// Not reached.
    pub(super) not_started: u64,
    /// Turned away by a target that has too much to do.
    pub(super) overloaded: u64,
    /// Whether a call found no permit.
    pub(super) saturated: bool,
    /// Whether the target is far too slow and more calls bring nothing.
    pub(super) degraded: bool,
}

impl Results {
    const fn add(&mut self, later: &Self) {
        self.succeeded += later.succeeded;
        self.failed += later.failed;
        self.unknown += later.unknown;
        self.not_started += later.not_started;
        self.overloaded += later.overloaded;
    }

    const fn lost(&self) -> u64 {
        self.unknown + self.not_started
    }

    /// Of no use to anybody. Being turned away is a failure only where nobody gets through: a target that works on as much
    /// as it can needs a lower limit, which it gets, and not to be left alone.
    const fn useless(&self) -> u64 {
        let turned_away = if self.succeeded > 0 { 0 } else { self.overloaded };
        self.failed + turned_away
    }
}

/// The state of one target's gate with everything that decides about the next. Pure: time is an argument, counted from
/// any fixed point.
#[derive(Debug)]
pub(super) struct States {
    settings: CoolOff,
    degraded_trips: bool,
    random: Random,
    state: State,
    since: Duration,
    /// Why the gate is in a cool-off, while it is.
    cooling: Option<Cooling>,
    /// How often in a row the target was found unavailable.
    entries: u32,
    last_good: f64,
    ramp: f64,
    step: Results,
    bad_steps: u32,
    recent: VecDeque<(f64, Results)>,
}

#[derive(Debug, Clone, Copy)]
struct Cooling {
    reason: Reason,
    until: Duration,
}

impl States {
    pub(super) fn new(settings: CoolOff, degraded_trips: bool, seed: u64, limit: f64) -> Self {
        Self {
            settings,
            degraded_trips,
            random: Random::new(seed),
            state: State::Direct,
            since: Duration::ZERO,
            cooling: None,
            entries: 0,
            last_good: limit,
            ramp: 0.0,
            step: Results::default(),
            bad_steps: 0,
            recent: VecDeque::new(),
        }
    }

    /// Goes on under other settings and another limit.
    pub(super) const fn adopt_policy(&mut self, settings: CoolOff, degraded_trips: bool, limit: f64) {
        self.settings = settings;
        self.degraded_trips = degraded_trips;
        self.last_good = limit;
    }

    pub(super) const fn state(&self) -> State {
        self.state
    }

    /// The limit that the target had when it was last in order.
    pub(super) const fn last_good(&self) -> f64 {
        self.last_good
    }

    /// What is known of the target from before the start.
    pub(super) const fn begin_with(&mut self, limit: f64) {
        self.last_good = limit;
    }

    /// When the present cool-off ends by itself.
    pub(super) fn cool_until(&self) -> Option<Duration> {
        self.cooling.map(|cooling| cooling.until)
    }

    /// After how many diverted calls it ends.
    pub(super) fn cool_calls(&self) -> u32 {
        match (self.is_sticky(), self.settings.sticky) {
            (true, Some(sticky)) => sticky.calls,
            _ => self.settings.calls,
        }
    }

    /// Whether this is the cool-off of a target in good order: its queue is worked off meanwhile.
    pub(super) fn is_sticky(&self) -> bool {
        self.cooling.is_some_and(|cooling| cooling.reason == Reason::Saturated)
    }

    /// How many permits the gate has in this state, if `limit` is what the algorithm says.
    pub(super) fn permits(&self, limit: f64) -> f64 {
        match self.state {
            State::Probing => (PROBE_SHARE * self.last_good).round().max(1.0),
            State::Ramping => self.ramp.min(self.last_good.max(1.0)),
            State::Direct | State::CoolOff => limit,
        }
    }

    /// The hot path, which sees each call, has closed the gate.
    pub(super) fn tripped(&mut self, now: Duration, limit: f64) -> Transition {
        self.cool(now, Reason::Unavailable, limit)
    }

    /// So many calls were diverted that the cool-off is over.
    pub(super) fn cooled(&mut self, now: Duration) -> Option<Transition> {
        (self.state == State::CoolOff).then(|| self.reopen(now, Reason::Calls))
    }

    /// Looks at what has happened within the last `seconds`. `limit` is what the algorithm says.
    pub(super) fn look(&mut self, now: Duration, seconds: f64, results: Results, limit: f64) -> Option<Transition> {
        let failing = self.is_failing(seconds, &results);
        match self.state {
            State::CoolOff => {
                let over = self.cooling.is_none_or(|cooling| now >= cooling.until);
                over.then(|| self.reopen(now, Reason::Elapsed))
            }
            _ if failing => Some(self.cool(now, Reason::Errors, limit)),
            State::Direct => self.look_direct(now, &results, limit),
            State::Probing => self.look_probing(now, &results, limit),
            State::Ramping => self.look_ramping(now, &results, limit),
        }
    }

    fn look_direct(&mut self, now: Duration, results: &Results, limit: f64) -> Option<Transition> {
        if now.saturating_sub(self.since) >= FORGET {
            self.entries = 0;
        }
        if self.degraded_trips && results.degraded {
            return Some(self.cool(now, Reason::Degraded, limit));
        }
        let sticky = self.settings.sticky.is_some() && results.saturated;
        sticky.then(|| self.cool(now, Reason::Saturated, limit))
    }

    fn look_probing(&mut self, now: Duration, results: &Results, limit: f64) -> Option<Transition> {
        self.step.add(results);
        if self.step.lost() > 0 {
            return Some(self.cool(now, Reason::Unavailable, limit));
        }
        let useless = self.step.useless();
        if useless >= GOOD_PROBES && useless > self.step.succeeded {
            return Some(self.cool(now, Reason::Errors, limit));
        }
        (self.step.succeeded >= GOOD_PROBES).then(|| {
            self.ramp = RAMP_START.max(self.permits(limit));
            self.change(now, State::Ramping, Reason::Answered)
        })
    }

    fn look_ramping(&mut self, now: Duration, results: &Results, limit: f64) -> Option<Transition> {
        self.step.add(results);
        let step = self.step;
        if step.lost() * RAMP_BAD_SHARE > step.succeeded + 1 {
            self.step = Results::default();
            self.bad_steps += 1;
            if self.bad_steps >= 2 {
                return Some(self.cool(now, Reason::Unavailable, limit));
            }
            self.ramp = (self.ramp / 2.0).max(1.0);
            return None;
        }
        // A step is good when each permit was answered once, or when no more is asked for.
        let enough = step.succeeded as f64 >= self.ramp || (step.succeeded > 0 && !results.saturated);
        if !enough {
            return None;
        }
        self.step = Results::default();
        self.bad_steps = 0;
        self.ramp *= 2.0;
        (self.ramp >= RAMP_END * self.last_good).then(|| {
            self.last_good = self.ramp.min(self.last_good);
            self.change(now, State::Direct, Reason::Recovered)
        })
    }

    /// Whether most calls of the last second failed.
    fn is_failing(&mut self, seconds: f64, results: &Results) -> bool {
        self.recent.push_back((seconds, *results));
        while self.recent.iter().skip(1).map(|(seconds, _)| seconds).sum::<f64>() > ERROR_SPAN - 1e-9 {
            self.recent.pop_front();
        }
        let mut sum = Results::default();
        for (_, results) in &self.recent {
            sum.add(results);
        }
        let bad = sum.useless() + sum.lost();
        let all = bad + sum.succeeded;
        matches!(self.state, State::Direct | State::Ramping)
            && all >= ERROR_CALLS
            && bad as f64 > ERROR_SHARE * all as f64
    }

    /// Into a cool-off, from anywhere.
    fn cool(&mut self, now: Duration, reason: Reason, limit: f64) -> Transition {
        if self.state == State::Direct {
            self.last_good = limit.max(RAMP_START);
            if now.saturating_sub(self.since) >= FORGET {
                self.entries = 0;
            }
        }
        let time = match (reason, self.settings.sticky) {
            (Reason::Saturated, Some(sticky)) => sticky.time,
            _ => {
                let doubled = self.settings.first.saturating_mul(1 << self.entries.min(16));
                self.entries = self.entries.saturating_add(1);
                let spread = 1.0 + self.settings.jitter * (2.0 * self.random.unit() - 1.0);
                doubled.min(self.settings.most).mul_f64(spread.max(0.0))
            }
        };
        let transition = self.change(now, State::CoolOff, reason);
        self.cooling = Some(Cooling {
            reason,
            until: now.saturating_add(time),
        });
        transition
    }

    /// Out of a cool-off: to probing, or straight back if the target was in good order.
    fn reopen(&mut self, now: Duration, reason: Reason) -> Transition {
        let to = if self.is_sticky() {
            State::Direct
        } else {
            State::Probing
        };
        self.change(now, to, reason)
    }

    fn change(&mut self, now: Duration, to: State, reason: Reason) -> Transition {
        let from = std::mem::replace(&mut self.state, to);
        self.since = now;
        self.cooling = None;
        self.step = Results::default();
        self.bad_steps = 0;
        self.recent.clear();
        Transition { from, to, reason }
    }
}

#[cfg(test)]
mod tests;
