//! Which addresses may be called: pure rules, without a network.
//!
//! A URL that a customer typed, and every redirect that a provider sends, can point into the host's own network. These
//! rules say what is public. Whoever opens connections applies them twice: to the host of the URL
//! ([`EgressPolicy::check_host`]), and to the addresses that its name resolved to ([`EgressPolicy::check_address`]),
//! and then connects to exactly those addresses.

use crate::{Code, Error, Result};
use async_trait::async_trait;
use std::{
    fmt,
    fmt::Debug,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reach {
    /// A public unicast address: the only kind that may be called without a rule.
    Public,
    /// `0.0.0.0/8` and `::`, which reach the machine itself on many systems.
    Unspecified,
    /// `127.0.0.0/8` and `::1`.
    Loopback,
    /// A private network: RFC 1918, and `fc00::/7` and `fec0::/10` of IPv6.
    Private,
    /// `169.254.0.0/16` and `fe80::/10`; the metadata services of clouds are here.
    LinkLocal,
    /// `100.64.0.0/10`, shared by carriers and used inside clouds.
    CarrierNat,
    /// For documentation only.
    Documentation,
    /// For benchmarks only.
    Benchmark,
    /// A group of machines.
    Multicast,
    /// Not given to anybody.
    Reserved,
    /// An IPv4 address written as IPv6 (`::ffff:0:0/96`, `::/96`).
    EmbeddedV4,
    /// An IPv4 address behind a translator or a tunnel: NAT64, 6to4, Teredo.
    Translated,
}

impl Reach {
    /// In a few words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Private => "private network",
            Self::LinkLocal => "link-local",
            Self::CarrierNat => "carrier NAT",
            Self::Documentation => "documentation",
            Self::Benchmark => "benchmark",
            Self::Multicast => "multicast",
            Self::Reserved => "reserved",
            Self::EmbeddedV4 => "IPv4 within IPv6",
            Self::Translated => "translated or tunnelled IPv4",
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an address is for.
///
/// ```
/// use crosspoint_core::{Reach, reach};
/// assert_eq!(reach("169.254.169.254".parse().unwrap()), Reach::LinkLocal);
/// assert_eq!(reach("9.9.9.9".parse().unwrap()), Reach::Public);
/// ```
#[must_use]
pub const fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => reach_v6(v6),
    }
}

/// Whether an address may be called without a rule that permits it.
#[must_use]
pub const fn is_public(address: IpAddr) -> bool {
    matches!(reach(address), Reach::Public)
}

const fn reach_v4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        [0, ..] => Reach::Unspecified,
        [127, ..] => Reach::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Reach::Private,
        [169, 254, ..] => Reach::LinkLocal,
        [100, 64..=127, ..] => Reach::CarrierNat,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Reach::Documentation,
        [198, 18..=19, ..] => Reach::Benchmark,
        [192, 88, 99, _] => Reach::Translated,
        [224..=239, ..] => Reach::Multicast,
        [240..=255, ..] | [192, 0, 0, _] => Reach::Reserved,
        _ => Reach::Public,
    }
}

const fn reach_v6(address: Ipv6Addr) -> Reach {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Reach::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Reach::Loopback,
        [0, 0, 0, 0, 0, 0xffff | 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => Reach::EmbeddedV4,
        [0x64, 0xff9b, ..] | [0x2002, ..] | [0x2001, 0, ..] => Reach::Translated,
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Reach::Private,
        [0xfe80..=0xfebf, ..] => Reach::LinkLocal,
        [0xff00..=0xffff, ..] => Reach::Multicast,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Reach::Documentation,
        [0x2001, 2, 0, ..] => Reach::Benchmark,
        // The rest of 2001::/23 is for protocols; global unicast is 2000::/3.
        [0x2001, 0..=0x1ff, ..] => Reach::Reserved,
        [0x2000..=0x3fff, ..] => Reach::Public,
        _ => Reach::Reserved,
    }
}

/// Turns names into addresses.
#[async_trait]
pub trait Resolve: Send + Sync + Debug + 'static {
    /// All addresses of a host name; an empty answer counts as "no such host".
    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>>;
}

/// Which hosts may be called. By default: every public address, over `https`.
///
/// Rules are written by the host's programmer, never by customers.
///
/// ```
/// use crosspoint_core::EgressPolicy;
/// let policy = EgressPolicy::new();
/// assert!(policy.check_host(true, "api.example.com", 443).is_ok());
/// assert!(policy.check_host(false, "api.example.com", 80).is_err());
/// assert!(policy.check_host(true, "127.0.0.1", 4000).is_err());
///
/// let development = policy.allow_host("127.0.0.1:4000")?;
/// assert!(development.check_host(false, "127.0.0.1", 4000).is_ok());
/// assert!(development.check_host(false, "127.0.0.1", 4001).is_err());
/// # Ok::<(), crosspoint_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct EgressPolicy {
    allow: Vec<HostRule>,
    plain: Vec<HostRule>,
}

/// A host that may be called: a name or an address, with or without a port; `*.example.com` means every name below, and
/// not the name itself.
///
/// ```
/// use crosspoint_core::HostRule;
/// let rule = HostRule::parse("*.example.com")?.or_port(443);
/// assert!(rule.covers("api.example.com", 443));
/// assert!(!rule.covers("api.example.com", 80) && !rule.covers("example.com", 443));
/// assert_eq!(rule.to_string(), "*.example.com:443");
/// # Ok::<(), crosspoint_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRule {
    host: String,
    port: Option<u16>,
}

impl EgressPolicy {
    /// Public addresses over `https`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Permits a host whatever its address is, over `http` too: for development, and for services in the host's own
    /// network. The rule is a name or an address, with a port to permit that one only: `127.0.0.1:4000`,
    /// `erp.internal`, `[::1]:8080`, `*.svc.cluster.local` (which permits every name below, not the name itself).
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] if the rule is none of these.
    pub fn allow_host(mut self, rule: &str) -> Result<Self> {
        self.allow.push(HostRule::parse(rule)?);
        Ok(self)
    }

    /// Permits `http` for a host whose address must still be public. Credentials travel in the clear.
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] as for [`EgressPolicy::allow_host`].
    pub fn allow_plain_http(mut self, rule: &str) -> Result<Self> {
        self.plain.push(HostRule::parse(rule)?);
        Ok(self)
    }

    /// Whether a rule permits this host at this port whatever its address is.
    #[must_use]
    pub fn permits(&self, host: &str, port: u16) -> bool {
        let host = plain_host(host);
        self.allow.iter().any(|rule| rule.covers_plain(&host, port))
    }

    /// Whether there are rules that permit hosts whatever their addresses are.
    #[must_use]
    pub fn has_exceptions(&self) -> bool {
        !self.allow.is_empty()
    }

    /// Checks what a URL itself says: scheme, and the address if the host is one.
    ///
    /// `host` must be in the form that a URL parser yields (`http://2130706433/` and `http://0x7f.1/` are `127.0.0.1`).
    ///
    /// # Errors
    /// [`Code::EgressRefused`] with the rule and how to permit it.
    pub fn check_host(&self, https: bool, host: &str, port: u16) -> Result<()> {
        if self.permits(host, port) {
            return Ok(());
        }
        let name = plain_host(host);
        if !https && !self.plain.iter().any(|rule| rule.covers_plain(&name, port)) {
            return Err(Error::new(
                Code::EgressRefused,
                "only https is permitted; the host's programmer may permit plain http for this host with \
                 EgressPolicy::allow_plain_http",
            )
            .with("rule", "https")
            .with("host", name)
            .with("port", port));
        }
        match name.parse::<IpAddr>() {
            Ok(address) => self.check_address(host, port, address),
            Err(_) => Ok(()),
        }
    }

    /// Checks an address that a host's name resolved to.
    ///
    /// # Errors
    /// [`Code::EgressRefused`] with the rule and how to permit it.
    pub fn check_address(&self, host: &str, port: u16, address: IpAddr) -> Result<()> {
        if is_public(address) || self.permits(host, port) {
            return Ok(());
        }
        Err(refused_address(&plain_host(host), reach(address)).with("port", port))
    }
}

/// The error for a host whose address is not public. The address itself stays out: it would tell a customer what the
/// names of the host's network stand for.
#[must_use]
pub fn refused_address(host: &str, reach: Reach) -> Error {
    Error::new(
        Code::EgressRefused,
        "the address is not public; the host's programmer may permit it with EgressPolicy::allow_host",
    )
    .with("rule", reach)
    .with("host", host)
}

impl HostRule {
    /// Reads a rule.
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] if it is none.
    pub fn parse(rule: &str) -> Result<Self> {
        Self::split(rule.trim()).ok_or_else(|| {
            Error::new(
                Code::SetupInvalid,
                "a rule is a host name or an address, with or without a port: `127.0.0.1:4000`, `*.svc.cluster.local`",
            )
            .with("rule", rule)
        })
    }

    fn split(rule: &str) -> Option<Self> {
        // An IPv6 address without brackets has colons of its own.
        let (host, port) = match rule.rsplit_once(':') {
            Some(_) if rule.parse::<Ipv6Addr>().is_ok() || rule.ends_with(']') => (rule, None),
            Some((host, port)) => (host, Some(port.parse().ok().filter(|port| *port != 0)?)),
            None => (rule, None),
        };
        let host = plain_host(host);
        let name = host.strip_prefix("*.").unwrap_or(&host);
        let is_name = !name.is_empty()
            && name.split('.').all(|label| !label.is_empty())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        (is_name || name.parse::<IpAddr>().is_ok()).then_some(Self { host, port })
    }

    /// The same rule for one port only, unless it names one already.
    #[must_use]
    pub fn or_port(mut self, port: u16) -> Self {
        self.port.get_or_insert(port);
        self
    }

    /// The port that it names.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// Whether it is about this host at this port. An address has to be in the form in which it is displayed, without
    /// zeros in front; `2130706433` and `0x7f.1` are not seen to be one.
    #[must_use]
    pub fn covers(&self, host: &str, port: u16) -> bool {
        self.covers_plain(&plain_host(host), port)
    }

    fn covers_plain(&self, host: &str, port: u16) -> bool {
        let host_fits = match self.host.strip_prefix('*') {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix) && host.parse::<IpAddr>().is_err(),
            None => self.host == host,
        };
        host_fits && self.port.is_none_or(|only| only == port)
    }
}

impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host.contains(':'), self.port) {
            (true, Some(port)) => write!(f, "[{}]:{port}", self.host),
            (false, Some(port)) => write!(f, "{}:{port}", self.host),
            (true, None) => write!(f, "[{}]", self.host),
            (false, None) => f.write_str(&self.host),
        }
    }
}

/// Lower case, without brackets and without the dot of the root.
fn plain_host(host: &str) -> String {
    let host = host.strip_suffix('.').unwrap_or(host);
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    host.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn only_public_unicast_is_public() {
        let table = [
            ("9.9.9.9", Reach::Public),
            ("172.15.255.255", Reach::Public),
            ("172.32.0.0", Reach::Public),
            ("100.63.255.255", Reach::Public),
            ("2606:4700::1111", Reach::Public),
            ("2001:4860:4860::8888", Reach::Public),
            ("2a00::1", Reach::Public),
            ("0.1.2.3", Reach::Unspecified),
            ("127.9.9.9", Reach::Loopback),
            ("10.1.2.3", Reach::Private),
            ("172.16.0.1", Reach::Private),
            ("172.31.255.255", Reach::Private),
            ("192.168.0.1", Reach::Private),
            ("169.254.169.254", Reach::LinkLocal),
            ("100.64.0.1", Reach::CarrierNat),
            ("100.100.100.200", Reach::CarrierNat),
            ("192.0.0.192", Reach::Reserved),
            ("192.0.2.1", Reach::Documentation),
            ("198.51.100.1", Reach::Documentation),
            ("203.0.113.1", Reach::Documentation),
            ("198.19.0.1", Reach::Benchmark),
            ("192.88.99.1", Reach::Translated),
            ("224.0.0.1", Reach::Multicast),
            ("255.255.255.255", Reach::Reserved),
            ("::", Reach::Unspecified),
            ("::1", Reach::Loopback),
            ("::ffff:127.0.0.1", Reach::EmbeddedV4),
            ("::ffff:9.9.9.9", Reach::EmbeddedV4),
            ("::127.0.0.1", Reach::EmbeddedV4),
            ("::ffff:0:127.0.0.1", Reach::EmbeddedV4),
            ("64:ff9b::7f00:1", Reach::Translated),
            ("64:ff9b:1::7f00:1", Reach::Translated),
            ("2002:7f00:1::", Reach::Translated),
            ("2001:0:1::", Reach::Translated),
            ("2001:2::1", Reach::Benchmark),
            ("2001:10::1", Reach::Reserved),
            ("2001:db8::1", Reach::Documentation),
            ("3fff::1", Reach::Documentation),
            ("fd00::1", Reach::Private),
            ("fec0::1", Reach::Private),
            ("fe80::1", Reach::LinkLocal),
            ("ff02::1", Reach::Multicast),
            ("100::1", Reach::Reserved),
            ("5f00::1", Reach::Reserved),
        ];
        for (text, expected) in table {
            assert_eq!(reach(text.parse().unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn a_rule_covers_what_it_names_and_nothing_else() {
        let policy = EgressPolicy::new()
            .allow_host("127.0.0.1:4000")
            .and_then(|p| p.allow_host("[::1]:8080"))
            .and_then(|p| p.allow_host("ERP.internal"))
            .and_then(|p| p.allow_host("*.svc.local"))
            .unwrap();
        for (host, port, permitted) in [
            ("127.0.0.1", 4000, true),
            ("127.0.0.1", 4001, false),
            ("127.0.0.2", 4000, false),
            ("::1", 8080, true),
            ("[::1]", 8080, true),
            ("::1", 80, false),
            ("erp.internal", 9, true),
            ("Erp.Internal.", 9, true),
            ("x.erp.internal", 9, false),
            ("a.svc.local", 1, true),
            ("a.b.svc.local", 1, true),
            ("svc.local", 1, false),
            (".svc.local", 1, false),
            ("evilsvc.local", 1, false),
        ] {
            assert_eq!(policy.permits(host, port), permitted, "{host}:{port}");
        }
    }

    #[test]
    fn a_rule_is_shown_as_it_is_read() {
        for (rule, shown) in [
            ("API.example.com.", "api.example.com:443"),
            ("*.example.com:80", "*.example.com:80"),
            ("::1", "[::1]:443"),
            ("[::1]:8080", "[::1]:8080"),
        ] {
            let read = HostRule::parse(rule).unwrap().or_port(443);
            assert_eq!(read.to_string(), shown);
            assert_eq!(HostRule::parse(shown).unwrap(), read);
        }
        assert_eq!(HostRule::parse("::1").unwrap().to_string(), "[::1]");
    }

    #[test]
    fn what_is_not_a_rule_is_refused() {
        for rule in [
            "",
            "*",
            "*.",
            "a b",
            "http://x",
            "host:",
            "host:0",
            "host:99999",
            "a..b",
            "[::1",
            "::1:x/",
        ] {
            assert!(EgressPolicy::new().allow_host(rule).is_err(), "{rule}");
        }
        for rule in ["::1", "[::1]", "localhost", "10.0.0.1", "a_b.local:1"] {
            assert!(EgressPolicy::new().allow_host(rule).is_ok(), "{rule}");
        }
    }

    #[test]
    fn plain_http_needs_a_rule_and_still_a_public_address() {
        let policy = EgressPolicy::new().allow_plain_http("legacy.example.com").unwrap();
        assert!(policy.check_host(false, "legacy.example.com", 80).is_ok());
        assert!(policy.check_host(false, "other.example.com", 80).is_err());
        let refused = policy
            .check_address("legacy.example.com", 80, "10.0.0.1".parse().unwrap())
            .unwrap_err();
        assert_eq!(refused.kind(), Kind::Forbidden);
        assert!(!refused.to_string().contains("10.0.0.1"), "{refused}");
    }
}
