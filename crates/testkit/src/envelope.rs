//! Envelopes for tests: ordinary ones, whose public fields a test changes as it needs.

use bytes::Bytes;
use crosspoint_core::{
    Clock, CustomerId, Envelope, FlowRef, IdempotencyKey, InstallationId, Invocation, InvocationId, Meta, Reply,
    TargetId, Timestamp, TriggerKind,
};

/// A `POST /` with a small body to `target` for `customer`, under a new id.
#[must_use]
pub fn invocation(clock: &dyn Clock, target: &str, customer: &str) -> Invocation {
    let meta = Meta::new(
        InvocationId::mint(clock),
        CustomerId::new(customer).unwrap(),
        TargetId::new(target).unwrap(),
    );
    let request = http::Request::builder()
        .method(http::Method::POST)
        .uri("/work?n=1")
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Bytes::from_static(b"{\"n\":1}"))
        .unwrap();
    Invocation::new(meta, request)
}

/// A call to a host's service.
#[must_use]
pub fn service(clock: &dyn Clock, target: &str, customer: &str) -> Envelope {
    Envelope::service(invocation(clock, target, customer), clock.now())
}

/// A run of the flow `announce` of the customer's installation ([`installation`]).
#[must_use]
pub fn flow(clock: &dyn Clock, target: &str, customer: &str) -> Envelope {
    let flow = FlowRef::new(
        installation(customer),
        "order-alerts",
        "1.0.0",
        "announce",
        TriggerKind::Event,
    );
    Envelope::flow(invocation(clock, target, customer), flow, clock.now())
}

/// The id of the installation that [`flow`] belongs to: always the same for a customer.
#[must_use]
pub fn installation(customer: &str) -> InstallationId {
    InstallationId::derive(&["testkit", customer])
}

/// The envelope under an id that is always the same for these parts.
#[must_use]
pub fn derived(mut envelope: Envelope, parts: &[&str]) -> Envelope {
    envelope.invocation.meta.id = InvocationId::derive(parts);
    envelope
}

/// The envelope with an ordering key.
#[must_use]
pub fn ordered(mut envelope: Envelope, key: &str) -> Envelope {
    envelope.invocation.meta.ordering_key = Some(key.into());
    envelope
}

/// The envelope with a priority.
#[must_use]
pub const fn urgent(mut envelope: Envelope, priority: i16) -> Envelope {
    envelope.invocation.meta.priority = priority;
    envelope
}

/// The envelope with an idempotency key whose scope and fingerprint are filled with these bytes.
#[must_use]
pub const fn keyed(mut envelope: Envelope, scope: u8, fingerprint: u8, expires: Timestamp) -> Envelope {
    envelope.invocation.meta.idempotency_key = Some(IdempotencyKey::new([scope; 16], [fingerprint; 16], expires));
    envelope
}

/// A reply `200` with this body.
#[must_use]
pub fn reply(body: &str) -> Reply {
    let mut reply = Reply::new(Bytes::from(body.to_owned()));
    reply
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    reply
}
