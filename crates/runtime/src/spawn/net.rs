//! Network namespaces, made ahead: making one takes longer than all the rest of a start.
//!
//! One is used once, or again by the same customer: by one run at a time, after that run's first process was reaped, and
//! only if no socket is left in it. What a customer's next run could still see are counters of packets.

use super::{
    frail::{Frail, GONE},
    ready::{Ready, namespace},
    step::{About, Step, Trouble, io_step, step},
    sys,
    task::{self, Place, move_into},
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::Errno,
    thread::{LinkNameSpaceType, UnshareFlags},
};
use std::{
    collections::VecDeque,
    fs,
    sync::{Arc, Condvar, OnceLock, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// How often a namespace that still has sockets is looked at again before it is given up.
const LOOKS: u8 = 5;
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How many are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Made ahead.
    pub(super) ahead: usize,
    /// Kept for customers that used them.
    pub(super) kept: usize,
    /// How often one is used.
    pub(super) uses: u32,
}

#[derive(Debug)]
struct Space {
    fd: OwnedFd,
    uses: u32,
}

#[derive(Debug)]
struct Returned {
    space: Space,
    customer: String,
    looks: u8,
}

#[derive(Debug, Default)]
struct State {
    fresh: Vec<Space>,
    /// Clean ones with their customers, the one that waits longest first.
    kept: VecDeque<(String, Space)>,
    returned: Vec<Returned>,
    /// How often the making of one has begun.
    tries: u64,
    /// The last of them failed: which it was, and why.
    failed: Option<(u64, Trouble)>,
    /// Somebody has come for one since the last began: it is tried again after a failure.
    wanted: bool,
    /// Sockets that the kernel itself has in each: the fewest that were ever counted in a new one. A child that is just
    /// being started has copies of some of the host's descriptors, so that a count may be one too many.
    sockets: Option<u64>,
    closed: bool,
}

/// The pool.
#[derive(Debug)]
pub(super) struct Networks {
    sizes: Sizes,
    state: Frail<State>,
    work: Condvar,
    made: Notify,
    /// Why the task could not begin.
    never: OnceLock<Trouble>,
}

/// A network namespace for one run.
#[derive(Debug)]
pub(super) struct Lease {
    pool: Arc<Networks>,
    space: Space,
    customer: String,
}

impl Networks {
    /// Starts the task that makes them.
    pub(super) fn start(ready: Arc<Ready>, sizes: Sizes) -> Result<Arc<Self>, Trouble> {
        let pool = Arc::new(Self::new(sizes));
        let place = Place::Ready(ready);
        task::start("crosspoint-net", place, Arc::clone(&pool), Self::run, Self::clean_up)?;
        Ok(pool)
    }

    fn new(sizes: Sizes) -> Self {
        Self {
            sizes,
            state: Frail::default(),
            work: Condvar::new(),
            made: Notify::new(),
            never: OnceLock::new(),
        }
    }

    /// The task was killed. Takes no lock that it may have held.
    fn clean_up(&self) {
        self.state.give_up();
        self.made.notify_waiters();
    }

    /// Whether somebody has killed the task.
    pub(super) fn was_killed(&self) -> bool {
        self.state.was_killed()
    }

    /// Whether the task could not begin, for a reason that may have passed.
    pub(super) fn has_stumbled(&self) -> bool {
        self.never.get().is_some_and(|trouble| trouble.about() == About::Now)
    }

    pub(super) fn close(&self) {
        if let Ok(mut state) = self.state.lock_from_host() {
            state.closed = true;
            drop(state);
            self.work.notify_all();
        }
    }

    /// One that this customer used, else one that nobody used. Waits while none is ready. Fails if the making of one fails
    /// that has begun in the meantime: what failed before may not fail now.
    pub(super) async fn lease(self: &Arc<Self>, customer: &str) -> Result<Lease, Trouble> {
        let earlier = self.state.lock_from_host()?.tries;
        while !self.was_killed() {
            let made = self.made.notified();
            tokio::pin!(made);
            made.as_mut().enable();
            if let Some(trouble) = self.never.get() {
                return Err(*trouble);
            }
            if let Some(space) = self.take(customer, earlier)? {
                return Ok(Lease {
                    pool: Arc::clone(self),
                    space,
                    customer: customer.to_owned(),
                });
            }
            made.await;
        }
        Err(GONE)
    }

    fn take(&self, customer: &str, earlier: u64) -> Result<Option<Space>, Trouble> {
        let mut state = self.state.lock_from_host()?;
        let last = state.kept.iter().rposition(|(of, _)| of == customer);
        if let Some((_, space)) = last.and_then(|last| state.kept.remove(last)) {
            if !state.fresh.is_empty() {
                // It may have been told of that one, which is another's now.
                self.made.notify_one();
            }
            return Ok(Some(space));
        }
        let fresh = state.fresh.pop();
        state.wanted = true;
        self.work.notify_one();
        match (fresh, state.failed) {
            (None, Some((tried, trouble))) if tried > earlier => Err(trouble),
            (fresh, _) => Ok(fresh),
        }
    }

    /// The task: makes what is missing and looks at what came back.
    fn run(&self, entered: Result<(), Trouble>) {
        // Whoever waits for a run comes first.
        rustix::process::setpriority_process(None, 10).ok();
        if let Err(trouble) = entered {
            self.never.set(trouble).ok();
            self.made.notify_waiters();
            return;
        }
        loop {
            let returned = {
                let mut state = self.state.lock();
                loop {
                    if state.closed {
                        return;
                    }
                    let looked_at = state.returned.iter().any(|returned| returned.looks == 0);
                    if looked_at || self.misses_one(&state) {
                        break;
                    }
                    if state.returned.is_empty() {
                        state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                    } else {
                        let waited = self.work.wait_timeout(state, LOOK_AGAIN);
                        state = waited.unwrap_or_else(PoisonError::into_inner).0;
                        break;
                    }
                }
                std::mem::take(&mut state.returned)
            };
            for returned in returned {
                self.look(returned);
            }
            if self.begin() {
                self.end(make());
            }
        }
    }

    /// Whether one is to be made.
    fn misses_one(&self, state: &State) -> bool {
        state.fresh.len() < self.sizes.ahead && (state.failed.is_none() || state.wanted)
    }

    /// Begins to make one, if one is to be made.
    fn begin(&self) -> bool {
        let mut state = self.state.lock();
        let begins = self.misses_one(&state);
        if begins {
            state.tries += 1;
            state.wanted = false;
        }
        begins
    }

    /// What became of it.
    fn end(&self, made: Result<(Space, u64), Trouble>) {
        let mut state = self.state.lock();
        match made {
            Ok((space, sockets)) => {
                state.sockets = Some(state.sockets.map_or(sockets, |fewest| fewest.min(sockets)));
                state.fresh.push(space);
                state.failed = None;
                drop(state);
                self.made.notify_one();
            }
            Err(trouble) => {
                state.failed = Some((state.tries, trouble));
                drop(state);
                self.made.notify_waiters();
            }
        }
    }

    /// Keeps what is clean, looks again later at what is not yet, and gives up in the end.
    fn look(&self, mut returned: Returned) {
        let of_kernel = self.state.lock().sockets.unwrap_or(0);
        let clean = move_into(&returned.space.fd, LinkNameSpaceType::Network).is_ok()
            && sockets().is_ok_and(|(sockets, lingering)| sockets <= of_kernel && lingering == 0);
        returned.looks += 1;
        let mut state = self.state.lock();
        if clean && self.sizes.kept > 0 {
            // Who has not come for the longest time gives way.
            let gone = (state.kept.len() >= self.sizes.kept).then(|| state.kept.pop_front());
            state.kept.push_back((returned.customer, returned.space));
            drop(state);
            drop(gone);
            // Whose it is may wait behind others.
            self.made.notify_waiters();
        } else if !clean && returned.looks < LOOKS {
            state.returned.push(returned);
        }
    }
}

impl Lease {
    pub(super) fn namespace(&self) -> BorrowedFd<'_> {
        self.space.fd.as_fd()
    }

    /// Gives it back for the customer's next run. Only after the first process of this run was reaped.
    pub(super) fn give_back(mut self) {
        self.space.uses += 1;
        if self.space.uses >= self.pool.sizes.uses {
            return;
        }
        let returned = Returned {
            space: self.space,
            customer: self.customer,
            looks: 0,
        };
        if let Ok(mut state) = self.pool.state.lock_from_host() {
            state.returned.push(returned);
            drop(state);
            self.pool.work.notify_one();
        }
    }
}

/// A new one: loopback up, and no connection lingers in it after its end. With the number of its sockets.
fn make() -> Result<(Space, u64), Trouble> {
    step(Step::NetworkNamespace, sys::new_namespace(UnshareFlags::NEWNET))?;
    sys::loopback_up()?;
    let lingering = fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "0");
    io_step(Step::NetworkNamespace, lingering)?;
    let fd = namespace(Step::NetworkNamespace, c"/proc/self/ns/net")?;
    let (sockets, _) = sockets()?;
    Ok((Space { fd, uses: 0 }, sockets))
}

/// Sockets in this task's network namespace, and connections that linger.
fn sockets() -> Result<(u64, u64), Trouble> {
    let text = io_step(Step::NetworkNamespace, fs::read_to_string("/proc/self/net/sockstat"))?;
    let number = |line: &str, name: &str| {
        let line = text.lines().find_map(|found| found.strip_prefix(line))?;
        let mut words = line.split_whitespace().skip_while(|word| *word != name);
        words.nth(1)?.parse::<u64>().ok()
    };
    let unknown = Trouble {
        step: Step::NetworkNamespace,
        errno: Errno::NODATA,
    };
    let used = number("sockets:", "used").ok_or(unknown)?;
    let lingering = number("TCP:", "tw").ok_or(unknown)? + number("TCP:", "orphan").ok_or(unknown)?;
    Ok((used, lingering))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Trouble = Trouble {
        step: Step::NetworkNamespace,
        errno: Errno::MFILE,
    };

    /// One whose task is the test.
    fn pool() -> Arc<Networks> {
        Arc::new(Networks::new(Sizes {
            ahead: 1,
            kept: 1,
            uses: 1,
        }))
    }

    /// Stands for one: nothing enters it.
    fn space() -> Space {
        let fd = fs::File::open("/dev/null").unwrap().into();
        Space { fd, uses: 0 }
    }

    #[tokio::test]
    async fn what_failed_before_somebody_came_is_tried_again() {
        let pool = pool();
        assert!(pool.begin());
        pool.end(Err(SHORT));
        assert!(!pool.begin(), "nobody asks");
        let (lease, ()) = tokio::join!(biased; pool.lease("acme"), async {
            assert!(pool.begin());
            pool.end(Ok((space(), 0)));
        });
        lease.unwrap();
    }

    #[tokio::test]
    async fn what_had_begun_before_somebody_came_is_tried_again() {
        let pool = pool();
        assert!(pool.begin());
        let (lease, ()) = tokio::join!(biased; pool.lease("acme"), async {
            pool.end(Err(SHORT));
            tokio::task::yield_now().await;
            assert!(pool.begin());
            pool.end(Ok((space(), 0)));
        });
        lease.unwrap();
    }

    #[tokio::test]
    async fn each_that_waits_hears_of_a_failure_of_its_time() {
        let pool = pool();
        let (first, second, (), third) = tokio::join!(
            biased;
            pool.lease("acme"),
            pool.lease("globex"),
            async {
                assert!(pool.begin());
                tokio::task::yield_now().await;
                pool.end(Err(SHORT));
                tokio::task::yield_now().await;
                assert!(pool.begin(), "the third has come after that");
                pool.end(Ok((space(), 0)));
            },
            pool.lease("initech")
        );
        assert_eq!(first.unwrap_err(), SHORT);
        assert_eq!(second.unwrap_err(), SHORT);
        third.unwrap();
    }

    #[tokio::test]
    async fn who_was_told_of_one_and_finds_its_own_passes_it_on() {
        let pool = pool();
        let both = async {
            tokio::join!(biased; pool.lease("acme"), pool.lease("globex"), async {
                assert!(pool.begin());
                pool.state.lock().kept.push_back(("acme".to_owned(), space()));
                pool.end(Ok((space(), 0)));
            })
        };
        let both = tokio::time::timeout(Duration::from_secs(60), both).await;
        let (first, second, ()) = both.expect("both have one");
        first.unwrap();
        second.unwrap();
    }
}
