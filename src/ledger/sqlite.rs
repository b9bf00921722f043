//! The embedded house: one local SQLite file.

mod apply;
mod controls;
mod event_ids;
mod identities;
mod kept;
mod rows;
mod secrets;
mod sessions;
mod waiting;

use super::controls::{Act, Control, Controls};
use super::kept::Kept;
use super::{
    ALIVE_MS, Applied, HourTotals, JournalId, Ledger, LedgerError, Page, Part, Place, Replica,
    Totals, UserRecord, keys,
};
use apply::{applied, apply, record};
use rows::{definitions, fields};
use rusqlite::{Connection, TransactionBehavior, params};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How many users are read at once.
const PAGE_USERS: usize = 1000;
/// What this version writes into `user_version`.
const VERSION: i64 = 9;

/// How a file of each version becomes one of the next.
const STEPS: [&str; VERSION as usize] = [
    "
CREATE TABLE users   (experiment TEXT NOT NULL, user BLOB NOT NULL, record TEXT NOT NULL,
                      PRIMARY KEY (experiment, user)) WITHOUT ROWID;
CREATE TABLE totals  (experiment TEXT NOT NULL, field TEXT NOT NULL, value TEXT NOT NULL,
                      PRIMARY KEY (experiment, field)) WITHOUT ROWID;
CREATE TABLE hours   (experiment TEXT NOT NULL, field TEXT NOT NULL, value TEXT NOT NULL,
                      PRIMARY KEY (experiment, field)) WITHOUT ROWID;
CREATE TABLE epochs  (experiment TEXT NOT NULL, digest TEXT NOT NULL, first_ms INTEGER NOT NULL,
                      definition TEXT NOT NULL, PRIMARY KEY (experiment, digest)) WITHOUT ROWID;
CREATE TABLE applied (experiment TEXT NOT NULL, journal TEXT NOT NULL, through INTEGER NOT NULL,
                      PRIMARY KEY (experiment, journal)) WITHOUT ROWID;
",
    "
CREATE TABLE waiting (experiment TEXT NOT NULL, user BLOB NOT NULL, since_ms INTEGER NOT NULL,
                      events TEXT NOT NULL, PRIMARY KEY (experiment, user)) WITHOUT ROWID;
CREATE INDEX waiting_since ON waiting (experiment, since_ms);
CREATE TABLE aliases (experiment TEXT NOT NULL, user BLOB NOT NULL, first BLOB NOT NULL,
                      PRIMARY KEY (experiment, user)) WITHOUT ROWID;
CREATE INDEX aliases_first ON aliases (experiment, first);
CREATE TABLE dropped (journal TEXT NOT NULL PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE replicas (id TEXT NOT NULL PRIMARY KEY, definition TEXT NOT NULL, seen_ms INTEGER NOT NULL,
                       version TEXT NOT NULL) WITHOUT ROWID;
",
    "
CREATE TABLE lowest  (experiment TEXT NOT NULL, field TEXT NOT NULL, value REAL NOT NULL,
                      PRIMARY KEY (experiment, field)) WITHOUT ROWID;
CREATE TABLE first   (experiment TEXT NOT NULL, field TEXT NOT NULL, value TEXT NOT NULL,
                      PRIMARY KEY (experiment, field)) WITHOUT ROWID;
",
    "
CREATE TABLE controls (experiment TEXT NOT NULL PRIMARY KEY, at_ms INTEGER NOT NULL,
                       control TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE acts     (number INTEGER PRIMARY KEY AUTOINCREMENT, act TEXT NOT NULL);
",
    "
CREATE TABLE secrets  (number INTEGER PRIMARY KEY AUTOINCREMENT, secret TEXT NOT NULL UNIQUE);
CREATE TABLE ended_sessions (nonce TEXT NOT NULL PRIMARY KEY, until_s INTEGER NOT NULL) WITHOUT ROWID;
",
    "
CREATE TABLE damaged  (journal TEXT NOT NULL PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
",
    "
CREATE TABLE identities      (experiment TEXT NOT NULL, user BLOB NOT NULL, role BLOB NOT NULL,
                              PRIMARY KEY (experiment, user)) WITHOUT ROWID;
CREATE INDEX identities_role ON identities (experiment, role);
CREATE TABLE identity_counts (experiment TEXT NOT NULL, name TEXT NOT NULL, count INTEGER NOT NULL,
                              PRIMARY KEY (experiment, name)) WITHOUT ROWID;
",
    "
CREATE TABLE event_ids (experiment TEXT NOT NULL, user BLOB NOT NULL, id INTEGER NOT NULL,
                        at_ms INTEGER NOT NULL, PRIMARY KEY (experiment, user, id)) WITHOUT ROWID;
CREATE INDEX event_ids_at ON event_ids (experiment, at_ms);
CREATE TABLE event_counts (experiment TEXT NOT NULL, name TEXT NOT NULL, count INTEGER NOT NULL,
                           PRIMARY KEY (experiment, name)) WITHOUT ROWID;
",
    "
CREATE TABLE waiting_bytes (experiment TEXT NOT NULL PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO waiting_bytes SELECT experiment, sum(150 + 2 * length(user) + length(events)) FROM waiting
                          GROUP BY experiment;
CREATE TRIGGER waiting_added AFTER INSERT ON waiting BEGIN
  INSERT INTO waiting_bytes VALUES (new.experiment, 150 + 2 * length(new.user) + length(new.events))
    ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER waiting_changed AFTER UPDATE ON waiting BEGIN
  UPDATE waiting_bytes SET bytes = bytes + length(new.events) - length(old.events)
    WHERE experiment = new.experiment;
END;
CREATE TRIGGER waiting_removed AFTER DELETE ON waiting BEGIN
  UPDATE waiting_bytes SET bytes = bytes - 150 - 2 * length(old.user) - length(old.events)
    WHERE experiment = old.experiment;
END;
",
];

/// Counts in one local file.
#[derive(Debug)]
pub struct SqliteLedger {
    writer: Arc<Mutex<Connection>>,
    reader: Arc<Mutex<Connection>>,
}

impl SqliteLedger {
    /// Opens the file, made where missing. Several processes may share it.
    pub fn open(path: &Path) -> Result<SqliteLedger, LedgerError> {
        let mut writer = connect(path)?;
        let begun = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version: i64 = begun.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let Some(steps) = usize::try_from(version).ok().and_then(|at| STEPS.get(at..)) else {
            let place = format!("the file's user_version (of {})", path.display());
            return Err(LedgerError::Unreadable {
                place,
                found: version.to_string(),
            });
        };
        for step in steps {
            begun.execute_batch(step)?;
        }
        begun.pragma_update(None, "user_version", VERSION)?;
        begun.commit()?;
        let reader = connect(path)?;
        Ok(SqliteLedger {
            writer: Arc::new(Mutex::new(writer)),
            reader: Arc::new(Mutex::new(reader)),
        })
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        on(&self.reader, move |connection| work(connection)).await
    }
}

fn connect(path: &Path) -> Result<Connection, LedgerError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A power cut may cost the last commits; the journal gives them again.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Does blocking work on a thread for such work.
async fn on<T: Send + 'static>(
    connection: &Arc<Mutex<Connection>>,
    work: impl FnOnce(&mut Connection) -> Result<T, LedgerError> + Send + 'static,
) -> Result<T, LedgerError> {
    let connection = Arc::clone(connection);
    // A transaction that a panic interrupted was rolled back: the connection is sound.
    let work = move || work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner));
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

#[async_trait::async_trait]
impl Ledger for SqliteLedger {
    fn kind(&self) -> &'static str {
        "embedded"
    }

    async fn shards(&self, _experiment: &str) -> Result<u32, LedgerError> {
        Ok(1)
    }

    async fn applied(
        &self,
        experiment: &str,
        _shard: u32,
        journals: &[JournalId],
    ) -> Result<Vec<u64>, LedgerError> {
        let (experiment, journals) = (experiment.to_owned(), journals.to_vec());
        let has = move |connection: &Connection| {
            journals
                .iter()
                .map(|journal| applied(connection, &experiment, journal))
                .collect()
        };
        self.read(has).await
    }

    async fn apply(&self, part: &Part) -> Result<Applied, LedgerError> {
        let part = part.clone();
        on(&self.writer, move |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let applied = apply(&transaction, &part)?;
            transaction.commit()?;
            Ok(applied)
        })
        .await
    }

    async fn forget(
        &self,
        experiment: &str,
        _shard: u32,
        journal: &JournalId,
    ) -> Result<(), LedgerError> {
        let (experiment, journal) = (experiment.to_owned(), journal.clone());
        on(&self.writer, move |connection| {
            let sql = "DELETE FROM applied WHERE experiment = ? AND journal = ?";
            connection.execute(sql, params![experiment, &*journal])?;
            Ok(())
        })
        .await
    }

    async fn experiments(&self) -> Result<Vec<String>, LedgerError> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT DISTINCT experiment FROM epochs ORDER BY 1")?;
            let names = statement.query_map([], |row| row.get(0))?;
            Ok(names.collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn totals(&self, experiment: &str) -> Result<Totals, LedgerError> {
        let experiment = experiment.to_owned();
        self.read(move |connection| {
            // One transaction: definitions and counts of the same moment.
            let transaction = connection.unchecked_transaction()?;
            let totals = keys::totals(
                definitions(&transaction, &experiment)?,
                fields(&transaction, "totals", &experiment)?,
            )?;
            Ok(Totals {
                identities: identities::counts(&transaction, &experiment)?,
                uncounted: event_ids::counts(&transaction, &experiment)?,
                ..totals
            })
        })
        .await
    }

    async fn hours(&self, experiment: &str) -> Result<Vec<HourTotals>, LedgerError> {
        let experiment = experiment.to_owned();
        self.read(move |connection| keys::hours(fields(connection, "hours", &experiment)?))
            .await
    }

    async fn forget_user(&self, experiment: &str, user: &[u8]) -> Result<bool, LedgerError> {
        let (experiment, user) = (experiment.to_owned(), user.to_vec());
        on(&self.writer, move |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let was_there = apply::forget(&transaction, &experiment, &user)?;
            transaction.commit()?;
            Ok(was_there)
        })
        .await
    }

    async fn forget_users(&self, experiment: &str) -> Result<(), LedgerError> {
        let experiment = experiment.to_owned();
        on(&self.writer, move |connection| {
            for table in ["users", "waiting", "identities", "aliases", "event_ids"] {
                let sql = format!("DELETE FROM {table} WHERE experiment = ?");
                connection.execute(&sql, [&experiment])?;
            }
            Ok(())
        })
        .await
    }

    async fn user(&self, experiment: &str, user: &[u8]) -> Result<Option<UserRecord>, LedgerError> {
        let (experiment, user) = (experiment.to_owned(), user.to_vec());
        self.read(move |connection| {
            let user = identities::resolve(connection, &experiment, &user)?;
            record(connection, &experiment, &user)
        })
        .await
    }

    async fn users(&self, experiment: &str, from: Place) -> Result<Page, LedgerError> {
        let experiment = experiment.to_owned();
        self.read(move |connection| {
            let sql = "SELECT user, record FROM users WHERE experiment = ? AND user > ? ORDER BY user LIMIT ?";
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query(params![experiment, from.after, PAGE_USERS as i64])?;
            let mut users = Vec::new();
            while let Some(row) = rows.next()? {
                let text: String = row.get(1)?;
                users.push((row.get(0)?, keys::read_user(&text)?));
            }
            let last = users.last().filter(|_| users.len() == PAGE_USERS);
            let next = last.map(|(user, _): &(Vec<u8>, UserRecord)| Place {
                after: user.clone(),
                ..Place::default()
            });
            Ok((users, next))
        })
        .await
    }

    async fn tell_dropped(&self, journal: &JournalId, dropped: u64) -> Result<(), LedgerError> {
        let journal = journal.clone();
        on(&self.writer, move |connection| {
            let sql = "INSERT INTO dropped VALUES (?, ?) ON CONFLICT DO UPDATE SET count = excluded.count";
            connection.execute(sql, params![&*journal, dropped as i64])?;
            Ok(())
        })
        .await
    }

    async fn dropped(&self) -> Result<u64, LedgerError> {
        self.read(|connection| {
            let sql = "SELECT coalesce(sum(count), 0) FROM dropped";
            Ok(connection.query_row(sql, [], |row| row.get::<_, i64>(0))? as u64)
        })
        .await
    }

    async fn tell_damaged(&self, journal: &JournalId, damaged: u64) -> Result<(), LedgerError> {
        let journal = journal.clone();
        on(&self.writer, move |connection| {
            let sql = "INSERT INTO damaged VALUES (?, ?) ON CONFLICT DO UPDATE SET count = max(count, excluded.count)";
            connection.execute(sql, params![&*journal, damaged as i64])?;
            Ok(())
        })
        .await
    }

    async fn damaged(&self) -> Result<u64, LedgerError> {
        self.read(|connection| {
            let sql = "SELECT coalesce(sum(count), 0) FROM damaged";
            Ok(connection.query_row(sql, [], |row| row.get::<_, i64>(0))? as u64)
        })
        .await
    }

    async fn announce(&self, replica: &Replica) -> Result<(), LedgerError> {
        let replica = replica.clone();
        on(&self.writer, move |connection| {
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

    async fn replicas(&self, now_ms: u64) -> Result<Vec<Replica>, LedgerError> {
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

    async fn kept(&self, experiment: &str) -> Result<Kept, LedgerError> {
        let experiment = experiment.to_owned();
        self.read(move |connection| kept::kept(connection, &experiment))
            .await
    }

    async fn keep(&self, experiment: &str, more: &Kept) -> Result<(), LedgerError> {
        let (experiment, more) = (experiment.to_owned(), more.clone());
        on(&self.writer, move |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            kept::keep(&transaction, &experiment, &more)?;
            Ok(transaction.commit()?)
        })
        .await
    }

    async fn controls(&self) -> Result<Controls, LedgerError> {
        self.read(controls::controls).await
    }

    async fn control(
        &self,
        before_ms: u64,
        next: &Control,
        act: &Act,
    ) -> Result<bool, LedgerError> {
        let (next, act) = (next.clone(), act.clone());
        on(&self.writer, move |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = controls::control(&transaction, before_ms, &next, &act)?;
            transaction.commit()?;
            Ok(done)
        })
        .await
    }

    async fn note(&self, act: &Act) -> Result<(), LedgerError> {
        let act = act.clone();
        on(&self.writer, move |connection| {
            controls::note(connection, &act)
        })
        .await
    }

    async fn acts(&self, max: usize) -> Result<Vec<Act>, LedgerError> {
        self.read(move |connection| controls::acts(connection, max))
            .await
    }

    async fn secrets(&self, ours: &[String]) -> Result<Vec<String>, LedgerError> {
        let ours = ours.to_vec();
        on(&self.writer, move |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let secrets = secrets::exchange(&transaction, &ours)?;
            transaction.commit()?;
            Ok(secrets)
        })
        .await
    }

    async fn ended_sessions(
        &self,
        ours: &[(u64, String)],
        now_s: u64,
    ) -> Result<Vec<(u64, String)>, LedgerError> {
        let ours = ours.to_vec();
        on(&self.writer, move |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let ended = sessions::exchange(&transaction, &ours, now_s)?;
            transaction.commit()?;
            Ok(ended)
        })
        .await
    }

    async fn ping(&self) -> Result<(), LedgerError> {
        self.read(|connection| Ok(connection.query_row("SELECT 1", [], |_| Ok(()))?))
            .await
    }
}
