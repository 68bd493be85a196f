//! User ids of customers, where the host runs as root: even a run that escapes is nobody the machine knows.

use super::step::{Step, Trouble, io_step};
use rustix::io::Errno;
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    ops::Range,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// Ids that neither distributions nor the usual tools give away, if this machine has them.
const FAR: Range<u32> = 1_900_000_000..1_900_065_536;
/// Those that systemd keeps for short-lived users: in a container there are often no higher ones.
const NEAR: Range<u32> = 61_184..65_520;

/// A line of an id map: so many ids from `first` on exist here.
pub(super) type Extent = (u32, u32);

/// The id maps of this process, as extents of ids that exist.
pub(super) fn extents(map: &str) -> Vec<Extent> {
    map.lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse::<u32>);
            let (first, _, count) = (numbers.next()?.ok()?, numbers.next()?, numbers.next()?.ok()?);
            Some((first, count))
        })
        .collect()
}

/// Gives every running customer an id of its own.
#[derive(Debug)]
pub(super) struct Ids {
    range: Range<u32>,
    /// By slot: whose it is, for as long as runs hold it.
    held: Mutex<HashMap<u32, (String, Weak<()>)>>,
}

/// The id of a customer, its own until this is dropped: maybe by a task that somebody kills at that moment, so that no lock is
/// taken for it.
#[derive(Debug)]
pub(super) struct Id {
    number: u32,
    #[expect(dead_code, reason = "held for its count")]
    hold: Arc<()>,
}

impl Ids {
    /// Where the host is root: of the range asked for, as [`new`](Self::new).
    pub(super) fn of_host(asked: Option<Range<u32>>) -> Result<Option<Arc<Self>>, Trouble> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let map = io_step(Step::IdMaps, std::fs::read_to_string("/proc/self/uid_map"))?;
        Self::new(asked, &extents(&map)).map(Some)
    }

    /// Of the range asked for, or of the first usual one that exists here.
    pub(super) fn new(asked: Option<Range<u32>>, exists: &[Extent]) -> Result<Arc<Self>, Trouble> {
        let whole = |range: &Range<u32>| {
            !range.is_empty()
                && exists.iter().any(|(first, count)| {
                    *first <= range.start && range.end.checked_sub(*first).is_some_and(|reach| reach <= *count)
                })
        };
        let range = match asked {
            Some(range) => Some(range).filter(whole),
            None => [FAR, NEAR].into_iter().find(whole),
        };
        let range = range.ok_or(Trouble {
            step: Step::IdMaps,
            errno: Errno::RANGE,
        })?;
        let held = Mutex::default();
        Ok(Arc::new(Self { range, held }))
    }

    /// The same id for a customer each time, unless another one that runs now has it.
    pub(super) fn hold(&self, customer: &str) -> Result<Id, Trouble> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, (_, hold)| hold.strong_count() > 0);
        let count = self.range.end - self.range.start;
        let mut hasher = DefaultHasher::new();
        customer.hash(&mut hasher);
        let first = u32::try_from(hasher.finish() % u64::from(count)).unwrap_or(0);
        // One that holds a slot already keeps to it, wherever its search ended.
        let own = held
            .iter()
            .find(|(_, (holder, _))| holder == customer)
            .map(|(slot, _)| *slot);
        let free = || {
            (0..count)
                .map(|n| (first + n) % count)
                .find(|slot| !held.contains_key(slot))
        };
        let slot = own.or_else(free).ok_or(Trouble {
            step: Step::Identity,
            errno: Errno::AGAIN,
        })?;
        // It may have been let go of since.
        let known = held.get(&slot).and_then(|(_, hold)| hold.upgrade());
        let hold = known.unwrap_or_else(|| {
            let hold = Arc::default();
            held.insert(slot, (customer.to_owned(), Arc::downgrade(&hold)));
            hold
        });
        Ok(Id {
            number: self.range.start + slot,
            hold,
        })
    }
}

impl Id {
    pub(super) fn number(&self) -> u32 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_running_customers_share_an_id() {
        let ids = Ids::new(Some(100..103), &[(0, 1000)]).unwrap();
        let held: Vec<_> = ["a", "b", "c"].map(|c| ids.hold(c).unwrap()).into();
        let numbers: std::collections::BTreeSet<_> = held.iter().map(Id::number).collect();
        assert_eq!(numbers, (100..103).collect());
        let again = ids.hold("b").unwrap();
        assert_eq!(again.number(), held[1].number());
        assert_eq!(ids.hold("d").unwrap_err().errno, Errno::AGAIN);
        drop(held);
        assert_eq!(
            ids.hold("b").unwrap().number(),
            again.number(),
            "one run still holds it"
        );
        ids.hold("d").unwrap();
    }

    #[test]
    fn an_id_is_stable() {
        let one = Ids::new(None, &[(0, u32::MAX)]).unwrap().hold("acme").unwrap().number();
        let two = Ids::new(None, &[(0, u32::MAX)]).unwrap().hold("acme").unwrap().number();
        assert_eq!(one, two);
        assert!(FAR.contains(&one));
    }

    #[test]
    fn a_range_must_exist() {
        assert!(NEAR.contains(&Ids::new(None, &[(0, 65_536)]).unwrap().hold("a").unwrap().number()));
        assert!(Ids::new(None, &[(0, 1000)]).is_err());
        assert!(Ids::new(Some(0..2000), &[(0, 1000)]).is_err());
        assert_eq!(extents("         0       1000          1\n  5 6 7\n"), [(0, 1), (5, 7)]);
    }
}
