//! The wire: one worker per core accepts, forwards and records. Read [`handle`] first: it is the
//! life of a request from top to bottom.

mod access;
mod beacon;
mod body;
mod cache;
mod clock;
mod connection;
mod direct;
mod edit;
mod event_faults;
mod forward;
mod framing;
mod gate;
mod grammar;
pub mod handle;
pub mod headers;
mod hops;
mod hpack;
mod http2;
mod last_hop;
mod line;
pub mod log_lines;
mod opening;
mod pace;
mod patient;
mod record;
mod reply;
mod reserved;
mod route;
mod slots;
mod snapshot;
mod socket;
mod trace;
mod trail;
mod trickle;
mod tunnel;
mod upgrade;
mod upload;
pub mod worker;

/// What the fuzzer reads through: private in every other build.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use super::direct::Rooms;
    pub use super::direct::fuzzing as direct;
    pub use super::framing::{Bounds, Framing};
    pub use super::gate::{Gate, Times};
    pub use super::line::Line;
    pub use super::opening::{first, is_http2, speaks_for};
    pub use super::reply::Reason;
    pub use super::reserved::Reserved;
    pub use super::trace::Tags;
}

pub use snapshot::{Shared, Snapshot, Worker};
