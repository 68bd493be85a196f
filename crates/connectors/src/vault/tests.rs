use super::*;
use crate::KeyRing;
use crosspoint_core::{ConnectionId, Customer, Memory, SystemClock};
use std::sync::atomic::{AtomicBool, Ordering};

const CANARY: &str = "canary-9c1e";
const OLD: &str = "old:PMW3y2sSBSV2Yk0vAbJmOSj1dt3ClhVIWcqfO3nM8Zw=";
const NEW: &str = "new:QFo0Jn0Vq1zO0bqj0v3l2h6mXk1o8Yw4t7r9s5u2v1w=";

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

fn customer(name: &str) -> CustomerId {
    CustomerId::new(name).unwrap()
}

fn vault(ring: &str, store: &Store) -> EnvelopeVault {
    EnvelopeVault::new(
        Arc::new(KeyRing::parse(ring).unwrap()),
        store.data_keys.clone(),
        clock(),
    )
}

fn context(name: &str, generation: u64) -> SealContext {
    SealContext::credential(customer(name), ConnectionId::derive(&["one"]), generation)
}

fn canary() -> SecretBytes {
    SecretBox::new(Box::new(CANARY.as_bytes().to_vec()))
}

fn other_purpose() -> SealContext {
    let mut other = context("acme", 1);
    other.purpose = "config";
    other
}

fn other_record() -> SealContext {
    let mut other = context("acme", 1);
    other.record = ConnectionId::derive(&["two"]).to_string();
    other
}

fn other_field() -> SealContext {
    let mut other = context("acme", 1);
    other.field = "token".to_owned();
    other
}

#[tokio::test]
async fn it_opens_where_it_was_sealed_and_nowhere_else() {
    let store: Store = Memory::new().into();
    let vault = vault(OLD, &store);
    let sealed = vault.seal(&context("acme", 1), &canary()).await.unwrap();
    // So that the other customer has a data key of the same number.
    vault.seal(&context("globex", 1), &canary()).await.unwrap();

    let back = vault.open(&context("acme", 1), &sealed).await.unwrap();
    assert_eq!(back.expose_secret(), CANARY.as_bytes());
    for moved in [
        context("globex", 1),
        context("acme", 2),
        other_purpose(),
        other_record(),
        other_field(),
    ] {
        let error = vault.open(&moved, &sealed).await.unwrap_err();
        assert_eq!(error.code(), Code::SecretUnreadable, "{moved:?}");
    }
}

#[tokio::test]
async fn no_bit_can_be_changed_and_nothing_cut_off() {
    let store: Store = Memory::new().into();
    let vault = vault(OLD, &store);
    let sealed = vault.seal(&context("acme", 1), &canary()).await.unwrap();
    let bytes = sealed.as_bytes();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1 << bit;
            let opened = vault.open(&context("acme", 1), &Sealed::from_bytes(changed)).await;
            assert_eq!(
                opened.unwrap_err().code(),
                Code::SecretUnreadable,
                "byte {at} bit {bit}"
            );
        }
        let cut = Sealed::from_bytes(bytes[..at].to_vec());
        assert!(vault.open(&context("acme", 1), &cut).await.is_err(), "cut at {at}");
    }
}

#[tokio::test]
async fn two_seals_of_the_same_secret_differ() {
    let store: Store = Memory::new().into();
    let vault = vault(OLD, &store);
    let one = vault.seal(&context("acme", 1), &canary()).await.unwrap();
    let two = vault.seal(&context("acme", 1), &canary()).await.unwrap();
    assert_ne!(one, two);
    assert!(
        !one.as_bytes()
            .windows(CANARY.len())
            .any(|part| part == CANARY.as_bytes())
    );
}

#[tokio::test]
async fn a_rotation_takes_the_old_key_out_of_use() {
    let store: Store = Memory::new().into();
    let sealed = vault(OLD, &store).seal(&context("acme", 1), &canary()).await.unwrap();
    let name = Customer::new(customer("acme"), "Acme", clock().now());
    store
        .customers
        .ensure(&scope_of(&customer("acme")), &name)
        .await
        .unwrap();

    let alone = vault(NEW, &store).open(&context("acme", 1), &sealed).await.unwrap_err();
    assert_eq!(alone.code(), Code::SecretUnreadable);

    #[expect(clippy::disallowed_methods, reason = "a test acts as the operator")]
    let fleet = FleetScope::trusted();
    let both = vault(&format!("{NEW},{OLD}"), &store);
    let first = both.rewrap_all(&fleet, &store).await.unwrap();
    assert_eq!((first.done, first.current), (1, 0));
    let second = both.rewrap_all(&fleet, &store).await.unwrap();
    assert_eq!((second.done, second.current), (0, 1));

    let back = vault(NEW, &store).open(&context("acme", 1), &sealed).await.unwrap();
    assert_eq!(back.expose_secret(), CANARY.as_bytes());
}

#[tokio::test]
async fn a_renewed_data_key_seals_and_the_old_one_still_opens() {
    let store: Store = Memory::new().into();
    let vault = vault(OLD, &store);
    let before = vault.seal(&context("acme", 1), &canary()).await.unwrap();
    assert_eq!(vault.renew(&scope_of(&customer("acme"))).await.unwrap(), 2);
    let after = vault.seal(&context("acme", 1), &canary()).await.unwrap();
    assert_eq!(before.as_bytes()[2..6], [0, 0, 0, 1]);
    assert_eq!(after.as_bytes()[2..6], [0, 0, 0, 2]);
    for sealed in [before, after] {
        vault.open(&context("acme", 1), &sealed).await.unwrap();
    }
}

/// Another process makes the first data key between our reading and our writing.
#[derive(Debug)]
struct Overtaken {
    store: Store,
    done: AtomicBool,
}

#[async_trait]
impl DataKeys for Overtaken {
    async fn keys(&self, scope: &CustomerScope) -> Result<Vec<DataKey>> {
        self.store.data_keys.keys(scope).await
    }
    async fn add(&self, scope: &CustomerScope, key: &DataKey) -> Result<Saved> {
        if !self.done.swap(true, Ordering::SeqCst) {
            vault(OLD, &self.store).seal(&context("acme", 7), &canary()).await?;
        }
        self.store.data_keys.add(scope, key).await
    }
    async fn rewrap(&self, scope: &CustomerScope, number: u32, from: &[u8], to: &[u8]) -> Result<Saved> {
        self.store.data_keys.rewrap(scope, number, from, to).await
    }
}

#[tokio::test]
async fn whoever_makes_the_first_key_too_late_uses_the_other_one() {
    let store: Store = Memory::new().into();
    let keys = Arc::new(Overtaken {
        store: store.clone(),
        done: AtomicBool::new(false),
    });
    let late = EnvelopeVault::new(Arc::new(KeyRing::parse(OLD).unwrap()), keys, clock());
    let sealed = late.seal(&context("acme", 1), &canary()).await.unwrap();
    let stored = store.data_keys.keys(&scope_of(&customer("acme"))).await.unwrap();
    assert_eq!(stored.len(), 1);
    vault(OLD, &store).open(&context("acme", 1), &sealed).await.unwrap();
}

#[tokio::test]
async fn the_cache_is_bounded_and_what_left_it_is_read_again() {
    let store: Store = Memory::new().into();
    let vault = vault(OLD, &store);
    let mut sealed = Vec::new();
    for index in 0..CACHED_KEYS + 10 {
        let context = context(&format!("customer-{index}"), 1);
        sealed.push((vault.seal(&context, &canary()).await.unwrap(), context));
    }
    assert_eq!(vault.cache.len(), CACHED_KEYS);
    for (sealed, context) in &sealed {
        vault.open(context, sealed).await.unwrap();
    }
    assert_eq!(vault.cache.len(), CACHED_KEYS);
}

#[tokio::test]
async fn nothing_shows_the_secret() {
    let store: Store = Memory::new().into();
    let vault = vault(OLD, &store);
    let sealed = vault.seal(&context("acme", 1), &canary()).await.unwrap();
    let error = vault.open(&context("acme", 2), &sealed).await.unwrap_err();
    for text in [format!("{vault:?}"), format!("{sealed:?}"), format!("{error:?}")] {
        assert!(!text.contains(CANARY) && !text.contains("PMW3"), "{text}");
    }
}
