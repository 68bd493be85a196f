//! `Prefer` (RFC 7240): how long a client wants to wait.

use http::HeaderMap;
use std::time::Duration;

/// What a client prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Prefer {
    pub(crate) respond_async: bool,
    pub(crate) wait: Option<Duration>,
}

impl Prefer {
    /// Reads every `Prefer` header; what is not understood is ignored, and the first of several values counts.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut prefer = Self::default();
        let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        for preference in values.flat_map(|value| value.split(',')) {
            let token = preference.split(';').next().unwrap_or_default().trim();
            let (name, value) = token.split_once('=').unwrap_or((token, ""));
            if name.trim_end().eq_ignore_ascii_case("respond-async") {
                prefer.respond_async = true;
            } else if name.trim_end().eq_ignore_ascii_case("wait") && prefer.wait.is_none() {
                let seconds = value.trim().trim_matches('"').parse().ok();
                prefer.wait = seconds.map(Duration::from_secs);
            }
        }
        prefer
    }

    /// How long to hold, given the most that is allowed.
    pub(crate) fn hold(&self, most: Duration) -> Duration {
        match self.wait {
            Some(wait) => wait.min(most),
            None if self.respond_async => Duration::ZERO,
            None => most,
        }
    }

    /// The `Preference-Applied` of an answer that came before the reply, after `waited`. A client that asked for more than
    /// it was kept waiting (a cap, a shutdown, no room for more clients) is not told that it got it.
    pub(crate) fn applied(&self, waited: Duration) -> Option<String> {
        let wait = self
            .wait
            .filter(|wait| *wait <= waited)
            .map(|wait| format!("wait={}", wait.as_secs()));
        match (self.respond_async, wait) {
            (true, Some(wait)) => Some(format!("respond-async, {wait}")),
            (true, None) => Some("respond-async".to_owned()),
            (false, wait) => wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&'static str]) -> Prefer {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("prefer", http::HeaderValue::from_static(value));
        }
        Prefer::of(&headers)
    }

    #[test]
    fn preferences_are_read_from_every_header_and_nonsense_is_ignored() {
        let most = Duration::from_secs(10);
        assert_eq!(of(&[]).hold(most), most);
        assert_eq!(of(&["respond-async"]).hold(most), Duration::ZERO);
        assert_eq!(of(&["Respond-Async, wait=3"]).hold(most), Duration::from_secs(3));
        assert_eq!(
            of(&["wait=\"4\"; x=y", "respond-async"]).hold(most),
            Duration::from_secs(4)
        );
        assert_eq!(of(&["wait=60"]).hold(most), most);
        assert_eq!(of(&["wait=-1, wait=soon, return=minimal"]).hold(most), most);
    }

    #[test]
    fn only_what_was_done_is_said_to_be_applied() {
        assert_eq!(of(&["wait=60"]).applied(Duration::from_secs(10)), None);
        assert_eq!(of(&["wait=5"]).applied(Duration::from_secs(5)).unwrap(), "wait=5");
        let both = of(&["respond-async, wait=5"]).applied(Duration::from_millis(5001));
        assert_eq!(both.unwrap(), "respond-async, wait=5");
        let cut = of(&["respond-async, wait=5"]).applied(Duration::from_secs(4));
        assert_eq!(cut.unwrap(), "respond-async");
    }
}
