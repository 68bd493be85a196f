//! A store that fails or takes long when it is told to; it fails before or after the write took effect.

mod store;

use crosspoint_core::{Code, Error, Result, Store};
use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use store::Faulty;
use tokio::sync::Notify;

/// A method of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Method {
    /// [`DispatchStore::enqueue`](crosspoint_core::DispatchStore::enqueue)
    Enqueue,
    /// [`DispatchStore::lease`](crosspoint_core::DispatchStore::lease)
    Lease,
    /// [`DispatchStore::extend`](crosspoint_core::DispatchStore::extend)
    Extend,
    /// [`DispatchStore::settle`](crosspoint_core::DispatchStore::settle)
    Settle,
    /// [`DispatchStore::get`](crosspoint_core::DispatchStore::get)
    Get,
    /// [`DispatchStore::ended`](crosspoint_core::DispatchStore::ended)
    Ended,
    /// `cancel` of either trait
    Cancel,
    /// [`Executions::begin`](crosspoint_core::Executions::begin)
    Begin,
    /// [`Executions::finish`](crosspoint_core::Executions::finish)
    Finish,
    /// [`FlowState::checkpoint`](crosspoint_core::FlowState::checkpoint)
    Checkpoint,
    /// [`DispatchAdmin::stats`](crosspoint_core::DispatchAdmin::stats)
    Stats,
    /// [`DispatchAdmin::lane`](crosspoint_core::DispatchAdmin::lane)
    Lane,
    /// [`DispatchAdmin::dead`](crosspoint_core::DispatchAdmin::dead)
    Dead,
    /// [`DispatchAdmin::redrive`](crosspoint_core::DispatchAdmin::redrive)
    Redrive,
    /// [`DispatchAdmin::purge`](crosspoint_core::DispatchAdmin::purge)
    Purge,
    /// [`DispatchAdmin::recall`](crosspoint_core::DispatchAdmin::recall)
    Recall,
    /// [`DispatchAdmin::remember`](crosspoint_core::DispatchAdmin::remember)
    Remember,
}

impl Method {
    /// Whether it is one of the writes that a call's life is made of.
    const fn writes(self) -> bool {
        matches!(
            self,
            Self::Enqueue
                | Self::Lease
                | Self::Extend
                | Self::Settle
                | Self::Cancel
                | Self::Begin
                | Self::Finish
                | Self::Checkpoint
        )
    }
}

/// On which side of the write it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum When {
    /// Nothing was written.
    Before,
    /// All of it was written, and the caller does not learn that.
    After,
}

#[derive(Debug, Clone, Copy)]
enum Effect {
    Fail(When),
    Delay(Duration),
    Die(When),
}

/// Which calls a plan is for.
#[derive(Debug, Clone, Copy)]
enum Of {
    One(Method),
    Writes,
    All,
}

impl Of {
    fn covers(self, method: Method) -> bool {
        match self {
            Self::One(one) => one == method,
            Self::Writes => method.writes(),
            Self::All => true,
        }
    }
}

#[derive(Debug)]
struct Plan {
    of: Of,
    /// How many calls from now the first is; 1 is the next.
    left: usize,
    /// How many calls it is for; `None`: all, until [`Faults::up`].
    times: Option<usize>,
    effect: Effect,
}

impl Plan {
    /// Counts a call; answers what happens to it.
    fn turn(&mut self, method: Method) -> Option<Effect> {
        if !self.of.covers(method) {
            return None;
        }
        self.left = self.left.saturating_sub(1);
        if self.left > 0 {
            return None;
        }
        self.times = self.times.map(|times| times.saturating_sub(1));
        Some(self.effect)
    }
}

#[derive(Debug, Default)]
struct Plans {
    plans: Vec<Plan>,
    calls: HashMap<Method, usize>,
    dead: bool,
}

/// What happens to one call.
#[derive(Debug, Default)]
struct Turn {
    delay: Duration,
    fails: Option<When>,
    dies: Option<When>,
}

/// Decides which calls of a store fail or take long. All go through until something is planned; plans add up.
///
/// Delays are of `tokio::time`, so they cost nothing under a paused clock.
///
/// ```
/// use crosspoint_core::{Enqueue, Memory, Result};
/// use crosspoint_testkit::{Faults, ManualClock, Method, When, envelope};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let (store, faults) = Faults::wrap(&Memory::new().into());
/// let call = envelope::service(&ManualClock::new(), "target", "acme");
/// let enqueue = || store.dispatch.enqueue(vec![Enqueue::queued(call.clone())]);
///
/// // The next call fails, though its write took effect: the same again is a duplicate.
/// faults.fail(Method::Enqueue, 1, When::After);
/// assert!(enqueue().await.is_err());
/// assert_eq!(format!("{:?}", enqueue().await), "Ok([Duplicate])");
///
/// // The store is down for a while, and slow when it comes back.
/// faults.down(When::Before);
/// assert!(enqueue().await.is_err() && enqueue().await.is_err());
/// faults.up();
/// faults.delay(Method::Enqueue, 1, Duration::from_secs(2));
/// let start = tokio::time::Instant::now();
/// assert!(enqueue().await.is_ok());
/// assert_eq!(start.elapsed(), Duration::from_secs(2));
/// assert_eq!(faults.calls(Method::Enqueue), 5);
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Faults {
    plans: Mutex<Plans>,
    died: Notify,
}

impl Faults {
    /// The same store behind faults; its repositories are passed on, but for `dispatch`, `executions` and the
    /// checkpoints of `state`.
    #[must_use]
    pub fn wrap(store: &Store) -> (Store, Arc<Self>) {
        let faults = Arc::new(Self::default());
        let faulty = Arc::new(Faulty::new(store.clone(), Arc::clone(&faults)));
        let mut wrapped = store.clone();
        wrapped.dispatch = faulty.clone();
        wrapped.executions = faulty.clone();
        wrapped.state = faulty;
        (wrapped, faults)
    }

    /// The `n`-th call of `method` from now fails (1 is the next), once.
    pub fn fail(&self, method: Method, n: usize, when: When) {
        self.plan(Of::One(method), n, Some(1), Effect::Fail(when));
    }

    /// The next `times` calls of `method` fail.
    pub fn fail_next(&self, method: Method, times: usize, when: When) {
        if times > 0 {
            self.plan(Of::One(method), 1, Some(times), Effect::Fail(when));
        }
    }

    /// Every call of `method` fails until [`Faults::up`].
    pub fn fail_all(&self, method: Method, when: When) {
        self.plan(Of::One(method), 1, None, Effect::Fail(when));
    }

    /// The `n`-th write of a call's life from now fails, whichever method it is, once.
    pub fn fail_write(&self, n: usize, when: When) {
        self.plan(Of::Writes, n, Some(1), Effect::Fail(when));
    }

    /// Every call of every method fails until [`Faults::up`], reads included.
    pub fn down(&self, when: When) {
        self.plan(Of::All, 1, None, Effect::Fail(when));
    }

    /// The `n`-th call of `method` from now waits so long before it does anything, once.
    pub fn delay(&self, method: Method, n: usize, by: Duration) {
        self.plan(Of::One(method), n, Some(1), Effect::Delay(by));
    }

    /// Every call of `method` waits so long first, until [`Faults::up`].
    pub fn delay_all(&self, method: Method, by: Duration) {
        self.plan(Of::One(method), 1, None, Effect::Delay(by));
    }

    /// At the `n`-th call of `method` from now the process that uses this store dies, before or after the call took effect:
    /// that call is never answered, nor is anything that is asked afterwards, and nothing more is written. Another
    /// [`Faults::wrap`] of the same store is the process that comes after it.
    ///
    /// ```
    /// use crosspoint_core::{Enqueue, Memory, Store};
    /// use crosspoint_testkit::{Faults, ManualClock, Method, When, envelope};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let store: Store = Memory::new().into();
    /// let (first, faults) = Faults::wrap(&store);
    /// let (second, _) = Faults::wrap(&store);
    /// let call = envelope::service(&ManualClock::new(), "target", "acme");
    /// faults.die(Method::Enqueue, 1, When::After);
    /// let cut = tokio::spawn({
    ///     let call = call.clone();
    ///     async move { first.dispatch.enqueue(vec![Enqueue::queued(call)]).await }
    /// });
    /// faults.died().await;
    /// assert!(!cut.is_finished());
    /// let again = second.dispatch.enqueue(vec![Enqueue::queued(call)]).await;
    /// assert_eq!(format!("{again:?}"), "Ok([Duplicate])");
    /// # }
    /// ```
    pub fn die(&self, method: Method, n: usize, when: When) {
        self.plan(Of::One(method), n, Some(1), Effect::Die(when));
    }

    /// Resolves when the process has died.
    pub async fn died(&self) {
        loop {
            let died = self.died.notified();
            if self.lock().dead {
                return;
            }
            died.await;
        }
    }

    /// Ends all that is planned.
    pub fn up(&self) {
        self.lock().plans.clear();
    }

    /// Whether a fault that was planned for certain calls is still to come.
    #[must_use]
    pub fn pending(&self) -> bool {
        self.lock().plans.iter().any(|plan| plan.times.is_some())
    }

    /// How often a method was called, failed calls included.
    #[must_use]
    pub fn calls(&self, method: Method) -> usize {
        self.lock().calls.get(&method).copied().unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, Plans> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plan(&self, of: Of, left: usize, times: Option<usize>, effect: Effect) {
        self.lock().plans.push(Plan {
            of,
            left,
            times,
            effect,
        });
    }

    /// Counts a call; answers what happens to it.
    fn turn(&self, method: Method) -> Turn {
        let mut plans = self.lock();
        *plans.calls.entry(method).or_default() += 1;
        let Turn {
            mut delay,
            mut fails,
            mut dies,
        } = Turn::default();
        if plans.dead {
            dies = Some(When::Before);
        }
        for plan in &mut plans.plans {
            match plan.turn(method) {
                Some(Effect::Delay(by)) => delay += by,
                Some(Effect::Die(when)) => dies = dies.or(Some(when)),
                // What was not written cannot have been written as well.
                Some(Effect::Fail(when)) if fails != Some(When::Before) => fails = Some(when),
                Some(Effect::Fail(_)) | None => {}
            }
        }
        plans.plans.retain(|plan| plan.times != Some(0));
        Turn { delay, fails, dies }
    }

    async fn around<T: Send>(&self, method: Method, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let injected = || Error::new(Code::StoreUnavailable, "an injected fault").with("method", format!("{method:?}"));
        let Turn { delay, fails, dies } = self.turn(method);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if let Some(when) = dies {
            if when == When::After {
                drop(call.await);
            }
            self.lock().dead = true;
            self.died.notify_waiters();
            return std::future::pending().await;
        }
        match fails {
            Some(When::Before) => Err(injected()),
            Some(When::After) => {
                drop(call.await?);
                Err(injected())
            }
            None => call.await,
        }
    }
}
