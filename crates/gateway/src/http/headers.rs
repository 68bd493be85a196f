//! Which headers are kept.

use crosspoint_core::Reply;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::time::Duration;

/// They describe one connection and mean nothing on another (RFC 9110, 7.6.1), or a length that is counted anew.
const OF_THE_CONNECTION: [HeaderName; 9] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Credentials are not written to a store; the replay says who called.
const CREDENTIALS: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-auth-token"),
    HeaderName::from_static("x-access-token"),
    HeaderName::from_static("x-csrf-token"),
];

/// Headers between gateway and replica begin so. Whoever else sends one has made it up.
pub(crate) const OURS: &str = "crosspoint-";

/// They set or prove a login. Whoever fetches a stored reply is not always the browser that they were meant for.
const OF_THE_SESSION: [HeaderName; 3] = [
    header::SET_COOKIE,
    HeaderName::from_static("proxy-authentication-info"),
    HeaderName::from_static("authentication-info"),
];

/// A request's headers as they are stored: without credentials, without `secret` ones and those marked sensitive, and
/// without what belongs to the connection or is only ours to say.
pub(crate) fn for_storage(headers: &mut HeaderMap, secret: &[HeaderName]) {
    for_reply(headers);
    let dropped: Vec<HeaderName> = headers
        .iter()
        .filter(|(name, value)| value.is_sensitive() || name.as_str().starts_with(OURS))
        .map(|(name, _)| name.clone())
        .collect();
    for name in CREDENTIALS.iter().chain(secret).chain(&dropped) {
        headers.remove(name);
    }
    headers.remove("prefer");
    headers.remove(crate::callback::HEADER);
}

/// A reply's headers without what belongs to the connection.
pub(crate) fn for_reply(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in OF_THE_CONNECTION.iter().chain(&named) {
        headers.remove(name);
    }
}

/// A reply without what belongs to the connection. Where it has no body, the length that it names is that of what it
/// stands for: it answers `HEAD`.
pub(crate) fn for_kept_reply(reply: &mut Reply) {
    let named = reply
        .headers()
        .get(header::CONTENT_LENGTH)
        .filter(|length| *length != "0");
    let named = named.filter(|_| reply.body().is_empty()).cloned();
    for_reply(reply.headers_mut());
    if let Some(length) = named {
        reply.headers_mut().insert(header::CONTENT_LENGTH, length);
    }
}

/// A reply as it is stored: also without what sets or proves a login.
pub(crate) fn for_stored_reply(reply: &mut Reply) {
    for_kept_reply(reply);
    let headers = reply.headers_mut();
    for name in &OF_THE_SESSION {
        headers.remove(name);
    }
}

/// As `Retry-After`: in [`whole_seconds`].
pub(crate) fn retry_after(after: Duration) -> HeaderValue {
    HeaderValue::from(whole_seconds(after))
}

/// Whole seconds, at least one: never sooner than was meant.
pub(crate) fn whole_seconds(after: Duration) -> u64 {
    let seconds = after.as_millis().div_ceil(1000).max(1);
    u64::try_from(seconds).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_never_rounded_down() {
        for (millis, seconds) in [(0, 1), (400, 1), (1000, 1), (2000, 2), (2001, 3), (59_900, 60)] {
            let after = Duration::from_millis(millis);
            assert_eq!(whole_seconds(after), seconds);
            assert_eq!(retry_after(after), seconds.to_string().as_str());
        }
    }

    #[test]
    fn credentials_and_the_connection_stay_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer x"),
            ("cookie", "session=x"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("prefer", "wait=1"),
            ("content-type", "text/plain"),
            ("x-request", "7"),
            ("x-api-key", "x"),
            ("api-key", "x"),
            ("x-auth-token", "x"),
            ("x-access-token", "x"),
            ("x-csrf-token", "x"),
            ("x-told", "x"),
            ("crosspoint-customer", "x"),
            ("crosspoint-without-request", "x"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let mut marked = HeaderValue::from_static("x");
        marked.set_sensitive(true);
        headers.insert("x-marked", marked);
        for_storage(&mut headers, &[HeaderName::from_static("x-told")]);
        let mut kept: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        kept.sort_unstable();
        assert_eq!(kept, ["content-type", "x-request"]);
    }

    #[test]
    fn a_stored_reply_sets_no_session_but_still_says_how_to_log_in() {
        let mut reply = Reply::default();
        let headers = reply.headers_mut();
        for name in [
            "set-cookie",
            "set-cookie",
            "authentication-info",
            "proxy-authenticate",
            "proxy-authentication-info",
            "www-authenticate",
            "etag",
        ] {
            headers.append(name, HeaderValue::from_static("x"));
        }
        for_stored_reply(&mut reply);
        let mut kept: Vec<_> = reply.headers().keys().map(HeaderName::as_str).collect();
        kept.sort_unstable();
        assert_eq!(kept, ["etag", "www-authenticate"]);
    }

    #[test]
    fn only_a_reply_without_a_body_keeps_the_length_that_it_names() {
        for (body, length, kept) in [("", "42", true), ("", "0", false), ("text", "4", false)] {
            let mut reply = Reply::new(body.into());
            let value = HeaderValue::from_static(length);
            reply.headers_mut().insert(header::CONTENT_LENGTH, value);
            for_stored_reply(&mut reply);
            assert_eq!(
                reply.headers().contains_key(header::CONTENT_LENGTH),
                kept,
                "{body} {length}"
            );
        }
    }

    #[test]
    fn a_wait_is_rounded_up_to_seconds() {
        assert_eq!(retry_after(Duration::ZERO), "1");
        assert_eq!(retry_after(Duration::from_millis(1001)), "2");
    }
}
