//! The task that ticks one target's control: it carries what the gate has seen to the brain and the brain's orders back.
//!
//! It takes no lock that a call takes. An idle target is looked at twice a second only; a late tick of a busy runtime
//! scales by the time that has really passed.

use super::{
    Control,
    brain::{Around, Brain, Orders, whole},
    note::Note,
    state::Transition,
};
use crate::{
    gate::{State, Trip},
    gateway::Inner,
    metric,
    target::Target,
    wait::after,
};
use crosspoint_core::{DispatchStore, TargetId};
use std::{
    hash::{BuildHasher, Hash, Hasher, RandomState},
    pin::pin,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::time::{Instant, sleep_until, timeout};

const PERIOD: Duration = Duration::from_millis(100);
/// How often an idle target is looked at, and after how many ticks without a call it counts as one.
const IDLE_PERIOD: Duration = Duration::from_millis(500);
const IDLE_AFTER: u32 = 50;
/// How often what was learnt is written down, if there is news.
const REMEMBER: Duration = Duration::from_secs(30);
/// How long the store may take over a note.
const NOTE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the task woke up.
enum Woken {
    Tick,
    Tripped(Trip),
    Cooled,
    Recalled(Option<Note>),
    Policy,
}

/// The right to run the control of a target: one task at a time has it.
pub(crate) struct Running(Arc<Target>);

impl Running {
    /// `None`: the control runs already.
    pub(crate) fn start(target: &Arc<Target>) -> Option<Self> {
        target.control.start().then(|| Self(Arc::clone(target)))
    }
}

impl Drop for Running {
    /// However the task ended, with its runtime for one, another may take over.
    fn drop(&mut self) {
        self.0.control.stopped();
    }
}

/// Runs the control of a target as long as the gateway lives.
pub(crate) async fn run(gateway: Weak<Inner>, running: Running) {
    let target = &running.0;
    let Some(store) = gateway.upgrade().map(|inner| Arc::clone(&inner.store)) else {
        return;
    };
    let mut ticker = Ticker::new(Arc::clone(target));
    ticker.begin();
    let mut recalled = pin!(recall(store, target.id.clone()));
    let mut asked = true;
    loop {
        let woken = tokio::select! {
            biased;
            trip = target.gate.tripped() => Woken::Tripped(trip),
            () = target.gate.cooled() => Woken::Cooled,
            () = target.control.policy_changed() => Woken::Policy,
            note = &mut recalled, if asked => Woken::Recalled(note),
            () = sleep_until(ticker.next) => Woken::Tick,
        };
        let Some(inner) = gateway.upgrade() else { return };
        match woken {
            Woken::Tick => ticker.tick(),
            Woken::Tripped(trip) => ticker.tripped(&trip),
            Woken::Cooled => ticker.cooled(),
            Woken::Policy => ticker.begin(),
            Woken::Recalled(note) => {
                asked = false;
                if let Some(note) = note {
                    ticker.recalled(&note);
                }
            }
        }
        ticker.remember(&inner);
    }
}

/// The note about a target; a damaged one is no note.
async fn recall(store: Arc<dyn DispatchStore>, target: TargetId) -> Option<Note> {
    let text = match timeout(NOTE_TIMEOUT, store.admin()?.recall(&target)).await {
        Ok(Ok(text)) => text?,
        Ok(Err(error)) => {
            tracing::warn!(%target, %error, "what was learnt of the target before could not be read");
            return None;
        }
        Err(_) => return None,
    };
    match Note::read(&text) {
        Ok(note) => Some(note),
        Err(error) => {
            tracing::warn!(%target, error, "the note about the target is damaged and ignored");
            None
        }
    }
}

/// Writes down what is known of a target, if that is news.
pub(crate) async fn remember(store: &dyn DispatchStore, target: &TargetId, control: &Control) {
    let Some(note) = control.unwritten() else { return };
    let (Some(admin), Some(text)) = (store.admin(), note.text()) else {
        return;
    };
    match timeout(NOTE_TIMEOUT, admin.remember(target, &text)).await {
        Ok(Ok(())) => control.wrote(note),
        Ok(Err(error)) => tracing::warn!(%target, %error, "what was learnt of the target could not be written"),
        Err(_) => tracing::warn!(%target, "writing what was learnt of the target takes too long"),
    }
}

struct Ticker {
    target: Arc<Target>,
    brain: Brain,
    began: Instant,
    last: Instant,
    next: Instant,
    /// Ticks without a call.
    quiet: u32,
    admitted: u64,
    /// Calls put into the queue so far, and diverted ones that have not come there yet.
    stored: u64,
    owed: u64,
    watched: bool,
    reserve: u32,
    degraded: bool,
    remembered: Instant,
}

impl Ticker {
    fn new(target: Arc<Target>) -> Self {
        let now = Instant::now();
        let policy = target.control.policy();
        let seed = seed(&policy, &target.id);
        Self {
            brain: Brain::new(policy, seed),
            began: now,
            last: now,
            next: now + PERIOD,
            quiet: 0,
            admitted: 0,
            stored: 0,
            owed: 0,
            watched: false,
            reserve: 0,
            degraded: false,
            remembered: now,
            target,
        }
    }

    /// Begins under the present policy.
    fn begin(&mut self) {
        let policy = self.target.control.policy();
        let seed = seed(&policy, &self.target.id);
        if !Arc::ptr_eq(self.brain.policy(), &policy) {
            self.brain.adopt_policy(policy, seed);
        }
        let gate = &self.target.gate;
        let states = &self.brain.states;
        gate.set_drained_in_cool_off(states.is_sticky());
        if states.state() != State::CoolOff {
            gate.set_cool_off_calls(None);
        }
        self.set_limit();
        gate.set_state(states.state());
        self.publish();
    }

    fn recalled(&mut self, note: &Note) {
        let gate = &self.target.gate;
        self.brain.recall(note, |name| gate.class(name));
        self.set_limit();
        self.target.control.wrote(note.clone());
        tracing::debug!(target = %self.target.id, limit = note.limit, "started from what was learnt before");
        self.publish();
    }

    fn tripped(&mut self, trip: &Trip) {
        if self.brain.states.state() == State::CoolOff {
            // The tick has seen the same calls fail.
            return;
        }
        tracing::debug!(target = %self.target.id, outcome = ?trip.outcome, "calls do not reach the target");
        let transition = self.brain.tripped(self.now());
        self.enter(transition);
    }

    fn cooled(&mut self) {
        self.target.gate.set_cool_off_calls(None);
        if let Some(transition) = self.brain.cooled(self.now()) {
            self.enter(transition);
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        let gate = &self.target.gate;
        let standing = gate.snapshot();
        let stored = self.target.control.backlog().total();
        let still = standing.admitted == self.admitted
            && standing.in_flight == 0
            && stored == self.stored
            && standing.state == State::Direct;
        self.quiet = if still { self.quiet.saturating_add(1) } else { 0 };
        self.admitted = standing.admitted;
        let seen = gate.readings();
        metric::direct(self.target.id.as_str(), &seen);
        let watched = if self.watched {
            gate.customers().scan()
        } else {
            Vec::new()
        };
        // What is diverted comes to the queue too, a little later, but was counted on its arrival. Not all of it comes.
        let came = stored.saturating_sub(self.stored);
        self.stored = stored;
        self.owed += seen.diverted;
        let paid = self.owed.min(came);
        self.owed = (self.owed - paid) / 10 * 9;
        let around = Around {
            now: self.now(),
            elapsed: now.saturating_duration_since(self.last),
            backlog: self.target.control.backlog().own(),
            submitted: came - paid,
        };
        self.last = now;
        let orders = self.brain.tick(&seen, &watched, around);
        self.carry_out(&orders);
        let period = if self.quiet > IDLE_AFTER { IDLE_PERIOD } else { PERIOD };
        self.schedule(now + period);
    }

    /// The next tick; sooner when a cool-off ends.
    fn schedule(&mut self, at: Instant) {
        let ends = self.brain.states.cool_until().map(|until| after(self.began, until));
        self.next = ends
            .map_or(at, |ends| ends.min(at))
            .max(Instant::now() + Duration::from_millis(1));
    }

    fn carry_out(&mut self, orders: &Orders) {
        match orders.transition {
            Some(transition) => self.enter(transition),
            None => self.set_limit(),
        }
        let gate = &self.target.gate;
        if orders.reserve != self.reserve {
            self.reserve = orders.reserve;
            gate.set_reserve(orders.reserve);
        }
        for (cell, flags) in &orders.flags {
            gate.customers().flag(*cell, *flags);
        }
        gate.customers().set_overdue(orders.overdue);
        if orders.watch != self.watched {
            self.watched = orders.watch;
            gate.set_watch(orders.watch);
        }
        for (class, latency) in self.brain.baselines() {
            gate.set_baseline(class, Duration::try_from_secs_f64(latency).unwrap_or_default());
        }
        if orders.degraded != self.degraded {
            self.degraded = orders.degraded;
            metric::degraded(self.target.id.as_str(), orders.degraded);
        }
        self.target.control.demand.set(orders.demand);
        self.target.control.forecast.set_service(orders.service);
        self.target.control.forecast.set_tail(orders.tail);
        self.publish();
    }

    /// Puts the gate into the state that the brain has come to. The permits are set first, so that a state never has
    /// those of another; the closing of a gate that has tripped is only confirmed.
    fn enter(&mut self, transition: Transition) {
        let gate = &self.target.gate;
        let states = &self.brain.states;
        gate.set_drained_in_cool_off(states.is_sticky());
        gate.set_cool_off_calls((transition.to == State::CoolOff).then(|| states.cool_calls()));
        self.set_limit();
        gate.set_state(transition.to);
        let (target, reason) = (self.target.id.as_str(), transition.reason.as_str());
        tracing::info!(
            target,
            from = transition.from.as_str(),
            to = transition.to.as_str(),
            reason,
            limit = self.brain.permits(),
            "gate changed"
        );
        metric::transition(target, transition.from, transition.to, reason);
        self.quiet = 0;
        self.schedule(self.next);
        self.publish();
    }

    fn set_limit(&self) {
        self.target.gate.set_limit(whole(self.brain.permits()));
    }

    /// What others read.
    fn publish(&self) {
        let forecast = &self.target.control.forecast;
        let states = &self.brain.states;
        // The queue's way stays open in the cool-off of a target in good order.
        let closed = states.cool_until().filter(|_| !states.is_sticky());
        forecast.set_limit(self.brain.prospect());
        forecast.set_closed_until(closed.map(|until| after(self.began, until)));
    }

    fn remember(&mut self, inner: &Arc<Inner>) {
        let now = Instant::now();
        if self.quiet > 0 || now.saturating_duration_since(self.remembered) < Duration::from_secs(1) {
            return;
        }
        if let Some(note) = self.brain.note(&self.target.gate.class_names()) {
            self.target.control.learnt(note);
        }
        if self.target.control.is_due(REMEMBER) {
            let (store, target) = (Arc::clone(&inner.store), Arc::clone(&self.target));
            tokio::spawn(async move { remember(store.as_ref(), &target.id, &target.control).await });
        }
        self.remembered = now;
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }
}

/// Different for each process and target unless the policy fixes it.
fn seed(policy: &super::Policy, target: &TargetId) -> u64 {
    match policy.seed {
        Some(seed) => {
            let mut hasher = std::hash::DefaultHasher::new();
            (seed, target.as_str()).hash(&mut hasher);
            hasher.finish()
        }
        None => RandomState::new().hash_one(target.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, CoolOff, Gateway, Policy, outcome::Outcome};
    use crosspoint_core::{Memory, SystemClock};
    use crosspoint_testkit::{Faults, Method};

    fn ticker(policy: Policy) -> Ticker {
        let target = Arc::new(Target::new(TargetId::new("scan").unwrap_or_else(|_| unreachable!())));
        target.set_policy(policy);
        let mut ticker = Ticker::new(target);
        ticker.begin();
        ticker
    }

    /// The tick may see that most calls fail before it hears that the hot path has closed the gate because of them.
    #[tokio::test(start_paused = true)]
    async fn one_outage_is_counted_once() {
        let steady = CoolOff::default().jitter(0.0);
        let mut ticker = ticker(Policy::default().cool_off(steady));
        let gate = Arc::clone(&ticker.target.gate);
        for at in 0..20 {
            let outcome = if at < 17 { Outcome::Failed } else { Outcome::NotStarted };
            assert!(gate.enter().map(|permit| permit.finish(outcome)).is_ok());
        }
        assert_eq!(gate.snapshot().state, State::CoolOff);
        ticker.tick();
        let until = ticker.brain.states.cool_until();
        assert_eq!(until, Some(Duration::from_millis(250)));
        ticker.tripped(&gate.tripped().await);
        assert_eq!(ticker.brain.states.cool_until(), until, "not the second in a row");
    }

    #[tokio::test(start_paused = true)]
    async fn no_setting_ends_the_control() {
        let endless = CoolOff::default()
            .first(Duration::MAX)
            .most(Duration::MAX)
            .jitter(f64::NAN);
        let mut ticker = ticker(Policy::default().cool_off(endless));
        let gate = Arc::clone(&ticker.target.gate);
        for _ in 0..3 {
            assert!(gate.enter().map(|permit| permit.finish(Outcome::NotStarted)).is_ok());
        }
        ticker.tripped(&gate.tripped().await);
        let until = ticker.brain.states.cool_until().unwrap_or_default();
        assert!(
            until >= Duration::from_secs(400) && until <= Duration::from_secs(800),
            "{until:?}"
        );
        assert!(ticker.next <= Instant::now() + PERIOD);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_waits_for_a_store_that_hangs_once_and_not_for_each_target() {
        let (store, faults) = Faults::wrap(&Memory::new().into());
        let gateway = Gateway::new(store.dispatch, Arc::new(SystemClock::new()), Config::default());
        for name in ["scan", "print", "send"] {
            let target = TargetId::new(name).map(|id| gateway.inner.target(&id));
            let note = Note::new(16.0, std::collections::BTreeMap::new());
            assert!(target.map(|target| target.control.learnt(note)).is_ok());
        }
        faults.delay_all(Method::Remember, NOTE_TIMEOUT * 2);
        let began = Instant::now();
        gateway.drain(Duration::ZERO).await;
        assert_eq!((faults.calls(Method::Remember), began.elapsed()), (3, NOTE_TIMEOUT));
    }
}
