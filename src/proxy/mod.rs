//! The wire: one worker per core accepts, forwards and records. Read [`handle`] first: it is the
//! life of a request from top to bottom.

mod body;
mod forward;
pub mod handle;
pub mod headers;
mod reply;
mod snapshot;
pub mod worker;

pub use snapshot::{Snapshot, Worker};
