//! Where the counts live: one trait, two houses (Redis and an embedded file), and the folder
//! that moves the journals' facts to them exactly once.
//!
//! The way of a fact: [`crate::journal`]'s reader gives chunks, `fold` (pure) turns chunks into a
//! [`Batch`], [`Store::apply`] adds a batch in atomic steps, one per [`Delta`].
//!
//! Exactly once: each delta says, for every journal it was folded from, up to which sequence
//! number the shard had been given before (`after`) and is given now (`through`). The house
//! keeps the last `through` in the same atomic step as the counts. A delta sent twice is seen by
//! that and counts once; a house that lost its last seconds is seen too, and is given them again.

mod advice;
pub mod aggregate;
pub mod applied_cache;
pub mod apply_semantics;
mod backoff;
pub mod buckets;
pub mod damage;
pub mod decisions;
mod delta;
pub mod event_ids;
pub mod forgotten;
pub mod identities;
pub mod ingest;
pub mod keys;
pub mod redis;
pub mod replicas;
pub mod retention;
pub mod running_minima;
pub mod sqlite;
pub mod waiting;

pub use delta::{
    Applied, Batch, Delta, EpochDefinition, EventAt, ExposureAt, Forget, JournalRange, Tally,
    UserDelta,
};

use crate::experiment::EpochDigest;
use decisions::{AuditEntry, StandingDecision, StandingDecisions};
use event_ids::EventCounts;
use forgotten::ForgottenUsers;
use identities::IdentityCounts;
use running_minima::RunningMinima;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// So many secrets are kept in a store at most. Each is another replica's that was started while
/// the store was away.
pub const SECRETS_MAX: usize = 16;

/// So many sessions that were ended before their time are kept in a store at most.
pub const ENDED_SESSIONS_MAX: usize = 4096;

/// A journal's name, unique over all replicas for all time (a UUID).
pub type JournalId = Arc<str>;

/// All counts of one experiment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExperimentTotals {
    /// In order of first appearance.
    pub epochs: Vec<EpochTotals>,
    /// What came of IDs that arrived together.
    pub identities: IdentityCounts,
    /// Events that are in no epoch.
    pub uncounted: EventCounts,
}

/// All counts of one epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochTotals {
    /// What the epoch was.
    pub definition: EpochDefinition,
    /// 1 for the first epoch of the experiment, and so on.
    pub number: u32,
    /// By group's name.
    pub groups: BTreeMap<String, GroupTotals>,
}

/// All counts of one group in one epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupTotals {
    /// Users whose first exposure was here.
    pub users: u64,
    /// Of those, users later seen in another group.
    pub crossed_over: u64,
    /// See [`Tally::requests`].
    pub requests: u64,
    /// See [`Tally::classes`].
    pub classes: [u64; 5],
    /// See [`Tally::fallbacks`].
    pub fallbacks: u64,
    /// See [`Tally::unfinished`].
    pub unfinished: u64,
    /// See [`Tally::latency`].
    pub latency: BTreeMap<u64, u64>,
    /// By metric's name. A metric without an event is not here.
    pub metrics: BTreeMap<String, MetricTotals>,
}

/// All counts of one metric in one group of one epoch. Squares and products are of the *users'*
/// totals: Σy² over users, not over events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricTotals {
    /// Users with at least one event.
    pub converted: u64,
    /// Events.
    pub count: u64,
    /// Σ count² over users.
    pub count_sq: i128,
    /// Σ values, in units of 10^-scale.
    pub sum: i128,
    /// Σ sum² over users.
    pub sum_sq: i128,
    /// Σ base, for ratios.
    pub base: i128,
    /// Σ base² over users.
    pub base_sq: i128,
    /// Σ sum × base over users.
    pub cross: i128,
}

/// Counts of one hour, for rates over time.
#[derive(Clone, Debug, PartialEq)]
pub struct HourTotals {
    /// The hour: Unix milliseconds divided by 3,600,000. Users stand in the hour of their first
    /// exposure, and so do their conversions and values; requests stand in their own hour.
    pub hour: u64,
    /// In which epoch.
    pub epoch: EpochDigest,
    /// The group's name.
    pub group: String,
    /// `latency` is left empty here.
    pub totals: GroupTotals,
}

/// What the store knows of one user in one experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct UserRecord {
    /// The group of first exposure.
    pub group: String,
    /// The epoch of first exposure.
    pub epoch: EpochDigest,
    /// First exposure, in Unix milliseconds.
    pub first_ms: u64,
    /// Whether the user was later seen in another group.
    pub crossed_over: bool,
    /// By metric's name: count, sum, base.
    pub metrics: BTreeMap<String, (u64, i64, i64)>,
}

/// One running process that gives its facts to this store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Its name, unique over all replicas for all time (a UUID).
    pub id: String,
    /// Names what it serves: experiments, metrics and where IDs are read. Replicas that give
    /// their facts to one store should be equal in this.
    pub definition: String,
    /// When it last announced itself, by its own clock, in Unix milliseconds.
    pub seen_ms: u64,
    /// Its version of watershed.
    pub version: String,
}

/// A process that has not announced itself for so long is gone, in milliseconds.
pub const ALIVE_MS: u64 = 35_000;

/// Where reading all users of an experiment stands; the default is the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserCursor {
    shard: u32,
    cursor: u64,
    after: Vec<u8>,
}

/// Some users, and the place after them.
pub type UserPage = (Vec<(Vec<u8>, UserRecord)>, Option<UserCursor>);

/// Where counts live.
#[async_trait::async_trait]
pub trait Store: Send + Sync {
    /// `redis` or `embedded`, as results name it.
    fn kind(&self) -> &'static str;

    /// Into how many shards this experiment's users are split. Asked once per experiment, fixed
    /// for the experiment's life.
    async fn shards(&self, experiment: &str) -> Result<u32, StoreError>;

    /// What a shard has been given of these journals, 0 for nothing.
    async fn applied(
        &self,
        experiment: &str,
        shard: u32,
        journals: &[JournalId],
    ) -> Result<Vec<u64>, StoreError>;

    /// Adds one delta in one atomic step.
    async fn apply(&self, delta: &Delta) -> Result<Applied, StoreError>;

    /// Forgets a journal that is folded to its end and deleted.
    async fn forget(
        &self,
        experiment: &str,
        shard: u32,
        journal: &JournalId,
    ) -> Result<(), StoreError>;

    /// The names of all experiments that have counts.
    async fn experiments(&self) -> Result<Vec<String>, StoreError>;

    /// All counts of an experiment. The cost does not grow with users.
    async fn totals(&self, experiment: &str) -> Result<ExperimentTotals, StoreError>;

    /// Counts by hour, oldest first.
    async fn hours(&self, experiment: &str) -> Result<Vec<HourTotals>, StoreError>;

    /// Forgets a user, under every ID that counts for it, and takes what they brought out of the
    /// counts of users and metrics. Requests that were answered stay counted: they name nobody.
    /// Says whether there was anything.
    ///
    /// Facts of the user up to `until_ms` that still stand in journals are not counted when they are
    /// read; with 0, all that comes later is.
    async fn forget_user(
        &self,
        experiment: &str,
        user: &[u8],
        until_ms: u64,
    ) -> Result<bool, StoreError>;

    /// Who was forgotten so, in one shard.
    async fn forgotten(&self, experiment: &str, shard: u32) -> Result<ForgottenUsers, StoreError>;

    /// Forgets all users of an experiment and keeps its counts.
    async fn forget_users(&self, experiment: &str) -> Result<(), StoreError>;

    /// What is known of one user, by any ID that counts for it.
    async fn user(&self, experiment: &str, user: &[u8]) -> Result<Option<UserRecord>, StoreError>;

    /// Some users of an experiment, from a place on, and the place after them; `None` after the
    /// last. Users who come or change in between stand there once, as they are when they are
    /// reached; in Redis, one can stand there twice when users are forgotten in between.
    async fn users(&self, experiment: &str, from: UserCursor) -> Result<UserPage, StoreError>;

    /// Keeps how many facts a journal could not take in all; told again, it counts once.
    async fn report_dropped(&self, journal: &JournalId, dropped: u64) -> Result<(), StoreError>;

    /// How many facts all journals could not take.
    async fn dropped(&self) -> Result<u64, StoreError>;

    /// Keeps how many facts of a journal were found damaged in all; told again, the largest number
    /// counts.
    async fn report_damaged(&self, journal: &JournalId, damaged: u64) -> Result<(), StoreError>;

    /// How many facts of all journals were found damaged.
    async fn damaged(&self) -> Result<u64, StoreError>;

    /// Keeps that a process is there, and what it serves.
    async fn announce(&self, replica: &Replica) -> Result<(), StoreError>;

    /// Every process that announced itself within [`ALIVE_MS`] before `now_ms`.
    async fn replicas(&self, now_ms: u64) -> Result<Vec<Replica>, StoreError>;

    /// What is kept of an experiment beside its counts.
    async fn running_minima(&self, experiment: &str) -> Result<RunningMinima, StoreError>;

    /// Merges into what is kept, in one atomic step: see [`kept`].
    async fn merge_minima(&self, experiment: &str, more: &RunningMinima) -> Result<(), StoreError>;

    /// What was decided about experiments.
    async fn decisions(&self) -> Result<StandingDecisions, StoreError>;

    /// Decides, and keeps that this was done, in one atomic step: if the decision that stands is
    /// of `before_ms` (0 for none). Says whether it was.
    async fn decide(
        &self,
        before_ms: u64,
        next: &StandingDecision,
        entry: &AuditEntry,
    ) -> Result<bool, StoreError>;

    /// Keeps that something else was done.
    async fn record_action(&self, entry: &AuditEntry) -> Result<(), StoreError>;

    /// The latest decisions, the newest first.
    async fn audit_log(&self, max: usize) -> Result<Vec<AuditEntry>, StoreError>;

    /// The secrets that all replicas sign and verify with, the one that signs first. `ours`, what
    /// this replica knows, are added behind those that are there, in one atomic step, as long as
    /// there are fewer than [`SECRETS_MAX`].
    async fn secrets(&self, ours: &[String]) -> Result<Vec<String>, StoreError>;

    /// Sessions of the admin API that were ended before their time: until when, in Unix seconds,
    /// each would have lasted, and its nonce. `ours` are added in one atomic step. Those that are
    /// over are removed, and of more than [`ENDED_SESSIONS_MAX`] those that are over first.
    async fn ended_sessions(
        &self,
        ours: &[(u64, String)],
        now_s: u64,
    ) -> Result<Vec<(u64, String)>, StoreError>;

    /// How many records were found damaged since the start, and skipped.
    fn damaged_records(&self) -> u64;

    /// Whether the house answers and is one that this program may use.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Redis did not answer, or answered with an error.
    #[error("Redis")]
    Redis(#[from] ::redis::RedisError),
    /// The embedded file could not be read or written.
    #[error("the embedded store")]
    Sqlite(#[from] rusqlite::Error),
    /// The embedded file cannot be opened.
    #[error("{} cannot be opened", path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The embedded file is no database, or is one no more.
    #[error("{place} is not an SQLite database")]
    NotDatabase {
        /// Where.
        place: String,
    },
    /// A newer version of this program wrote it.
    #[error("{place} has version {found}, and this program reads up to {known}")]
    Newer {
        /// Where.
        place: String,
        /// Its version.
        found: String,
        /// The newest that is known.
        known: i64,
    },
    /// Users are forgotten faster than facts can be added.
    #[error("many users are being forgotten: it goes on when that is done")]
    Forgetting,
    /// The system has no random bytes for a key.
    #[error("no random bytes for a key")]
    Random(#[from] getrandom::Error),
    /// Another program's data stand there.
    #[error("{place} is another program's: it has {found}")]
    Foreign {
        /// Where.
        place: String,
        /// What shows it.
        found: String,
    },
    /// Something stands in the house that this version does not understand.
    #[error("{place} holds {found:?}, which this version does not understand")]
    Unreadable {
        /// The key or column.
        place: String,
        /// What stands there.
        found: String,
    },
}

fn read_json<T: serde::de::DeserializeOwned>(place: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Unreadable {
        place: place.to_owned(),
        found: text.to_owned(),
    })
}

fn written<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unreadable {
        place: "a decision".to_owned(),
        found: error.to_string(),
    })
}

/// An error and its causes on one line. Some say what their causes say: that is said once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
