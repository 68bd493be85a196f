//! The framed binding: everything comes in the first message.

use super::{Layout, NETWORK, Way, broker, mode, trigger, triggers};
use crosspoint_core::{Code, Error, ErrorExt, ExposeSecret, Result, RunSpec, Script, Timestamp};
use serde_json::{Map, Value, json};

/// Bytes of a line that is no state and no result; longer ones are split.
pub(in super::super) const LINE: usize = 256 * 1024;

/// Messages a second that are kept, states and results not counted.
pub(in super::super) const RATE: u32 = 1000;

/// The message `start`, with the end of its line.
pub(in super::super) fn start(layout: &Layout, spec: &RunSpec, script: &Script, now: Timestamp) -> Result<Vec<u8>> {
    let mut message = json!({
        "type": "start",
        "v": 1,
        "mode": mode(spec.mode),
        "execution": spec.execution,
        "run_key": spec.run_key,
        "attempt": spec.attempt,
        "deadline": spec.deadline,
        "grace_ms": spec.limits.grace_ms,
        "customer": spec.customer,
        "installation": spec.installation,
        "integration": spec.integration,
        "flow": spec.flow,
        "trigger": trigger(spec.trigger),
        "triggers": triggers(spec, now),
        "config": spec.config,
        "state": { "version": spec.state.version, "value": spec.state.value },
        "broker": broker(&layout.place),
        "network_socket": (layout.place.network == Some(Way::Socket)).then(|| layout.path(NETWORK)),
        "limits": {
            "line_bytes": LINE,
            "messages_per_second": RATE,
            "log_bytes": spec.limits.log_bytes,
            "result_bytes": spec.limits.result_bytes,
            "state_bytes": spec.limits.state_bytes,
        },
        "features": if spec.checkpoint.is_some() { vec!["checkpoint"] } else { Vec::new() },
    });
    if script.wants_secrets() {
        let secrets = spec.secrets.iter();
        let secrets: Map<String, Value> = secrets
            .map(|(name, secret)| (name.clone(), Value::from(secret.expose_secret())))
            .collect();
        let fields = message.as_object_mut();
        let fields = fields.ok_or_else(|| Error::new(Code::Internal, "a message is an object"))?;
        fields.insert("secrets".to_owned(), Value::Object(secrets));
    }
    let mut line = serde_json::to_vec(&message).or_fail(Code::Internal, "a message does not serialise")?;
    line.push(b'\n');
    Ok(line)
}
