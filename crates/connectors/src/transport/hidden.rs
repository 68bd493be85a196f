//! Secrets that a provider has copied into its answer, and somebody who must not see them.

use bytes::{Bytes, BytesMut};
use crosspoint_core::{ExposeSecret, SecretString};
use http::{HeaderMap, HeaderValue};

/// Shorter values would blank out half of an answer, and protect nothing.
const SHORTEST: usize = 8;

/// What stands in a secret's place.
const MASK: &[u8] = b"[secret]";

/// What must not be seen, in the forms in which it is sent. Other forms (a hash, another encoding) are not recognised, so
/// this is against providers that are careless, not against those that help.
#[derive(Clone, Default)]
pub(super) struct Hidden(Vec<SecretString>);

impl Hidden {
    pub(super) fn add(&mut self, secret: &str) {
        let known = self.0.iter().any(|known| known.expose_secret() == secret);
        if secret.len() >= SHORTEST && !known {
            self.0.push(SecretString::from(secret));
        }
    }

    pub(super) fn mask(&self, answer: &mut http::Response<Bytes>) {
        for secret in &self.0 {
            let secret = secret.expose_secret().as_bytes();
            mask_headers(answer.headers_mut(), secret);
            if let Some(masked) = masked(answer.body(), secret) {
                *answer.body_mut() = masked;
                // It has another length now, and may be checked against neither of these.
                for name in ["content-length", "content-md5", "digest", "content-digest", "etag"] {
                    answer.headers_mut().remove(name);
                }
            }
        }
    }
}

fn mask_headers(headers: &mut HeaderMap, secret: &[u8]) {
    for value in headers.values_mut() {
        if let Some(masked) = masked(value.as_bytes(), secret) {
            *value = HeaderValue::from_maybe_shared(masked).unwrap_or(HeaderValue::from_static("[secret]"));
        }
    }
}

/// With every occurrence replaced, if there is one.
fn masked(text: &[u8], secret: &[u8]) -> Option<Bytes> {
    let mut rest = text;
    let mut out = BytesMut::new();
    while let Some(at) = rest.windows(secret.len()).position(|window| window == secret) {
        let (before, from) = rest.split_at_checked(at)?;
        out.extend_from_slice(before);
        out.extend_from_slice(MASK);
        rest = from.get(secret.len()..)?;
    }
    if out.is_empty() {
        return None;
    }
    out.extend_from_slice(rest);
    Some(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_occurrence_is_replaced() {
        for (text, expected) in [
            ("canary-1", Some("[secret]")),
            ("a canary-1canary-1 b", Some("a [secret][secret] b")),
            ("canary-", None),
            ("", None),
        ] {
            let found = masked(text.as_bytes(), b"canary-1");
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{text}");
        }
    }

    #[test]
    fn short_secrets_are_left_alone() {
        let mut hidden = Hidden::default();
        hidden.add("shop");
        hidden.add("");
        let mut answer = http::Response::new(Bytes::from_static(b"a shop"));
        hidden.mask(&mut answer);
        assert_eq!(answer.body(), "a shop");
    }
}
