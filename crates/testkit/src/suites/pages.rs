//! Cursors of pages.

use super::T;
use crate::{Harness, scope};
use crosspoint_core::{Audience, Code, ExecutionFilter, Page, Paged, Result};

/// A cursor that no page of a list can have given is refused, and not taken for the end of the list.
pub async fn a_foreign_cursor_is_refused(h: &Harness) {
    let fleet = scope::fleet();
    let id = h.queue(h.flow(T, "acme")).await;
    let (store, filter) = (&h.store, ExecutionFilter::default());
    let all = || (&fleet).into();
    for cursor in ["", "no cursor", "7.seven"] {
        let page = || Page::after(cursor, 5);
        if let Some(admin) = store.dispatch.admin() {
            refused("dead letters", cursor, admin.dead(all(), page()).await);
        }
        refused(
            "executions",
            cursor,
            store.executions.list(all(), &filter, page()).await,
        );
        let lines = store.log.lines(all(), id, Audience::Developer, page()).await;
        refused("log", cursor, lines);
        refused("installations", cursor, store.installations.list(all(), page()).await);
        refused("connections", cursor, store.connections.list(all(), page()).await);
    }
    let customers = store.customers.list(&fleet, Page::after("no customer", 5)).await;
    refused("customers", "no customer", customers);
}

fn refused<T>(list: &str, cursor: &str, answer: Result<Paged<T>>) {
    match answer {
        Ok(page) => panic!("{list} took {cursor:?} and gave {} items", page.items.len()),
        Err(error) => assert_eq!(error.code(), Code::InputInvalid, "{list}, {cursor:?}: {error}"),
    }
}
