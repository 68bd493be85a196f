//! Connections: conditional on the generation of the credential; health is apart from it.

use crate::{Harness, race, scope};
use crosspoint_core::{Connection, ConnectionId, CustomerId, Health, Page, Saved, Sealed};
use std::time::Duration;

/// A connection of the customer, not yet saved.
pub(super) fn connection(h: &Harness, customer: &str) -> Connection {
    let owner = CustomerId::new(customer).unwrap();
    Connection::new(ConnectionId::mint(&*h.clock), owner, "http", "api-key-header", h.now())
}

pub(super) async fn save(h: &Harness, connection: &Connection) -> Saved {
    h.store
        .connections
        .save((&scope::fleet()).into(), connection)
        .await
        .unwrap()
}

pub(super) async fn get(h: &Harness, id: ConnectionId) -> Option<Connection> {
    h.store.connections.get((&scope::fleet()).into(), id).await.unwrap()
}

fn replaced(h: &Harness, old: &Connection, secret: u8) -> Connection {
    let mut new = old.clone();
    new.generation += 1;
    new.sealed = Some(Sealed::from_bytes(vec![secret; 40]));
    new.updated = h.now();
    new
}

/// Everything in the record is kept, the sealed credential byte for byte.
pub async fn a_record_is_kept_whole(h: &Harness) {
    let mut record = connection(h, "acme");
    record.label = "Our shop".to_owned();
    record.variables = [("base_url".to_owned(), "https://shop.example".to_owned())].into();
    record.sealed = Some(Sealed::from_bytes(vec![0, 1, 254, 255]));
    record.generation = 1;
    assert_eq!(save(h, &record).await, Saved::Applied);
    assert_eq!(get(h, record.id).await.expect("kept"), record);
}

/// A credential is replaced by who read the one before it; everybody else is stale and writes nothing.
pub async fn a_stale_credential_is_refused(h: &Harness) {
    let first = connection(h, "acme");
    save(h, &first).await;
    h.advance(Duration::from_secs(1));
    let mut second = replaced(h, &first, 2);
    second.label = "Renamed".to_owned();
    assert_eq!(save(h, &second).await, Saved::Applied);
    assert_eq!(
        save(h, &replaced(h, &first, 3)).await,
        Saved::Stale,
        "somebody was faster"
    );
    assert_eq!(save(h, &first).await, Saved::Stale, "it exists");
    let mut far = replaced(h, &second, 4);
    far.generation += 1;
    assert_eq!(save(h, &far).await, Saved::Stale, "no generation is left out");
    let kept = get(h, first.id).await.expect("kept");
    assert_eq!(
        (kept.generation, &kept.sealed, kept.label.as_str()),
        (1, &second.sealed, "Renamed")
    );
    assert_eq!(kept.created, first.created);
}

/// Of many that refresh the same credential, one is kept.
pub async fn a_race_has_one_winner(h: &Harness) {
    let first = connection(h, "acme");
    save(h, &first).await;
    let answers = race(8, |n| {
        let new = replaced(h, &first, u8::try_from(n).expect("few"));
        let store = h.store.clone();
        async move { store.connections.save((&scope::fleet()).into(), &new).await.unwrap() }
    })
    .await;
    let winner = answers.iter().position(|a| *a == Saved::Applied).expect("one");
    assert_eq!(answers.iter().filter(|a| **a == Saved::Applied).count(), 1);
    let secret = vec![u8::try_from(winner).expect("few"); 40];
    assert_eq!(
        get(h, first.id).await.expect("kept").sealed,
        Some(Sealed::from_bytes(secret))
    );
}

/// How a connection is doing changes nothing else and makes no save stale.
pub async fn health_makes_no_save_stale(h: &Harness) {
    let first = connection(h, "acme");
    save(h, &first).await;
    let second = replaced(h, &first, 2);
    let connections = &h.store.connections;
    let fleet = scope::fleet();
    connections
        .set_health((&fleet).into(), first.id, Health::NeedsReconnect)
        .await
        .unwrap();
    let mut kept = get(h, first.id).await.expect("kept");
    assert_eq!(kept.health, Health::NeedsReconnect);
    kept.health = first.health;
    assert_eq!(kept, first, "nothing else changed");
    assert_eq!(save(h, &second).await, Saved::Applied);
    connections
        .set_health((&fleet).into(), first.id, Health::Connected)
        .await
        .unwrap();
    let kept = get(h, first.id).await.expect("kept");
    assert_eq!((kept.health, kept.sealed), (Health::Connected, second.sealed));
    let unknown = ConnectionId::mint(&*h.clock);
    connections
        .set_health((&fleet).into(), unknown, Health::Connected)
        .await
        .unwrap();
    assert!(get(h, unknown).await.is_none(), "it makes none");
}

/// Removing says whether there was one.
pub async fn removing_says_whether_it_existed(h: &Harness) {
    let record = connection(h, "acme");
    save(h, &record).await;
    let fleet = scope::fleet();
    assert!(h.store.connections.remove((&fleet).into(), record.id).await.unwrap());
    assert!(!h.store.connections.remove((&fleet).into(), record.id).await.unwrap());
    assert!(get(h, record.id).await.is_none());
}

/// Lists are newest first, in pages that hold each once.
pub async fn connections_are_listed(h: &Harness) {
    let mut ids = Vec::new();
    for customer in ["acme", "globex", "acme", "acme", "globex"] {
        let record = connection(h, customer);
        save(h, &record).await;
        ids.push(record.id);
        h.advance(Duration::from_secs(1));
    }
    ids.reverse();
    let fleet = scope::fleet();
    let (mut page, mut listed) = (Page::first(2), Vec::new());
    loop {
        let part = h.store.connections.list((&fleet).into(), page).await.unwrap();
        listed.extend(part.items.iter().map(|connection| connection.id));
        let Some(next) = part.next else { break };
        page = Page::after(next, 2);
    }
    assert_eq!(listed, ids);
}
