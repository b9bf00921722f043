//! Events that wait for their user's exposure, and their limits. PURE.
//!
//! Most events are of users in the experiment. The others cannot be distinguished from events whose
//! exposure comes late, so they wait for a while. Their number is limited for each user, and their bytes
//! for all users of a shard. Events from before the exposure are also the covariate of a metric with
//! `covariate`: they wait for that much longer. Beyond the limit, events of users without any exposure are dropped first, and
//! of these the oldest. Dropped events are counted.

use super::{EventAt, keys};

/// The most events that wait for one user's exposure.
pub const OF_USER_MAX: usize = 64;

/// The most bytes of one user's waiting events, as stores write them.
pub const OF_USER_BYTES_MAX: usize = 4_096;

/// The most users of a shard with waiting events.
pub const USERS_MAX: u64 = 100_000;

/// The most bytes of all waiting events of a shard, including their users' IDs and [`OVERHEAD_BYTES`].
pub const BYTES_MAX: u64 = 64 << 20;

/// The bytes that a store needs for a user's events, besides twice the ID and the events.
pub const OVERHEAD_BYTES: u64 = 150;

/// Added to the time of users with a known exposure, so that their events are dropped last.
pub const EXPOSED_MS: u64 = 1_000_000_000_000_000;

/// What waits, in place of an event, to say that a minted ID came back before its exposure is known. No
/// metric has this name.
pub const CAME_BACK: &str = "~came-back";

/// Says that a minted ID came back at this time.
pub fn came_back(at_ms: u64) -> EventAt {
    EventAt {
        at_ms,
        reported_ms: at_ms,
        metric: CAME_BACK.to_owned(),
        within_ms: None,
        cap: None,
        covariate_ms: None,
        count: 0,
        sum: 0,
        base: 0,
        id: None,
    }
}

/// The waiting events of one user.
#[derive(Debug, Default)]
pub struct Waiting {
    /// Oldest arrival first.
    pub events: Vec<EventAt>,
    bytes: usize,
}

impl Waiting {
    /// Adds an event unless it waits already. Returns whether there was room.
    pub fn add(&mut self, event: &EventAt) -> bool {
        let again = |other: &EventAt| event.id.is_some() && event.id == other.id;
        if self.events.iter().any(again) {
            return true;
        }
        // One byte more for the space between events.
        let bytes = self.bytes + keys::write_event(event).len() + 1;
        let has_room = self.events.len() < OF_USER_MAX && bytes <= OF_USER_BYTES_MAX;
        if has_room {
            self.bytes = bytes;
            self.events.push(event.clone());
        }
        has_room
    }
}

/// Returns the rank of a user's events in the order of dropping; `None` without events. Events of a
/// metric with a covariate wait that much longer.
pub fn rank(events: &[EventAt], is_exposed: bool) -> Option<u64> {
    let since = |event: &EventAt| event.reported_ms + event.covariate_ms.unwrap_or(0);
    let last_ms = events.iter().map(since).max()?;
    Some(if is_exposed {
        EXPOSED_MS + last_ms
    } else {
        last_ms
    })
}
