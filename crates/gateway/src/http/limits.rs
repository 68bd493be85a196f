//! The `RateLimit` fields (IETF httpapi draft 09): which quota a refusal is about.

use http::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Says that a customer has used up its `quota` of calls that wait at once, and when it may look again.
pub(crate) fn used_up(headers: &mut HeaderMap, quota: usize, again: Duration) {
    let again = again.as_millis().div_ceil(1000).max(1);
    // `qu` names the unit: what is counted are requests that wait, not requests within a time.
    let policy = format!("\"held\";q={quota};qu=\"concurrent-requests\"");
    for (name, text) in [(POLICY, policy), (LIMIT, format!("\"held\";r=0;t={again}"))] {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_name_the_quota_and_what_is_left_of_it() {
        let mut headers = HeaderMap::new();
        used_up(&mut headers, 1000, Duration::from_millis(1200));
        assert_eq!(headers[POLICY], "\"held\";q=1000;qu=\"concurrent-requests\"");
        assert_eq!(headers[LIMIT], "\"held\";r=0;t=2");
    }
}
