//! Data keys: numbered once, wrapped anew only from what was read.

use crate::{Harness, race, scope};
use crosspoint_core::{DataKey, Saved};

fn key(h: &Harness, number: u32, byte: u8) -> DataKey {
    DataKey::new(number, vec![byte; 60], h.now())
}

/// Keys come back by number, as they were added.
pub async fn keys_are_kept_by_number(h: &Harness) {
    let acme = scope::customer("acme");
    let keys = &h.store.data_keys;
    assert!(keys.keys(&acme).await.unwrap().is_empty());
    for number in [2, 1, 3] {
        let key = key(h, number, 7);
        assert_eq!(keys.add(&acme, &key).await.unwrap(), Saved::Applied);
    }
    assert_eq!(
        keys.keys(&acme).await.unwrap(),
        [1, 2, 3].map(|number| key(h, number, 7))
    );
}

/// Two processes that make a customer's first key at once agree on one: the other is told to read again.
pub async fn a_race_for_a_number_has_one_winner(h: &Harness) {
    let answers = race(8, |n| {
        let (store, key) = (h.store.clone(), key(h, 1, u8::try_from(n).expect("few")));
        async move { store.data_keys.add(&scope::customer("acme"), &key).await.unwrap() }
    })
    .await;
    let winner = answers.iter().position(|a| *a == Saved::Applied).expect("one");
    assert_eq!(
        answers.iter().filter(|a| **a == Saved::Applied).count(),
        1,
        "{answers:?}"
    );
    let kept = h.store.data_keys.keys(&scope::customer("acme")).await.unwrap();
    assert_eq!(kept, [key(h, 1, u8::try_from(winner).expect("few"))]);
}

/// A wrapping is replaced only if it still is the one that was read.
pub async fn a_key_is_wrapped_anew_once(h: &Harness) {
    let acme = scope::customer("acme");
    let keys = &h.store.data_keys;
    keys.add(&acme, &key(h, 1, 1)).await.unwrap();
    keys.add(&acme, &key(h, 2, 1)).await.unwrap();
    let (old, new) = (vec![1; 60], vec![9; 61]);
    assert_eq!(keys.rewrap(&acme, 1, &old, &new).await.unwrap(), Saved::Applied);
    assert_eq!(keys.rewrap(&acme, 1, &old, &[3]).await.unwrap(), Saved::Stale);
    assert_eq!(keys.rewrap(&acme, 9, &old, &new).await.unwrap(), Saved::Stale);
    let kept = keys.keys(&acme).await.unwrap();
    assert_eq!(kept[0].wrapped, new);
    assert_eq!(kept[1], key(h, 2, 1), "other keys stay");
}

/// Customers number their keys for themselves.
pub async fn customers_do_not_share_keys(h: &Harness) {
    let (acme, globex) = (scope::customer("acme"), scope::customer("globex"));
    let keys = &h.store.data_keys;
    assert_eq!(keys.add(&acme, &key(h, 1, 1)).await.unwrap(), Saved::Applied);
    assert!(keys.keys(&globex).await.unwrap().is_empty());
    assert_eq!(keys.rewrap(&globex, 1, &[1; 60], &[2]).await.unwrap(), Saved::Stale);
    assert_eq!(keys.add(&globex, &key(h, 1, 2)).await.unwrap(), Saved::Applied);
    assert_eq!(keys.keys(&acme).await.unwrap(), [key(h, 1, 1)]);
}
