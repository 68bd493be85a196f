//! How a run learns the way out.

use crosspoint_core::Egress;
use std::{fmt::Write as _, path::Path};

/// Where the run finds the service.
#[derive(Debug, Clone, Copy)]
pub(crate) enum At<'a> {
    /// On this port of 127.0.0.1.
    Port(u16),
    /// On this socket.
    Socket(&'a Path),
}

/// Environment variables for a run: where each of its connections is, and for [`Egress::Allow`] those by which HTTP
/// clients find their proxy. `variable` makes a slot's name a part of an environment variable's.
///
/// There is no variable by which clients find a proxy on a socket: there, they have to be told.
pub(crate) fn environment<'a>(
    egress: &Egress,
    at: At<'_>,
    prefix: &str,
    slots: impl IntoIterator<Item = &'a str>,
    variable: impl Fn(&str) -> String,
) -> Vec<(String, String)> {
    let proxied = match egress {
        Egress::Broker => false,
        Egress::Allow(_) => true,
        _ => return Vec::new(),
    };
    let mut found = Vec::new();
    let base = match at {
        At::Port(port) => format!("http://127.0.0.1:{port}"),
        At::Socket(path) => {
            found.push((format!("{prefix}_NETWORK_SOCKET"), path.to_string_lossy().into_owned()));
            "http://localhost".to_owned()
        }
    };
    found.extend(slots.into_iter().map(|slot| {
        let name = format!("{prefix}_CONNECTION_{}", variable(slot));
        (name, format!("{base}/c/{}", encoded(slot)))
    }));
    if proxied && matches!(at, At::Port(_)) {
        let direct = "127.0.0.1,localhost";
        let set = [
            ("HTTP_PROXY", base.as_str()),
            ("HTTPS_PROXY", base.as_str()),
            ("NO_PROXY", direct),
            ("http_proxy", base.as_str()),
            ("https_proxy", base.as_str()),
            ("no_proxy", direct),
            // Node asks for it by name.
            ("NODE_USE_ENV_PROXY", "1"),
        ];
        found.extend(set.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    found
}

fn encoded(slot: &str) -> String {
    let mut out = String::with_capacity(slot.len());
    for byte in slot.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").ok();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(egress: &Egress, at: At<'_>) -> Vec<(String, String)> {
        environment(egress, at, "XP", ["shop", "my ä"], str::to_ascii_uppercase)
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        expected.iter().map(owned).collect()
    }

    #[test]
    fn each_connection_has_its_variable() {
        let expected = pairs(&[
            ("XP_CONNECTION_SHOP", "http://127.0.0.1:8/c/shop"),
            ("XP_CONNECTION_MY ä", "http://127.0.0.1:8/c/my%20%C3%A4"),
        ]);
        assert_eq!(of(&Egress::Broker, At::Port(8)), expected);
        let expected = pairs(&[
            ("XP_NETWORK_SOCKET", "/w/net"),
            ("XP_CONNECTION_SHOP", "http://localhost/c/shop"),
            ("XP_CONNECTION_MY ä", "http://localhost/c/my%20%C3%A4"),
        ]);
        let socket = At::Socket(Path::new("/w/net"));
        assert_eq!(of(&Egress::Broker, socket), expected);
        assert_eq!(of(&Egress::Allow(Vec::new()), socket), expected);
    }

    #[test]
    fn only_a_proxy_is_announced() {
        for egress in [Egress::None, Egress::Open] {
            assert!(of(&egress, At::Port(8)).is_empty());
        }
        let allowed = of(&Egress::Allow(Vec::new()), At::Port(8));
        assert!(allowed.contains(&("https_proxy".to_owned(), "http://127.0.0.1:8".to_owned())));
        assert_eq!(allowed.len(), 9);
    }
}
