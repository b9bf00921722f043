//! [`Store`] in one SQLite file.

use super::apply::{self, applied};
use super::open::LazyConnection;
use super::rows::{definitions, fields, text};
use super::user_state::record;
use super::{
    acme, decisions, event_ids, forgotten, identities, loaded_files, messages, running_minima,
    secrets, sessions,
};
use crate::store::acme::{AcmeEntries, AcmeLease};
use crate::store::damage::Damage;
use crate::store::decisions::{AuditEntry, StandingDecision, StandingDecisions, StoredDefinitions};
use crate::store::forgotten::ForgottenUsers;
use crate::store::keys;
use crate::store::loaded_files::LoadedFile;
use crate::store::messages::{Enqueued, EventMark, PendingMessage, TakenMessages, Taker};
use crate::store::running_minima::RunningMinima;
use crate::store::{
    ALIVE_MS, Applied, Delta, ExperimentTotals, HourTotals, JournalId, Replica, Store, StoreError,
    UserCursor, UserPage, UserRecord,
};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use std::path::Path;
use std::sync::Arc;

/// The number of users that are read at once.
const PAGE_USERS: usize = 1000;
/// Counts in one local file.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Arc<LazyConnection>,
    reader: Arc<LazyConnection>,
    damage: Arc<Damage>,
}

impl SqliteStore {
    /// Opens the file, and creates it if missing. Several processes may share it.
    pub fn open(path: &Path) -> Result<SqliteStore, StoreError> {
        let store = SqliteStore::at(path);
        store.writer.now(|_| Ok(()))?;
        Ok(store)
    }

    /// Makes a store without opening the file. Each call opens it until that is possible.
    pub fn at(path: &Path) -> SqliteStore {
        SqliteStore {
            writer: Arc::new(LazyConnection::new(path)),
            reader: Arc::new(LazyConnection::new(path)),
            damage: Arc::default(),
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.reader.with(move |connection| work(connection)).await
    }

    /// Does what belongs together in one transaction, which reads and writes.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer
            .with(move |connection| {
                let transaction =
                    connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let done = work(&transaction)?;
                transaction.commit()?;
                Ok(done)
            })
            .await
    }
}

#[async_trait::async_trait]
impl Store for SqliteStore {
    fn kind(&self) -> &'static str {
        "embedded"
    }

    async fn shards(&self, _experiment: &str) -> Result<u32, StoreError> {
        Ok(1)
    }

    async fn applied(
        &self,
        experiment: &str,
        _shard: u32,
        journals: &[JournalId],
    ) -> Result<Vec<u64>, StoreError> {
        let (experiment, journals) = (experiment.to_owned(), journals.to_vec());
        let has = move |connection: &Connection| {
            journals
                .iter()
                .map(|journal| applied(connection, &experiment, journal))
                .collect()
        };
        self.read(has).await
    }

    async fn apply(&self, delta: &Delta) -> Result<Applied, StoreError> {
        let (delta, damage) = (delta.clone(), Arc::clone(&self.damage));
        self.change(move |transaction| apply::apply(transaction, &delta, &damage))
            .await
    }

    async fn forget(
        &self,
        experiment: &str,
        _shard: u32,
        journal: &JournalId,
    ) -> Result<(), StoreError> {
        let (experiment, journal) = (experiment.to_owned(), journal.clone());
        self.writer
            .with(move |connection| {
                let sql = "DELETE FROM applied WHERE experiment = ? AND journal = ?";
                connection.execute(sql, params![experiment, &*journal])?;
                Ok(())
            })
            .await
    }

    async fn experiments(&self) -> Result<Vec<String>, StoreError> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT DISTINCT experiment FROM epochs ORDER BY 1")?;
            let names = statement.query_map([], |row| row.get(0))?;
            Ok(names.collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn totals(&self, experiment: &str) -> Result<ExperimentTotals, StoreError> {
        let (experiment, damage) = (experiment.to_owned(), Arc::clone(&self.damage));
        self.read(move |connection| {
            // One transaction, so that definitions and counts are of the same time.
            let transaction = connection.unchecked_transaction()?;
            let totals = keys::totals(
                definitions(&transaction, &experiment, &damage)?,
                fields(&transaction, "totals", &experiment, &damage)?,
                &damage,
            );
            Ok(ExperimentTotals {
                identities: identities::counts(&transaction, &experiment)?,
                uncounted: event_ids::counts(&transaction, &experiment)?,
                ..totals
            })
        })
        .await
    }

    async fn hours(&self, experiment: &str) -> Result<Vec<HourTotals>, StoreError> {
        let (experiment, damage) = (experiment.to_owned(), Arc::clone(&self.damage));
        self.read(move |connection| {
            let fields = fields(connection, "hours", &experiment, &damage)?;
            Ok(keys::hours(fields, &damage))
        })
        .await
    }

    async fn forgotten(&self, experiment: &str, _shard: u32) -> Result<ForgottenUsers, StoreError> {
        let experiment = experiment.to_owned();
        self.read(move |connection| {
            let transaction = connection.unchecked_transaction()?;
            forgotten::forgotten(&transaction, &experiment)
        })
        .await
    }

    async fn forget_user(
        &self,
        experiment: &str,
        user: &[u8],
        until_ms: u64,
    ) -> Result<bool, StoreError> {
        let (experiment, user) = (experiment.to_owned(), user.to_vec());
        let damage = Arc::clone(&self.damage);
        self.change(move |transaction| {
            apply::forget(transaction, &experiment, (&user, until_ms), &damage)
        })
        .await
    }

    async fn forget_users(&self, experiment: &str) -> Result<(), StoreError> {
        let experiment = experiment.to_owned();
        self.writer
            .with(move |connection| {
                for table in [
                    "users",
                    "waiting",
                    "seen_once",
                    "identities",
                    "aliases",
                    "event_ids",
                ] {
                    let sql = format!("DELETE FROM {table} WHERE experiment = ?");
                    connection.execute(&sql, [&experiment])?;
                }
                Ok(())
            })
            .await
    }

    async fn user(&self, experiment: &str, user: &[u8]) -> Result<Option<UserRecord>, StoreError> {
        let (experiment, user) = (experiment.to_owned(), user.to_vec());
        let damage = Arc::clone(&self.damage);
        self.read(move |connection| {
            let user = identities::resolve(connection, &experiment, &user)?;
            record(connection, &experiment, &user, &damage)
        })
        .await
    }

    async fn users(&self, experiment: &str, from: UserCursor) -> Result<UserPage, StoreError> {
        let (experiment, damage) = (experiment.to_owned(), Arc::clone(&self.damage));
        self.read(move |connection| {
            let sql = "SELECT user, record FROM users WHERE experiment = ? AND user > ? ORDER BY user LIMIT ?";
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query(params![experiment, from.after, PAGE_USERS as i64])?;
            let (mut users, mut read, mut last) = (Vec::new(), 0, Vec::new());
            while let Some(row) = rows.next()? {
                last = row.get(0)?;
                read += 1;
                let record = damage.skip(text(row, 1).and_then(|text| keys::read_user(&text)))?;
                users.extend(record.map(|record| (last.clone(), record)));
            }
            let next = (read == PAGE_USERS).then(|| UserCursor {
                after: last,
                ..UserCursor::default()
            });
            Ok((users, next))
        })
        .await
    }

    async fn report_dropped(&self, journal: &JournalId, dropped: u64) -> Result<(), StoreError> {
        let journal = journal.clone();
        self.writer.with(move |connection| {
            let sql = "INSERT INTO dropped VALUES (?, ?) ON CONFLICT DO UPDATE SET count = excluded.count";
            connection.execute(sql, params![&*journal, dropped as i64])?;
            Ok(())
        })
        .await
    }

    async fn dropped(&self) -> Result<u64, StoreError> {
        self.read(|connection| {
            let sql = "SELECT coalesce(sum(count), 0) FROM dropped";
            Ok(connection.query_row(sql, [], |row| row.get::<_, i64>(0))? as u64)
        })
        .await
    }

    async fn report_damaged(&self, journal: &JournalId, damaged: u64) -> Result<(), StoreError> {
        let journal = journal.clone();
        self.writer.with(move |connection| {
            let sql = "INSERT INTO damaged VALUES (?, ?) ON CONFLICT DO UPDATE SET count = max(count, excluded.count)";
            connection.execute(sql, params![&*journal, damaged as i64])?;
            Ok(())
        })
        .await
    }

    async fn damaged(&self) -> Result<u64, StoreError> {
        self.read(|connection| {
            let sql = "SELECT coalesce(sum(count), 0) FROM damaged";
            Ok(connection.query_row(sql, [], |row| row.get::<_, i64>(0))? as u64)
        })
        .await
    }

    async fn announce(&self, replica: &Replica) -> Result<(), StoreError> {
        let replica = replica.clone();
        self.writer
            .with(move |connection| {
                let gone = replica.seen_ms.saturating_sub(ALIVE_MS) as i64;
                connection.execute("DELETE FROM replicas WHERE seen_ms < ?", [gone])?;
                let sql = "INSERT OR REPLACE INTO replicas VALUES (?, ?, ?, ?)";
                let seen_ms = replica.seen_ms as i64;
                connection.execute(
                    sql,
                    params![replica.id, replica.definition, seen_ms, replica.version],
                )?;
                Ok(())
            })
            .await
    }

    async fn replicas(&self, now_ms: u64) -> Result<Vec<Replica>, StoreError> {
        self.read(move |connection| {
            let sql = "SELECT id, definition, seen_ms, version FROM replicas WHERE seen_ms >= ? ORDER BY id";
            let mut statement = connection.prepare_cached(sql)?;
            let alive = statement.query_map([now_ms.saturating_sub(ALIVE_MS) as i64], |row| {
                Ok(Replica {
                    id: row.get(0)?,
                    definition: row.get(1)?,
                    seen_ms: row.get::<_, i64>(2)? as u64,
                    version: row.get(3)?,
                })
            })?;
            Ok(alive.collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn running_minima(&self, experiment: &str) -> Result<RunningMinima, StoreError> {
        let experiment = experiment.to_owned();
        self.read(move |connection| running_minima::read(connection, &experiment))
            .await
    }

    async fn merge_minima(&self, experiment: &str, more: &RunningMinima) -> Result<(), StoreError> {
        let (experiment, more) = (experiment.to_owned(), more.clone());
        self.change(move |transaction| running_minima::merge(transaction, &experiment, &more))
            .await
    }

    async fn decisions(&self) -> Result<StandingDecisions, StoreError> {
        let damage = Arc::clone(&self.damage);
        self.read(move |connection| decisions::read(connection, &damage))
            .await
    }

    async fn decide(
        &self,
        before_ms: u64,
        next: &StandingDecision,
        entry: &AuditEntry,
    ) -> Result<bool, StoreError> {
        let (next, entry) = (next.clone(), entry.clone());
        self.change(move |transaction| decisions::decide(transaction, before_ms, &next, &entry))
            .await
    }

    async fn definitions(&self) -> Result<StoredDefinitions, StoreError> {
        let damage = Arc::clone(&self.damage);
        self.read(move |connection| decisions::definitions(connection, &damage))
            .await
    }

    async fn define(&self, changed: &StoredDefinitions) -> Result<(), StoreError> {
        let changed = changed.clone();
        self.change(move |transaction| decisions::define(transaction, &changed))
            .await
    }

    async fn record_action(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        let entry = entry.clone();
        self.writer
            .with(move |connection| decisions::record_action(connection, &entry))
            .await
    }

    async fn audit_log(&self, max: usize) -> Result<Vec<AuditEntry>, StoreError> {
        let damage = Arc::clone(&self.damage);
        self.read(move |connection| decisions::audit_log(connection, max, &damage))
            .await
    }

    async fn loaded_files(&self, max: usize) -> Result<Vec<LoadedFile>, StoreError> {
        let damage = Arc::clone(&self.damage);
        self.read(move |connection| loaded_files::read(connection, max, &damage))
            .await
    }

    async fn loaded_content(&self, number: u64) -> Result<Option<String>, StoreError> {
        self.read(move |connection| loaded_files::content(connection, number))
            .await
    }

    async fn record_file(&self, file: &LoadedFile, content: &str) -> Result<bool, StoreError> {
        let (file, content) = (file.clone(), content.to_owned());
        self.change(move |transaction| loaded_files::record(transaction, &file, &content))
            .await
    }

    async fn secrets(&self, ours: &[String]) -> Result<Vec<String>, StoreError> {
        let ours = ours.to_vec();
        self.change(move |transaction| secrets::exchange(transaction, &ours))
            .await
    }

    async fn acme_entries(&self) -> Result<AcmeEntries, StoreError> {
        self.read(acme::entries).await
    }

    async fn lease_acme(&self, lease: AcmeLease<'_>) -> Result<bool, StoreError> {
        let owner = lease.owner.to_owned();
        let AcmeLease { now_ms, for_ms, .. } = lease;
        self.change(move |transaction| {
            let owner = &owner;
            acme::lease(
                transaction,
                AcmeLease {
                    owner,
                    now_ms,
                    for_ms,
                },
            )
        })
        .await
    }

    async fn write_acme(
        &self,
        lease: AcmeLease<'_>,
        changes: &[(String, Option<String>)],
    ) -> Result<bool, StoreError> {
        let (owner, changes) = (lease.owner.to_owned(), changes.to_vec());
        let AcmeLease { now_ms, for_ms, .. } = lease;
        self.change(move |transaction| {
            let owner = &owner;
            let lease = AcmeLease {
                owner,
                now_ms,
                for_ms,
            };
            acme::write(transaction, lease, &changes)
        })
        .await
    }

    async fn enqueue(
        &self,
        event: EventMark<'_>,
        messages: &[PendingMessage],
    ) -> Result<Enqueued, StoreError> {
        let (key, messages) = (event.key.to_owned(), messages.to_vec());
        let EventMark {
            at_ms, quiet_ms, ..
        } = event;
        self.change(move |transaction| {
            let key = &key;
            let event = EventMark {
                key,
                at_ms,
                quiet_ms,
            };
            messages::enqueue(transaction, event, &messages)
        })
        .await
    }

    async fn reported_ms(&self, event: &str) -> Result<Option<u64>, StoreError> {
        let event = event.to_owned();
        self.read(move |connection| messages::reported_ms(connection, &event))
            .await
    }

    async fn take_messages(&self, taker: Taker<'_>) -> Result<TakenMessages, StoreError> {
        let (name, damage) = (taker.name.to_owned(), Arc::clone(&self.damage));
        let Taker {
            now_ms,
            until_ms,
            max,
            has_restarted,
            ..
        } = taker;
        self.change(move |transaction| {
            let name = &name;
            let taker = Taker {
                name,
                now_ms,
                until_ms,
                max,
                has_restarted,
            };
            messages::take(transaction, taker, &damage)
        })
        .await
    }

    async fn settle_message(
        &self,
        message: &PendingMessage,
        due_ms: Option<u64>,
    ) -> Result<(), StoreError> {
        let message = message.clone();
        self.writer
            .with(move |connection| messages::settle(connection, &message, due_ms))
            .await
    }

    fn damaged_records(&self) -> u64 {
        self.damage.count()
    }

    async fn ended_sessions(
        &self,
        ours: &[(u64, String)],
        now_s: u64,
    ) -> Result<Vec<(u64, String)>, StoreError> {
        let ours = ours.to_vec();
        self.change(move |transaction| sessions::exchange(transaction, &ours, now_s))
            .await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        // Opens both connections, and reads the file.
        self.writer.with(|_| Ok(())).await?;
        self.read(|connection| {
            let sql = "SELECT count(*) FROM (SELECT 1 FROM applied LIMIT 1)";
            Ok(connection.query_row(sql, [], |_| Ok(()))?)
        })
        .await
    }
}
