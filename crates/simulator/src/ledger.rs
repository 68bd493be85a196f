//! What happened to every call, written down as it happens.

use crate::case::Case;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How a call ended for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// Answered on its connection, straight from the target.
    Direct,
    /// Answered on its connection, after it had waited in the queue.
    Queued,
    /// Accepted with 202, and answered when the client asked.
    Polled,
    /// The target failed, or the call is on record as having failed.
    Failed,
    /// Refused, with a reason.
    Refused,
    /// The connection was lost, and the client has no retries left.
    Cut,
    /// The client went away by itself.
    Left,
    /// Accepted with 202, and nobody knows it any more.
    Lost,
}

/// Where a call stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stage {
    /// A try is on its way.
    Trying,
    /// Accepted; the place to ask.
    Accepted(String),
    /// Over, at this second.
    Ended(End, f64),
}

/// One call of a client, with all of its tries.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// When it should be sent: latency counts from here.
    pub(crate) intended: f64,
    pub(crate) customer: usize,
    pub(crate) class: usize,
    pub(crate) poison: bool,
    pub(crate) tries: u32,
    pub(crate) stage: Stage,
}

/// One request on the wire.
#[derive(Debug, Clone)]
pub(crate) struct Try {
    pub(crate) call: usize,
    pub(crate) sent: f64,
    /// Whether it reached the target without the queue.
    pub(crate) direct: bool,
    /// How often a replica began to work on it.
    pub(crate) executions: u32,
    /// Answered directly, so many seconds after it was sent.
    pub(crate) answered: Option<f64>,
    pub(crate) left: bool,
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) calls: Vec<Call>,
    pub(crate) tries: Vec<Try>,
    /// Calls whose client still waits for something.
    pub(crate) outstanding: usize,
    /// Requests whose client is connected.
    pub(crate) open: usize,
    /// Of those, the ones that are at the target on the direct way.
    pub(crate) direct: usize,
    /// Requests at the target, whichever way they came.
    pub(crate) at_target: usize,
    /// Requests that were held for all of their hold and got 202 then.
    pub(crate) in_vain: u64,
    /// Of these, the ones that were being worked on.
    pub(crate) late: u64,
    pub(crate) failed_direct: u64,
    pub(crate) failed_queued: u64,
    pub(crate) unstored: u64,
    pub(crate) arrived: u64,
    pub(crate) peak_held: usize,
    pub(crate) replica_seconds: f64,
    /// Workers that are there, counted in ordinary speed, by tenths of a second.
    pub(crate) capacity: Vec<f64>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) openings: u64,
    pub(crate) changes: u64,
}

/// How things stood at one moment; one is taken every tenth of a second.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Sample {
    /// When.
    pub at: f64,
    /// The limit of the first gateway.
    pub limit: u32,
    /// The limits of all gateways together.
    pub limits: u32,
    /// Requests at the target.
    pub at_target: usize,
    /// The workers of all replicas that are ready.
    pub workers: u32,
    /// Connected clients whose call is not at the target.
    pub held: usize,
    /// Calls that wait in the store.
    pub stored: usize,
}

/// The ledger of a run.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Book>);

impl Ledger {
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn to_book(&self) -> Book {
        std::mem::take(&mut *self.book())
    }

    pub(crate) fn arrive(&self, intended: f64, customer: usize, class: usize, poison: bool) -> usize {
        let mut book = self.book();
        book.calls.push(Call {
            intended,
            customer,
            class,
            poison,
            tries: 0,
            stage: Stage::Trying,
        });
        book.outstanding += 1;
        book.calls.len() - 1
    }

    /// Notes that a request is sent; answers its number and whose it is.
    pub(crate) fn send(&self, call: usize, at: f64) -> usize {
        let mut book = self.book();
        book.tries.push(Try {
            call,
            sent: at,
            direct: false,
            executions: 0,
            answered: None,
            left: false,
        });
        book.arrived += 1;
        book.open += 1;
        if let Some(call) = book.calls.get_mut(call) {
            call.tries += 1;
        }
        book.tries.len() - 1
    }

    /// Notes that the connection of a request is closed.
    pub(crate) fn close(&self, request: usize, answered: Option<f64>, left: bool) {
        let mut book = self.book();
        book.open = book.open.saturating_sub(1);
        if let Some(request) = book.tries.get_mut(request) {
            request.answered = answered;
            request.left = left;
        }
    }

    /// Notes that a request was held to the end of its hold and then got 202.
    pub(crate) fn in_vain(&self, request: usize) {
        let mut book = self.book();
        book.in_vain += 1;
        let begun = book.tries.get(request).is_some_and(|request| request.executions > 0);
        book.late += u64::from(begun);
    }

    pub(crate) fn stage(&self, call: usize, stage: Stage) {
        let mut book = self.book();
        let Some(call) = book.calls.get_mut(call) else { return };
        let over = matches!(stage, Stage::Ended(..)) && !matches!(call.stage, Stage::Ended(..));
        call.stage = stage;
        if over {
            book.outstanding -= 1;
        }
    }

    /// Notes that a replica begins to work on a request.
    pub(crate) fn begin(&self, request: usize) {
        if let Some(request) = self.book().tries.get_mut(request) {
            request.executions += 1;
        }
    }

    /// Notes that a request is at the target; the answer ends that when it is dropped.
    pub(crate) fn at_target(&self, request: usize, queued: bool) -> AtTarget<'_> {
        let mut book = self.book();
        book.at_target += 1;
        if !queued {
            book.direct += 1;
            if let Some(request) = book.tries.get_mut(request) {
                request.direct = true;
            }
        }
        drop(book);
        AtTarget { ledger: self, queued }
    }

    pub(crate) fn failed(&self, queued: bool) {
        let mut book = self.book();
        if queued {
            book.failed_queued += 1;
        } else {
            book.failed_direct += 1;
        }
    }
}

/// A request that is at the target.
pub(crate) struct AtTarget<'a> {
    ledger: &'a Ledger,
    queued: bool,
}

impl Drop for AtTarget<'_> {
    fn drop(&mut self) {
        let mut book = self.ledger.book();
        book.at_target = book.at_target.saturating_sub(1);
        if !self.queued {
            book.direct = book.direct.saturating_sub(1);
        }
    }
}

/// The name of a customer.
pub(crate) fn customer_name(customer: usize) -> String {
    format!("customer-{customer:03}")
}

/// The path of a class of calls.
pub(crate) fn path_of(class: usize) -> &'static str {
    if class == 0 { "/call" } else { "/slow-call" }
}

/// How much work a call is on average: what its class or its slow customer says.
pub(crate) fn mean_work(case: &Case, customer: usize, class: usize, at: f64) -> (f64, f64) {
    match case.load.customers.slow {
        Some(seconds) if customer == 0 && case.disturbed(at) => (seconds, 0.3),
        _ => case
            .load
            .classes
            .get(class)
            .map_or((0.05, 0.5), |class| (class.seconds, class.sigma)),
    }
}
