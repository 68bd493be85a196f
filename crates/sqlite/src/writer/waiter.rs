//! Leases: the only operation that may wait inside the writer.

use super::{Answer, GivenBack, Verdict, Writer, give_back};
use crate::{
    fail::{Fail, closed, shared},
    ledger::{Ledger, RawLease},
};
use crosspoint_core::{Error, LeaseRequest, Result};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// A lease that is asked for.
pub(crate) struct LeaseCall {
    request: LeaseRequest,
    tell: oneshot::Sender<Result<Vec<RawLease>>>,
    /// Told once, when nothing was found and the call waits.
    parked: Option<oneshot::Sender<()>>,
    withdrawn: Arc<AtomicBool>,
}

/// What came of trying.
pub(super) enum Tried {
    /// Nothing yet; it goes on waiting.
    Waits(LeaseCall),
    /// It has its answer, to be sent after the commit.
    Answered(Answer),
    /// Nobody listens any more.
    Left,
    /// The group is spoilt.
    Spoilt(Error, Answer),
}

impl LeaseCall {
    /// Tries once; `back` takes the leases whose taker has gone by the time of the commit.
    pub(super) fn attempt(mut self, ledger: &mut Ledger, back: &mpsc::UnboundedSender<GivenBack>) -> Tried {
        if self.tell.is_closed() {
            return Tried::Left;
        }
        match ledger.lease(&self.request) {
            // Not even whoever does not want to wait is told that there is nothing before all was looked at.
            Ok(granted) if granted.leases.is_empty() && granted.cut_short => Tried::Waits(self),
            Ok(granted) if granted.leases.is_empty() => {
                let waits = !self.request.wait.is_zero() && !self.withdrawn.load(Ordering::Acquire);
                if !waits {
                    return Tried::Answered(answer(self.tell, granted.leases, back.clone()));
                }
                if let Some(parked) = self.parked.take() {
                    // If nobody listens, the next attempt notices.
                    parked.send(()).unwrap_or_default();
                }
                Tried::Waits(self)
            }
            Ok(granted) => Tried::Answered(answer(self.tell, granted.leases, back.clone())),
            Err(Fail::Refused(error)) => Tried::Answered(self.refused(error)),
            Err(Fail::Group(error)) => Tried::Spoilt(shared(&error), self.refused(error)),
        }
    }

    /// Answers with an error, whatever becomes of the group.
    pub(super) fn refused(self, error: Error) -> Answer {
        Box::new(move |_| drop(self.tell.send(Err(error))))
    }
}

fn answer(
    tell: oneshot::Sender<Result<Vec<RawLease>>>,
    leases: Vec<RawLease>,
    back: mpsc::UnboundedSender<GivenBack>,
) -> Answer {
    Box::new(move |verdict: Verdict<'_>| {
        let answer = verdict.map_or(Ok(leases), |failed| Err(shared(failed)));
        if let Err(Ok(leases)) = tell.send(answer) {
            let leases = leases.iter().map(|lease| (lease.seq, lease.fence)).collect();
            give_back(&back, leases);
        }
    })
}

impl Writer {
    /// Leases; waits for work as long as the request says.
    pub(crate) async fn lease(&self, request: LeaseRequest) -> Result<Vec<RawLease>> {
        let wait = request.wait;
        let (tell, mut told) = oneshot::channel();
        let (parked, is_parked) = oneshot::channel();
        let withdrawn = Arc::new(AtomicBool::new(false));
        self.post_lease(LeaseCall {
            request,
            tell,
            parked: Some(parked),
            withdrawn: Arc::clone(&withdrawn),
        })?;
        // The wait begins when the writer has looked: its own work must not count, least of all under a paused clock.
        tokio::select! {
            biased;
            answer = &mut told => return answer.unwrap_or_else(|_| Err(closed())),
            // An error means that the answer is on its way, and only disables this branch.
            Ok(()) = is_parked => {}
        }
        if let Ok(answer) = timeout(wait, &mut told).await {
            return answer.unwrap_or_else(|_| Err(closed()));
        }
        withdrawn.store(true, Ordering::Release);
        self.look();
        told.await.unwrap_or_else(|_| Err(closed()))
    }
}
