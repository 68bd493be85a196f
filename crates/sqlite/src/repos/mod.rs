//! The traits of core over writer and readers: reads, and the way from rows to the types of core.

mod dispatch;
mod executions;
mod platform;
mod seen;

pub(crate) use platform::schedule;
pub(crate) use seen::Seen;

use crate::fail::damaged;
use crosspoint_core::{Code, CustomerId, Error, Page, Paged, Result, Scope};
use serde::{Serialize, de::DeserializeOwned};

/// The word that an enum without fields writes itself as.
pub(crate) fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// The enum that writes itself as this word.
pub(crate) fn from_word<T: DeserializeOwned>(word: String) -> Result<T> {
    serde_json::from_value(word.into()).map_err(|e| damaged("word").caused_by(e))
}

/// As JSON text.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|e| Error::new(Code::Internal, "a record cannot be written as JSON").caused_by(e))
}

/// From JSON text.
pub(crate) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| damaged("record").caused_by(e))
}

/// The customer of a scope; `None` is the fleet.
pub(crate) fn owner(scope: Scope<'_>) -> Option<CustomerId> {
    scope.customer().cloned()
}

/// Whether a row that belongs to `customer` may be shown.
fn covers(owner: Option<&CustomerId>, customer: &str) -> bool {
    owner.is_none_or(|owner| owner.as_str() == customer)
}

/// The number behind which a page starts.
fn cursor(page: &Page, first: i64) -> Result<i64> {
    match &page.after {
        None => Ok(first),
        Some(cursor) => cursor.parse().map_err(|_| bad_cursor()),
    }
}

fn bad_cursor() -> Error {
    Error::new(
        Code::InputInvalid,
        "the cursor is not one that a page of this list gave",
    )
}

/// The most rows of a page, and one more to know whether there is another.
fn one_more(page: &Page) -> i64 {
    i64::try_from(page.limit).unwrap_or(i64::MAX - 1).saturating_add(1)
}

/// A page from one row more than it may have; `key` is an item's place in the list.
fn paged<T>(mut items: Vec<T>, page: &Page, key: impl Fn(&T) -> String) -> Paged<T> {
    let more = items.len() > page.limit;
    items.truncate(page.limit);
    let next = if more { items.last().map(key) } else { None };
    Paged::new(items, next)
}
