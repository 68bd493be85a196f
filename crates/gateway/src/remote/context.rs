//! The headers between gateway and replica: what dispatch knows about a call.

use crate::{
    Replayed,
    http::{OURS, for_reply},
};
use crosspoint_core::{CustomerId, InvocationId, Meta, RunKey};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::{sync::Arc, time::Duration};

const ID: &str = "crosspoint-id";
const ATTEMPT: &str = "crosspoint-attempt";
const RUN_KEY: &str = "crosspoint-run-key";
const CUSTOMER: &str = "crosspoint-customer";
const PRINCIPAL: &str = "crosspoint-principal";
const TIMEOUT: &str = "crosspoint-timeout-ms";
/// In a response: what became of the call, where the status alone does not say so.
const OUTCOME: &str = "crosspoint-outcome";

/// What a call brings along.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) id: Option<InvocationId>,
    pub(super) attempt: Option<u32>,
    pub(super) run_key: Option<RunKey>,
    pub(super) customer: Option<CustomerId>,
    pub(super) principal: Option<Arc<str>>,
    /// How long the caller still waits. A length of time, because clocks differ.
    pub(super) left: Option<Duration>,
}

impl Context {
    pub(super) fn of_replay(replayed: &Replayed) -> Self {
        Self {
            id: Some(replayed.id),
            attempt: Some(replayed.attempt),
            run_key: Some(replayed.run_key),
            customer: Some(replayed.customer.clone()),
            principal: replayed.principal.clone(),
            ..Self::default()
        }
    }

    pub(super) fn of_meta(meta: &Meta) -> Self {
        Self {
            id: Some(meta.id),
            attempt: Some(meta.attempt),
            run_key: Some(meta.run_key),
            customer: Some(meta.customer.clone()),
            principal: meta.principal.clone(),
            left: None,
        }
    }

    /// Writes it. A principal may be any text, so its bytes travel percent-encoded where they have to.
    pub(super) fn send(&self, headers: &mut HeaderMap) {
        let mut set = |name: &'static str, value: Option<String>| {
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                headers.insert(name, value);
            }
        };
        set(ID, self.id.map(|id| id.to_string()));
        set(ATTEMPT, self.attempt.map(|attempt| attempt.to_string()));
        set(RUN_KEY, self.run_key.map(|key| key.as_uuid().to_string()));
        set(CUSTOMER, self.customer.as_ref().map(|id| encode(id.as_str())));
        set(PRINCIPAL, self.principal.as_deref().map(encode));
        set(TIMEOUT, self.left.map(|left| left.as_millis().to_string()));
    }

    /// Reads what [`Context::send`] wrote; what is not well-formed counts as not sent.
    pub(super) fn read(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        let number = |name: &str| text(name)?.parse::<u64>().ok();
        Self {
            id: text(ID).and_then(|id| id.parse().ok()),
            attempt: number(ATTEMPT).and_then(|attempt| u32::try_from(attempt).ok()),
            run_key: text(RUN_KEY).and_then(|key| Some(RunKey::from_uuid(key.parse().ok()?))),
            customer: text(CUSTOMER).and_then(decode).and_then(|id| CustomerId::new(id).ok()),
            principal: text(PRINCIPAL).and_then(decode).map(Arc::from),
            left: number(TIMEOUT).map(Duration::from_millis),
        }
    }
}

/// Removes every header of ours, whoever sent it.
pub(super) fn strip(headers: &mut HeaderMap) {
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(OURS))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}

/// A request's headers as they are passed on: without those of the connection and without any of ours. `Host`,
/// `Forwarded`, `traceparent` and everything else stay as they came.
pub(super) fn for_passing(headers: &mut HeaderMap) {
    for_reply(headers);
    headers.remove(http::header::PROXY_AUTHORIZATION);
    headers.remove("proxy-connection");
    strip(headers);
}

/// What a replica says became of a call that it answers for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// It has no permit free.
    Full,
    /// It did not begin the call for another reason.
    NotStarted,
    /// It began and cannot tell how it ended.
    Unknown,
}

impl Said {
    pub(super) fn send(self, headers: &mut HeaderMap) {
        let text = match self {
            Self::Full => "full",
            Self::NotStarted => "not-started",
            Self::Unknown => "unknown",
        };
        headers.insert(OUTCOME, HeaderValue::from_static(text));
    }

    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        match headers.get(OUTCOME)?.as_bytes() {
            b"full" => Some(Self::Full),
            b"not-started" => Some(Self::NotStarted),
            b"unknown" => Some(Self::Unknown),
            _ => None,
        }
    }
}

fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            let value = digit()? * 16 + digit()?;
            out.push(u8::try_from(value).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn what_is_sent_is_read_whatever_text_it_is() {
        let id = Uuid::from_u128(7);
        let context = Context {
            id: Some(InvocationId::from_uuid(id)),
            attempt: Some(2),
            run_key: Some(RunKey::from_uuid(id)),
            customer: Some(CustomerId::new("acme").unwrap()),
            principal: Some("Zoë 100 %\r\nx: y".into()),
            left: Some(Duration::from_millis(1500)),
        };
        let mut headers = HeaderMap::new();
        context.send(&mut headers);
        assert_eq!(Context::read(&headers), context);
        assert_eq!(headers.len(), 6);
        strip(&mut headers);
        assert_eq!(Context::read(&headers), Context::default());
    }

    #[test]
    fn nonsense_counts_as_not_sent() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (ID, "7"),
            (ATTEMPT, "-1"),
            (CUSTOMER, "%"),
            (PRINCIPAL, "%C3"),
            (TIMEOUT, "soon"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        assert_eq!(Context::read(&headers), Context::default());
    }

    #[test]
    fn headers_of_the_connection_and_ours_do_not_pass() {
        let mut headers = HeaderMap::new();
        for name in [
            "host",
            "forwarded",
            "traceparent",
            "cookie",
            "crosspoint-customer",
            "proxy-authorization",
        ] {
            headers.insert(name, HeaderValue::from_static("x"));
        }
        headers.insert("connection", HeaderValue::from_static("x-hop"));
        headers.insert("x-hop", HeaderValue::from_static("x"));
        for_passing(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["cookie", "forwarded", "host", "traceparent"]);
    }
}
