//! The trait that both stores implement.

use super::acme::{AcmeEntries, AcmeLease};
use super::decisions::{AuditEntry, StandingDecision, StandingDecisions, StoredDefinitions};
use super::delta::{Applied, Delta, JournalId};
use super::error::StoreError;
use super::forgotten::ForgottenUsers;
use super::loaded_files::LoadedFile;
use super::messages::{Enqueued, EventMark, PendingMessage, TakenMessages, Taker};
use super::running_minima::RunningMinima;
use super::totals::{ExperimentTotals, HourTotals, UserRecord};

/// The most secrets in a store. There is more than one if replicas were started while the store was
/// unavailable.
pub const SECRETS_MAX: usize = 16;

/// The most ended sessions in a store.
pub const ENDED_SESSIONS_MAX: usize = 4096;

/// A running process that uses this store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Its name, unique over all replicas for all time (a UUID).
    pub id: String,
    /// A digest of its experiments, metrics and ID sources. Replicas of one store should have the same.
    pub definition: String,
    /// When it last announced itself, by its own clock, in Unix milliseconds.
    pub seen_ms: u64,
    /// Its version of watershed.
    pub version: String,
}

/// A process that has not announced itself for so long has ended, in milliseconds.
pub const ALIVE_MS: u64 = 20_000;

/// The position of a scan of all users; the default is the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserCursor {
    pub(super) shard: u32,
    pub(super) cursor: u64,
    pub(super) after: Vec<u8>,
}

/// Some users, and the position after them.
pub type UserPage = (Vec<(Vec<u8>, UserRecord)>, Option<UserCursor>);

/// A store of counts.
#[async_trait::async_trait]
pub trait Store: Send + Sync {
    /// Returns `redis` or `embedded`, the name in results.
    fn kind(&self) -> &'static str;

    /// Registers an experiment, and returns the number of its shards, which never changes.
    async fn shards(&self, experiment: &str) -> Result<u32, StoreError>;

    /// Returns a shard's positions in these journals; 0 for none.
    async fn applied(
        &self,
        experiment: &str,
        shard: u32,
        journals: &[JournalId],
    ) -> Result<Vec<u64>, StoreError>;

    /// Adds one delta in one atomic step.
    async fn apply(&self, delta: &Delta) -> Result<Applied, StoreError>;

    /// Forgets the position of a journal that was ingested to its end and deleted.
    async fn forget(
        &self,
        experiment: &str,
        shard: u32,
        journal: &JournalId,
    ) -> Result<(), StoreError>;

    /// Returns the names of all experiments that have counts.
    async fn experiments(&self) -> Result<Vec<String>, StoreError>;

    /// Returns all counts of an experiment. The cost does not grow with users.
    async fn totals(&self, experiment: &str) -> Result<ExperimentTotals, StoreError>;

    /// Returns counts by hour, oldest first.
    async fn hours(&self, experiment: &str) -> Result<Vec<HourTotals>, StoreError>;

    /// Forgets a user, under every ID that counts for it, and removes it from the counts of users and
    /// metrics. Its requests stay counted: they name nobody. Returns whether the user was known.
    ///
    /// Records of the user up to `until_ms` that are still in journals will not count. With 0, all of them
    /// will.
    async fn forget_user(
        &self,
        experiment: &str,
        user: &[u8],
        until_ms: u64,
    ) -> Result<bool, StoreError>;

    /// Returns the forgotten users of one shard.
    async fn forgotten(&self, experiment: &str, shard: u32) -> Result<ForgottenUsers, StoreError>;

    /// Forgets all users of an experiment and keeps its counts.
    async fn forget_users(&self, experiment: &str) -> Result<(), StoreError>;

    /// Returns the record of a user, by any ID that counts for it.
    async fn user(&self, experiment: &str, user: &[u8]) -> Result<Option<UserRecord>, StoreError>;

    /// Returns some users of an experiment from a position on, and the position after them; `None` after the
    /// last. Users who come or change during the scan occur once, as they are when they are reached. In
    /// Redis, a user can occur twice if users are forgotten during the scan.
    async fn users(&self, experiment: &str, from: UserCursor) -> Result<UserPage, StoreError>;

    /// Sets the total number of records that a journal dropped.
    async fn report_dropped(&self, journal: &JournalId, dropped: u64) -> Result<(), StoreError>;

    /// Returns the number of records that all journals dropped.
    async fn dropped(&self) -> Result<u64, StoreError>;

    /// Sets the total number of damaged records of a journal. The largest number stays.
    async fn report_damaged(&self, journal: &JournalId, damaged: u64) -> Result<(), StoreError>;

    /// Returns the number of damaged records of all journals.
    async fn damaged(&self) -> Result<u64, StoreError>;

    /// Announces a process.
    async fn announce(&self, replica: &Replica) -> Result<(), StoreError>;

    /// Returns the processes that announced themselves within [`ALIVE_MS`] before `now_ms`.
    async fn replicas(&self, now_ms: u64) -> Result<Vec<Replica>, StoreError>;

    /// Returns the running minima of an experiment.
    async fn running_minima(&self, experiment: &str) -> Result<RunningMinima, StoreError>;

    /// Merges running minima in one atomic step.
    async fn merge_minima(&self, experiment: &str, more: &RunningMinima) -> Result<(), StoreError>;

    /// Returns the standing decisions.
    async fn decisions(&self) -> Result<StandingDecisions, StoreError>;

    /// Stores a decision and its audit entry in one atomic step, if the standing decision is of
    /// `before_ms` (0 for none). Returns whether it was.
    async fn decide(
        &self,
        before_ms: u64,
        next: &StandingDecision,
        entry: &AuditEntry,
    ) -> Result<bool, StoreError>;

    /// Returns the definitions of experiments that routes files have, or had.
    async fn definitions(&self) -> Result<StoredDefinitions, StoreError>;

    /// Replaces the definitions of these experiments in one atomic step, and keeps all others.
    async fn define(&self, changed: &StoredDefinitions) -> Result<(), StoreError>;

    /// Adds an entry of another action to the audit log.
    async fn record_action(&self, entry: &AuditEntry) -> Result<(), StoreError>;

    /// Returns the latest audit entries, the newest first.
    async fn audit_log(&self, max: usize) -> Result<Vec<AuditEntry>, StoreError>;

    /// Returns the latest loaded files, the newest first.
    async fn loaded_files(&self, max: usize) -> Result<Vec<LoadedFile>, StoreError>;

    /// Returns the content of a loaded file, as JSON with its secrets hidden; `None` if it was deleted.
    async fn loaded_content(&self, number: u64) -> Result<Option<String>, StoreError>;

    /// Adds a loaded file with its content in one atomic step, if its number is that after the latest. Returns
    /// whether it was.
    async fn record_file(&self, file: &LoadedFile, content: &str) -> Result<bool, StoreError>;

    /// Returns the secrets that all replicas verify with; the first one signs. Appends `ours` in one atomic
    /// step, while there are fewer than [`SECRETS_MAX`].
    async fn secrets(&self, ours: &[String]) -> Result<Vec<String>, StoreError>;

    /// Returns the sessions of the admin API that were ended early: when each would have expired, in Unix
    /// seconds, and its nonce. Adds `ours` in one atomic step. Expired ones are removed and, beyond
    /// [`ENDED_SESSIONS_MAX`], those that expire first.
    async fn ended_sessions(
        &self,
        ours: &[(u64, String)],
        now_s: u64,
    ) -> Result<Vec<(u64, String)>, StoreError>;

    /// Returns what replicas share of certificates by ACME.
    async fn acme_entries(&self) -> Result<AcmeEntries, StoreError>;

    /// Takes, prolongs or, for no time, gives back the lease of ACME. Returns false if another process has it.
    async fn lease_acme(&self, lease: AcmeLease<'_>) -> Result<bool, StoreError>;

    /// Writes entries of ACME, or removes those without a text, in one atomic step, if the owner has the
    /// lease. Returns whether it has.
    async fn write_acme(
        &self,
        lease: AcmeLease<'_>,
        changes: &[(String, Option<String>)],
    ) -> Result<bool, StoreError>;

    /// Reports an event: adds its messages in one atomic step, unless the event was reported before.
    async fn enqueue(
        &self,
        event: EventMark<'_>,
        messages: &[PendingMessage],
    ) -> Result<Enqueued, StoreError>;

    /// Returns when an event was reported last, in Unix milliseconds; `None` if it was not.
    async fn reported_ms(&self, event: &str) -> Result<Option<u64>, StoreError>;

    /// Takes messages that are due, in one atomic step: no other process takes them for a while.
    async fn take_messages(&self, taker: Taker<'_>) -> Result<TakenMessages, StoreError>;

    /// Puts a message back until `due_ms`, or removes it with `None`.
    async fn settle_message(
        &self,
        message: &PendingMessage,
        due_ms: Option<u64>,
    ) -> Result<(), StoreError>;

    /// Returns the number of damaged values that were skipped since the start.
    fn damaged_records(&self) -> u64;

    /// Checks that the store replies, and that this program may use it.
    async fn ping(&self) -> Result<(), StoreError>;
}
