//! What a request names as its destination, read as strictly as possible.
//!
//! Everything that a URL parser of some client would take for an address is one here too: `2130706433`, `0x7f.1` and
//! `0177.0.0.1` are `127.0.0.1`. What is neither an address nor a plain name is refused and never given to a resolver.

use crosspoint_core::{Code, Error, Result};
use http::uri::Authority;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The longest name that DNS knows.
const LONGEST: usize = 253;

/// A name or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    /// In lower case, without the dot of the root.
    Name(String),
    Address(IpAddr),
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: Host,
    pub(super) port: u16,
}

impl Place {
    /// Reads `host:port`; the port may be left out only where there is another to take.
    pub(super) fn read(authority: &Authority, otherwise: Option<u16>) -> Result<Self> {
        let text = authority.as_str();
        if text.contains('@') {
            return Err(malformed("a user name or password before the host is not taken"));
        }
        let host = authority.host();
        let port = match text.strip_prefix(host).unwrap_or_default() {
            "" => otherwise,
            rest => rest
                .strip_prefix(':')
                .and_then(plain)
                .and_then(|port| port.parse().ok()),
        };
        let port = port.filter(|port| *port != 0);
        Ok(Self {
            host: Host::read(host)?,
            port: port.ok_or_else(|| malformed("the port is missing or not one"))?,
        })
    }
}

impl Host {
    pub(super) fn read(text: &str) -> Result<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            let address = inner.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok());
            let address = address.ok_or_else(|| malformed("what is in brackets is not an IPv6 address"))?;
            return Ok(Self::Address(address.into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if ends_in_a_number(&name) {
            let address = ipv4(&name).ok_or_else(|| malformed("the host looks like an address and is none"))?;
            return Ok(Self::Address(address.into()));
        }
        if name.len() > LONGEST || !name.split('.').all(is_label) {
            return Err(malformed(
                "the host is not a name of ASCII letters, digits, `-`, `_` and dots; write others in punycode",
            ));
        }
        Ok(Self::Name(name))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn malformed(message: &str) -> Error {
    Error::new(Code::BodyMalformed, message)
}

fn is_label(label: &str) -> bool {
    let sound = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    matches!(label.len(), 1..=63) && label.bytes().all(sound)
}

/// Whether a client could mean an IPv4 address: the last part is a number.
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let digits = !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit());
    digits
        || last
            .strip_prefix("0x")
            .is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// One to four numbers in decimal, octal or hexadecimal, the last of which fills what is left.
fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let numbers: Vec<u64> = text.split('.').map(number).collect::<Option<_>>()?;
    let (last, first) = numbers.split_last()?;
    let left = 4_u32
        .checked_sub(u32::try_from(first.len()).ok()?)
        .filter(|left| *left > 0)?;
    if *last >= 256_u64.pow(left) {
        return None;
    }
    let mut bits = *last;
    for (part, shift) in first.iter().zip([24, 16, 8]) {
        bits |= u64::from(u8::try_from(*part).ok()?) << shift;
    }
    u32::try_from(bits).ok().map(Ipv4Addr::from)
}

fn number(text: &str) -> Option<u64> {
    match (text.strip_prefix("0x"), text.strip_prefix('0')) {
        (Some(""), _) | (_, Some("")) => Some(0),
        (Some(hex), _) => u64::from_str_radix(plain(hex)?, 16).ok(),
        (None, Some(octal)) => u64::from_str_radix(plain(octal)?, 8).ok(),
        (None, None) => plain(text)?.parse().ok(),
    }
}

/// Rust's own parsers take a sign.
fn plain(digits: &str) -> Option<&str> {
    digits.bytes().all(|b| b.is_ascii_alphanumeric()).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String> {
        Place::read(&text.parse().unwrap(), None).map(|place| place.to_string())
    }

    #[test]
    fn every_notation_of_an_address_is_that_address() {
        for text in [
            "169.254.169.254:80",
            "169.254.169.254.:80",
            "2852039166:80",
            "0xa9fea9fe:80",
            "0XA9FEA9FE:80",
            "0251.0376.0251.0376:80",
            "025177524776:80",
            "0xa9.254.0251.0xfe:80",
            "169.254.43518:80",
            "169.16689662:80",
            "0xA9.0xfe.0xa9fe:80",
        ] {
            assert_eq!(read(text).unwrap(), "169.254.169.254:80", "{text}");
        }
        for (text, shown) in [
            ("0:1", "0.0.0.0:1"),
            ("0x:1", "0.0.0.0:1"),
            ("127.1:1", "127.0.0.1:1"),
            ("[::ffff:a9fe:a9fe]:80", "[::ffff:169.254.169.254]:80"),
            ("[0:0::1]:443", "[::1]:443"),
            ("API.Example.COM.:443", "api.example.com:443"),
            ("xn--bcher-kva.example:443", "xn--bcher-kva.example:443"),
            ("1and1.example:443", "1and1.example:443"),
            ("0xyz:443", "0xyz:443"),
        ] {
            assert_eq!(read(text).unwrap(), shown);
        }
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in [
            "host",
            "host:",
            "host:0",
            "host:65536",
            "host:+80",
            "user@host:443",
            "a:b@host:443",
            "256.1.1.1:80",
            "1.2.3.4.5:80",
            "1..2:80",
            "4294967296:80",
            "0x100000000:80",
            "08.1.1.1:80",
            "1.0x1ffffff:80",
            "a..b:80",
            ".a:80",
            "a%2eb:80",
            "a!b:80",
            "[fe80::1]80",
        ] {
            let Ok(authority) = text.parse() else { continue };
            let refused = Place::read(&authority, None);
            assert_eq!(refused.unwrap_err().code(), Code::BodyMalformed, "{text}");
        }
        let long = format!("{}:443", vec!["a".repeat(60); 5].join("."));
        assert!(read(&long).is_err());
        assert!(read(&format!("{}.example:443", "a".repeat(64))).is_err());
        assert_eq!(Place::read(&"h".parse().unwrap(), Some(80)).unwrap().port, 80);
    }
}
