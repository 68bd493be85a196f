//! The local key ring: the keys that wrap customers' data keys.

mod file;
#[cfg(test)]
mod tests;

use crate::seal::{self, ALGORITHM, Facts, Key, VERSION};
use async_trait::async_trait;
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use crosspoint_core::{Code, CustomerId, Error, ExposeSecret, KeyWrap, Result, SecretBytes};
use secrecy::zeroize::Zeroizing;
use std::fmt;

/// Keys held by this process. The first one wraps, all of them unwrap.
///
/// To rotate, put a new key in front, restart every process, re-wrap with
/// [`EnvelopeVault::rewrap_all`](crate::EnvelopeVault::rewrap_all), and then take the old key away.
///
/// ```
/// use crosspoint_connectors::KeyRing;
/// let keys = KeyRing::parse("2027:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
/// assert_eq!(keys.ids().collect::<Vec<_>>(), ["2027"]);
/// # Ok::<(), crosspoint_core::Error>(())
/// ```
pub struct KeyRing {
    /// Never empty: both constructors see to it.
    keys: Vec<(String, Key)>,
}

const READ: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
const LONGEST_ID: usize = 32;

impl KeyRing {
    /// Reads the keys from an environment variable, in the form of [`KeyRing::parse`].
    ///
    /// # Errors
    /// [`Code::KeysMissing`] if it is unset or empty, with a command that makes a key; [`Code::SetupInvalid`] as for
    /// [`KeyRing::parse`].
    pub fn from_env(variable: &str) -> Result<Self> {
        let text = std::env::var(variable).map(Zeroizing::new).unwrap_or_default();
        if text.trim().is_empty() {
            return Err(Error::new(
                Code::KeysMissing,
                format!(
                    "the environment variable {variable} is not set; this makes a key: \
                     export {variable}=\"k1:$(head -c 32 /dev/urandom | base64)\" \
                     (keep it in your secret store: without it, no stored credential opens again)"
                ),
            ));
        }
        Self::parse(&text)
    }

    /// Reads `id:key` pairs with commas or line ends between them; a key is 32 bytes in base64, an id 1 to 32 letters,
    /// digits, hyphens and underscores. The first key wraps.
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] with the number of the pair that is wrong. Nothing of the text is quoted.
    pub fn parse(text: &str) -> Result<Self> {
        let mut keys: Vec<(String, Key)> = Vec::new();
        let pairs = text.split([',', '\n']).map(str::trim).filter(|pair| !pair.is_empty());
        for (index, pair) in pairs.enumerate() {
            let (id, key) = read_pair(pair).map_err(|why| malformed(why).with("key", index + 1))?;
            if keys.iter().any(|(known, _)| *known == id) {
                return Err(malformed("has the id of a key before it").with("key", index + 1));
            }
            keys.push((id, key));
        }
        if keys.is_empty() {
            return Err(Error::new(Code::KeysMissing, "there is no key in the key ring"));
        }
        Ok(Self { keys })
    }

    /// A ring with one random key, for development: what it sealed is unreadable after a restart.
    ///
    /// # Errors
    /// [`Code::Internal`] if the system gives no random numbers.
    pub fn generate() -> Result<Self> {
        Ok(Self {
            keys: vec![("generated".to_owned(), seal::random_key()?)],
        })
    }

    /// The ids of the keys; the first one wraps.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|(id, _)| id.as_str())
    }

    /// The form that [`KeyRing::parse`] reads.
    fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::new());
        for (id, key) in &self.keys {
            let key = Zeroizing::new(STANDARD.encode(key.expose_secret()));
            text.push_str(id);
            text.push(':');
            text.push_str(&key);
            text.push('\n');
        }
        text
    }

    fn key(&self, id: &str) -> Option<&Key> {
        self.keys.iter().find(|(known, _)| known == id).map(|(_, key)| key)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyRing").field(&self.ids().collect::<Vec<_>>()).finish()
    }
}

fn malformed(why: &str) -> Error {
    Error::new(
        Code::SetupInvalid,
        format!("a key of the key ring {why}; the form is `id:key`, the key 32 bytes in base64"),
    )
}

fn read_pair(pair: &str) -> Result<(String, Key), &'static str> {
    let (id, key) = pair.split_once(':').ok_or("has no id")?;
    let id_fits = (1..=LONGEST_ID).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if !id_fits {
        return Err("has an id that is not 1 to 32 letters, digits, hyphens and underscores");
    }
    let bytes = READ
        .decode(key.trim())
        .map(Zeroizing::new)
        .map_err(|_| "is not base64")?;
    let key = seal::key_from(&bytes).ok_or("does not have 32 bytes")?;
    if key.expose_secret().iter().all(|b| *b == 0) {
        return Err("is all zeros");
    }
    Ok((id.to_owned(), key))
}

fn facts(id: &str, customer: &CustomerId) -> Facts {
    Facts::of("crosspoint data key")
        .and(id.as_bytes())
        .and(customer.as_str().as_bytes())
}

/// Key id and the rest, from `version | algorithm | length of id | id | nonce | ciphertext and tag`.
fn split(wrapped: &[u8]) -> Option<(&str, &[u8])> {
    let [VERSION, ALGORITHM, length, rest @ ..] = wrapped else {
        return None;
    };
    let (id, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((std::str::from_utf8(id).ok()?, rest))
}

#[async_trait]
impl KeyWrap for KeyRing {
    fn current(&self) -> String {
        self.ids().next().unwrap_or_default().to_owned()
    }

    async fn wrap(&self, customer: &CustomerId, key: &SecretBytes) -> Result<Vec<u8>> {
        let Some((id, wrapping)) = self.keys.first() else {
            return Err(Error::new(Code::KeysMissing, "there is no key in the key ring"));
        };
        let length = u8::try_from(id.len()).map_err(|_| malformed("has an id that is too long"))?;
        let mut header = vec![VERSION, ALGORITHM, length];
        header.extend_from_slice(id.as_bytes());
        seal::seal(wrapping, &facts(id, customer), key.expose_secret(), header)
    }

    fn wrapped_with(&self, wrapped: &[u8]) -> Option<String> {
        split(wrapped).map(|(id, _)| id.to_owned())
    }

    async fn unwrap(&self, customer: &CustomerId, wrapped: &[u8]) -> Result<SecretBytes> {
        let (id, rest) = split(wrapped).ok_or_else(|| {
            Error::new(
                Code::SecretUnreadable,
                "a data key is not in the form that this release writes",
            )
        })?;
        let key = self.key(id).ok_or_else(|| {
            Error::new(
                Code::SecretUnreadable,
                "a data key was wrapped with a key that is not in the key ring; put that key back",
            )
            .with("key_id", id.escape_debug())
        })?;
        seal::open(key, &facts(id, customer), rest).ok_or_else(|| {
            Error::new(
                Code::SecretUnreadable,
                "a data key does not open: the key of this id is another one, or the record was changed",
            )
            .with("key_id", id.escape_debug())
        })
    }
}
