use super::*;
use crate::{
    CustomerId, Envelope, FlowRef, IdempotencyKey, InstallationId, Invocation, InvocationId, Meta, Origin, RunKey,
    TargetId, Timestamp, TriggerKind,
};

/// A small generator (xorshift), so that a failure names the seed that repeats it.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.roll() % limit as u64).unwrap()
    }
    fn bytes(&mut self, limit: usize) -> Vec<u8> {
        let length = self.below(limit);
        (0..length).map(|_| self.roll().to_le_bytes()[3]).collect()
    }
    fn text(&mut self) -> String {
        let length = 1 + self.below(20);
        (0..length)
            .map(|_| char::from(b'a' + (self.roll() % 26) as u8))
            .collect()
    }
    fn time(&mut self) -> Option<Timestamp> {
        (self.roll() & 1 == 0).then(|| Timestamp::from_millis(self.roll().cast_signed() >> 12))
    }
    fn word(&mut self) -> Option<std::sync::Arc<str>> {
        (self.roll() & 1 == 0).then(|| self.text().into())
    }
    fn headers(&mut self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for _ in 0..self.below(6) {
            let name = HeaderName::from_bytes(format!("x-{}", self.below(3)).as_bytes()).unwrap();
            let bytes: Vec<u8> = self.bytes(40).into_iter().map(|b| b | 0x80).collect();
            let mut value = HeaderValue::from_bytes(&bytes).unwrap();
            value.set_sensitive(self.roll() & 1 == 0);
            headers.append(name, value);
        }
        headers
    }
    fn request(&mut self) -> Request<Bytes> {
        let uris = [
            "/",
            "*",
            "/a/b?c=d&e=%20f",
            "http://example.com:8080/x?y",
            "/%F0%9F%A6%80",
        ];
        let mut request = Request::new(Bytes::from(self.bytes(300)));
        *request.method_mut() = Method::from_bytes(["GET", "POST", "PURGE"][self.below(3)].as_bytes()).unwrap();
        *request.uri_mut() = uris[self.below(uris.len())].parse().unwrap();
        *request.headers_mut() = self.headers();
        request
    }
    fn reply(&mut self) -> Reply {
        let mut reply = Reply::new(Bytes::from(self.bytes(300)));
        *reply.status_mut() = StatusCode::from_u16(100 + u16::try_from(self.below(900)).unwrap()).unwrap();
        *reply.headers_mut() = self.headers();
        reply
    }
    fn id(&mut self) -> InvocationId {
        InvocationId::from_uuid(uuid::Uuid::from_u64_pair(self.roll(), self.roll()))
    }
    fn array(&mut self) -> [u8; 16] {
        *self.id().as_bytes()
    }
    fn envelope(&mut self) -> Envelope {
        let customer = CustomerId::new(self.text()).unwrap();
        let mut meta = Meta::new(self.id(), customer, TargetId::new(self.text()).unwrap());
        meta.run_key = RunKey::from_uuid(*self.id().as_uuid());
        meta.route_class = self.text().into();
        meta.priority = i16::from_le_bytes(self.array()[..2].try_into().unwrap());
        (meta.deadline, meta.trace) = (self.time(), self.word());
        (meta.ordering_key, meta.principal) = (self.word(), self.word());
        if self.roll() & 1 == 0 {
            let (scope, fingerprint) = (self.array(), self.array());
            meta.idempotency_key = Some(IdempotencyKey::new(scope, fingerprint, Timestamp::from_millis(77)));
        }
        let created = Timestamp::from_millis(self.roll().cast_signed() >> 12);
        let mut envelope = Envelope::service(Invocation::new(meta, self.request()), created);
        (envelope.not_before, envelope.expires) = (self.time(), self.time());
        envelope.hold_until = self.time();
        envelope.max_attempts = u32::from_le_bytes(self.array()[..4].try_into().unwrap());
        envelope.repeatable = self.roll() & 1 == 0;
        envelope.origin = match self.below(3) {
            0 => Origin::First,
            1 => Origin::Redrive(self.id()),
            _ => Origin::Replay(self.id()),
        };
        if self.roll() & 1 == 0 {
            let trigger = [
                TriggerKind::Event,
                TriggerKind::Schedule,
                TriggerKind::Webhook,
                TriggerKind::Call,
                TriggerKind::FollowUp,
            ][self.below(5)];
            let installation = InstallationId::from_uuid(*self.id().as_uuid());
            let mut flow = FlowRef::new(installation, &self.text(), &self.text(), &self.text(), trigger);
            flow.revision = (self.roll() & 1 == 0).then(|| self.roll());
            if self.roll() & 1 == 0 {
                flow.state = crate::ReplayState::Discard;
            }
            envelope.flow = Some(flow);
        }
        envelope
    }
}

fn same_headers(a: &HeaderMap, b: &HeaderMap) {
    let list = |map: &HeaderMap| -> Vec<(String, Vec<u8>, bool)> {
        map.iter()
            .map(|(n, v)| (n.as_str().to_owned(), v.as_bytes().to_vec(), v.is_sensitive()))
            .collect()
    };
    assert_eq!(list(a), list(b));
}

#[test]
fn what_was_written_is_read() {
    for seed in 1..400 {
        let mut dice = Dice(seed * 0x9e37_79b9);
        let request = dice.request();
        let back = decode_request(encode_request(&request).into()).unwrap();
        assert_eq!(
            (back.method(), back.uri(), back.body()),
            (request.method(), request.uri(), request.body()),
            "seed {seed}"
        );
        same_headers(back.headers(), request.headers());

        let reply = dice.reply();
        let back = decode_reply(encode_reply(&reply).into()).unwrap();
        assert_eq!(
            (back.status(), back.body()),
            (reply.status(), reply.body()),
            "seed {seed}"
        );
        same_headers(back.headers(), reply.headers());

        let envelope = dice.envelope();
        let back = decode_envelope(encode_envelope(&envelope).into(), envelope.invocation.request.clone()).unwrap();
        assert_eq!(format!("{back:?}"), format!("{envelope:?}"), "seed {seed}");
    }
}

#[test]
fn a_value_cut_short_or_followed_by_something_is_refused() {
    let mut dice = Dice(42);
    for _ in 0..20 {
        let stored = [
            encode_request(&dice.request()),
            encode_reply(&dice.reply()),
            encode_envelope(&dice.envelope()),
        ];
        for (which, stored) in stored.iter().enumerate() {
            for end in 0..stored.len() {
                let error = decode(which, stored[..end].to_vec()).expect_err("cut short");
                assert_eq!(error.code(), Code::StoreCorrupt);
            }
            let longer = [stored.as_slice(), b"x"].concat();
            assert_eq!(decode(which, longer).unwrap_err().code(), Code::StoreCorrupt);
        }
    }
}

#[test]
fn damage_is_refused_or_read_as_something_valid_and_never_blows_up() {
    let mut dice = Dice(7);
    let mut refused = 0;
    for _ in 0..20_000 {
        let which = dice.below(3);
        let mut stored = match which {
            0 => encode_request(&dice.request()),
            1 => encode_reply(&dice.reply()),
            _ => encode_envelope(&dice.envelope()),
        };
        for _ in 0..=dice.below(3) {
            let at = dice.below(stored.len());
            stored[at] ^= 1 << dice.below(8);
        }
        if let Err(error) = decode(which, stored) {
            assert_eq!(error.code(), Code::StoreCorrupt);
            refused += 1;
        }
    }
    assert!(refused > 1000, "{refused}");
    for _ in 0..20_000 {
        let noise = [[REQUEST, VERSION].as_slice(), &dice.bytes(60)].concat();
        drop((decode(0, noise.clone()), decode(1, noise.clone()), decode(2, noise)));
    }
}

#[test]
fn kinds_and_versions_are_not_mixed_up() {
    let mut dice = Dice(9);
    let request = encode_request(&dice.request());
    assert!(decode_reply(request.clone().into()).is_err());
    let newer = [&[REQUEST, VERSION + 1], request.get(2..).unwrap()].concat();
    let error = decode_request(newer.into()).unwrap_err();
    assert_eq!(error.code(), Code::StoreCorrupt);
    assert!(error.message().contains("another release"), "{error}");
}

#[test]
fn a_huge_length_reserves_nothing() {
    let mut lie = vec![REPLY, VERSION, 200, 1];
    lie.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
    assert_eq!(decode_reply(lie.into()).unwrap_err().code(), Code::StoreCorrupt);
}

fn decode(which: usize, stored: Vec<u8>) -> Result<()> {
    match which {
        0 => decode_request(stored.into()).map(drop),
        1 => decode_reply(stored.into()).map(drop),
        _ => decode_envelope(stored.into(), Request::new(Bytes::new())).map(drop),
    }
}
