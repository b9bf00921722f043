//! Forwarding: exposures and events as messages to analytics, collectors and webhooks.
//!
//! Each destination is a task of its own, with a [`Follower`](crate::journal::Follower) for each journal, so that one
//! that is away delays only itself. Some records of one journal become [`messages`](message), these become requests
//! ([`payload`]), and once all of them are settled, the position is stored in the journal's folder. A process that dies
//! in between sends them again: a message has the same ID then, by which the destination can drop it.
//!
//! What waits is bounded: beyond `backlog` the journal deletes records, and beyond `max_age` they are not sent any
//! more. Both are counted, and so are messages that the destination refuses although it accepts others.

mod client;
mod delivery;
mod forwarder;
#[cfg(test)]
mod golden;
mod journal;
mod message;
mod payload;
mod selection;

pub(crate) use forwarder::Forwarder;
