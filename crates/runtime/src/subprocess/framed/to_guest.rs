//! What waits to be said to the guest.

use crosspoint_core::StopReason;
use serde_json::{Value, json};
use std::time::Duration;

/// Refusals that wait for the guest to read them.
const REFUSALS: usize = 16;

/// Messages to the guest. They do not grow with what the guest sends.
#[derive(Debug, Default)]
pub(super) struct ToGuest {
    ack: Option<(u64, u64)>,
    refusals: Vec<Value>,
    cancel: Option<Value>,
}

impl ToGuest {
    pub(super) const fn ack(&mut self, seq: u64, version: u64) {
        self.ack = Some((seq, version));
    }

    pub(super) fn cancel(&mut self, why: StopReason, grace: Duration) {
        let reason = match why {
            StopReason::Deadline => "deadline",
            StopReason::Cancelled => "cancelled",
            StopReason::LeaseLost => "lease-lost",
            _ => "draining",
        };
        let grace = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.cancel = Some(json!({ "type": "cancel", "reason": reason, "grace_ms": grace }));
    }

    pub(super) fn refuse(&mut self, seq: Option<u64>, code: &str, message: &str) {
        if self.refusals.len() < REFUSALS {
            let refusal = json!({ "type": "refused", "seq": seq, "code": code, "message": message });
            self.refusals.push(refusal);
        }
    }

    pub(super) fn waiting(&self) -> bool {
        self.ack.is_some() || self.cancel.is_some() || !self.refusals.is_empty()
    }

    /// Everything that waits, as lines.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let ack = self.ack.take();
        let ack = ack.map(|(seq, version)| json!({ "type": "ack", "seq": seq, "version": version }));
        let messages = std::mem::take(&mut self.refusals)
            .into_iter()
            .chain(ack)
            .chain(self.cancel.take());
        messages.fold(Vec::new(), |mut lines, message| {
            lines.extend_from_slice(message.to_string().as_bytes());
            lines.push(b'\n');
            lines
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_the_guest_does_not_grow() {
        let mut to_guest = ToGuest::default();
        for n in 0..100_000 {
            to_guest.ack(n, n + 1);
            to_guest.refuse(Some(n), "too-large", "no");
        }
        let lines = to_guest.take();
        assert_eq!(lines.split(|b| *b == b'\n').count(), REFUSALS + 2);
        assert!(String::from_utf8(lines).unwrap().contains("100000"));
        assert!(!to_guest.waiting());
    }
}
