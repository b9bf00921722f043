//! Events that wait for their user's exposure: how many, and which give way. PURE.
//!
//! Most who report events in the name of a user are in the experiment. The others cannot be told
//! from those whose exposure comes late, so what they bring is kept for a while, and bounded: of
//! each user, and of all users of a shard in bytes. Where there are too many, those of users without
//! any known exposure give way first, and of these the ones that wait longest. What gives way is
//! counted.

use super::{EventAt, keys};

/// The most events that wait for one user's exposure.
pub const OF_USER_MAX: usize = 64;

/// The most bytes of one user's waiting events, as stores write them.
pub const OF_USER_BYTES_MAX: usize = 4_096;

/// The most users of a shard whose events wait.
pub const USERS_MAX: u64 = 100_000;

/// The most bytes of all waiting events of a shard, with their users' IDs and [`OVERHEAD_BYTES`].
pub const BYTES_MAX: u64 = 64 << 20;

/// What a store needs to keep a user's events, beside twice the ID and the events.
pub const OVERHEAD_BYTES: u64 = 150;

/// Added to the time of users with a known exposure: they give way last.
pub const EXPOSED_MS: u64 = 1_000_000_000_000_000;

/// The events of one user that go on waiting.
#[derive(Debug, Default)]
pub struct Waiting {
    /// Oldest arrival first.
    pub events: Vec<EventAt>,
    bytes: usize,
}

impl Waiting {
    /// Has an event wait, unless it waits already. Whether there was room.
    pub fn add(&mut self, event: &EventAt) -> bool {
        let again = |other: &EventAt| event.id.is_some() && event.id == other.id;
        if self.events.iter().any(again) {
            return true;
        }
        // With the space between it and the one before.
        let bytes = self.bytes + keys::write_event(event).len() + 1;
        let has_room = self.events.len() < OF_USER_MAX && bytes <= OF_USER_BYTES_MAX;
        if has_room {
            self.bytes = bytes;
            self.events.push(event.clone());
        }
        has_room
    }
}

/// Where a user's events stand in the order of giving way; `None` without any.
pub fn rank(events: &[EventAt], is_exposed: bool) -> Option<u64> {
    let last_ms = events.iter().map(|event| event.reported_ms).max()?;
    Some(if is_exposed {
        EXPOSED_MS + last_ms
    } else {
        last_ms
    })
}
