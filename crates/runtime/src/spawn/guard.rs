//! Watches what runs use: their memory and processor time where no control group does, and that none crowds out others.
//!
//! One thread looks at all runs, each 5 to 20 times a second. A look takes 10 us for each process; only when that finds more
//! than half the limit, or address spaces in which that much could hide, are shared pages told from private ones. That takes 20
//! times as long, and the kernel lets it wait for the very processes that are looked at. So another thread does it, and of a run
//! that lets that one wait shared pages count for each process that has them. The tmpfs counts as memory, since it is.
//!
//! A run that is expensive to look at is looked at less often, so that a bomb cannot make the guard its accomplice. Who
//! crowds out others is dealt with before all else: until then the guard itself hardly gets to run.

use super::{
    confined::{self, Marked},
    fair::{self, CROWD, Fairness},
    hogs::Hogs,
    ledger::{Ledger, ticks},
    orders::inodes,
    sys,
    view::{Census, View},
};
use crosspoint_core::Limits;
use rustix::{
    fd::{AsFd, OwnedFd},
    process::{Pid, Signal, pidfd_send_signal},
    time::{
        ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
        timerfd_settime,
    },
};
use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread::Builder,
    time::Duration,
};
use tokio::time::Instant;

/// Short runs are looked at early, long ones seldom, those near their limit often.
const FIRST: Duration = Duration::from_millis(10);
const SELDOM: Duration = Duration::from_millis(200);
const OFTEN: Duration = Duration::from_millis(50);
/// Those whose children end unheard.
const CLOSELY: Duration = Duration::from_millis(20);

/// How long the guard waits for the exact sum of a run's memory, and when it stops to expect one.
const AT_ONCE: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(1);

/// After a look the run is left alone for so many times as long as the look took.
const REST: u32 = 20;

/// Ends a run and all that it started: the first process and who is found beside it here, the others by the kernel, if it is
/// the first one of their namespace, or by the spawner, when it has seen it end.
#[derive(Debug, Clone)]
pub(super) struct Killer {
    pub(super) pidfd: Arc<OwnedFd>,
    /// By which they are found, if it has no namespace for them.
    pub(super) mark: Option<u64>,
}

impl Killer {
    pub(super) fn kill(&self) {
        pidfd_send_signal(&*self.pidfd, Signal::KILL).ok();
        if let Some(mark) = self.mark {
            sys::kill_group(self.pidfd.as_fd()).ok();
            // One look; who is not found ends with the first process, which must not be kept from dying by the others.
            confined::for_each(Marked::Run(mark), |pid| confined::strike(pid, false)).ok();
            if let Some(first) = fair::first(self).and_then(Pid::from_raw) {
                confined::strike(first, true);
            }
        }
    }
}

/// Why the guard killed a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    Memory,
    Processor,
}

/// What the guard saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    peak: AtomicU64,
    verdict: AtomicU8,
    /// Processor time that is not the run's, and the most that may be used, that included; microseconds.
    before: AtomicU64,
    allowed: AtomicU64,
    /// Of that, what the run's processes had used that live no more and were not waited for, and what all had at the last
    /// look.
    forgotten: AtomicU64,
    used: AtomicU64,
}

impl Seen {
    pub(super) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Processor time that is not the run's.
    pub(super) fn before(&self) -> Duration {
        Duration::from_micros(self.before.load(Ordering::Relaxed))
    }

    /// Processor time of a run whose end tells of so much.
    pub(super) fn total(&self, reaped: Duration) -> Duration {
        let forgotten = Duration::from_micros(self.forgotten.load(Ordering::Relaxed));
        let used = Duration::from_micros(self.used.load(Ordering::Relaxed));
        (reaped + forgotten).max(used)
    }

    fn allow(&self, before: Duration, limit: Duration) {
        self.before.store(micros(before), Ordering::Relaxed);
        self.allowed
            .store(micros(before.saturating_add(limit)), Ordering::Relaxed);
    }

    fn allowed(&self) -> Duration {
        Duration::from_micros(self.allowed.load(Ordering::Relaxed))
    }

    pub(super) fn verdict(&self) -> Verdict {
        match self.verdict.load(Ordering::Acquire) {
            1 => Verdict::Memory,
            2 => Verdict::Processor,
            _ => Verdict::Fine,
        }
    }

    fn decide(&self, verdict: Verdict) {
        let number = match verdict {
            Verdict::Fine => 0,
            Verdict::Memory => 1,
            Verdict::Processor => 2,
        };
        self.verdict.store(number, Ordering::Release);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A run that is watched.
#[derive(Debug)]
struct Watched {
    view: Arc<View>,
    limits: Limits,
    killer: Killer,
    fairness: Fairness,
    ledger: Ledger,
    pause: Duration,
    looked: Instant,
    /// When shared memory may be told from private memory again, and the answer that is awaited.
    exact: Instant,
    asked: Option<(Instant, Receiver<(u64, Duration)>)>,
    /// It has let the guard wait for one.
    slow: bool,
    used: u64,
    seen: Arc<Seen>,
}

/// A place for a run; empty once it has ended.
#[derive(Debug)]
struct Post {
    run: Mutex<Option<Watched>>,
    over: AtomicBool,
}

impl Post {
    /// Lets go of the run's descriptors, now or after the look that is going on.
    fn clear(&self) {
        self.over.store(true, Ordering::SeqCst);
        if let Ok(mut run) = self.run.try_lock() {
            run.take();
        }
    }

    /// Looks at the run, if there still is one. Answers after which time to look again.
    fn look(&self) -> Option<Duration> {
        let next = {
            let mut run = self.run.lock().unwrap_or_else(PoisonError::into_inner);
            let next = run.as_mut().and_then(Watched::look);
            if next.is_none() {
                run.take();
            }
            next
        };
        // Its end may have found the place occupied.
        if self.over.load(Ordering::SeqCst) {
            self.clear();
            return None;
        }
        next
    }
}

/// The watch over a run. Ends when this is dropped.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) seen: Arc<Seen>,
    view: Arc<View>,
    post: Arc<Post>,
}

impl Guard {
    /// From here on, processor time counts, up to this limit.
    pub(super) fn begin(&self, limit: Duration) {
        self.seen.allow(self.used(), limit);
    }

    /// Processor time of all processes.
    pub(super) fn used(&self) -> Duration {
        let (census, _) = self.view.census(u32::MAX, || ());
        self.seen.total(ticks(census.ticks).max(self.view.on_processor()))
    }

    /// Bytes of memory in use; pages that processes share count for each. Waits for nobody.
    pub(super) fn held(&self) -> u64 {
        self.view.about() + self.view.files().bytes
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.post.clear();
    }
}

/// A place whose run is looked at next at this time.
#[derive(Debug)]
struct Due(Instant, Arc<Post>);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

#[derive(Debug, Default)]
struct State {
    round: BinaryHeap<Reverse<Due>>,
    closed: bool,
}

/// The thread that watches.
#[derive(Debug)]
pub(super) struct Guards {
    state: Mutex<State>,
    /// Wakes it when a run is due. A start winds the clock and wakes nobody: it would compete with what has just been started.
    clock: OwnedFd,
    hogs: Hogs,
}

impl Guards {
    pub(super) fn start(hogs: Hogs) -> std::io::Result<Arc<Self>> {
        let guards = Arc::new(Self {
            state: Mutex::default(),
            clock: timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?,
            hogs,
        });
        let mine = Arc::clone(&guards);
        let thread = Builder::new()
            .name("crosspoint-guard".to_owned())
            .stack_size(256 * 1024);
        thread.spawn(move || mine.run())?;
        Ok(guards)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn watch(&self, view: View, limits: Limits, killer: Killer) -> Guard {
        let (seen, view) = (Arc::new(Seen::default()), Arc::new(view));
        seen.allow(Duration::ZERO, Duration::from_millis(limits.cpu_ms));
        let now = Instant::now();
        let watched = Watched {
            view: Arc::clone(&view),
            limits,
            fairness: Fairness::new(&killer, &self.hogs),
            killer,
            ledger: Ledger::default(),
            pause: FIRST,
            looked: now,
            exact: now,
            asked: None,
            slow: false,
            used: 0,
            seen: Arc::clone(&seen),
        };
        let post = Arc::new(Post {
            run: Mutex::new(Some(watched)),
            over: AtomicBool::new(false),
        });
        let mut state = self.lock();
        let due = Due(now + FIRST, Arc::clone(&post));
        if state.round.peek().is_none_or(|Reverse(next)| due < *next) {
            self.wind(&state, due.0);
        }
        state.round.push(Reverse(due));
        drop(state);
        Guard { seen, view, post }
    }

    /// Ends the thread after the end of the last run.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.wind(&state, Instant::now());
    }

    /// Has the thread wake up at this time, instead of any other. Who winds holds the state, so that the last word is the
    /// right one.
    fn wind(&self, _held: &State, when: Instant) {
        // Zero would mean never.
        let left = when
            .saturating_duration_since(Instant::now())
            .max(Duration::from_nanos(1));
        let time = Itimerspec {
            it_interval: Timespec::default(),
            it_value: left.try_into().unwrap_or_default(),
        };
        if let Err(error) = timerfd_settime(&self.clock, TimerfdTimerFlags::empty(), &time) {
            tracing::error!(%error, "the clock of the watch over runs cannot be wound");
        }
    }

    fn run(&self) {
        be_first();
        loop {
            let mut state = self.lock();
            let now = Instant::now();
            match state.round.peek() {
                None if state.closed => return,
                Some(Reverse(Due(when, _))) if *when <= now => {
                    let due = state.round.pop();
                    drop(state);
                    if let Some(Reverse(Due(_, post))) = due
                        && let Some(pause) = post.look()
                    {
                        self.lock().round.push(Reverse(Due(Instant::now() + pause, post)));
                    }
                    continue;
                }
                Some(Reverse(Due(when, _))) => self.wind(&state, *when),
                None => {}
            }
            drop(state);
            rustix::io::read(&self.clock, &mut [0_u8; 8]).ok();
        }
    }
}

impl Watched {
    /// One look. Answers after which time to look again, if at all.
    fn look(&mut self) -> Option<Duration> {
        let began = own_time();
        let now = Instant::now();
        let since = now.saturating_duration_since(self.looked);
        self.looked = now;
        let (census, all) = self.view.census(CROWD, || self.fairness.crowded());
        // What it has used is told with its end, and is not forgotten.
        if sys::has_ended_by(self.killer.pidfd.as_fd()) {
            return None;
        }
        self.ledger.enter(all, since, |pid| self.view.share(pid));
        let processor = ticks(census.ticks) + self.ledger.forgotten();
        self.seen
            .forgotten
            .store(micros(self.ledger.forgotten()), Ordering::Relaxed);
        self.seen.used.store(micros(processor), Ordering::Relaxed);
        self.fairness.consider(&census, processor, &self.view, since);
        let rest = own_time().saturating_sub(began) * REST;
        let files = self.view.files();
        let used = self.memory(&census, files.bytes, now);
        self.seen.peak.fetch_max(used, Ordering::Relaxed);
        // Which is the kernel's memory, where the tmpfs itself has no bound for it.
        let too_many_files = files.inodes > inodes(self.limits.disk);
        let verdict = if used > self.limits.memory || too_many_files {
            Verdict::Memory
        } else if processor > self.seen.allowed() {
            Verdict::Processor
        } else {
            Verdict::Fine
        };
        if verdict != Verdict::Fine {
            self.seen.decide(verdict);
            self.killer.kill();
            return None;
        }
        self.pause = if self.ledger.forgets() {
            CLOSELY
        } else if used > self.limits.memory / 2 || self.asked.is_some() {
            OFTEN
        } else {
            (self.pause * 2).min(SELDOM)
        };
        Some(self.pause.max(rest))
    }

    /// Memory in use, in bytes; exact only if it may be more than half the limit, and as of the last time that there was time
    /// to know.
    fn memory(&mut self, census: &Census, files: u64, now: Instant) -> u64 {
        let near = census.resident + files > self.limits.memory / 2;
        if !near && census.mapped <= self.limits.memory {
            return census.resident + files;
        }
        if self.asked.is_none() && now >= self.exact {
            match self.ask() {
                Some(answer) => self.asked = Some((now, answer)),
                None => self.used = self.view.about(),
            }
        }
        if let Some((since, answer)) = &self.asked {
            let patience = AT_ONCE.saturating_sub(since.elapsed());
            let patience = if self.slow || !near { Duration::ZERO } else { patience };
            match answer.recv_timeout(patience) {
                Ok((used, took)) => {
                    let rest = if near { took * REST } else { SELDOM.max(took * REST) };
                    (self.used, self.exact) = (used, Instant::now() + rest);
                    self.slow = since.elapsed() > SELDOM;
                    self.asked = None;
                }
                Err(RecvTimeoutError::Timeout) if since.elapsed() < PATIENCE => self.slow |= near,
                Err(RecvTimeoutError::Timeout) => self.used = self.view.about(),
                Err(RecvTimeoutError::Disconnected) => {
                    self.used = self.view.about();
                    self.asked = None;
                }
            }
        }
        self.used + files
    }

    /// Has another thread find out what the run has in memory, and how much processor time that took.
    fn ask(&self) -> Option<Receiver<(u64, Duration)>> {
        let (view, (tell, answer)) = (Arc::clone(&self.view), channel());
        let thread = Builder::new().name("crosspoint-sum".to_owned()).stack_size(128 * 1024);
        let asked = thread.spawn(move || {
            be_first();
            tell.send((view.own_memory(), own_time())).ok();
        });
        asked.ok().map(|_| answer)
    }
}

/// Against a crowd this thread has one share among hundreds. Where the host may, it takes some more.
fn be_first() {
    sys::be_prompt().ok();
    rustix::process::setpriority_process(None, -10).ok();
}

/// Processor time of this thread.
fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}
