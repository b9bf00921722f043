//! What is added to a store.

use super::identities::Join;
use crate::experiment::EpochDigest;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The name of a journal, unique over all replicas for all time (a UUID).
pub type JournalId = Arc<str>;

/// Facts of some journals, ready to be added.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// One for each shard of each experiment that the facts touch.
    pub deltas: Vec<Delta>,
    /// Minted IDs that came with a known one which was forgotten since: to be forgotten, too, before
    /// the deltas are applied.
    pub forget: Vec<Forget>,
}

/// That a user is to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forget {
    /// In which experiment.
    pub experiment: String,
    /// The user's ID.
    pub user: Vec<u8>,
    /// Facts up to then are not counted, in Unix milliseconds.
    pub until_ms: u64,
}

/// What one shard of one experiment is to add, in one atomic step.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// The experiment's name.
    pub experiment: String,
    /// Which shard: `murmur3_32(user) % shards`.
    pub shard: u32,
    /// Which facts of which journals this adds.
    pub ranges: Vec<JournalRange>,
    /// The epochs that `users` and `tallies` name, with their definitions.
    pub epochs: Vec<EpochDefinition>,
    /// Minted IDs and the known IDs that came with them, in the order of time. Added before
    /// `users`. A join belongs to the shard of its minted ID.
    pub joins: Vec<Join>,
    /// What happened to users, in the order of their first fact here. A user stands here once.
    pub users: Vec<UserDelta>,
    /// What was answered, whoever asked.
    pub tallies: Vec<Tally>,
    /// Events from before this, in Unix milliseconds, that still wait for their user's exposure
    /// are given up.
    pub wait_from_ms: u64,
    /// Which version of [`super::forgotten::ForgottenUsers`] it was folded with.
    pub forgotten: u64,
    /// IDs of events from before this, in Unix milliseconds, are remembered no longer.
    pub remember_from_ms: u64,
}

impl Delta {
    /// A delta that adds nothing.
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

/// A stretch of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRange {
    /// Which journal.
    pub journal: JournalId,
    /// What the shard should have been given already; 0 for nothing.
    pub after: u64,
    /// The last sequence number in this delta.
    pub through: u64,
}

/// What an epoch was: kept so that statistics know the weights in force.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochDefinition {
    /// Its name.
    pub digest: EpochDigest,
    /// The share of eligible users that took part, 0 to 1.
    pub traffic: f64,
    /// Groups and their weights, in file order.
    pub groups: Vec<(String, f64)>,
    /// The earliest exposure of it seen so far in this batch, in Unix milliseconds.
    pub first_ms: u64,
}

/// What happened to one user.
#[derive(Clone, Debug, PartialEq)]
pub struct UserDelta {
    /// The user's ID.
    pub user: Vec<u8>,
    /// The user's earliest exposure to each group; empty when only events were seen. The
    /// earliest one that the store knows, by the clock, decides the user's group and epoch; a
    /// different group makes the user crossed over.
    pub exposures: Vec<ExposureAt>,
    /// Events, counted only for users with an exposure no later than the event, and for a metric
    /// with a window only within it. Events without a window or an ID that follow an exposure
    /// in this very delta are merged into one for each metric. An event that comes before any
    /// exposure known waits for one.
    pub events: Vec<EventAt>,
}

/// That a user was seen in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExposureAt {
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// In which epoch.
    pub epoch: EpochDigest,
    /// The group's name.
    pub group: String,
    /// How long the response took: a bucket of [`crate::experiment::latency_bucket`].
    pub latency: u16,
    /// Which segments the user was in: see [`crate::experiment::segment::describe`].
    pub segments: String,
}

/// Events of one metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventAt {
    /// When the last of them happened, in Unix milliseconds: order and window go by it.
    pub at_ms: u64,
    /// When the last of them was reported: how long it waits and how long its ID is remembered go
    /// by it. The same as `at_ms` but for events that carry a time of their own.
    pub reported_ms: u64,
    /// The metric's name.
    pub metric: String,
    /// The metric's attribution window, in milliseconds after first exposure.
    pub within_ms: Option<u64>,
    /// How many.
    pub count: u64,
    /// The sum of their values, in units of 10^-scale.
    pub sum: i64,
    /// What they add to a ratio's base.
    pub base: i64,
    /// Names the event and the metric: one that is sent again counts once. `None` for events
    /// that cannot be sent again.
    pub id: Option<u64>,
}

/// What one group answered in one hour of one epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    /// In which epoch.
    pub epoch: EpochDigest,
    /// The group's name.
    pub group: String,
    /// The hour: Unix milliseconds divided by 3,600,000.
    pub hour: u64,
    /// Requests answered by the group's own upstream or refused in its name.
    pub requests: u64,
    /// Of those, by class of status: `[0]` is 1xx, `[4]` is 5xx.
    pub classes: [u64; 5],
    /// Requests that control's upstream answered because the group's could not. Not in
    /// `requests`.
    pub fallbacks: u64,
    /// Of `requests`: answers that did not reach their end.
    pub unfinished: u64,
    /// Latencies of `requests`: a bucket's lowest value in microseconds, and how many.
    pub latency: BTreeMap<u64, u64>,
}

/// What became of a delta.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Added now.
    Added,
    /// It had been added before: the reply was lost on the way.
    AlreadyApplied,
    /// The shard had been given something else than the delta says: more (a lost reply to a
    /// larger delta) or less (the store lost its last seconds). Nothing was added. For each range
    /// of the delta, what the shard has.
    PositionMismatch(Vec<(JournalId, u64)>),
    /// Users were forgotten since the delta was made. Nothing was added: make it again.
    Stale,
}
