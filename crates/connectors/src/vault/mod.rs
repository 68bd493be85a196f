//! Envelope encryption: a data key per customer seals the secrets, a [`KeyWrap`] wraps the data keys.

mod cache;
#[cfg(test)]
mod tests;

use crate::seal::{self, ALGORITHM, Facts, Key, VERSION};
use async_trait::async_trait;
use cache::Cache;
use crosspoint_core::{
    Clock, Code, CustomerId, CustomerScope, DataKey, DataKeys, Error, ExposeSecret, FleetScope, KeyWrap, Page, Result,
    Saved, Scope, SealContext, Sealed, SecretBox, SecretBytes, Store, Vault,
};
use std::{collections::BTreeSet, fmt, sync::Arc};

/// How many unwrapped data keys stay in memory.
const CACHED_KEYS: usize = 128;
/// How often a lost race for a key number is tried again; each loss means that somebody else has made progress.
const RACES: usize = 8;

/// The vault of the family.
///
/// Every customer has a data key of its own, made at first use. A sealed value names the number of its data key;
/// authenticated with it are its purpose, algorithm, data key, customer, record, field and generation, so that it opens
/// nowhere but where it was sealed.
///
/// ```
/// use crosspoint_connectors::{EnvelopeVault, KeyRing};
/// use crosspoint_core::{Memory, Store, SystemClock};
/// use std::sync::Arc;
///
/// let store: Store = Memory::new().into();
/// let vault = EnvelopeVault::new(Arc::new(KeyRing::generate()?), store.data_keys, Arc::new(SystemClock::new()));
/// # let _ = vault;
/// # Ok::<(), crosspoint_core::Error>(())
/// ```
pub struct EnvelopeVault {
    wrap: Arc<dyn KeyWrap>,
    data_keys: Arc<dyn DataKeys>,
    clock: Arc<dyn Clock>,
    cache: Cache,
}

impl fmt::Debug for EnvelopeVault {
    /// Without the store: one in memory would print everything that it holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvelopeVault")
            .field("wrap", &self.wrap)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

/// What a rotation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Rewrapped {
    /// Data keys that are wrapped with the current key now.
    pub done: usize,
    /// Data keys that already were, or that another process did at the same time.
    pub current: usize,
}

impl EnvelopeVault {
    /// A vault over wrapping keys and the repository of data keys.
    #[must_use]
    pub fn new(wrap: Arc<dyn KeyWrap>, data_keys: Arc<dyn DataKeys>, clock: Arc<dyn Clock>) -> Self {
        Self {
            wrap,
            data_keys,
            clock,
            cache: Cache::new(CACHED_KEYS),
        }
    }

    /// Gives a customer a new data key for what is sealed from now on; what the older ones sealed still opens. The
    /// number of the new key.
    ///
    /// # Errors
    /// Of the store and of the wrapping.
    pub async fn renew(&self, scope: &CustomerScope) -> Result<u32> {
        for _ in 0..RACES {
            let newest = self
                .data_keys
                .keys(scope)
                .await?
                .into_iter()
                .map(|key| key.number)
                .max();
            if let Some((number, _)) = self.add(scope, newest.unwrap_or(0).saturating_add(1)).await? {
                return Ok(number);
            }
        }
        Err(busy(scope.customer()))
    }

    /// Wraps a customer's data keys with the current key of the ring. Safe while everything runs, and when repeated.
    ///
    /// # Errors
    /// [`Code::SecretUnreadable`] if a key was wrapped with one that is not at hand; errors of the store.
    pub async fn rewrap(&self, scope: &CustomerScope) -> Result<Rewrapped> {
        let current = self.wrap.current();
        let mut report = Rewrapped::default();
        for key in self.data_keys.keys(scope).await? {
            if self.wrap.wrapped_with(&key.wrapped).is_some_and(|id| id == current) {
                report.current += 1;
                continue;
            }
            let plain = self.wrap.unwrap(scope.customer(), &key.wrapped).await?;
            let wrapped = self.wrap.wrap(scope.customer(), &plain).await?;
            match self.data_keys.rewrap(scope, key.number, &key.wrapped, &wrapped).await? {
                Saved::Applied => report.done += 1,
                // Whoever was faster wraps with the newest key that it knows; the next round sees to the rest.
                _ => report.current += 1,
            }
        }
        Ok(report)
    }

    /// [`EnvelopeVault::rewrap`] for every customer that the store knows from its records of customers, connections or
    /// installations. Old keys may leave the ring after a round of this found nothing to do.
    ///
    /// # Errors
    /// As [`EnvelopeVault::rewrap`]; customers before the failing one are done.
    pub async fn rewrap_all(&self, fleet: &FleetScope, store: &Store) -> Result<Rewrapped> {
        let mut total = Rewrapped::default();
        for customer in customers(fleet, store).await? {
            let one = self.rewrap(&scope_of(&customer)).await?;
            total.done += one.done;
            total.current += one.current;
        }
        Ok(total)
    }

    /// The newest data key of a customer, made if there is none.
    async fn newest(&self, customer: &CustomerId) -> Result<(u32, Arc<Key>)> {
        let scope = scope_of(customer);
        for _ in 0..RACES {
            let keys = self.data_keys.keys(&scope).await?;
            if let Some(newest) = keys.iter().max_by_key(|key| key.number) {
                return Ok((newest.number, self.unwrapped(customer, newest).await?));
            }
            if let Some(made) = self.add(&scope, 1).await? {
                return Ok(made);
            }
        }
        Err(busy(customer))
    }

    /// Adds a fresh key; `None` if the number is taken.
    async fn add(&self, scope: &CustomerScope, number: u32) -> Result<Option<(u32, Arc<Key>)>> {
        let key = seal::random_key()?;
        let plain: SecretBytes = SecretBox::new(Box::new(key.expose_secret().to_vec()));
        let wrapped = self.wrap.wrap(scope.customer(), &plain).await?;
        let record = DataKey::new(number, wrapped, self.clock.now());
        match self.data_keys.add(scope, &record).await? {
            Saved::Applied => {
                let key = Arc::new(key);
                self.cache.put(scope.customer().clone(), number, Arc::clone(&key));
                Ok(Some((number, key)))
            }
            _ => Ok(None),
        }
    }

    async fn by_number(&self, customer: &CustomerId, number: u32) -> Result<Arc<Key>> {
        if let Some(key) = self.cache.get(customer, number) {
            return Ok(key);
        }
        let keys = self.data_keys.keys(&scope_of(customer)).await?;
        match keys.iter().find(|key| key.number == number) {
            Some(key) => self.unwrapped(customer, key).await,
            None => Err(Error::new(
                Code::SecretUnreadable,
                "the data key that sealed this secret is not stored",
            )
            .with("customer", customer)
            .with("data_key", number)),
        }
    }

    async fn unwrapped(&self, customer: &CustomerId, key: &DataKey) -> Result<Arc<Key>> {
        if let Some(known) = self.cache.get(customer, key.number) {
            return Ok(known);
        }
        let plain = self.wrap.unwrap(customer, &key.wrapped).await?;
        let unwrapped = Arc::new(seal::key_from(plain.expose_secret()).ok_or_else(|| {
            Error::new(Code::SecretUnreadable, "a data key does not have the right length")
                .with("customer", customer)
                .with("data_key", key.number)
        })?);
        self.cache.put(customer.clone(), key.number, Arc::clone(&unwrapped));
        Ok(unwrapped)
    }
}

fn busy(customer: &CustomerId) -> Error {
    Error::new(
        Code::StoreUnavailable,
        "the customer's data keys changed again and again",
    )
    .with("customer", customer)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the vault acts for the owner of the record, whom its caller took from a scope"
)]
fn scope_of(customer: &CustomerId) -> CustomerScope {
    CustomerScope::trusted(customer.clone())
}

async fn customers(fleet: &FleetScope, store: &Store) -> Result<BTreeSet<CustomerId>> {
    let mut all = BTreeSet::new();
    let mut page = Page::default();
    loop {
        let found = store.customers.list(fleet, page.clone()).await?;
        all.extend(found.items.into_iter().map(|customer| customer.id));
        let Some(next) = found.next else { break };
        page.after = Some(next);
    }
    page.after = None;
    loop {
        let found = store.connections.list(Scope::Fleet(fleet), page.clone()).await?;
        all.extend(found.items.into_iter().map(|connection| connection.customer));
        let Some(next) = found.next else { break };
        page.after = Some(next);
    }
    page.after = None;
    loop {
        let found = store.installations.list(Scope::Fleet(fleet), page.clone()).await?;
        all.extend(found.items.into_iter().map(|installation| installation.customer));
        let Some(next) = found.next else { break };
        page.after = Some(next);
    }
    Ok(all)
}

fn facts(context: &SealContext, number: u32) -> Facts {
    Facts::of("crosspoint secret")
        .and(context.purpose.as_bytes())
        .and(&number.to_be_bytes())
        .and(context.customer.as_str().as_bytes())
        .and(context.record.as_bytes())
        .and(context.field.as_bytes())
        .and(&context.generation.to_be_bytes())
}

/// Number of the data key and the rest, from `version | algorithm | number | nonce | ciphertext and tag`.
fn split(sealed: &[u8]) -> Option<(u32, &[u8])> {
    let [VERSION, ALGORITHM, rest @ ..] = sealed else {
        return None;
    };
    let (number, rest) = rest.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*number), rest))
}

#[async_trait]
impl Vault for EnvelopeVault {
    async fn seal(&self, context: &SealContext, secret: &SecretBytes) -> Result<Sealed> {
        let (number, key) = self.newest(&context.customer).await?;
        let mut header = vec![VERSION, ALGORITHM];
        header.extend_from_slice(&number.to_be_bytes());
        seal::seal(&key, &facts(context, number), secret.expose_secret(), header).map(Sealed::from_bytes)
    }

    async fn open(&self, context: &SealContext, sealed: &Sealed) -> Result<SecretBytes> {
        let unreadable = |why: &str| {
            Error::new(Code::SecretUnreadable, why)
                .with("purpose", context.purpose)
                .with("record", &context.record)
        };
        let (number, rest) = split(sealed.as_bytes())
            .ok_or_else(|| unreadable("a sealed secret is not in the form that this release writes"))?;
        let key = self.by_number(&context.customer, number).await?;
        seal::open(&key, &facts(context, number), rest).ok_or_else(|| {
            unreadable("a sealed secret was changed, or belongs to another record or an older generation")
        })
    }
}
