//! `Idempotency-Key`: the scope in which a key counts, and the fingerprint of the request that it stands for.

use bytes::Bytes;
use crosspoint_core::{Code, CustomerId, Error, IdempotencyKey, Result, TargetId, Timestamp};
use http::{HeaderMap, header, request::Parts};
use sha2::{Digest, Sha256};

pub(crate) const KEY_HEADER: &str = "idempotency-key";

/// The longest key that is taken.
const LONGEST: usize = 255;

/// Whom a key belongs to.
pub(crate) struct KeyScope<'a> {
    pub(crate) customer: &'a CustomerId,
    pub(crate) target: &'a TargetId,
    pub(crate) route: &'a str,
    pub(crate) principal: Option<&'a str>,
}

/// The key of a request, if it has one.
pub(crate) fn idempotency_key(
    parts: &Parts,
    body: &Bytes,
    scope: &KeyScope<'_>,
    expires: Timestamp,
) -> Result<Option<IdempotencyKey>> {
    let Some(key) = read(&parts.headers)? else {
        return Ok(None);
    };
    let scope = hash(&[
        scope.customer.as_str().as_bytes(),
        scope.target.as_str().as_bytes(),
        scope.route.as_bytes(),
        // No principal and an empty one are not the same.
        &[u8::from(scope.principal.is_some())],
        scope.principal.unwrap_or_default().as_bytes(),
        &key,
    ]);
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let content_type = parts.headers.get(header::CONTENT_TYPE);
    let fingerprint = hash(&[
        parts.method.as_str().as_bytes(),
        path.as_bytes(),
        content_type.map(http::HeaderValue::as_bytes).unwrap_or_default(),
        body,
    ]);
    Ok(Some(IdempotencyKey::new(scope, fingerprint, expires)))
}

/// Refuses a key that has the wrong form; none at all is well-formed.
pub(crate) fn well_formed(headers: &HeaderMap) -> Result<()> {
    read(headers).map(drop)
}

fn read(headers: &HeaderMap) -> Result<Option<Vec<u8>>> {
    let mut keys = headers.get_all(KEY_HEADER).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    match plain(key.as_bytes()).filter(|_| keys.next().is_none()) {
        Some(key) => Ok(Some(key)),
        None => Err(Error::new(
            Code::KeyMalformed,
            "one Idempotency-Key of 1 to 255 visible ASCII characters is expected, with or without quotes",
        )),
    }
}

/// The key without the quotes that a structured field has (RFC 9651, 3.3.3); without them it is taken as it is.
fn plain(value: &[u8]) -> Option<Vec<u8>> {
    let key = match value.strip_prefix(b"\"") {
        None => value.to_vec(),
        Some(rest) => {
            let mut characters = rest.strip_suffix(b"\"")?.iter().copied();
            let mut key = Vec::with_capacity(rest.len());
            while let Some(character) = characters.next() {
                key.push(match character {
                    b'\\' => characters.next().filter(|next| matches!(next, b'"' | b'\\'))?,
                    b'"' => return None,
                    plain => plain,
                });
            }
            key
        }
    };
    let fits = (1..=LONGEST).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
    fits.then_some(key)
}

/// The parts, each with its length, so that they cannot run into each other.
fn hash(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    let digest: [u8; 32] = hash.finalize().into();
    let mut half = [0; 16];
    half.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(method: &str, uri: &str, key: &str, principal: Option<&str>, body: &'static [u8]) -> IdempotencyKey {
        let request = http::Request::builder().method(method).uri(uri).header(KEY_HEADER, key);
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let scope = KeyScope {
            customer: &CustomerId::new("acme").unwrap(),
            target: &TargetId::new("scan").unwrap(),
            route: "/scan",
            principal,
        };
        idempotency_key(&parts, &Bytes::from_static(body), &scope, Timestamp::EPOCH)
            .unwrap()
            .unwrap()
    }

    #[test]
    fn the_scope_tells_principals_apart_and_the_fingerprint_requests() {
        let base = key("POST", "/scan", "k", Some("ann"), b"1");
        assert_eq!(base, key("POST", "/scan", "k", Some("ann"), b"1"));
        for other in [
            key("POST", "/scan", "k", Some("bob"), b"1"),
            key("POST", "/scan", "k", None, b"1"),
            key("POST", "/scan", "l", Some("ann"), b"1"),
        ] {
            assert_ne!(base.scope, other.scope);
            assert_eq!(base.fingerprint, other.fingerprint);
        }
        for other in [
            key("PUT", "/scan", "k", Some("ann"), b"1"),
            key("POST", "/scan?x=1", "k", Some("ann"), b"1"),
            key("POST", "/scan", "k", Some("ann"), b"2"),
        ] {
            assert_eq!(base.scope, other.scope);
            assert_ne!(base.fingerprint, other.fingerprint);
        }
    }

    #[test]
    fn a_quoted_key_is_the_same_as_a_bare_one() {
        let bare = key("POST", "/scan", "8e03978e", None, b"1");
        assert_eq!(bare, key("POST", "/scan", "\"8e03978e\"", None, b"1"));
        let longest = "x".repeat(LONGEST);
        assert_eq!(
            key("POST", "/scan", &longest, None, b"1"),
            key("POST", "/scan", &format!("\"{longest}\""), None, b"1")
        );
        assert_eq!(plain(br#""a\"b\\c""#).unwrap(), br#"a"b\c"#);
    }

    #[test]
    fn the_fingerprint_covers_the_content_type() {
        let of = |content_type: &str| {
            let request = http::Request::post("/scan").header(KEY_HEADER, "k");
            let (parts, ()) = request
                .header("content-type", content_type)
                .body(())
                .unwrap()
                .into_parts();
            let scope = KeyScope {
                customer: &CustomerId::new("acme").unwrap(),
                target: &TargetId::new("scan").unwrap(),
                route: "",
                principal: None,
            };
            idempotency_key(&parts, &Bytes::new(), &scope, Timestamp::EPOCH)
                .unwrap()
                .unwrap()
        };
        assert_eq!(of("application/json").scope, of("text/plain").scope);
        assert_ne!(of("application/json").fingerprint, of("text/plain").fingerprint);
    }

    #[test]
    fn a_key_that_is_empty_too_long_or_doubled_is_refused() {
        for values in [
            vec![String::new()],
            vec!["\"\"".into()],
            vec!["x".repeat(256)],
            vec![format!("\"{}\"", "x".repeat(256))],
            vec!["two words".into()],
            vec!["\"open".into()],
            vec!["\"".into()],
            vec!["\"a\"b\"".into()],
            vec!["\"a\\\"".into()],
            vec!["\"a\\b\"".into()],
            vec!["a".into(), "b".into()],
        ] {
            let mut request = http::Request::builder();
            for value in &values {
                request = request.header(KEY_HEADER, value);
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            let scope = KeyScope {
                customer: &CustomerId::new("acme").unwrap(),
                target: &TargetId::new("scan").unwrap(),
                route: "",
                principal: None,
            };
            let error = idempotency_key(&parts, &Bytes::new(), &scope, Timestamp::EPOCH).unwrap_err();
            assert_eq!(error.code(), Code::KeyMalformed, "{values:?}");
        }
    }
}
