//! `Server-Timing` (W3C): how long an answer stood in the queue, and how long the attempt took that made it.

use http::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Adds the two figures beside whatever the service itself has timed.
pub(crate) fn stamp(headers: &mut HeaderMap, queued: Duration, ran: Duration) {
    let text = format!("queue;dur={}, run;dur={}", queued.as_millis(), ran.as_millis());
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.append(SERVER_TIMING, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_the_service_stay() {
        let mut headers = HeaderMap::new();
        headers.insert(SERVER_TIMING, HeaderValue::from_static("db;dur=7"));
        stamp(&mut headers, Duration::from_millis(1500), Duration::from_micros(2900));
        let values: Vec<_> = headers.get_all(SERVER_TIMING).iter().collect();
        assert_eq!(values, ["db;dur=7", "queue;dur=1500, run;dur=2"]);
    }
}
