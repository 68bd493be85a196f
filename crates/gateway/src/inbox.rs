//! Who waits for which answer in this process.
//!
//! The inbox is a hint: the answer is in the store before anybody is woken, and whoever is not woken finds it there by
//! the slow poll.

use crosspoint_core::{CallState, CallStatus, Failure, InvocationId, Reply};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::watch;

/// How a call ended, as far as a waiting client is concerned.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Reply(Reply),
    Ended(CallState, Option<Failure>),
}

impl Answer {
    /// What the store knows, if that is final.
    pub(crate) fn of(status: CallStatus) -> Option<Self> {
        if !status.state.is_terminal() {
            return None;
        }
        Some(match (status.state, status.reply) {
            (CallState::Completed, Some(reply)) => Self::Reply(reply),
            (state, _) => Self::Ended(state, status.failure),
        })
    }
}

type Slot = watch::Sender<Option<Answer>>;

/// The waiters of this process, by call.
#[derive(Debug, Default, Clone)]
pub(crate) struct Inbox(Arc<Mutex<HashMap<InvocationId, Slot>>>);

impl Inbox {
    /// Registers for an answer. Register first, store second: then no answer can slip through between the two.
    pub(crate) fn register(&self, id: InvocationId) -> Waiter {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = slots.entry(id).or_insert_with(|| watch::channel(None).0).subscribe();
        drop(slots);
        Waiter {
            inbox: self.clone(),
            id,
            answer,
        }
    }

    /// Wakes whoever waits for this call.
    pub(crate) fn answer(&self, id: InvocationId, answer: Answer) {
        let slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&id) {
            slot.send_replace(Some(answer));
        }
    }

    /// Forgets everybody: the process ends, and answers are found in the store.
    pub(crate) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether anybody waits for this call.
    pub(crate) fn is_awaited(&self, id: InvocationId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&id)
    }

    /// The calls somebody waits for that have no answer yet.
    pub(crate) fn awaited(&self) -> Vec<InvocationId> {
        let slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = slots.iter().filter(|(_, slot)| slot.borrow().is_none());
        // In order, so that they are asked for and told in the same order in every run.
        let mut ids: Vec<_> = open.map(|(id, _)| *id).collect();
        drop(slots);
        ids.sort_unstable();
        ids
    }
}

/// A registration; ends when dropped.
#[derive(Debug)]
pub(crate) struct Waiter {
    inbox: Inbox,
    id: InvocationId,
    answer: watch::Receiver<Option<Answer>>,
}

impl Waiter {
    /// The call.
    pub(crate) const fn id(&self) -> InvocationId {
        self.id
    }

    /// Waits for the answer.
    pub(crate) async fn answer(&mut self) -> Answer {
        loop {
            if let Some(answer) = self.answer.borrow_and_update().clone() {
                return answer;
            }
            if self.answer.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut slots = self.inbox.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.get(&self.id).is_some_and(|slot| slot.receiver_count() <= 1) {
            slots.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[tokio::test]
    async fn everybody_who_waits_is_woken_and_nothing_is_left() {
        let inbox = Inbox::default();
        let id = InvocationId::derive(&["one"]);
        let (mut first, mut second) = (inbox.register(id), inbox.register(id));
        assert_eq!(inbox.awaited(), [id]);
        inbox.answer(id, Answer::Reply(Reply::new(Bytes::from_static(b"done"))));
        for waiter in [&mut first, &mut second] {
            assert!(matches!(waiter.answer().await, Answer::Reply(reply) if reply.body() == "done"));
        }
        assert!(inbox.awaited().is_empty(), "nothing left to poll for");
        drop(first);
        assert!(inbox.is_awaited(id));
        drop(second);
        assert!(!inbox.is_awaited(id));
    }
}
