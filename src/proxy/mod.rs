//! The wire: one worker per core accepts, forwards and records. Read
//! [`direct`] first: it is the life of a request.

mod access;
mod beacon;
mod body;
mod cache;
mod clock;
mod connection;
mod direct;
mod edit;
mod event_faults;
mod framing;
mod grammar;
pub mod headers;
mod hops;
mod hpack;
mod http2;
mod last_hop;
pub mod log_lines;
mod opening;
mod pace;
mod patient;
mod policy;
mod record;
mod reply;
mod reserved;
mod slots;
mod snapshot;
mod socket;
mod trace;
mod trail;
mod trickle;
mod tunnel;
mod upgrade;
pub mod worker;

/// What the fuzzer reads through: private in every other build.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use super::direct::Rooms;
    pub use super::direct::fuzzing as direct;
    pub use super::framing::{Bounds, Framing};
    pub use super::opening::{first, is_http2, speaks_for};
    pub use super::reply::Reason;
    pub use super::reserved::Reserved;
    pub use super::trace::Tags;
}

pub use snapshot::{Shared, Snapshot, Worker};
