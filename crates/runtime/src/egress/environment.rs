//! How a run learns the way out.

use crosspoint_core::Egress;

/// Environment variables for a service at `http://127.0.0.1:<port>`: where each connection is, and for [`Egress::Allow`]
/// those by which HTTP clients find their proxy. `variable` makes a slot's name one of an environment variable.
pub(crate) fn environment<'a>(
    egress: &Egress,
    prefix: &str,
    port: u16,
    slots: impl IntoIterator<Item = &'a str>,
    variable: impl Fn(&str) -> String,
) -> Vec<(String, String)> {
    let at = format!("http://127.0.0.1:{port}");
    let proxied = match egress {
        Egress::Broker => false,
        Egress::Allow(_) => true,
        _ => return Vec::new(),
    };
    let mut found: Vec<_> = slots
        .into_iter()
        .map(|slot| {
            let name = format!("{prefix}_CONNECTION_{}", variable(slot));
            (name, format!("{at}/c/{}", encoded(slot)))
        })
        .collect();
    if proxied {
        let direct = "127.0.0.1,localhost";
        let set = [
            ("HTTP_PROXY", at.as_str()),
            ("HTTPS_PROXY", at.as_str()),
            ("NO_PROXY", direct),
            ("http_proxy", at.as_str()),
            ("https_proxy", at.as_str()),
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
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(egress: &Egress) -> Vec<(String, String)> {
        environment(egress, "XP", 8, ["shop", "my ä"], str::to_ascii_uppercase)
    }

    #[test]
    fn each_connection_has_its_variable() {
        let found = of(&Egress::Broker);
        let expected = [
            ("XP_CONNECTION_SHOP", "http://127.0.0.1:8/c/shop"),
            ("XP_CONNECTION_MY ä", "http://127.0.0.1:8/c/my%20%C3%A4"),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn only_a_proxy_is_announced() {
        assert!(of(&Egress::None).is_empty() && of(&Egress::Open).is_empty());
        let allowed = of(&Egress::Allow(Vec::new()));
        assert!(allowed.contains(&("https_proxy".to_owned(), "http://127.0.0.1:8".to_owned())));
        assert_eq!(allowed.len(), 9);
    }
}
