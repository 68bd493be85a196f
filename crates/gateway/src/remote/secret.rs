//! What gateway and replicas know and nobody else.

use crosspoint_core::{Code, Error, ExposeSecret, Result, SecretString};
use http::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};

/// The shortest secret that is taken, in bytes.
const SHORTEST: usize = 16;

const HEADER: &str = "crosspoint-secret";

/// Proves to a replica that a call comes from its gateway: the same text on both sides, sent with every call.
///
/// Whoever can read the traffic between the two can read it. Where that network is not private, put TLS between them.
///
/// ```
/// use crosspoint_gateway::remote::SharedSecret;
///
/// let secret = SharedSecret::new("0123456789abcdef0123456789abcdef")?;
/// assert!(!format!("{secret:?}").contains("0123"));
/// assert!(SharedSecret::new("short").is_err());
/// # Ok::<(), crosspoint_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct SharedSecret(SecretString);

impl SharedSecret {
    /// A secret of at least 16 visible ASCII characters; make it from 16 random bytes or more.
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] if it is shorter or cannot stand in a header.
    pub fn new(text: impl Into<SecretString>) -> Result<Self> {
        let text = text.into();
        let bytes = text.expose_secret().as_bytes();
        if bytes.len() < SHORTEST || !bytes.iter().all(u8::is_ascii_graphic) {
            let message = "a shared secret has at least 16 visible ASCII characters";
            return Err(Error::new(Code::SetupInvalid, message));
        }
        Ok(Self(text))
    }

    pub(super) fn send(&self, headers: &mut HeaderMap) {
        if let Ok(mut value) = HeaderValue::from_str(self.0.expose_secret()) {
            value.set_sensitive(true);
            headers.insert(HEADER, value);
        }
    }

    /// Whether a call brings it. The time this takes says nothing about where the two differ.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(HEADER).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return false;
        };
        Sha256::digest(value.as_bytes()) == Sha256::digest(self.0.expose_secret().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_secret_sent_once_counts() {
        let ours = SharedSecret::new("the-secret-of-ours").unwrap();
        let theirs = SharedSecret::new("the-secret-of-them").unwrap();
        let mut headers = HeaderMap::new();
        assert!(!ours.is_in(&headers));
        ours.send(&mut headers);
        assert!(ours.is_in(&headers) && !theirs.is_in(&headers));
        assert!(!format!("{headers:?}").contains("ours"), "not in logs of headers");
        headers.append(HEADER, HeaderValue::from_static("the-secret-of-ours"));
        assert!(!ours.is_in(&headers));
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        for text in [
            "",
            "fifteen-letters",
            "with a blank in it",
            "with\na line break",
            "mit-Ümläuten-darin",
        ] {
            assert_eq!(
                SharedSecret::new(text).unwrap_err().code(),
                Code::SetupInvalid,
                "{text}"
            );
        }
    }
}
