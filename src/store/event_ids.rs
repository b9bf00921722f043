//! IDs of events that were counted, so that one that is reported again counts once. PURE.
//!
//! They are remembered by time, each for its user, its experiment and its metric: the store keeps
//! one entry for each, looks up those that a delta brings, and forgets a bounded number of old ones
//! with every delta. So a delta costs the same however much was reported before.

use super::EventAt;
use std::collections::{BTreeMap, BTreeSet};

/// How long an ID is remembered after its event was reported, by the clock of the journals.
pub const KEEP_MS: u64 = 48 * 3_600_000;

/// The most IDs that are remembered of one user in an experiment. Further events with an ID are
/// not counted, since they could not be recognised; how many is counted.
pub const OF_USER_MAX: u64 = 10_000;

/// How many old IDs each delta takes out of the store, beside two for each that it adds.
pub const FORGOTTEN_AT_ONCE: u64 = 1_000;

/// What is remembered of one user, as far as a delta needs it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventIds {
    /// Of the IDs that the delta brings, those that were counted.
    pub counted: BTreeSet<u64>,
    /// How many are remembered in all.
    pub remembered: u64,
    /// Those that are counted now, with the times at which they were reported.
    pub new: BTreeMap<u64, u64>,
    /// Events that were reported before this are not remembered.
    pub from_ms: u64,
}

impl EventIds {
    /// Whether an event may be counted, as far as its ID says.
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

/// Whether an event is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventIdOutcome {
    /// It is, and is remembered if it has an ID.
    Yes,
    /// It was counted before.
    Again,
    /// Too many IDs of its user are remembered.
    TooMany,
}

/// Events of an experiment that are not counted, for good and of all replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// Those beyond [`OF_USER_MAX`].
    pub refused_ids: u64,
    /// Those that waited for an exposure and had to give way to others.
    pub dropped_waiting: u64,
}

impl EventCounts {
    /// Adds counts by name, as stores keep them; other names are other versions'.
    pub fn add<'a>(&mut self, counts: impl IntoIterator<Item = (&'a str, u64)>) {
        for (name, count) in counts {
            match name {
                "refused_ids" => self.refused_ids += count,
                "dropped_waiting" => self.dropped_waiting += count,
                _ => {}
            }
        }
    }

    /// The counts by name.
    pub fn named(self) -> [(&'static str, u64); 2] {
        [
            ("refused_ids", self.refused_ids),
            ("dropped_waiting", self.dropped_waiting),
        ]
    }
}
