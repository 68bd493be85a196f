//! The replicas of a target, and which of them gets the next call.

use super::{
    RemoteConfig, metric,
    replica::{Replica, ReplicaState, Ticket},
};
use crosspoint_core::{Code, Error, Result, TargetId};
use http::Uri;
use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicUsize, Ordering},
};
use tokio::{sync::Notify, time::Instant};

type Replicas = Arc<[Arc<Replica>]>;

/// The replicas of one target.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) target: TargetId,
    pub(super) config: RemoteConfig,
    replicas: RwLock<Replicas>,
    /// Where the search begins, so that equals take turns.
    turn: AtomicUsize,
    /// Told when the replicas were set.
    pub(super) set: Notify,
}

impl Pool {
    pub(super) fn new(target: TargetId, config: RemoteConfig) -> Self {
        Self {
            target,
            config,
            replicas: RwLock::new(Arc::from([])),
            turn: AtomicUsize::new(0),
            set: Notify::new(),
        }
    }

    pub(super) fn replicas(&self) -> Replicas {
        Arc::clone(&self.replicas.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the replicas. One that was there before keeps its record.
    pub(super) fn set(&self, bases: &[Uri]) -> Result<()> {
        if let Some(wrong) = bases.iter().find(|base| !is_base(base)) {
            let message = "a replica is given as http://host:port, with a path at most; for TLS let a sidecar encrypt";
            return Err(Error::new(Code::SetupInvalid, message).with("replica", wrong));
        }
        let mut replicas = self.replicas.write().unwrap_or_else(PoisonError::into_inner);
        let mut next: Vec<Arc<Replica>> = Vec::with_capacity(bases.len());
        for base in bases {
            let same = |replica: &&Arc<Replica>| replica.base == *base;
            if next.iter().any(|replica| replica.base == *base) {
                continue;
            }
            let known = replicas.iter().find(same).cloned();
            let new = || Arc::new(Replica::new(base.clone(), self.config.check.is_some()));
            next.push(known.unwrap_or_else(new));
        }
        *replicas = next.into();
        drop(replicas);
        self.set.notify_one();
        self.publish();
        Ok(())
    }

    /// The replica that has least to do for its share, other than `not`; equals take turns.
    pub(super) fn choose(&self, not: Option<&Arc<Replica>>) -> Option<Ticket> {
        let replicas = self.replicas();
        let now = Instant::now();
        let from = self.turn.fetch_add(1, Ordering::Relaxed) % replicas.len().max(1);
        let (before, after) = replicas.split_at(from);
        let mut best: Option<(f64, &Arc<Replica>)> = None;
        for replica in after.iter().chain(before) {
            if not.is_some_and(|not| Arc::ptr_eq(not, replica)) {
                continue;
            }
            if let Some(cost) = replica.cost(now, self.config.slow_start)
                && best.is_none_or(|(least, _)| cost < least)
            {
                best = Some((cost, replica));
            }
        }
        best.map(|(_, replica)| replica.begin())
    }

    /// Notes that a call failed because of the replica, which may cost it its place for a while.
    pub(super) fn failed(&self, replica: &Arc<Replica>) {
        if !replica.failed(&self.config) {
            return;
        }
        // Under the lock, so that two replicas that fail at once are counted one after the other.
        let replicas = self.replicas.write().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let count = |state: ReplicaState| replicas.iter().filter(|other| other.state(now) == state).count();
        let still = replica.state(now) == ReplicaState::Serving;
        let may = count(ReplicaState::Ejected) < replicas.len() / 2 && count(ReplicaState::Serving) > 1;
        if still && may {
            let length = replica.eject(&self.config);
            drop(replicas);
            metric::ejected(&self.target);
            tracing::warn!(target = %self.target, replica = %replica.base, ?length, "a replica failed too often and is ejected");
            self.publish();
        }
    }

    pub(super) fn count(&self, state: ReplicaState) -> usize {
        let now = Instant::now();
        self.replicas()
            .iter()
            .filter(|replica| replica.state(now) == state)
            .count()
    }

    pub(super) fn publish(&self) {
        metric::publish(self);
    }
}

fn is_base(base: &Uri) -> bool {
    let plain = base.scheme() == Some(&http::uri::Scheme::HTTP);
    plain && base.host().is_some_and(|host| !host.is_empty()) && base.query().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::advance;

    fn pool(count: u16, configure: impl FnOnce(&mut RemoteConfig)) -> Pool {
        let mut config = RemoteConfig::default();
        configure(&mut config);
        let pool = Pool::new(TargetId::new("scan").unwrap(), config);
        pool.set(&bases(count)).unwrap();
        pool
    }

    fn bases(count: u16) -> Vec<Uri> {
        (1..=count)
            .map(|port| format!("http://10.0.0.1:{port}").parse().unwrap())
            .collect()
    }

    fn port(ticket: &Ticket) -> u16 {
        ticket.replica().base.port_u16().unwrap()
    }

    fn fail(pool: &Pool, index: usize, times: usize) {
        let replica = Arc::clone(&pool.replicas()[index]);
        (0..times).for_each(|_| pool.failed(&replica));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_spread_evenly_and_equals_take_turns() {
        let pool = pool(3, |_| {});
        let tickets: Vec<_> = (0..30).map(|_| pool.choose(None).unwrap()).collect();
        for replica in pool.replicas().iter() {
            assert_eq!(replica.in_flight(), 10);
        }
        drop(tickets);
        let turns: Vec<_> = (0..3).map(|_| port(&pool.choose(None).unwrap())).collect();
        assert_eq!(
            turns.iter().collect::<std::collections::BTreeSet<_>>().len(),
            3,
            "{turns:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_replica_gets_a_growing_share() {
        let pool = pool(1, |_| {});
        advance(Duration::from_secs(10)).await;
        pool.set(&bases(2)).unwrap();
        let mut shares = Vec::new();
        for _ in 0..3 {
            let tickets: Vec<_> = (0..100).map(|_| pool.choose(None).unwrap()).collect();
            shares.push(tickets.iter().filter(|ticket| port(ticket) == 2).count());
            drop(tickets);
            advance(Duration::from_secs(1)).await;
        }
        assert!((5..=12).contains(&shares[0]), "a tenth: {shares:?}");
        assert!((30..=36).contains(&shares[1]), "half as much as the other: {shares:?}");
        assert_eq!(shares[2], 50);
    }

    #[tokio::test(start_paused = true)]
    async fn five_failures_in_a_row_eject_for_longer_each_time_and_half_at_most() {
        let pool = pool(4, |_| {});
        fail(&pool, 0, 4);
        pool.replicas()[0].succeeded();
        fail(&pool, 0, 4);
        assert_eq!(pool.count(ReplicaState::Ejected), 0, "not in a row");
        fail(&pool, 0, 1);
        assert_eq!(pool.count(ReplicaState::Ejected), 1);
        (1..4).for_each(|index| fail(&pool, index, 5));
        assert_eq!(pool.count(ReplicaState::Ejected), 2);
        advance(Duration::from_millis(4_999)).await;
        assert_eq!(pool.count(ReplicaState::Ejected), 2);
        advance(Duration::from_millis(1)).await;
        assert_eq!(pool.count(ReplicaState::Ejected), 0);
        fail(&pool, 0, 5);
        advance(Duration::from_secs(9)).await;
        assert_eq!(pool.count(ReplicaState::Ejected), 1, "ten seconds the second time");
        advance(Duration::from_secs(61)).await;
        fail(&pool, 0, 5);
        advance(Duration::from_secs(5)).await;
        assert_eq!(pool.count(ReplicaState::Ejected), 0, "forgiven in the meantime");
    }

    #[tokio::test(start_paused = true)]
    async fn the_only_replica_is_never_ejected() {
        let pool = pool(1, |_| {});
        fail(&pool, 0, 50);
        assert!(pool.choose(None).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_fails_at_once_does_not_draw_every_call() {
        let pool = pool(2, |config| config.eject_after = 100);
        advance(Duration::from_secs(10)).await;
        fail(&pool, 0, 3);
        assert!((0..8).all(|_| port(&pool.choose(None).unwrap()) == 2));
        advance(Duration::from_secs(1)).await;
        assert!(
            (0..2).any(|_| port(&pool.choose(None).unwrap()) == 1),
            "tried again after a while"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn with_checks_nobody_serves_unproven_and_one_bad_check_is_forgiven() {
        let pool = pool(1, |config| config.check = Some(crate::remote::HealthCheck::new("/")));
        assert!(pool.choose(None).is_none());
        let replica = Arc::clone(&pool.replicas()[0]);
        assert_eq!(replica.checked(true), Some(true));
        assert!(pool.choose(None).is_some());
        assert_eq!(replica.checked(false), None);
        assert!(pool.choose(None).is_some());
        assert_eq!(replica.checked(false), Some(false));
        assert!(pool.choose(None).is_none());
    }

    #[tokio::test]
    async fn what_is_no_address_of_a_replica_is_refused() {
        let pool = pool(0, |_| {});
        for wrong in ["https://a", "/path", "http://a/?x=1"] {
            let error = pool.set(&[wrong.parse().unwrap()]).unwrap_err();
            assert_eq!(error.code(), Code::SetupInvalid, "{wrong}");
        }
        pool.set(&["http://a:1/base".parse().unwrap()]).unwrap();
    }
}
