//! Pages of lists.

/// Which part of a list to read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Page {
    /// The `next` of the page before; `None` for the first.
    pub after: Option<String>,
    /// How many items at most, 1 to 100.
    pub limit: usize,
}

impl Page {
    /// The first page with up to `limit` items (1 to 100).
    #[must_use]
    pub fn first(limit: usize) -> Self {
        Self {
            after: None,
            limit: limit.clamp(1, 100),
        }
    }

    /// The page behind a cursor.
    #[must_use]
    pub fn after(cursor: impl Into<String>, limit: usize) -> Self {
        Self {
            after: Some(cursor.into()),
            limit: limit.clamp(1, 100),
        }
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::first(50)
    }
}

/// A part of a list.
#[derive(Debug, Clone, serde::Serialize, schemars::JsonSchema)]
#[non_exhaustive]
pub struct Paged<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page starts; `None` at the end. Opaque.
    pub next: Option<String>,
}

impl<T> Paged<T> {
    /// A part of a list.
    #[must_use]
    pub const fn new(items: Vec<T>, next: Option<String>) -> Self {
        Self { items, next }
    }

    /// The same page with other items.
    #[must_use]
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Paged<U> {
        Paged {
            items: self.items.into_iter().map(f).collect(),
            next: self.next,
        }
    }
}
