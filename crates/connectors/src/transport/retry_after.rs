//! `Retry-After`: seconds, or a date.

use crosspoint_core::Timestamp;
use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use std::time::Duration;

/// When a provider that is busy wants to be asked again.
///
/// Only 429 and 503 are looked at. A value that is neither seconds nor a date of RFC 9110's preferred form says nothing.
///
/// ```
/// use crosspoint_connectors::retry_after;
/// use crosspoint_core::Timestamp;
/// let mut headers = http::HeaderMap::new();
/// headers.insert("retry-after", "30".parse().unwrap());
/// let now = Timestamp::from_millis(1000);
/// let at = retry_after(http::StatusCode::TOO_MANY_REQUESTS, &headers, now);
/// assert_eq!(at, Some(Timestamp::from_millis(31_000)));
/// ```
#[must_use]
pub fn retry_after(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Option<Timestamp> {
    if !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return None;
    }
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse::<u64>() {
        Ok(seconds) => Some(now.plus(Duration::from_secs(seconds))),
        Err(_) => http_date(text),
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<Timestamp> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let mut words = text.split_once(", ")?.1.split(' ');
    let (day, month, year) = (words.next()?, words.next()?, words.next()?);
    let (time, zone, end) = (words.next()?, words.next()?, words.next());
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    if zone != "GMT" || end.is_some() || day.len() != 2 {
        return None;
    }
    format!("{year}-{month:02}-{day}T{time}Z").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(status: u16, value: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, value.parse().unwrap());
        let now = "2026-11-21T09:30:00Z".parse().unwrap();
        retry_after(StatusCode::from_u16(status).unwrap(), &headers, now).map(|time| time.to_string())
    }

    #[test]
    fn seconds_and_dates_are_read() {
        assert_eq!(at(429, "90").as_deref(), Some("2026-11-21T09:31:30.000Z"));
        assert_eq!(at(503, " 0 ").as_deref(), Some("2026-11-21T09:30:00.000Z"));
        assert_eq!(
            at(429, "Sun, 06 Nov 1994 08:49:37 GMT").as_deref(),
            Some("1994-11-06T08:49:37.000Z")
        );
    }

    #[test]
    fn anything_else_says_nothing() {
        for value in [
            "",
            "-5",
            "1.5",
            "soon",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "99999999999999999999999",
        ] {
            assert_eq!(at(429, value), None, "{value}");
        }
        assert_eq!(at(500, "90"), None);
        assert!(at(429, "18446744073709551615").is_some());
    }
}
