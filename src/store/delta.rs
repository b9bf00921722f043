//! What is added to a store.

use super::identities::Join;
use crate::experiment::EpochDigest;
use crate::experiment::not_counted::NotCounted;
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;

/// The name of a journal, unique over all replicas for all time (a UUID).
pub type JournalId = Arc<str>;

/// Aggregated records of some journals.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// One for each shard of each experiment in the records.
    pub deltas: Vec<Delta>,
    /// Minted IDs that came with a known ID which was forgotten since. They must be forgotten before the
    /// deltas are applied.
    pub forget: Vec<Forget>,
}

/// A user to forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forget {
    /// The experiment.
    pub experiment: String,
    /// The user ID.
    pub user: Vec<u8>,
    /// The time up to which its records do not count, in Unix milliseconds.
    pub until_ms: u64,
}

/// What one shard of one experiment adds in one atomic step.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// The name of the experiment.
    pub experiment: String,
    /// The shard: `murmur3_32(user) % shards`.
    pub shard: u32,
    /// The records of journals that this adds.
    pub ranges: Vec<JournalRange>,
    /// The epochs that `users` and `tallies` name, with their definitions.
    pub epochs: Vec<EpochDefinition>,
    /// Minted IDs and the known IDs that came with them, in the order of time. They are added before
    /// `users`. A join belongs to the shard of its minted ID.
    pub joins: Vec<Join>,
    /// Changes of users, in the order of their first record here. Each user occurs once.
    pub users: Vec<UserDelta>,
    /// Responses, independent of users.
    pub tallies: Vec<Tally>,
    /// Events from before this time, in Unix milliseconds, no longer wait for an exposure.
    pub wait_from_ms: u64,
    /// The version of [`super::forgotten::ForgottenUsers`] that it was aggregated with.
    pub forgotten: u64,
    /// IDs of events from before this time, in Unix milliseconds, are forgotten.
    pub remember_from_ms: u64,
}

impl Delta {
    /// Compares the delta with the positions of its shard, one for each range. `None` if it is the next one to
    /// add; otherwise the outcome.
    pub fn compare(&self, positions: &[u64]) -> Option<Applied> {
        let stands =
            |at: fn(&JournalRange) -> u64| self.ranges.iter().map(at).eq(positions.iter().copied());
        if stands(|range| range.after) {
            return None;
        }
        if stands(|range| range.through) {
            return Some(Applied::AlreadyApplied);
        }
        let journals = self.ranges.iter().map(|range| range.journal.clone());
        Some(Applied::PositionMismatch(
            journals.zip(positions.iter().copied()).collect(),
        ))
    }

    /// Makes a delta that adds nothing.
    pub fn nothing(experiment: &str) -> Delta {
        Delta {
            experiment: experiment.to_owned(),
            shard: 0,
            ranges: Vec::new(),
            epochs: Vec::new(),
            joins: Vec::new(),
            users: Vec::new(),
            tallies: Vec::new(),
            wait_from_ms: 0,
            forgotten: 0,
            remember_from_ms: 0,
        }
    }
}

/// A range of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRange {
    /// The journal.
    pub journal: JournalId,
    /// The position that the shard should have already; 0 for none.
    pub after: u64,
    /// The last sequence number in this delta.
    pub through: u64,
}

/// The definition of an epoch: the statistics need its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochDefinition {
    /// Its digest.
    pub digest: EpochDigest,
    /// The traffic share, 0 to 1.
    pub traffic: f64,
    /// Groups and their weights, in file order.
    pub groups: Vec<(String, f64)>,
    /// Its earliest exposure in this batch, in Unix milliseconds.
    pub first_ms: u64,
    /// Series that its users count for and that the phase did not begin with: see [`super::phases`].
    pub series: Vec<String>,
}

/// Changes of one user.
#[derive(Clone, Debug, PartialEq)]
pub struct UserDelta {
    /// The user ID.
    pub user: Vec<u8>,
    /// When the client last sent the ID, in Unix milliseconds. `None` if the ID was only minted for the
    /// client: the user is seen once, and counted when the ID comes back.
    pub came_back_ms: Option<NonZeroU64>,
    /// The user's earliest exposure to each group; empty if there were only events. The earliest one that
    /// the store has, by the clock, decides the user's group and epoch. Another group makes the user a
    /// crossover.
    pub exposures: Vec<ExposureAt>,
    /// Events. An event counts if its user has an exposure no later than the event, and within the
    /// window of its metric. Events without a window or an ID that follow an exposure in this delta are
    /// merged into one for each metric. An event before any known exposure waits for one.
    pub events: Vec<EventAt>,
}

/// An exposure of a user to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExposureAt {
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// The epoch.
    pub epoch: EpochDigest,
    /// The name of the group.
    pub group: String,
    /// How long the response took: a bucket of [`crate::experiment::latency_bucket`].
    pub latency: u16,
    /// Which segments the user was in: see [`crate::experiment::segment::describe`].
    pub segments: String,
}

/// Events of one metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventAt {
    /// The time of the last one, in Unix milliseconds. It decides about order and window.
    pub at_ms: u64,
    /// When the last one was reported. It decides how long the events wait and how long their IDs are
    /// kept. It differs from `at_ms` only for events with a time of their own.
    pub reported_ms: u64,
    /// The name of the metric.
    pub metric: String,
    /// The metric's conversion window, in milliseconds after the first exposure.
    pub within_ms: Option<u64>,
    /// How much of one user's sum of the metric counts, in size and in units of 10^-scale.
    pub cap: Option<i64>,
    /// For how long before the first exposure events are kept as a covariate, in milliseconds.
    pub covariate_ms: Option<u64>,
    /// The number of events.
    pub count: u64,
    /// The sum of their values, in units of 10^-scale.
    pub sum: i64,
    /// What they add to the base of a ratio.
    pub base: i64,
    /// Identifies the event and the metric, so that an event that is sent again counts once. `None` for
    /// events that cannot be sent again.
    pub id: Option<u64>,
}

/// The responses of one group in one hour of one epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    /// The epoch.
    pub epoch: EpochDigest,
    /// The name of the group.
    pub group: String,
    /// The hour: Unix milliseconds divided by 3,600,000.
    pub hour: u64,
    /// Requests that the group's upstream answered, or that were refused for it.
    pub requests: u64,
    /// Of `requests`: by class of status. `[0]` is 1xx, `[4]` is 5xx.
    pub classes: [u64; 5],
    /// Requests that control's upstream answered because the group's was unavailable. They are not in
    /// `requests`.
    pub fallbacks: u64,
    /// Responses that were aborted.
    pub unfinished: u64,
    /// Requests that were served but belong to no user who is counted. They are not in `requests`.
    pub not_counted: BTreeMap<NotCounted, u64>,
    /// Latencies of `requests`: the lowest value of a bucket in microseconds, and its count.
    pub latency: BTreeMap<u64, u64>,
}

/// The outcome of a delta.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It was added.
    Added,
    /// It was added before: the earlier reply was lost.
    AlreadyApplied,
    /// The shard's positions are not those of the delta: they are ahead (a reply to a larger delta was
    /// lost) or behind (the store lost its last seconds). Nothing was added. Holds the shard's position
    /// for each range of the delta.
    PositionMismatch(Vec<(JournalId, u64)>),
    /// Users were forgotten since the delta was aggregated. Nothing was added; it must be aggregated again.
    Stale,
}
