//! The pieces of HTTP that the layer and the status resource share.

mod headers;
mod key;
mod prefer;
mod problem;
mod timing;

pub(crate) use headers::{OURS, for_kept_reply, for_reply, for_storage, for_stored_reply, retry_after, whole_seconds};
pub(crate) use key::{KEY_HEADER, KeyScope, idempotency_key, well_formed};
pub(crate) use prefer::Prefer;
pub(crate) use problem::{json, problem};
pub(crate) use timing::stamp;
