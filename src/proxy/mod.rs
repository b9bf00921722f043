//! The wire: one worker per core accepts, forwards and records. Read [`handle`] first: it is the
//! life of a request from top to bottom.

mod body;
mod connection;
mod forward;
mod framing;
mod gate;
mod grammar;
pub mod handle;
pub mod headers;
mod hops;
mod line;
mod reply;
mod snapshot;
mod socket;
mod upload;
pub mod worker;

pub use snapshot::{Snapshot, Worker};
