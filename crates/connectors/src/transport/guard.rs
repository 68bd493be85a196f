//! The egress guard in the DNS resolver: a connection goes to exactly those addresses that were checked.

use async_trait::async_trait;
use crosspoint_core::{Code, Error, ErrorExt, Reach, Resolve, Result, is_public, reach, refused_address};
use reqwest::dns::{Addrs, Name, Resolving};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// Asks the machine's own resolver.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct SystemResolver;

impl SystemResolver {
    /// The machine's own resolver.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>> {
        let found = tokio::net::lookup_host((host, 0))
            .await
            .or_fail(Code::ProviderUnreachable, "the provider's host name does not resolve")?;
        Ok(found.map(|address| address.ip()).collect())
    }
}

/// What reqwest asks for addresses.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    pub(super) resolver: Arc<dyn Resolve>,
    /// For hosts that a rule permits whatever their addresses are.
    pub(super) open: bool,
}

impl reqwest::dns::Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let mut addresses = guard.resolver.resolve(name.as_str()).await?;
            if !guard.open {
                let first = addresses.first().copied();
                addresses.retain(|address| is_public(*address));
                if let (Some(first), true) = (first, addresses.is_empty()) {
                    let host = name.as_str().to_owned();
                    return Err(Refused {
                        host,
                        reach: reach(first),
                    }
                    .into());
                }
            }
            if addresses.is_empty() {
                return Err(Error::new(Code::ProviderUnreachable, "the provider's host name has no address").into());
            }
            let sockets: Addrs = Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(sockets)
        })
    }
}

/// Carries a refusal through reqwest's chain of errors.
#[derive(Debug)]
struct Refused {
    host: String,
    reach: Reach,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the address is not public ({})", self.reach)
    }
}

impl std::error::Error for Refused {}

/// What a failed exchange means. The URL, which may hold a key, leaves the error.
pub(super) fn unreachable(error: reqwest::Error) -> Error {
    let error = error.without_url();
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = next {
        if let Some(Refused { host, reach }) = cause.downcast_ref() {
            return refused_address(host, *reach);
        }
        if let Some(known) = cause.downcast_ref::<Error>() {
            return Error::new(known.code(), known.message()).caused_by(error);
        }
        next = cause.source();
    }
    let what = if error.is_connect() {
        "no connection to the provider"
    } else if error.is_body() || error.is_decode() {
        "the provider's answer broke off"
    } else {
        "the exchange with the provider failed"
    };
    Error::new(Code::ProviderUnreachable, what).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Answers(Vec<IpAddr>);

    #[async_trait]
    impl Resolve for Answers {
        async fn resolve(&self, _: &str) -> Result<Vec<IpAddr>> {
            Ok(self.0.clone())
        }
    }

    async fn guarded(open: bool, answers: &[&str]) -> Result<Vec<String>, String> {
        let answers = answers.iter().map(|text| text.parse().unwrap()).collect();
        let guard = Guard {
            resolver: Arc::new(Answers(answers)),
            open,
        };
        let name = "provider.test".parse().unwrap();
        match reqwest::dns::Resolve::resolve(&guard, name).await {
            Ok(found) => Ok(found.map(|address| address.ip().to_string()).collect()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[tokio::test]
    async fn only_public_addresses_are_left() {
        let mixed = ["127.0.0.1", "9.9.9.9", "::ffff:10.0.0.1", "2620:fe::9"];
        assert_eq!(guarded(false, &mixed).await.unwrap(), ["9.9.9.9", "2620:fe::9"]);
        assert_eq!(guarded(true, &mixed).await.unwrap().len(), 4);

        let refused = guarded(false, &["169.254.169.254"]).await.unwrap_err();
        assert!(refused.contains("link-local"), "{refused}");
        assert!(guarded(false, &[]).await.unwrap_err().contains("no address"));
        assert!(guarded(true, &[]).await.is_err());
    }
}
