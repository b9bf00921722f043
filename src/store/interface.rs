//! The trait that both stores implement.

use super::decisions::{AuditEntry, StandingDecision, StandingDecisions};
use super::delta::{Applied, Delta, JournalId};
use super::error::StoreError;
use super::forgotten::ForgottenUsers;
use super::running_minima::RunningMinima;
use super::totals::{ExperimentTotals, HourTotals, UserRecord};

/// So many secrets are kept in a store at most. Each is another replica's that was started while
/// the store was away.
pub const SECRETS_MAX: usize = 16;

/// So many sessions that were ended before their time are kept in a store at most.
pub const ENDED_SESSIONS_MAX: usize = 4096;

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
    pub(super) shard: u32,
    pub(super) cursor: u64,
    pub(super) after: Vec<u8>,
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
