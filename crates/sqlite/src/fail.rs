//! What went wrong with the file, in the words of core.

use crosspoint_core::{Code, Error};
use rusqlite::ErrorCode;

/// How an operation on the ledger fails.
#[derive(Debug)]
pub(crate) enum Fail {
    /// Nothing was written; only the one who asked is told.
    Refused(Error),
    /// The transaction is spoilt: everybody in the group is told.
    Group(Error),
}

impl From<rusqlite::Error> for Fail {
    fn from(error: rusqlite::Error) -> Self {
        Self::Group(store_error(error))
    }
}

impl From<Error> for Fail {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// An error of SQLite under the code that tells the operator what to do.
pub(crate) fn store_error(error: rusqlite::Error) -> Error {
    let (code, message) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            (Code::StoreCorrupt, "the database file is damaged or is none")
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            (Code::StoreReadOnly, "the database file cannot be written")
        }
        Some(ErrorCode::DiskFull) => (Code::StoreUnavailable, "the disk is full"),
        Some(ErrorCode::CannotOpen) => (Code::StoreUnavailable, "the database file cannot be opened"),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (Code::StoreUnavailable, "the database file is locked by somebody else")
        }
        Some(ErrorCode::SystemIoFailure) => (Code::StoreUnavailable, "the disk reports an error"),
        Some(_) => (Code::StoreUnavailable, "the database refused a statement"),
        None => (Code::StoreCorrupt, "the database holds a value of the wrong type"),
    };
    Error::new(code, message).caused_by(error)
}

/// The same failure for somebody else of the same group; the cause stays with the first.
pub(crate) fn shared(error: &Error) -> Error {
    Error::new(error.code(), error.message())
}

/// The store was closed under an operation.
pub(crate) fn closed() -> Error {
    Error::new(Code::StoreUnavailable, "the store is closed")
}

/// A stored value that this release cannot read.
pub(crate) fn damaged(what: &str) -> Error {
    Error::new(Code::StoreCorrupt, format!("a stored {what} cannot be read"))
}
