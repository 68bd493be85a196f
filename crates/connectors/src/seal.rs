//! The one place that encrypts: XChaCha20-Poly1305 under a random nonce, with every fact about the plaintext
//! authenticated beside it. Key ring and vault differ only in their headers and facts.

use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead, Generate, KeyInit, Payload},
};
use crosspoint_core::{Code, Error, ErrorExt, ExposeSecret, Result, SecretBox, SecretBytes};
use secrecy::zeroize::Zeroizing;

/// A key of 32 bytes that is wiped when dropped.
pub(crate) type Key = SecretBox<[u8; 32]>;

/// First byte of everything that is sealed: the layout.
pub(crate) const VERSION: u8 = 1;
/// Second byte: the algorithm. XChaCha20-Poly1305.
pub(crate) const ALGORITHM: u8 = 1;

const NONCE: usize = 24;
const TAG: usize = 16;

/// A key from the system's random numbers.
pub(crate) fn random_key() -> Result<Key> {
    let bytes =
        Zeroizing::new(<[u8; 32]>::try_generate().or_fail(Code::Internal, "the system gives no random numbers")?);
    Ok(key_of(&bytes))
}

/// A key with these bytes.
pub(crate) fn key_of(bytes: &[u8; 32]) -> Key {
    SecretBox::init_with_mut(|key: &mut [u8; 32]| key.copy_from_slice(bytes))
}

/// A key from a slice; `None` unless it has 32 bytes.
pub(crate) fn key_from(slice: &[u8]) -> Option<Key> {
    <&[u8; 32]>::try_from(slice).ok().map(key_of)
}

/// Associated data: each part behind its length, so that no two lists of parts look alike.
#[derive(Debug)]
pub(crate) struct Facts(Vec<u8>);

impl Facts {
    /// For one use of encryption; `domain` keeps uses apart.
    pub(crate) fn of(domain: &str) -> Self {
        Self(Vec::with_capacity(160))
            .and(domain.as_bytes())
            .and(&[VERSION])
            .and(&[ALGORITHM])
    }

    pub(crate) fn and(mut self, part: &[u8]) -> Self {
        self.0.extend_from_slice(&(part.len() as u64).to_be_bytes());
        self.0.extend_from_slice(part);
        self
    }
}

/// Appends nonce, ciphertext and tag to `header`.
pub(crate) fn seal(key: &Key, facts: &Facts, plain: &[u8], mut header: Vec<u8>) -> Result<Vec<u8>> {
    let nonce = XNonce::try_generate().or_fail(Code::Internal, "the system gives no random numbers")?;
    let cipher = XChaCha20Poly1305::new(key.expose_secret().into());
    let payload = Payload {
        msg: plain,
        aad: &facts.0,
    };
    let sealed = cipher
        .encrypt(&nonce, payload)
        .map_err(|_| Error::new(Code::InputInvalid, "the secret is too long to be sealed"))?;
    header.reserve_exact(NONCE + sealed.len());
    header.extend_from_slice(&nonce);
    header.extend_from_slice(&sealed);
    Ok(header)
}

/// Opens what follows the header; `None` if the key, the facts or a single bit differ.
pub(crate) fn open(key: &Key, facts: &Facts, rest: &[u8]) -> Option<SecretBytes> {
    if rest.len() < NONCE + TAG {
        return None;
    }
    let (nonce, sealed) = rest.split_at_checked(NONCE)?;
    let nonce = XNonce::try_from(nonce).ok()?;
    let payload = Payload {
        msg: sealed,
        aad: &facts.0,
    };
    let plain = XChaCha20Poly1305::new(key.expose_secret().into())
        .decrypt(&nonce, payload)
        .ok()?;
    Some(SecretBox::new(Box::new(plain)))
}
