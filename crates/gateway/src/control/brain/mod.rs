//! One tick of a target's control: what its gate has seen in, what the gate is to do out. Pure, so that it can be tested
//! without a gate.

use super::{
    Limit, LimitAlgorithm, Policy, Window,
    baseline::{Baselines, Load, Seen},
    ceiling::Ceiling,
    customers::{Judgement, Scale, WATCH_AT, Watch},
    degraded::Degraded,
    demand::{ArrivalRate, concurrency},
    gather::{Gather, Tick, quantile},
    note::Note,
    startup::{Advice, Startup},
    state::{Results, States, Transition},
    tail::Tail,
};
use crate::gate::{CustomerReading, Flags, Readings, RouteClass, State};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// So many calls not started one after the other (the hot path trips at as many) are refusals by the target.
const REFUSED: u64 = 3;
/// How sure a sideline reserve is that no direct call finds all permits taken: -ln(0.005).
const RESERVE_SURE: f64 = 5.3;
/// Where the arrivals need nearly all permits, a reserve is of no use.
const RESERVE_ROOM: f64 = 1.05;

/// What the tick is given besides the gate's readings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around {
    /// Since the control began.
    pub(super) now: Duration,
    /// Since the last tick, measured.
    pub(super) elapsed: Duration,
    /// This process's share of the queue, as it was counted.
    pub(super) backlog: i64,
    /// Calls that came to the queue without asking the gate first.
    pub(super) submitted: u64,
}

/// What the gate is to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Orders {
    pub(super) transition: Option<Transition>,
    pub(super) reserve: u32,
    pub(super) watch: bool,
    pub(super) flags: Vec<(u16, Flags)>,
    /// How long a customer's calls may be silent before it gets no more; zero: for ever.
    pub(super) overdue: Duration,
    /// The service time of the present mix in seconds.
    pub(super) service: f64,
    /// How many service times a call may take now that is one of the slow ones.
    pub(super) tail: f64,
    pub(super) demand: f64,
    pub(super) degraded: bool,
}

/// Everything that a target's control remembers.
#[derive(Debug)]
pub(super) struct Brain {
    policy: Arc<Policy>,
    algorithm: Box<dyn LimitAlgorithm>,
    floor: f64,
    most: f64,
    limit: f64,
    baselines: Baselines,
    gather: Gather,
    ceiling: Ceiling,
    startup: Startup,
    pub(super) states: States,
    degraded: Degraded,
    is_degraded: bool,
    arrivals: ArrivalRate,
    arrival_rate: f64,
    watch: Watch,
    tail: Tail,
    /// The last ratio, by which a class that is new under load is discounted.
    slowness: f64,
}

impl Brain {
    pub(super) fn new(policy: Arc<Policy>, seed: u64) -> Self {
        let limit = f64::from(policy.limit.initial());
        let (floor, most) = policy.limit.bounds();
        let mut startup = Startup::new();
        if !policy.limit.is_learnt() {
            startup.close();
        }
        Self {
            algorithm: policy.limit.algorithm(),
            floor,
            most,
            limit,
            baselines: Baselines::default(),
            gather: Gather::new(),
            ceiling: Ceiling::default(),
            startup,
            states: States::new(policy.cool_off, policy.degraded_trips, seed, limit),
            degraded: Degraded::default(),
            is_degraded: false,
            arrivals: ArrivalRate::default(),
            arrival_rate: 0.0,
            watch: Watch::default(),
            tail: Tail::default(),
            slowness: 1.0,
            policy,
        }
    }

    pub(super) const fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Starts over under another policy; what is known of latencies stays known, and a target that is not reached is not
    /// reached under this one either.
    pub(super) fn adopt_policy(&mut self, policy: Arc<Policy>, seed: u64) {
        let mut next = Self::new(policy, seed);
        next.baselines = std::mem::take(&mut self.baselines);
        if self.startup.is_closed() {
            next.startup.close();
        }
        next.arrivals = std::mem::take(&mut self.arrivals);
        std::mem::swap(&mut next.states, &mut self.states);
        next.states
            .adopt_policy(next.policy.cool_off, next.policy.degraded_trips, next.limit);
        *self = next;
    }

    /// Starts from what another process has learnt.
    pub(super) fn recall(&mut self, note: &Note, class: impl Fn(&str) -> RouteClass) {
        for (name, latency) in &note.classes {
            self.baselines.recall(class(name).index(), *latency);
        }
        if self.policy.limit.is_learnt() {
            self.limit = note.limit.clamp(self.floor, self.most);
            self.states.begin_with(self.limit);
        }
        if !note.classes.is_empty() {
            self.startup.close();
        }
    }

    /// What the next process should know; `None` while nothing is certain.
    pub(super) fn note(&self, names: &[Arc<str>]) -> Option<Note> {
        let named = |(class, latency): (u8, f64)| Some((names.get(usize::from(class))?.to_string(), latency));
        let classes: BTreeMap<_, _> = self.baselines.iter().filter_map(named).collect();
        let limit = match self.states.state() {
            State::Direct => self.limit,
            _ => self.states.last_good(),
        };
        (self.startup.is_closed() && !classes.is_empty()).then(|| Note::new(limit, classes))
    }

    /// The baselines by class in seconds.
    pub(super) fn baselines(&self) -> impl Iterator<Item = (RouteClass, f64)> {
        self.baselines
            .iter()
            .map(|(class, latency)| (RouteClass::at(class), latency))
    }

    /// With what a backlog will be worked off: the limit, or the last good one until the target has recovered.
    pub(super) fn prospect(&self) -> f64 {
        match self.states.state() {
            State::Direct => self.limit,
            _ => self.states.last_good(),
        }
    }

    /// The hot path has closed the gate.
    pub(super) fn tripped(&mut self, now: Duration) -> Transition {
        let transition = self.states.tripped(now, self.limit);
        self.interrupted(transition);
        transition
    }

    /// So many calls were diverted that the cool-off is over.
    pub(super) fn cooled(&mut self, now: Duration) -> Option<Transition> {
        let transition = self.states.cooled(now);
        if let Some(transition) = transition {
            self.interrupted(transition);
        }
        transition
    }

    /// The gate has left its state. Nothing that was begun counts any more.
    fn interrupted(&mut self, transition: Transition) {
        self.gather.restart();
        self.degraded.forget();
        if let Some(before) = self.startup.interrupt() {
            self.limit = before;
        }
        if transition.to == State::Direct && self.policy.limit.is_learnt() && transition.from == State::Ramping {
            self.limit = self.states.last_good().clamp(self.floor, self.most);
        }
    }

    pub(super) fn tick(&mut self, seen: &Readings, customers: &[CustomerReading], around: Around) -> Orders {
        let seconds = around.elapsed.as_secs_f64().max(1e-6);
        let direct = self.states.state() == State::Direct;
        let in_flight = in_flight(seen, seconds).min(self.permits());
        let load = match () {
            () if !direct || seen.saturated => Load::Saturated,
            () if in_flight < self.limit / 2.0 => Load::Idle,
            () => Load::Used,
        };
        let ratios = self.ratios(seen);
        let tail = self.tail.update(&ratios);
        self.learn(seen, seconds, load);
        if direct {
            self.learn_limit(seen, ratios, in_flight, seconds, load);
        }
        let results = Results {
            succeeded: seen.succeeded,
            failed: seen.failed,
            unknown: seen.unknown,
            not_started: seen.not_started,
            overloaded: seen.overloaded,
            saturated: seen.saturated,
            degraded: self.is_degraded,
        };
        let transition = self.states.look(around.now, seconds, results, self.limit);
        if let Some(transition) = transition {
            self.interrupted(transition);
        }
        let Judgement { flags, overdue } = self.watch.judge(
            customers,
            Scale {
                seconds,
                limit: self.permits(),
                slowest_class: self.baselines.iter().map(|(_, latency)| latency).fold(0.0, f64::max),
            },
        );
        let service = self.baselines.service();
        self.arrival_rate = self.arrivals.update(seen.arrived + around.submitted, seconds);
        let waiting = seen.waiting_held > 0;
        let flagged = !flags.is_empty() || customers.iter().any(|customer| customer.flags != Flags::default());
        // Also by those that have not ended: slow calls are noticed before the first of them ends.
        let busy = in_flight.max(f64::from(seen.in_flight)) / self.permits().max(1.0) >= WATCH_AT;
        let watch = busy || waiting || flagged || around.backlog > 0;
        Orders {
            transition,
            reserve: whole(self.reserve(service, waiting)),
            watch: self.watch.on(watch, seconds),
            flags,
            overdue,
            service,
            tail,
            demand: concurrency(self.arrival_rate, around.backlog as f64, service),
            degraded: self.is_degraded,
        }
    }

    /// How many calls may be in flight now.
    pub(super) fn permits(&self) -> f64 {
        self.states.permits(self.limit).min(self.most)
    }

    /// Latency by baseline of every sample; classes without a baseline have none yet.
    fn ratios(&self, seen: &Readings) -> Vec<(f64, f64)> {
        let mut ratios = Vec::new();
        for class in &seen.classes {
            let Some(baseline) = self.baselines.get(class.class.index()) else {
                continue;
            };
            let ratio = class
                .buckets
                .iter()
                .map(|(latency, count)| (latency / baseline, f64::from(*count)));
            ratios.extend(ratio);
        }
        ratios
    }

    fn learn(&mut self, seen: &Readings, seconds: f64, load: Load) {
        let classes = seen.classes.iter().map(|class| Seen {
            class: class.class.index(),
            count: class.count as f64,
            mean: class.sum / (class.count.max(1)) as f64,
        });
        let classes: Vec<_> = classes.collect();
        self.baselines.learn(&classes, seconds, load, self.slowness);
    }

    fn learn_limit(&mut self, seen: &Readings, ratios: Vec<(f64, f64)>, in_flight: f64, seconds: f64, load: Load) {
        let slowest = quantile(&ratios, 0.9).unwrap_or_default();
        let samples = seen.classes.iter().map(|class| class.count).sum();
        let tick = Tick {
            seconds,
            ratios,
            samples,
            latency: seen.classes.iter().map(|class| class.sum).sum(),
            in_flight,
            answered: seen.succeeded + seen.failed,
            saturated: seen.saturated,
            refused: seen.not_started + seen.overloaded >= REFUSED,
            idle: load == Load::Idle,
        };
        if let Some(window) = self.gather.add(tick, self.limit) {
            self.slowness = window.ratio.max(1.0);
            self.is_degraded = self.degraded.look(&window, slowest);
            if load == Load::Idle && !window.saturated {
                self.startup.close();
            }
            self.decide(&window);
        }
        if self.policy.limit.is_learnt() && !matches!(self.policy.limit, Limit::Custom(_)) {
            let peak = if seen.saturated { self.limit } else { in_flight };
            self.limit = self.ceiling.apply(self.limit, peak, seconds);
        }
        self.limit = self.limit.clamp(self.floor, self.most);
    }

    fn decide(&mut self, window: &Window) {
        let wanted = match self.startup.look(window, self.floor) {
            Advice::Algorithm => self.algorithm.update(window),
            Advice::Limit(limit) => limit,
            Advice::Adopt { limit, baseline } => {
                self.baselines.lower(baseline);
                self.gather.restart();
                limit
            }
        };
        if wanted.is_finite() {
            self.limit = wanted.clamp(self.floor, self.most);
        }
    }

    /// Permits to keep free of sideline work, so that the calls that arrive in the meantime find one.
    fn reserve(&self, service: f64, waiting: bool) -> f64 {
        let permits = self.permits();
        let busy = (self.arrival_rate * service).max(0.5);
        if self.states.state() != State::Direct || waiting || permits <= RESERVE_ROOM * busy {
            return 0.0;
        }
        (RESERVE_SURE / (permits / busy).ln())
            .ceil()
            .min((permits / 2.0).floor())
    }
}

/// The calls in flight on average: for calls shorter than the tick by what they took together (Little's law), for longer
/// ones by how many there are now.
fn in_flight(seen: &Readings, seconds: f64) -> f64 {
    let count: u64 = seen.classes.iter().map(|class| class.count).sum();
    let sum: f64 = seen.classes.iter().map(|class| class.sum).sum();
    if count > 0 && sum / count as f64 <= seconds / 2.0 {
        sum / seconds
    } else {
        f64::from(seen.in_flight)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a limit is positive and has 24 bits"
)]
pub(super) fn whole(limit: f64) -> u32 {
    limit.floor().max(0.0) as u32
}

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small positive numbers of a test"
)]
mod tests;
