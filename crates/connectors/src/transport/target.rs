//! Base URLs, and what may be put behind them.

use crosspoint_core::{Code, EgressPolicy, Error, Result};
use std::fmt;
use url::Url;

/// Where the requests of a connection go: scheme, host, port and the path that all of them share.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Base {
    url: Url,
    /// Without a slash at its end, so `""` for the root.
    path: String,
}

impl Base {
    /// Reads a base URL; the error says what is wrong, in words that follow "the base URL".
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let url = Url::parse(text.trim()).map_err(|_| "is not a URL such as https://api.example.com/v1")?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err("begins with https://");
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err("has no host");
        }
        if has_user(&url) {
            return Err("has a user name or password in it; they belong into the credential");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("has a `?` or `#` part, which a base URL cannot have");
        }
        let path = url.path().trim_end_matches('/').to_owned();
        Ok(Self { url, path })
    }

    pub(crate) const fn url(&self) -> &Url {
        &self.url
    }

    /// The URL of a request: a path below this base, or an absolute URL of the same origin.
    pub(crate) fn join(&self, uri: &http::Uri) -> Result<Url> {
        if uri.scheme().is_some() {
            let url = Url::parse(&uri.to_string()).map_err(|_| invalid("the URL of the request is not valid"))?;
            if has_user(&url) || !same_origin(&url, &self.url) {
                return Err(
                    invalid("the URL of the request is not at the connection's own scheme, host and port")
                        .with("host", url.host_str().unwrap_or_default()),
                );
            }
            return Ok(url);
        }
        let below = uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
        if uri.authority().is_some() || !below.starts_with('/') {
            return Err(invalid("the path of the request begins with `/`"));
        }
        let mut url = self.url.clone();
        let (path, query) = below
            .split_once('?')
            .map_or((below, None), |(path, query)| (path, Some(query)));
        url.set_path(&format!("{}{path}", self.path));
        url.set_query(query);
        if self.below(url.path()).is_none() {
            return Err(invalid(
                "the path of the request leaves the connection's base URL by `..`",
            ));
        }
        Ok(url)
    }

    /// The part of a path behind the base's own, which may hold a secret (as the URLs of chat webhooks do).
    pub(crate) fn below<'a>(&self, path: &'a str) -> Option<&'a str> {
        path.strip_prefix(self.path.as_str())
            .filter(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base({})", self.url.origin().ascii_serialization())
    }
}

fn invalid(message: &str) -> Error {
    Error::new(Code::InputInvalid, message)
}

pub(crate) fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

pub(crate) fn same_origin(one: &Url, other: &Url) -> bool {
    one.origin() == other.origin()
}

/// Host and port as the egress rules take them.
pub(crate) fn host_and_port(url: &Url) -> (&str, u16) {
    (
        url.host_str().unwrap_or_default(),
        url.port_or_known_default().unwrap_or(0),
    )
}

/// Checks what a URL itself says. Its name, if it has one, is checked when it is resolved.
pub(crate) fn check_url(policy: &EgressPolicy, url: &Url) -> Result<()> {
    let (host, port) = host_and_port(url);
    let refuse = |rule: &str, message: &str| {
        Err(Error::new(Code::EgressRefused, message)
            .with("rule", rule)
            .with("host", host))
    };
    if !matches!(url.scheme(), "https" | "http") {
        return refuse("scheme", "only http and https are called");
    }
    if has_user(url) {
        return refuse("userinfo", "the URL has a user name or password in it");
    }
    policy.check_host(url.scheme() == "https", host, port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(base: &str, uri: &str) -> Result<String> {
        Base::parse(base)
            .unwrap()
            .join(&uri.parse().unwrap())
            .map(|url| url.to_string())
    }

    #[test]
    fn paths_stay_below_the_base() {
        for (base, uri, expected) in [
            ("https://a.example/v1/", "/me", "https://a.example/v1/me"),
            ("https://a.example", "/me?q=1%202", "https://a.example/me?q=1%202"),
            ("https://a.example/v1", "/", "https://a.example/v1/"),
            (
                "https://a.example/v1",
                "//b.example/x",
                "https://a.example/v1//b.example/x",
            ),
            ("https://a.example", "//b.example/x", "https://a.example//b.example/x"),
            ("https://a.example/v1", "/x/../y", "https://a.example/v1/y"),
            (
                "https://a.example/v1",
                "https://a.example/v2/next",
                "https://a.example/v2/next",
            ),
            ("https://a.example/v1", "https://a.example:443/n", "https://a.example/n"),
        ] {
            assert_eq!(join(base, uri).unwrap(), expected, "{base} {uri}");
        }
        for uri in [
            "/../admin",
            "/%2e%2E/admin",
            "/..%5cadmin/../..",
            "/x/../../../admin",
            "https://b.example/v1/me",
            "http://a.example/v1/me",
            "https://a.example:444/v1/me",
            "https://user@a.example/v1/me",
            "a.example",
            "*",
        ] {
            let refused = join("https://a.example/v1", uri).unwrap_err();
            assert_eq!(refused.code(), Code::InputInvalid, "{uri}");
        }
    }

    #[test]
    fn base_urls_are_checked() {
        for text in [
            "",
            "api.example.com",
            "ftp://a.example",
            "file:///etc/passwd",
            "https://u:p@a.example",
            "https://a.example/?q=1",
            "https://a.example/#x",
            "https://",
        ] {
            assert!(Base::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn disguised_loopback_is_seen() {
        let policy = EgressPolicy::new();
        for url in [
            "https://2130706433/",
            "https://0x7f.1/",
            "https://0177.0.0.1/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::1]:8443/",
            "https://①②⑦.0.0.1/",
        ] {
            let refused = check_url(&policy, &Url::parse(url).unwrap()).unwrap_err();
            assert_eq!(refused.code(), Code::EgressRefused, "{url}");
        }
    }

    #[test]
    fn debug_keeps_the_path_of_the_base_to_itself() {
        let base = Base::parse("https://hooks.example/services/canary-41").unwrap();
        assert!(!format!("{base:?}").contains("canary-41"));
    }
}
