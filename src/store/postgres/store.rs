//! [`Store`] in PostgreSQL.

use super::connection::{get, whole};
use super::session::PostgresLink;
use super::{
    acme, apply, decisions, experiments, forgotten, loaded_files, messages, read, running_minima,
    secrets, sessions,
};
use crate::postgres_address::{InvalidAddress, PostgresAddress};
use crate::store::acme::{AcmeEntries, AcmeLease};
use crate::store::damage::Damage;
use crate::store::decisions::{AuditEntry, StandingDecision, StandingDecisions, StoredDefinitions};
use crate::store::forgotten::ForgottenUsers;
use crate::store::loaded_files::LoadedFile;
use crate::store::messages::{Enqueued, EventMark, PendingMessage, TakenMessages, Taker};
use crate::store::running_minima::RunningMinima;
use crate::store::{
    ALIVE_MS, Applied, Delta, ExperimentTotals, HourTotals, JournalId, Replica, Store, StoreError,
    UserCursor, UserPage, UserRecord,
};
use crate::tls::TlsFiles;
use std::sync::Arc;

/// Counts in one schema of a database.
#[derive(Debug)]
pub struct PostgresStore {
    writer: PostgresLink,
    reader: PostgresLink,
    damage: Damage,
}

impl PostgresStore {
    /// Makes a store without connecting. Each call connects until that is possible. All tables are in `schema`.
    pub fn at(url: &str, tls: TlsFiles, schema: &str) -> Result<PostgresStore, InvalidAddress> {
        let address = Arc::new(PostgresAddress::read(url, tls)?);
        Ok(PostgresStore {
            writer: PostgresLink::new(Arc::clone(&address), schema),
            reader: PostgresLink::new(address, schema),
            damage: Damage::default(),
        })
    }
}

#[async_trait::async_trait]
impl Store for PostgresStore {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    async fn shards(&self, experiment: &str) -> Result<u32, StoreError> {
        let mut session = self.writer.begin().await?;
        experiments::lock(&mut session, experiment).await?;
        session.commit().await?;
        Ok(1)
    }

    async fn applied(
        &self,
        experiment: &str,
        _shard: u32,
        journals: &[JournalId],
    ) -> Result<Vec<u64>, StoreError> {
        let journals: Vec<&str> = journals.iter().map(|journal| &**journal).collect();
        let mut session = self.reader.session().await?;
        let has = apply::positions(&mut session, experiment, &journals).await?;
        session.close();
        Ok(has)
    }

    async fn apply(&self, delta: &Delta) -> Result<Applied, StoreError> {
        let mut session = self.writer.begin().await?;
        let applied = apply::apply(&mut session, delta, &self.damage).await?;
        session.commit().await?;
        Ok(applied)
    }

    async fn forget(
        &self,
        experiment: &str,
        _shard: u32,
        journal: &JournalId,
    ) -> Result<(), StoreError> {
        let sql = "DELETE FROM applied
                   WHERE experiment = (SELECT number FROM experiments WHERE name = $1) AND journal = $2";
        self.writer
            .execute(sql, &[&experiment, &&**journal])
            .await?;
        Ok(())
    }

    async fn experiments(&self) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT name FROM experiments
                   WHERE EXISTS (SELECT 1 FROM epochs WHERE experiment = number) ORDER BY name";
        let rows = self.reader.rows(sql, &[]).await?;
        rows.iter().map(|row| get(row, 0)).collect()
    }

    async fn totals(&self, experiment: &str) -> Result<ExperimentTotals, StoreError> {
        read::totals(&self.reader, experiment, &self.damage).await
    }

    async fn hours(&self, experiment: &str) -> Result<Vec<HourTotals>, StoreError> {
        read::hours(&self.reader, experiment, &self.damage).await
    }

    async fn forgotten(&self, experiment: &str, _shard: u32) -> Result<ForgottenUsers, StoreError> {
        let mut session = self.reader.begin_reading().await?;
        let forgotten = forgotten::read(&mut session, experiment).await?;
        session.commit().await?;
        Ok(forgotten)
    }

    async fn forget_user(
        &self,
        experiment: &str,
        user: &[u8],
        until_ms: u64,
    ) -> Result<bool, StoreError> {
        let mut session = self.writer.begin().await?;
        let of = (user, until_ms);
        let was_known = forgotten::forget(&mut session, experiment, of, &self.damage).await?;
        session.commit().await?;
        Ok(was_known)
    }

    async fn forget_users(&self, experiment: &str) -> Result<(), StoreError> {
        forgotten::forget_all(&self.writer, experiment).await
    }

    async fn user(&self, experiment: &str, user: &[u8]) -> Result<Option<UserRecord>, StoreError> {
        read::user(&self.reader, experiment, user, &self.damage).await
    }

    async fn users(&self, experiment: &str, from: UserCursor) -> Result<UserPage, StoreError> {
        read::users(&self.reader, experiment, &from, &self.damage).await
    }

    async fn report_dropped(&self, journal: &JournalId, dropped: u64) -> Result<(), StoreError> {
        let sql = "INSERT INTO dropped VALUES ($1, $2)
                   ON CONFLICT (journal) DO UPDATE SET count = excluded.count";
        self.writer
            .execute(sql, &[&&**journal, &(dropped as i64)])
            .await?;
        Ok(())
    }

    async fn dropped(&self) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce(sum(count), 0)::bigint FROM dropped";
        let rows = self.reader.rows(sql, &[]).await?;
        rows.first().map_or(Ok(0), |row| whole(row, 0))
    }

    async fn report_damaged(&self, journal: &JournalId, damaged: u64) -> Result<(), StoreError> {
        let sql = "INSERT INTO damaged VALUES ($1, $2)
                   ON CONFLICT (journal) DO UPDATE SET count = greatest(damaged.count, excluded.count)";
        self.writer
            .execute(sql, &[&&**journal, &(damaged as i64)])
            .await?;
        Ok(())
    }

    async fn damaged(&self) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce(sum(count), 0)::bigint FROM damaged";
        let rows = self.reader.rows(sql, &[]).await?;
        rows.first().map_or(Ok(0), |row| whole(row, 0))
    }

    async fn announce(&self, replica: &Replica) -> Result<(), StoreError> {
        let mut session = self.writer.begin().await?;
        let now_ms = replica.seen_ms.min(session.now_ms().await?);
        let gone = now_ms.saturating_sub(ALIVE_MS) as i64;
        // Two replicas that delete the same row do not wait for each other.
        let sql = "DELETE FROM replicas WHERE id IN
                   (SELECT id FROM replicas WHERE seen_ms < $1 AND id <> $2 FOR UPDATE SKIP LOCKED)";
        session.execute(sql, &[&gone, &replica.id]).await?;
        let sql = "INSERT INTO replicas VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO UPDATE
                   SET definition = excluded.definition, seen_ms = excluded.seen_ms, version = excluded.version";
        let (definition, seen_ms) = (&replica.definition, replica.seen_ms as i64);
        session
            .execute(sql, &[&replica.id, definition, &seen_ms, &replica.version])
            .await?;
        session.commit().await
    }

    async fn replicas(&self, now_ms: u64) -> Result<Vec<Replica>, StoreError> {
        let sql =
            "SELECT id, definition, seen_ms, version FROM replicas WHERE seen_ms >= $1 ORDER BY id";
        let from_ms = now_ms.saturating_sub(ALIVE_MS) as i64;
        let rows = self.reader.rows(sql, &[&from_ms]).await?;
        let read = |row| {
            Ok(Replica {
                id: get(row, 0)?,
                definition: get(row, 1)?,
                seen_ms: whole(row, 2)?,
                version: get(row, 3)?,
            })
        };
        rows.iter().map(read).collect()
    }

    async fn running_minima(&self, experiment: &str) -> Result<RunningMinima, StoreError> {
        let mut session = self.reader.begin_reading().await?;
        let minima = running_minima::read(&mut session, experiment).await?;
        session.commit().await?;
        Ok(minima)
    }

    async fn merge_minima(&self, experiment: &str, more: &RunningMinima) -> Result<(), StoreError> {
        let mut session = self.writer.begin().await?;
        running_minima::merge(&mut session, experiment, more).await?;
        session.commit().await
    }

    async fn decisions(&self) -> Result<StandingDecisions, StoreError> {
        decisions::read(&self.reader, &self.damage).await
    }

    async fn decide(
        &self,
        before_ms: u64,
        next: &StandingDecision,
        entry: &AuditEntry,
    ) -> Result<bool, StoreError> {
        let mut session = self.writer.begin().await?;
        let is_decided = decisions::decide(&mut session, before_ms, next, entry).await?;
        session.commit().await?;
        Ok(is_decided)
    }

    async fn definitions(&self) -> Result<StoredDefinitions, StoreError> {
        decisions::definitions(&self.reader, &self.damage).await
    }

    async fn define(&self, changed: &StoredDefinitions) -> Result<(), StoreError> {
        let mut session = self.writer.begin().await?;
        decisions::define(&mut session, changed).await?;
        session.commit().await
    }

    async fn record_action(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        let mut session = self.writer.begin().await?;
        decisions::record_action(&mut session, entry).await?;
        session.commit().await
    }

    async fn audit_log(&self, max: usize) -> Result<Vec<AuditEntry>, StoreError> {
        decisions::audit_log(&self.reader, max, &self.damage).await
    }

    async fn loaded_files(&self, max: usize) -> Result<Vec<LoadedFile>, StoreError> {
        loaded_files::read(&self.reader, max, &self.damage).await
    }

    async fn loaded_content(&self, number: u64) -> Result<Option<String>, StoreError> {
        loaded_files::content(&self.reader, number).await
    }

    async fn record_file(&self, file: &LoadedFile, content: &str) -> Result<bool, StoreError> {
        let mut session = self.writer.begin().await?;
        let is_recorded = loaded_files::record(&mut session, file, content).await?;
        session.commit().await?;
        Ok(is_recorded)
    }

    async fn secrets(&self, ours: &[String]) -> Result<Vec<String>, StoreError> {
        let mut session = self.writer.begin().await?;
        let all = secrets::exchange(&mut session, ours).await?;
        session.commit().await?;
        Ok(all)
    }

    async fn ended_sessions(
        &self,
        ours: &[(u64, String)],
        now_s: u64,
    ) -> Result<Vec<(u64, String)>, StoreError> {
        let mut session = self.writer.begin().await?;
        let all = sessions::exchange(&mut session, ours, now_s).await?;
        session.commit().await?;
        Ok(all)
    }

    async fn acme_entries(&self) -> Result<AcmeEntries, StoreError> {
        let mut session = self.reader.session().await?;
        let entries = acme::entries(&mut session).await?;
        session.close();
        Ok(entries)
    }

    async fn lease_acme(&self, lease: AcmeLease<'_>) -> Result<bool, StoreError> {
        let mut session = self.writer.begin().await?;
        let is_leased = acme::lease(&mut session, lease).await?;
        session.commit().await?;
        Ok(is_leased)
    }

    async fn write_acme(
        &self,
        lease: AcmeLease<'_>,
        changes: &[(String, Option<String>)],
    ) -> Result<bool, StoreError> {
        let mut session = self.writer.begin().await?;
        let is_written = acme::write(&mut session, lease, changes).await?;
        session.commit().await?;
        Ok(is_written)
    }

    async fn enqueue(
        &self,
        event: EventMark<'_>,
        messages: &[PendingMessage],
    ) -> Result<Enqueued, StoreError> {
        let mut session = self.writer.begin().await?;
        let outcome = messages::enqueue(&mut session, event, messages).await?;
        session.commit().await?;
        Ok(outcome)
    }

    async fn reported_ms(&self, event: &str) -> Result<Option<u64>, StoreError> {
        messages::reported_ms(&self.reader, event).await
    }

    async fn take_messages(&self, taker: Taker<'_>) -> Result<TakenMessages, StoreError> {
        let mut session = self.writer.begin().await?;
        let taken = messages::take(&mut session, taker, &self.damage).await?;
        session.commit().await?;
        Ok(taken)
    }

    async fn settle_message(
        &self,
        message: &PendingMessage,
        due_ms: Option<u64>,
    ) -> Result<(), StoreError> {
        messages::settle(&self.writer, message, due_ms).await
    }

    fn damaged_records(&self) -> u64 {
        self.damage.count()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.writer.check().await?;
        self.reader.check().await
    }
}
