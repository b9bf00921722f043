//! Messages to webhooks that are not delivered yet, and the events that have messages already.

use serde::{Deserialize, Serialize};

/// The most messages that wait at once. While there are so many, no event gets new ones.
pub const PENDING_MAX: usize = 10_000;
/// The most events that are remembered; beyond, those that were reported longest ago are forgotten.
pub const EVENTS_MAX: usize = 50_000;

/// One message to one receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingMessage {
    /// The ID of the message. It is the same for every receiver and at every attempt.
    pub id: String,
    /// The digest of the receiver's address. The address may hold a secret, and is not stored.
    pub receiver: String,
    /// The event; see [`EventMark::key`].
    pub event: String,
    /// The body of the request.
    pub body: String,
    /// When the event was found, in Unix milliseconds.
    pub created_ms: u64,
    /// Attempts that have failed.
    pub attempts: u32,
}

impl PendingMessage {
    /// The name of this message to this receiver, unique over all.
    pub fn entry(&self) -> String {
        format!("{}.{}", self.id, self.receiver)
    }
}

/// An event that is reported once, by whichever replica finds it first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventMark<'a> {
    /// What happened, in a form that is the same at every replica and after every restart.
    pub key: &'a str,
    /// The time, in Unix milliseconds.
    pub at_ms: u64,
    /// The event counts as new again when it was not reported for so long, in milliseconds;
    /// [`EventMark::ONCE`] for never.
    pub quiet_ms: u64,
}

impl EventMark<'_> {
    /// The time after which an event that happens only once counts as new: never. Lua has 53 bits.
    pub const ONCE: u64 = 1 << 52;
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// It is new, and its messages wait.
    New,
    /// It was reported before.
    Known,
    /// It is new, and there is no room for its messages. Nothing was stored.
    Full,
}

/// A process that takes messages in order to send them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taker<'a> {
    /// Its name, which stays the same over restarts.
    pub name: &'a str,
    /// The time, in Unix milliseconds.
    pub now_ms: u64,
    /// Until when others leave what it takes to it.
    pub until_ms: u64,
    /// The most messages that it takes.
    pub max: usize,
    /// Whether the process has just started: what waits for another attempt is due at once, and so is what
    /// it had taken before.
    pub has_restarted: bool,
}

/// The messages that a process took, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenMessages {
    /// The messages, due longest first.
    pub messages: Vec<PendingMessage>,
    /// All messages that are not delivered, those of other processes among them.
    pub pending: u64,
}
