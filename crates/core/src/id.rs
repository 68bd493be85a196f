//! Ids. Those that we mint are UUIDs of version 7 (they sort by time, which keeps indexes dense); those that must come
//! out the same twice are version 5. Ids that the host chooses are short texts.

use crate::{Clock, Code, Error, Result};
use std::{fmt, str::FromStr, sync::Arc};
use uuid::Uuid;

macro_rules! uuid_id {
    ($( $(#[$doc:meta])+ $name:ident; )+) => {$(
        $(#[$doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id that sorts by the clock's time and cannot be guessed.
            #[must_use]
            pub fn mint(clock: &dyn Clock) -> Self {
                let millis = u64::try_from(clock.now().as_millis()).unwrap_or(0);
                Self(uuid::Builder::from_unix_timestamp_millis(millis, &clock.random()).into_uuid())
            }

            /// The id for which `parts` stand: the same parts give the same id, in every process (UUID version 5).
            #[must_use]
            pub fn derive(parts: &[&str]) -> Self {
                Self(derive(parts.iter().map(|part| part.as_bytes())))
            }

            /// From a UUID that was read from a store.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self { Self(uuid) }

            /// As a UUID.
            #[must_use]
            pub const fn as_uuid(&self) -> &Uuid { &self.0 }

            /// The 16 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] { self.0.as_bytes() }

            /// From the 16 bytes.
            ///
            /// # Errors
            /// [`Code::IdMalformed`] when there are not 16.
            pub fn from_slice(bytes: &[u8]) -> Result<Self> {
                Uuid::from_slice(bytes).map(Self).map_err(|e| Error::new(Code::IdMalformed, "an id has 16 bytes").caused_by(e))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(&self.0, f) }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                Uuid::parse_str(text).map(Self).map_err(|e| Error::new(Code::IdMalformed, "an id is a UUID").caused_by(e))
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> { stringify!($name).into() }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "format": "uuid" })
            }
        }
    )+};
}

/// Namespace of our version 5 ids.
const NAMESPACE: Uuid = Uuid::from_u128(0x7b2e_90d4_51c8_4f0e_9b63_2c8a_f1d5_6e07);

/// Each part with its length before it, so that no two lists of parts run into the same name.
pub(crate) fn derive<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Uuid {
    let mut name = Vec::new();
    for part in parts {
        name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        name.extend_from_slice(part);
    }
    Uuid::new_v5(&NAMESPACE, &name)
}

uuid_id! {
    /// One call. A flow's execution has the id of the invocation that started it.
    InvocationId;
    /// An integration set up for a customer.
    #[doc(alias = "InstanceId")]
    InstallationId;
    /// A customer's authorised link to a provider.
    ConnectionId;
    /// Survives retries and redrives of one piece of work, and so makes the keys of its outside effects.
    RunKey;
}

macro_rules! text_id {
    ($( $(#[$doc:meta])+ $name:ident, $what:literal; )+) => {$(
        $(#[$doc])+
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text: 1 to 128 visible characters without spaces.
            ///
            /// # Errors
            /// [`Code::IdMalformed`] with what is wrong.
            pub fn new(text: impl Into<Arc<str>>) -> Result<Self> {
                let text = text.into();
                match check_text(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err(why) => Err(Error::new(Code::IdMalformed, format!(concat!("a ", $what, " {}"), why))),
                }
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str { &self.0 }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> { Self::new(text) }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> { Self::new(text) }
        }

        impl TryFrom<&str> for $name {
            type Error = Error;
            fn try_from(text: &str) -> Result<Self> { Self::new(text) }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self { id.0.as_ref().to_owned() }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> { stringify!($name).into() }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "minLength": 1, "maxLength": 128 })
            }
        }
    )+};
}

fn check_text(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("is not empty");
    }
    if text.len() > 128 {
        return Err("has at most 128 bytes");
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("has no spaces and no control characters");
    }
    Ok(())
}

text_id! {
    /// The host's client company: the boundary of isolation and of fairness. The host supplies the id.
    ///
    /// ```
    /// # use crosspoint_core::CustomerId;
    /// assert!(CustomerId::new("acme").is_ok());
    /// assert!(CustomerId::new("two words").is_err());
    /// ```
    #[doc(alias = "TenantId")]
    CustomerId, "customer id";
    /// A service or a pool of runners to which calls are dispatched.
    TargetId, "target id";
    /// A worker: one process that leases work.
    WorkerId, "worker id";
}

/// The delivery epoch of one invocation. Each lease gets a higher one; writes with a lower one are stale.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(transparent)]
pub struct Fence(u64);

impl Fence {
    /// From a number that was read from a store.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }
    /// As a number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
    /// The fence of the following lease.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_ids_do_not_mix_up_their_parts() {
        assert_eq!(InvocationId::derive(&["a", "bc"]), InvocationId::derive(&["a", "bc"]));
        assert_ne!(InvocationId::derive(&["a", "bc"]), InvocationId::derive(&["ab", "c"]));
    }

    #[test]
    fn a_bad_id_does_not_deserialise() {
        assert!(serde_json::from_str::<CustomerId>("\"\"").is_err());
        assert!(serde_json::from_str::<CustomerId>("\"a\\nb\"").is_err());
        assert!("nonsense".parse::<InvocationId>().is_err());
    }
}
