//! Signatures by the rules of Standard Webhooks.

use base64::{Engine, prelude::BASE64_STANDARD};
use crosspoint_core::{Clock, Code, Error, ExposeSecret, Result, SecretBytes};
use hmac::{Hmac, Mac};
use http::{HeaderMap, HeaderName};
use sha2::Sha256;
use std::{fmt, sync::Arc, time::Duration};

pub(super) const ID: HeaderName = HeaderName::from_static("webhook-id");
pub(super) const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
pub(super) const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// How far the clocks of the two sides may be apart.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// The secret that sender and receiver share: 24 to 64 bytes, written as `whsec_` and base64.
///
/// A notification carries `webhook-id` (the same in every attempt), `webhook-timestamp` (seconds, of this attempt) and
/// `webhook-signature`: `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`, one for each secret, with spaces between.
/// Receivers verify with any library for Standard Webhooks, or with [`SigningSecret::verify`].
///
/// ```
/// use crosspoint_gateway::callback::SigningSecret;
/// let secret = SigningSecret::parse("whsec_YSBzZWNyZXQgb2Ygd2Vlay1lbmRzIGFuZCB3aW5k")?;
/// assert!(format!("{secret:?}").contains("..") && SigningSecret::parse("whsec_c2hvcnQ=").is_err());
/// # Ok::<(), crosspoint_core::Error>(())
/// ```
#[derive(Clone)]
pub struct SigningSecret(Arc<SecretBytes>);

impl SigningSecret {
    /// From its text; the prefix may be missing.
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] if it is not base64 of 24 to 64 bytes.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let bytes = BASE64_STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(text));
        match bytes {
            Ok(bytes) if (24..=64).contains(&bytes.len()) => Ok(Self(Arc::new(SecretBytes::new(Box::new(bytes))))),
            // What was wrong with it is not said: that would be a part of the secret.
            _ => Err(Error::new(
                Code::SetupInvalid,
                "the secret of callbacks is `whsec_` and the base64 of 24 to 64 random bytes",
            )),
        }
    }

    /// Whether a notification comes from somebody who has this secret, and was signed within five minutes of now.
    ///
    /// # Errors
    /// [`Code::CredentialsRefused`] if a header is missing, the time is too far off, or no signature fits.
    pub fn verify(&self, headers: &HeaderMap, body: &[u8], clock: &dyn Clock) -> Result<()> {
        let refused = |why: &str| Error::new(Code::CredentialsRefused, why);
        let header = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let (Some(id), Some(time), Some(signatures)) = (header(&ID), header(&TIMESTAMP), header(&SIGNATURE)) else {
            return Err(refused(
                "a notification has three headers: webhook-id, -timestamp and -signature",
            ));
        };
        let time: i64 = time
            .parse()
            .map_err(|_| refused("the time of the notification is no number"))?;
        let now = clock.now().as_millis().div_euclid(1000);
        if now.abs_diff(time) > TOLERANCE.as_secs() {
            return Err(refused("the notification was signed too long ago, or in the future"));
        }
        let fits = |signature: &str| {
            let signature = signature.strip_prefix("v1,");
            let bytes = signature.and_then(|text| BASE64_STANDARD.decode(text).ok());
            // Compares in constant time.
            bytes.is_some_and(|bytes| self.mac(id, time, body).verify_slice(&bytes).is_ok())
        };
        match signatures.split(' ').any(fits) {
            true => Ok(()),
            false => Err(refused("no signature of the notification fits")),
        }
    }

    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    fn mac(&self, id: &str, time: i64, body: &[u8]) -> Hmac<Sha256> {
        let key = self.0.expose_secret();
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).expect("any length");
        mac.update(format!("{id}.{time}.").as_bytes());
        mac.update(body);
        mac
    }

    fn sign(&self, id: &str, time: i64, body: &[u8]) -> String {
        let code = self.mac(id, time, body).finalize().into_bytes();
        format!("v1,{}", BASE64_STANDARD.encode(code))
    }
}

/// Shows nothing of the secret.
impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(..)")
    }
}

/// The signatures of all secrets.
pub(super) fn all(secrets: &[SigningSecret], id: &str, time: i64, body: &[u8]) -> String {
    let signatures: Vec<_> = secrets.iter().map(|secret| secret.sign(id, time, body)).collect();
    signatures.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosspoint_core::Timestamp;

    #[derive(Debug)]
    struct At(i64);

    impl Clock for At {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(self.0 * 1000)
        }
    }

    // The example that is published with the specification's libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const MESSAGE: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const SENT: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const EXPECTED: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn headers(signature: &str) -> HeaderMap {
        let time = SENT.to_string();
        [(ID, MESSAGE), (TIMESTAMP, time.as_str()), (SIGNATURE, signature)]
            .into_iter()
            .map(|(name, value)| (name, value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn the_published_example_comes_out() {
        let secret = SigningSecret::parse(SECRET).unwrap();
        assert_eq!(secret.sign(MESSAGE, SENT, BODY), EXPECTED);
        let bare = SigningSecret::parse(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
        assert_eq!(bare.sign(MESSAGE, SENT, BODY), EXPECTED);
    }

    #[test]
    fn what_was_changed_or_is_old_is_refused() {
        let secret = SigningSecret::parse(SECRET).unwrap();
        secret.verify(&headers(EXPECTED), BODY, &At(SENT + 300)).unwrap();
        secret.verify(&headers(EXPECTED), BODY, &At(SENT - 300)).unwrap();
        let wrong_version = EXPECTED.replace("v1", "v2");
        let other = SigningSecret::parse("whsec_YSBzZWNyZXQgb2Ygd2Vlay1lbmRzIGFuZCB3aW5k").unwrap();
        let refused = [
            secret.verify(&headers(EXPECTED), BODY, &At(SENT + 301)),
            secret.verify(&headers(EXPECTED), BODY, &At(SENT - 301)),
            secret.verify(&headers(EXPECTED), b"{}", &At(SENT)),
            secret.verify(&headers(&wrong_version), BODY, &At(SENT)),
            secret.verify(&HeaderMap::new(), BODY, &At(SENT)),
            other.verify(&headers(EXPECTED), BODY, &At(SENT)),
        ];
        for refused in refused {
            assert_eq!(refused.unwrap_err().code(), Code::CredentialsRefused);
        }
    }

    #[test]
    fn while_secrets_change_either_fits() {
        let old = SigningSecret::parse(SECRET).unwrap();
        let new = SigningSecret::parse("whsec_YSBzZWNyZXQgb2Ygd2Vlay1lbmRzIGFuZCB3aW5k").unwrap();
        let both = all(&[new.clone(), old.clone()], MESSAGE, SENT, BODY);
        for secret in [old, new] {
            secret.verify(&headers(&both), BODY, &At(SENT)).unwrap();
        }
    }

    #[test]
    fn a_secret_of_the_wrong_size_is_refused_without_being_told() {
        let (short, long) = (BASE64_STANDARD.encode([7; 23]), BASE64_STANDARD.encode([7; 65]));
        for text in ["", "whsec_", "whsec_!!!", short.as_str(), long.as_str()] {
            let error = SigningSecret::parse(text).unwrap_err();
            assert_eq!(error.code(), Code::SetupInvalid);
            assert!(text.len() < 10 || !format!("{error:?}").contains(text));
        }
    }
}
