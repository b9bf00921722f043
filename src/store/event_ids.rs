//! IDs of counted events, so that an event that is reported again counts once. PURE.
//!
//! The store keeps one entry for each ID, with its user, experiment, metric and time. It looks up the
//! IDs of a delta, and forgets a bounded number of old ones with every delta. So the cost of a delta does
//! not grow with earlier events.

use super::EventAt;
use std::collections::{BTreeMap, BTreeSet};

/// How long an ID is kept after its event was reported, by the clock of the journals.
pub const KEEP_MS: u64 = 48 * 3_600_000;

/// The most IDs of one user in an experiment. Further events with an ID do not count, because a repeated
/// one could not be recognized; results report how many there were.
pub const OF_USER_MAX: u64 = 10_000;

/// How many old IDs each delta removes from the store, besides two for each that it adds.
pub const FORGOTTEN_AT_ONCE: u64 = 1_000;

/// The IDs of one user, as far as a delta needs them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventIds {
    /// The IDs of the delta that were counted before.
    pub counted: BTreeSet<u64>,
    /// The number of all IDs of the user.
    pub remembered: u64,
    /// The IDs that are counted now, with the times at which their events were reported.
    pub new: BTreeMap<u64, u64>,
    /// IDs of events that were reported before this time are not kept.
    pub from_ms: u64,
}

impl EventIds {
    /// Whether an event counts, by its ID.
    pub fn admit(&mut self, event: &EventAt) -> EventIdOutcome {
        let Some(id) = event.id else {
            return EventIdOutcome::Yes;
        };
        if self.counted.contains(&id) {
            return EventIdOutcome::Again;
        }
        if event.reported_ms < self.from_ms {
            return EventIdOutcome::Yes;
        }
        if self.remembered >= OF_USER_MAX {
            return EventIdOutcome::TooMany;
        }
        self.remembered += 1;
        self.counted.insert(id);
        self.new.insert(id, event.reported_ms);
        EventIdOutcome::Yes
    }
}

/// Whether an event counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventIdOutcome {
    /// It counts, and its ID is kept if it has one.
    Yes,
    /// It was counted before.
    Again,
    /// Its user has too many IDs.
    TooMany,
}

/// The numbers of events of an experiment that are never counted, over all replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// Events beyond [`OF_USER_MAX`].
    pub refused_ids: u64,
    /// Events that waited for an exposure and were dropped for lack of space.
    pub dropped_waiting: u64,
}

impl EventCounts {
    /// Adds counts by their stored names. Names of other versions are ignored.
    pub fn add<'a>(&mut self, counts: impl IntoIterator<Item = (&'a str, u64)>) {
        for (name, count) in counts {
            match name {
                "refused_ids" => self.refused_ids += count,
                "dropped_waiting" => self.dropped_waiting += count,
                _ => {}
            }
        }
    }

    /// Returns the counts with their stored names.
    pub fn named(self) -> [(&'static str, u64); 2] {
        [
            ("refused_ids", self.refused_ids),
            ("dropped_waiting", self.dropped_waiting),
        ]
    }
}
