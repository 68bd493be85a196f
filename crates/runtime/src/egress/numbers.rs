//! What goes out, as numbers of the `metrics` facade. No label names a customer, a host or a script.

use super::answer;
use crosspoint_core::{Code, Error};
use metrics::{Counter, Unit, counter, describe_counter};

const CONNECTIONS: &str = "crosspoint_egress_connections_total";
const REFUSED: &str = "crosspoint_egress_refused_total";
const SENT: &str = "crosspoint_egress_sent_bytes_total";
const RECEIVED: &str = "crosspoint_egress_received_bytes_total";

/// A run has made as many requests as it may.
pub(super) const REQUESTS: &str = "requests";
/// A process of another run has tried to use a run's way out.
pub(super) const PEER: &str = "peer";

/// Tells the host's exporter what they mean.
pub(crate) fn describe() {
    let accepted = "Connections of scripts to the broker and the proxy, by mode of their egress";
    describe_counter!(CONNECTIONS, Unit::Count, accepted);
    let refused = "Requests and connections of scripts that were refused, by mode of their egress and reason";
    describe_counter!(REFUSED, Unit::Count, refused);
    let sent = "Bytes that scripts have sent to the broker and the proxy, by mode of their egress";
    describe_counter!(SENT, Unit::Bytes, sent);
    let received = "Bytes that scripts have received from the broker and the proxy, by mode of their egress";
    describe_counter!(RECEIVED, Unit::Bytes, received);
}

/// The numbers of all runs with one mode.
#[derive(Debug, Clone)]
pub(super) struct Numbers {
    mode: &'static str,
    pub(super) connections: Counter,
    pub(super) sent: Counter,
    pub(super) received: Counter,
}

impl Numbers {
    pub(super) fn new(mode: &'static str) -> Self {
        Self {
            mode,
            connections: counter!(CONNECTIONS, "mode" => mode),
            sent: counter!(SENT, "mode" => mode),
            received: counter!(RECEIVED, "mode" => mode),
        }
    }

    pub(super) fn refused(&self, reason: &'static str) {
        counter!(REFUSED, "mode" => self.mode, "reason" => reason).increment(1);
    }

    /// Counts an error, if it is a refusal by a rule.
    pub(super) fn failed(&self, error: &Error) {
        if error.code() == Code::EgressRefused {
            self.refused(reason(answer::rule(error).unwrap_or_default()));
        }
    }
}

/// The rules by their names. What is left are the kinds of addresses that are not public.
fn reason(rule: &str) -> &'static str {
    const RULES: [&str; 6] = ["allow", "broker", "bytes", "connections", "https", "scheme"];
    RULES.into_iter().find(|known| *known == rule).unwrap_or("address")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_few() {
        for rule in ["allow", "https", "bytes", "connections", "scheme", "broker"] {
            assert_eq!(reason(rule), rule);
        }
        for rule in ["loopback", "private network", "IPv4 within IPv6"] {
            assert_eq!(reason(rule), "address");
        }
    }
}
