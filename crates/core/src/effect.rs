//! The keys under which a run's effects happen outside.

use crate::{RunKey, id::derive};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Makes the keys of one attempt's outside effects: H(run key, connection, action, input, occurrence).
///
/// A key is the same in every attempt of the run and in a redrive, and differs between two equal calls of one attempt,
/// because the second is counted as such. It goes to providers as `Idempotency-Key`, so that what an attempt has done is
/// not done again by the next. One value counts for one attempt.
///
/// ```
/// use crosspoint_core::{EffectKeys, RunKey};
/// let run = RunKey::derive(&["an execution"]);
/// let (first, again) = (EffectKeys::new(run), EffectKeys::new(run));
/// let key = first.next("shop", "POST /orders", b"{}");
/// assert_eq!(again.next("shop", "POST /orders", b"{}"), key, "another attempt, the same effect");
/// assert_ne!(first.next("shop", "POST /orders", b"{}"), key, "a second, equal call");
/// ```
#[derive(Debug)]
pub struct EffectKeys {
    run: RunKey,
    occurrences: Mutex<HashMap<RunKey, u64>>,
}

impl EffectKeys {
    /// Nothing has been called yet.
    #[must_use]
    pub fn new(run: RunKey) -> Self {
        Self {
            run,
            occurrences: Mutex::default(),
        }
    }

    /// The key of the next call of `action` on `connection` with this input. It takes time in proportion to the input.
    #[must_use]
    pub fn next(&self, connection: &str, action: &str, input: &[u8]) -> RunKey {
        let run = self.run.to_string();
        let parts = [run.as_bytes(), connection.as_bytes(), action.as_bytes(), input];
        let call = RunKey::from_uuid(derive(parts));
        let mut occurrences = self.occurrences.lock().unwrap_or_else(PoisonError::into_inner);
        let count = occurrences.entry(call).or_insert(0);
        *count += 1;
        RunKey::derive(&[&call.to_string(), &count.to_string()])
    }

    /// The key of an effect that the code itself has named: the same whatever is sent and however often.
    #[must_use]
    pub fn named(&self, connection: &str, name: &str) -> RunKey {
        RunKey::derive(&[&self.run.to_string(), connection, "named", name, ""])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_makes_another_key() {
        let run = RunKey::derive(&["a"]);
        let keys = EffectKeys::new(run);
        let first = keys.next("shop", "post", b"x");
        let others = [
            keys.next("shop", "post", b"x"),
            keys.next("shop2", "post", b"x"),
            keys.next("shop", "postx", b""),
            keys.next("shop", "post", b"y"),
            keys.named("shop", "x"),
            EffectKeys::new(RunKey::derive(&["b"])).next("shop", "post", b"x"),
        ];
        for (n, other) in others.iter().enumerate() {
            assert_ne!(*other, first, "{n}");
            assert!(!others[..n].contains(other), "{n}");
        }
        assert_eq!(EffectKeys::new(run).next("shop", "post", b"x"), first);
        assert_eq!(keys.named("shop", "x"), keys.named("shop", "x"));
    }

    /// Keys are with the providers already: a release that changes them does things twice.
    #[test]
    fn keys_stay_what_they_are() {
        let keys = EffectKeys::new(RunKey::derive(&["run"]));
        let call = RunKey::derive(&[&RunKey::derive(&["run"]).to_string(), "shop", "post", "{}"]);
        assert_eq!(
            keys.next("shop", "post", b"{}"),
            RunKey::derive(&[&call.to_string(), "1"])
        );
    }
}
