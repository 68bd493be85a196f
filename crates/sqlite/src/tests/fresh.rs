//! Rows that are kept back until the end of their group.

use super::{LEASE, database, queued, request, store, terms};
use crate::{
    fail::Fail,
    ledger::{Ledger, Parcel, RawSettle},
};
use crosspoint_core::{
    Clock, Code, CustomerId, CustomerTerms, Enqueue, Failure, InvocationId, LeaseRef, LeaseRequest, Queue, Settle,
    Start,
};
use crosspoint_testkit::{ManualClock, envelope};
use rusqlite::types::Value;
use std::{sync::Arc, time::Duration};

/// What is done in a group.
#[derive(Debug, Clone)]
enum Step {
    Enqueue(Box<Enqueue>),
    Lease(LeaseRequest),
    /// One of the leases so far, by number, and whether it succeeds.
    Settle(usize, bool),
    Extend(usize),
    Cancel(InvocationId),
}

/// The leases so far, and everything that was answered.
#[derive(Debug, Clone, Default)]
struct Seen {
    leases: Vec<LeaseRef>,
    answers: Vec<String>,
}

impl Seen {
    fn lease(&self, which: usize) -> Option<LeaseRef> {
        let number = which.checked_rem(self.leases.len())?;
        self.leases.get(number).copied()
    }

    fn take(&mut self, ledger: &mut Ledger, step: Step, clock: &ManualClock) -> Result<(), Fail> {
        let answer = match step {
            Step::Enqueue(item) => format!("{:?}", ledger.enqueue(Parcel::new(*item))?),
            Step::Lease(request) => {
                let granted = ledger.lease(&request)?.leases;
                let mut told = String::new();
                for raw in granted {
                    let lease = raw.decode()?;
                    self.leases.push(lease.reference);
                    told += &format!("{lease:?}\n");
                }
                told
            }
            Step::Settle(which, well) => {
                let Some(lease) = self.lease(which) else { return Ok(()) };
                let settle = if well {
                    let reply = envelope::reply("ok");
                    Settle::Complete { lease, reply }
                } else {
                    let at = clock.now().plus(Duration::from_millis(which as u64 % 3));
                    let failure = Failure::new(Code::ProviderUnreachable, "it is down");
                    Settle::Retry { lease, at, failure }
                };
                format!("{:?}", ledger.settle_all(&[RawSettle::new(settle)])?)
            }
            Step::Extend(which) => {
                let Some(lease) = self.lease(which) else { return Ok(()) };
                format!("{:?}", ledger.extend(&[lease], LEASE)?)
            }
            Step::Cancel(id) => {
                // As the writer does before whatever is not known to look at new rows only.
                ledger.land()?;
                format!("{:?}", ledger.cancel(None, id, false)?)
            }
        };
        self.answers.push(answer);
        Ok(())
    }
}

/// Every row of what a queue consists of. Lanes are left out: one whose rows were kept back is known to be asleep sooner,
/// which is written, and changes nothing.
fn rows(ledger: &Ledger) -> Result<Vec<String>, Fail> {
    let mut all = Vec::new();
    for table in ["cp_queue", "cp_done", "cp_target"] {
        let mut statement = ledger.db.prepare(&format!("SELECT * FROM {table} ORDER BY 1"))?;
        let columns = statement.column_count();
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let values: rusqlite::Result<Vec<Value>> = (0..columns).map(|at| row.get(at)).collect();
            all.push(format!("{table} {:?}", values?));
        }
    }
    Ok(all)
}

/// `splitmix64`
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn enqueue(&mut self, clock: &ManualClock) -> Enqueue {
        let mut item = queued(clock, "t", &format!("customer-{}", self.below(4)));
        let soon = clock.now().plus(Duration::from_millis(self.below(40)));
        if self.one_in(3) {
            item.envelope.hold_until = Some(soon);
        }
        if self.one_in(6) {
            item.envelope.expires = Some(soon);
        }
        if self.one_in(6) {
            item.envelope.not_before = Some(soon);
        }
        if self.one_in(6) {
            item.envelope.invocation.meta.ordering_key = Some("order".into());
        }
        if self.one_in(5) {
            item.envelope.invocation.meta.priority = 3;
        }
        if self.one_in(8) {
            item.start = Start::Lease(terms());
        }
        item
    }

    fn step(&mut self, clock: &ManualClock, known: &mut Vec<InvocationId>) -> Step {
        match self.below(10) {
            0..5 => {
                let item = self.enqueue(clock);
                known.push(item.envelope.id());
                Step::Enqueue(Box::new(item))
            }
            5..7 => {
                let mut wanted = request("t", 1 + usize::try_from(self.below(5)).unwrap());
                wanted.queue =
                    [Queue::HeldFirst, Queue::Held, Queue::Sideline][usize::try_from(self.below(3)).unwrap()];
                wanted.newest_first = self.one_in(2);
                wanted.hopeless = Duration::from_millis(self.below(10));
                Step::Lease(wanted)
            }
            7 | 8 => Step::Settle(usize::try_from(self.below(50)).unwrap(), !self.one_in(3)),
            _ if self.one_in(2) => Step::Extend(usize::try_from(self.below(50)).unwrap()),
            _ => {
                let which = self.below(known.len().max(1) as u64);
                let id = known.get(usize::try_from(which).unwrap()).copied();
                id.map_or(Step::Extend(0), Step::Cancel)
            }
        }
    }
}

/// A file and what writes to it, without the writer's thread, which would run timers when it pleases.
fn alone() -> (tempfile::TempDir, Arc<ManualClock>, Ledger) {
    let (folder, db) = database();
    // Nothing is read again after a crash here, and many seeds need not wait for the disk.
    db.pragma_update(None, "synchronous", "OFF").unwrap();
    let clock = Arc::new(ManualClock::new());
    let ledger = Ledger::open(db, clock.clone()).unwrap();
    (folder, clock, ledger)
}

fn group(ledger: &mut Ledger, work: impl FnOnce(&mut Ledger) -> Result<(), Fail>) -> Result<Vec<String>, Fail> {
    ledger.start()?;
    ledger.run_timers()?;
    work(ledger)?;
    ledger.commit()?;
    rows(ledger)
}

/// The invariant: nobody can tell whether a row was kept back.
#[test]
fn kept_back_or_not_everything_is_the_same() {
    for seed in 80..120 {
        let (_one, clock, mut kept) = alone();
        let (_other, other_clock, mut landed) = alone();
        let (mut random, mut known) = (Random(seed), Vec::new());
        let (mut seen, mut other_seen) = (Seen::default(), Seen::default());
        for _ in 0..12 {
            let steps: Vec<Step> = (0..1 + random.below(12))
                .map(|_| random.step(&clock, &mut known))
                .collect();
            let file = group(&mut kept, |ledger| {
                steps
                    .iter()
                    .try_for_each(|step| seen.take(ledger, step.clone(), &clock))
            });
            let other_file = group(&mut landed, |ledger| {
                steps.iter().try_for_each(|step| {
                    other_seen.take(ledger, step.clone(), &other_clock)?;
                    ledger.land()
                })
            });
            let differs = seen
                .answers
                .iter()
                .zip(&other_seen.answers)
                .find(|(one, other)| one != other);
            assert_eq!(differs, None, "seed {seed}: {steps:?}");
            assert_eq!(file.unwrap(), other_file.unwrap(), "seed {seed}: {steps:?}");
            let pause = Duration::from_millis(random.below(20));
            clock.advance(pause);
            other_clock.advance(pause);
        }
    }
}

/// State, fence and attempt of the rows in the queue.
fn queue(ledger: &Ledger) -> Result<Vec<(i64, i64, i64)>, Fail> {
    let mut statement = ledger
        .db
        .prepare("SELECT state, fence, attempt FROM cp_queue ORDER BY seq")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

#[tokio::test]
async fn what_is_leased_in_its_own_group_is_written_once() {
    let (_folder, clock, store) = store().await;
    let items: Vec<Parcel> = (0..3).map(|_| Parcel::new(queued(&clock, "t", "acme"))).collect();
    let written = store
        .write(|ledger| {
            ledger.enqueue_all(items)?;
            let before = queue(ledger)?;
            let leases = ledger.lease(&request("t", 2))?.leases;
            Ok((before, queue(ledger)?, leases.len()))
        })
        .await
        .unwrap();
    assert_eq!(written, (vec![], vec![(1, 1, 1), (1, 1, 1)], 2));
    let at_the_end = store.write(|ledger| queue(ledger)).await.unwrap();
    assert_eq!(at_the_end, [(1, 1, 1), (1, 1, 1), (0, 0, 0)]);
}

#[tokio::test]
async fn a_group_that_fails_leaves_nothing_behind() {
    let (_folder, clock, store) = store().await;
    let item = queued(&clock, "t", "acme");
    let parcel = Parcel::new(item.clone());
    let failed = store.write(move |ledger| {
        ledger.enqueue(parcel)?;
        Err::<(), _>(Fail::Group(crate::fail::damaged("row")))
    });
    failed.await.unwrap_err();
    assert_eq!(store.write(|ledger| queue(ledger)).await.unwrap(), []);
    let leases = store
        .write(move |ledger| {
            ledger.enqueue(Parcel::new(item))?;
            Ok(ledger.lease(&request("t", 9))?.leases.len())
        })
        .await
        .unwrap();
    assert_eq!(leases, 1);
}

/// What a lane is ahead when it falls asleep is not written if it is a turn at most; what it is further ahead is.
#[tokio::test]
async fn a_lane_that_only_woke_for_its_own_group_is_not_written() {
    let (_folder, clock, store) = store().await;
    let passes = |ledger: &mut Ledger| -> Result<Vec<i64>, Fail> {
        let mut statement = ledger.db.prepare("SELECT pass FROM cp_lane ORDER BY id")?;
        let found = statement.query_map([], |row| row.get(0))?;
        Ok(found.collect::<rusqlite::Result<_>>()?)
    };
    let parcel = Parcel::new(queued(&clock, "t", "acme"));
    let lease = |ledger: &mut Ledger, parcel| -> Result<(), Fail> {
        ledger.enqueue(parcel)?;
        assert_eq!(ledger.lease(&request("t", 9))?.leases.len(), 1);
        Ok(())
    };
    store.write(move |ledger| lease(ledger, parcel)).await.unwrap();
    let before = store.write(passes).await.unwrap();
    let parcel = Parcel::new(queued(&clock, "t", "acme"));
    store.write(move |ledger| lease(ledger, parcel)).await.unwrap();
    assert_eq!(store.write(passes).await.unwrap(), before);
    let dear = Parcel::new(queued(&clock, "t", "acme"));
    let charged = store.write(move |ledger| {
        ledger.enqueue(dear)?;
        let mut request = request("t", 9);
        let mut terms = CustomerTerms::new(CustomerId::new("acme")?);
        terms.charge = 5;
        request.customers = [terms].into();
        assert_eq!(ledger.lease(&request)?.leases.len(), 1);
        Ok(())
    });
    charged.await.unwrap();
    let ahead = store.write(passes).await.unwrap();
    assert!(ahead[0] > 5 * 1024, "{ahead:?}");
}
