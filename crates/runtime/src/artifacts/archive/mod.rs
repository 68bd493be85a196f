//! Archives: `.tar`, plain or compressed with gzip.

mod pack;
mod unpack;

pub use pack::pack;
pub(super) use unpack::unpack;
