//! The rules that hold in every state.

use super::{ATTEMPTS, World};
use crate::model::step::Step;
use crate::{envelope, scope};
use bytes::Bytes;
use crosspoint_core::{Audience, CallState, CallStatus, ExecutionStatus, Extended, InvocationId, Page, Timestamp};

/// The call's end as it was first seen.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct End {
    state: CallState,
    reply: Option<Bytes>,
    finished: Option<Timestamp>,
    attempt: u32,
}

impl End {
    fn of(status: &CallStatus) -> Self {
        Self {
            state: status.state,
            reply: status.reply.as_ref().map(|reply| reply.body().clone()),
            finished: status.finished,
            attempt: status.attempt,
        }
    }
}

impl World<'_> {
    /// Every rule, in the state that the path leads to.
    pub(in crate::model) async fn verify(&mut self) {
        let path = self.path;
        if matches!(path.last(), Some(Step::Expire)) {
            // Whoever comes next is the first to notice.
            return;
        }
        let status = self.h.status(self.id).await;
        if self.is_held() {
            assert_eq!(status.state, CallState::Leased, "{path:?}");
            let second = self.h.store.dispatch.lease(self.request(true)).await.unwrap();
            assert!(second.is_empty(), "a second lease beside the current one: {path:?}");
        }
        for held in self.workers.iter().flatten() {
            let right = match self.may_write(held.lease) {
                false => Extended::Stale,
                true if self.cancelled && held.close.is_none() => Extended::CancelRequested,
                true => Extended::Extended,
            };
            let answer = self.h.extend(held.lease).await;
            let told = answer == Extended::CancelRequested && held.close.is_some() && self.cancelled;
            assert!(
                answer == right || (told && right == Extended::Extended),
                "{answer:?}: {path:?}"
            );
        }
        assert!(self.ends <= 1, "ended {} times: {path:?}", self.ends);
        if status.state.is_terminal() {
            self.verify_end(&status);
        } else {
            assert_eq!(self.ends, 0, "an end that was accepted is gone: {path:?}");
            assert_eq!(status.attempt, self.attempts, "{path:?}");
        }
        if self.case.flow {
            self.verify_records(status.state.is_terminal()).await;
        }
    }

    pub(super) fn verify_end(&mut self, status: &CallStatus) {
        let path = self.path;
        let end = End::of(status);
        let first = self.end.get_or_insert_with(|| end.clone());
        assert_eq!(*first, end, "terminal means terminal: {path:?}");
        assert_eq!(end.reply, self.reply.clone().map(Bytes::from), "{path:?}");
        assert!(end.finished.is_some(), "{path:?}");
        let justified = match end.state {
            CallState::Completed => self.ends == 1,
            CallState::Cancelled => self.cancelled,
            CallState::Dead => self.attempts == ATTEMPTS,
            CallState::Unknown => !self.case.flow && !self.case.repeatable && self.lost_begun,
            _ => false,
        };
        assert!(justified, "{:?} without a cause: {path:?}", end.state);
        assert!(!self.case.flow || self.ends == 1, "the store ended a flow: {path:?}");
    }

    /// What `finish` writes, it writes whole and once.
    pub(super) async fn verify_records(&self, terminal: bool) {
        let (fleet, path) = (scope::fleet(), self.path);
        let execution = self.h.execution(self.id).await;
        assert_eq!(
            execution.status.is_terminal(),
            terminal,
            "queue and record disagree: {path:?}"
        );
        let succeeded = execution.status == ExecutionStatus::Succeeded;
        let log = &self.h.store.log;
        let lines = log
            .lines((&fleet).into(), self.id, Audience::Customer, Page::default())
            .await
            .unwrap();
        assert_eq!(lines.items.len(), self.lines, "{path:?}");
        let installation = envelope::installation(&self.name);
        let state = self
            .h
            .store
            .state
            .state((&fleet).into(), installation, "announce")
            .await
            .unwrap();
        assert_eq!(state.version, u64::from(succeeded), "{path:?}");
        let start = InvocationId::derive(&["after", &self.id.to_string()]);
        assert_eq!(self.h.try_status(start).await.is_some(), succeeded, "{path:?}");
    }
}
