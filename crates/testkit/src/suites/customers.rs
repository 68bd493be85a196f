//! Customers, just in time.

use crate::{Harness, scope};
use crosspoint_core::{Customer, CustomerId, Page};
use std::time::Duration;

pub(super) fn customer(h: &Harness, id: &str, name: &str) -> Customer {
    Customer::new(CustomerId::new(id).unwrap(), name, h.now())
}

async fn all(h: &Harness, limit: usize) -> Vec<Customer> {
    let (mut page, mut all) = (Page::first(limit), Vec::new());
    loop {
        let part = h.store.customers.list(&scope::fleet(), page).await.unwrap();
        assert!(part.items.len() <= limit);
        all.extend(part.items);
        let Some(next) = part.next else { return all };
        page = Page::after(next, limit);
    }
}

/// The first sight makes the record; a later one changes only the name.
pub async fn a_customer_is_made_once(h: &Harness) {
    let first = customer(h, "acme", "Acme");
    let acme = scope::customer("acme");
    h.store.customers.ensure(&acme, &first).await.unwrap();
    h.advance(Duration::from_secs(60));
    h.store
        .customers
        .ensure(&acme, &customer(h, "acme", "Acme Inc."))
        .await
        .unwrap();
    let mut renamed = first;
    renamed.name = "Acme Inc.".to_owned();
    assert_eq!(all(h, 9).await, [renamed]);
}

/// They are listed by id, in pages that hold each once.
pub async fn customers_are_listed_by_id(h: &Harness) {
    for id in ["d", "a", "c", "e", "b"] {
        h.store
            .customers
            .ensure(&scope::customer(id), &customer(h, id, id))
            .await
            .unwrap();
    }
    let ids: Vec<_> = all(h, 2).await.into_iter().map(|c| c.id.to_string()).collect();
    assert_eq!(ids, ["a", "b", "c", "d", "e"]);
}
