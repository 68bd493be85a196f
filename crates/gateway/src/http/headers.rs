//! Which headers are kept.

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
const CREDENTIALS: [HeaderName; 3] = [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION];

/// They set or prove a login. Whoever fetches a stored reply is not always the browser that they were meant for.
const OF_THE_SESSION: [HeaderName; 3] = [
    header::SET_COOKIE,
    HeaderName::from_static("proxy-authentication-info"),
    HeaderName::from_static("authentication-info"),
];

/// A request's headers as they are stored: without credentials and without what belongs to the connection.
pub(crate) fn for_storage(headers: &mut HeaderMap) {
    for_reply(headers);
    for name in &CREDENTIALS {
        headers.remove(name);
    }
    headers.remove("prefer");
    headers.remove(crate::callback::HEADER);
    headers.remove(crate::replay::WITHOUT_REQUEST);
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

/// A reply's headers as they are stored: also without what sets or proves a login.
pub(crate) fn for_stored_reply(headers: &mut HeaderMap) {
    for_reply(headers);
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
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        for_storage(&mut headers);
        let mut kept: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        kept.sort_unstable();
        assert_eq!(kept, ["content-type", "x-request"]);
    }

    #[test]
    fn a_stored_reply_sets_no_session_but_still_says_how_to_log_in() {
        let mut headers = HeaderMap::new();
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
        for_stored_reply(&mut headers);
        let mut kept: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        kept.sort_unstable();
        assert_eq!(kept, ["etag", "www-authenticate"]);
    }

    #[test]
    fn a_wait_is_rounded_up_to_seconds() {
        assert_eq!(retry_after(Duration::ZERO), "1");
        assert_eq!(retry_after(Duration::from_millis(1001)), "2");
    }
}
