//! A token for one operator, for build servers above all.

use crate::serve::text;
use async_trait::async_trait;
use crosspoint_core::{Code, Error, ExposeSecret, Operator, OperatorPermission, Operators, Result, SecretString};
use http::{header::AUTHORIZATION, request::Parts};
use sha2::{Digest, Sha256};

/// The shortest token that is taken, in bytes.
const SHORTEST: usize = 24;

/// Lets those in who send `authorization: Bearer <token>`. For more than one operator, implement
/// [`Operators`] over what the host's staff signs in with.
///
/// ```
/// use crosspoint_core::OperatorPermission;
/// use crosspoint_marketplace::OperatorToken;
/// let token = OperatorToken::new("ci", "0123456789abcdef0123456789abcdef", OperatorPermission::ALL)?;
/// assert!(!format!("{token:?}").contains("0123"));
/// assert!(OperatorToken::new("ci", "short", OperatorPermission::ALL).is_err());
/// # Ok::<(), crosspoint_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct OperatorToken {
    operator: Operator,
    token: SecretString,
}

impl OperatorToken {
    /// A token of at least 24 visible ASCII characters; make it from 16 random bytes or more.
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] if it is shorter or cannot stand in a header.
    pub fn new(
        operator: impl Into<String>,
        token: impl Into<SecretString>,
        permissions: &[OperatorPermission],
    ) -> Result<Self> {
        let token = token.into();
        let bytes = token.expose_secret().as_bytes();
        if bytes.len() < SHORTEST || !bytes.iter().all(u8::is_ascii_graphic) {
            let message = "an operator's token has at least 24 visible ASCII characters";
            return Err(Error::new(Code::SetupInvalid, message));
        }
        Ok(Self {
            operator: Operator::new(operator, permissions),
            token,
        })
    }
}

#[async_trait]
impl Operators for OperatorToken {
    async fn authenticate(&self, parts: &Parts) -> Result<Operator> {
        let sent = text(&parts.headers, &AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        });
        let Some(sent) = sent else {
            return Err(Error::new(
                Code::SessionMissing,
                "send the operator's token: `authorization: Bearer ..`",
            ));
        };
        // Of hashes, so that the time this takes says nothing about where the two differ.
        match Sha256::digest(sent.as_bytes()) == Sha256::digest(self.token.expose_secret().as_bytes()) {
            true => Ok(self.operator.clone()),
            false => Err(Error::new(Code::SessionMissing, "this is not the operator's token")),
        }
    }
}
