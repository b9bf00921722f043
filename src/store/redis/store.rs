//! [`Store`] in Redis. One script call adds one delta.

use super::client::RedisStore;
use super::decode::{self, Fields};
use super::{
    acme, decisions, forgotten, loaded_files, messages, running_minima, script, secrets, sessions,
};
use crate::store::acme::{AcmeEntries, AcmeLease};
use crate::store::decisions::{AuditEntry, StandingDecision, StandingDecisions, StoredDefinitions};
use crate::store::event_ids::EventCounts;
use crate::store::forgotten::ForgottenUsers;
use crate::store::identities::IdentityCounts;
use crate::store::keys;
use crate::store::loaded_files::LoadedFile;
use crate::store::messages::{Enqueued, EventMark, PendingMessage, TakenMessages, Taker};
use crate::store::running_minima::RunningMinima;
use crate::store::{
    ALIVE_MS, Applied, Delta, ExperimentTotals, HourTotals, JournalId, Replica, Store, StoreError,
    UserCursor, UserPage, UserRecord,
};

#[async_trait::async_trait]
impl Store for RedisStore {
    fn kind(&self) -> &'static str {
        "redis"
    }

    async fn shards(&self, experiment: &str) -> Result<u32, StoreError> {
        self.register(experiment).await
    }

    async fn applied(
        &self,
        experiment: &str,
        shard: u32,
        journals: &[JournalId],
    ) -> Result<Vec<u64>, StoreError> {
        if journals.is_empty() {
            // HMGET without a field is an error.
            return Ok(Vec::new());
        }
        let key = self.keys(experiment, shard).await?.applied;
        let names: Vec<&str> = journals.iter().map(|journal| &**journal).collect();
        let mut get = redis::cmd("HMGET");
        let has: Vec<Option<Vec<u8>>> = self.ask(get.arg(&key).arg(&names)).await?;
        // A damaged position is an error: without the position, records would count twice.
        let read = |(name, has): (&str, Option<Vec<u8>>)| {
            has.map_or(Ok(0), |has| decode::number(&key, name, &has))
        };
        names.into_iter().zip(has).map(read).collect()
    }

    async fn apply(&self, delta: &Delta) -> Result<Applied, StoreError> {
        let keys = self.keys(&delta.experiment, delta.shard).await?;
        let mut call = self.apply.prepare_invoke();
        call.key(keys.users)
            .key(keys.totals)
            .key(keys.hours)
            .key(keys.epochs)
            .key(keys.applied)
            .key(keys.waiting)
            .key(keys.waiting_since)
            .key(keys.aliases)
            .key(keys.identities)
            .key(keys.identity_counts)
            .key(keys.event_ids)
            .key(keys.event_ids_at)
            .key(keys.event_counts)
            .key(keys.forgotten)
            .key(keys.seen_once);
        script::arguments(&mut call, delta);
        let answer: Vec<String> = self
            .with(async |connection| call.invoke_async(connection).await)
            .await?;
        script::read_answer(delta, answer, &self.damage)
    }

    async fn forget(
        &self,
        experiment: &str,
        shard: u32,
        journal: &JournalId,
    ) -> Result<(), StoreError> {
        let key = self.keys(experiment, shard).await?.applied;
        self.ask(redis::cmd("HDEL").arg(key).arg(&**journal)).await
    }

    async fn experiments(&self) -> Result<Vec<String>, StoreError> {
        let key = keys::experiments_key(&self.prefix);
        let names = self.ask(redis::cmd("HKEYS").arg(&key)).await?;
        let mut names = self.readable(&key, names)?;
        names.sort();
        Ok(names)
    }

    async fn totals(&self, experiment: &str) -> Result<ExperimentTotals, StoreError> {
        let (mut definitions, mut fields) = (Vec::new(), Vec::new());
        let mut identities = IdentityCounts::default();
        let mut uncounted = EventCounts::default();
        for shard in 0..self.known_shards(experiment).await? {
            let keys = self.keys(experiment, shard).await?;
            // Counts first: their epochs are all defined by then.
            fields.extend(self.numbers::<i64>(&keys.totals).await?);
            let counts = self.numbers(&keys.identity_counts).await?;
            identities.add(&counts.into_iter().collect());
            let counts = self.numbers(&keys.event_counts).await?;
            uncounted.add(counts.iter().map(|(name, count)| (&**name, *count)));
            for (digest, text) in self.texts(&keys.epochs).await? {
                let read = || {
                    let (first_ms, definition) = text.split_once(' ')?;
                    keys::read_definition(&digest, first_ms.parse().ok()?, definition).ok()
                };
                match read() {
                    Some(definition) => definitions.push(definition),
                    None => self.damage.note(&keys.epochs, &text),
                }
            }
        }
        Ok(ExperimentTotals {
            identities,
            uncounted,
            ..keys::totals(definitions, wide(fields), &self.damage)
        })
    }

    async fn hours(&self, experiment: &str) -> Result<Vec<HourTotals>, StoreError> {
        let mut fields = Vec::new();
        for shard in 0..self.known_shards(experiment).await? {
            let hours = self.keys(experiment, shard).await?.hours;
            fields.extend(self.numbers::<i64>(&hours).await?);
        }
        Ok(keys::hours(wide(fields), &self.damage))
    }

    async fn forget_user(
        &self,
        experiment: &str,
        user: &[u8],
        until_ms: u64,
    ) -> Result<bool, StoreError> {
        self.forget_one(experiment, user, until_ms).await
    }

    async fn forgotten(&self, experiment: &str, shard: u32) -> Result<ForgottenUsers, StoreError> {
        forgotten::forgotten(self, experiment, shard).await
    }

    async fn forget_users(&self, experiment: &str) -> Result<(), StoreError> {
        for shard in 0..self.known_shards(experiment).await? {
            let keys = self.keys(experiment, shard).await?;
            let ids = [keys.identities, keys.aliases];
            let all = [keys.users, keys.waiting, keys.waiting_since];
            let more = [keys.event_ids, keys.event_ids_at, keys.seen_once];
            let mut unlink = redis::cmd("UNLINK");
            let () = self.ask(unlink.arg(&all).arg(&ids).arg(&more)).await?;
            let mut forget = redis::cmd("HDEL");
            let sizes = ["waiting_bytes", "seen_once_bytes"];
            let () = self.ask(forget.arg(&keys.event_counts).arg(&sizes)).await?;
        }
        Ok(())
    }

    async fn user(&self, experiment: &str, user: &[u8]) -> Result<Option<UserRecord>, StoreError> {
        let Some(keys) = self.keys_of(experiment, user).await? else {
            return Ok(None);
        };
        let id = self.resolve(&keys, user).await?;
        let text: Option<Vec<u8>> = self
            .ask(redis::cmd("HGET").arg(&keys.users).arg(id))
            .await?;
        let read = |text: Vec<u8>| keys::read_user(&String::from_utf8_lossy(&text));
        let record = text.map(|text| self.damage.skip(read(text)));
        Ok(record.transpose()?.flatten())
    }

    async fn users(&self, experiment: &str, from: UserCursor) -> Result<UserPage, StoreError> {
        let shards = self.known_shards(experiment).await?;
        if from.shard >= shards {
            return Ok((Vec::new(), None));
        }
        let key = self.keys(experiment, from.shard).await?.users;
        let mut scan = redis::cmd("HSCAN");
        scan.arg(key).arg(from.cursor).arg("COUNT").arg(1000);
        let (cursor, fields): (u64, Fields) = self.ask(&scan).await?;
        let mut users = Vec::with_capacity(fields.len());
        for (user, text) in fields {
            let record = keys::read_user(&String::from_utf8_lossy(&text));
            users.extend(self.damage.skip(record)?.map(|record| (user, record)));
        }
        let shard = from.shard + u32::from(cursor == 0);
        let next = (shard < shards).then(|| UserCursor {
            shard,
            cursor,
            ..UserCursor::default()
        });
        Ok((users, next))
    }

    async fn report_dropped(&self, journal: &JournalId, dropped: u64) -> Result<(), StoreError> {
        let key = keys::dropped_key(&self.prefix);
        let mut set = redis::cmd("HSET");
        self.ask(set.arg(key).arg(&**journal).arg(dropped)).await
    }

    async fn dropped(&self) -> Result<u64, StoreError> {
        let key = keys::dropped_key(&self.prefix);
        self.sum(&key).await
    }

    async fn report_damaged(&self, journal: &JournalId, damaged: u64) -> Result<(), StoreError> {
        let key = keys::damaged_key(&self.prefix);
        let known: Option<u64> = self.number(&key, journal).await?;
        // One process has the journal, so no other process writes this at the same time.
        let damaged = damaged.max(known.unwrap_or(0));
        let mut set = redis::cmd("HSET");
        self.ask(set.arg(key).arg(&**journal).arg(damaged)).await
    }

    async fn damaged(&self) -> Result<u64, StoreError> {
        let key = keys::damaged_key(&self.prefix);
        self.sum(&key).await
    }

    async fn announce(&self, replica: &Replica) -> Result<(), StoreError> {
        let Replica {
            id,
            definition,
            seen_ms,
            version,
        } = replica;
        let key = keys::replicas_key(&self.prefix);
        let text = format!("{definition} {seen_ms} {version}");
        let mut set = redis::cmd("HSET");
        self.ask(set.arg(key).arg(id).arg(text)).await
    }

    async fn replicas(&self, now_ms: u64) -> Result<Vec<Replica>, StoreError> {
        let key = keys::replicas_key(&self.prefix);
        let mut replicas = Vec::new();
        for (id, text) in self.texts(&key).await? {
            let mut words = text.split(' ');
            let read = || {
                Some(Replica {
                    id: id.clone(),
                    definition: words.next()?.to_owned(),
                    seen_ms: words.next()?.parse().ok()?,
                    version: words.next()?.to_owned(),
                })
            };
            let replica = { read }();
            // An entry that cannot be decoded is of another version.
            let alive =
                replica.filter(|replica| replica.seen_ms.saturating_add(ALIVE_MS) >= now_ms);
            match alive {
                Some(replica) => replicas.push(replica),
                None => {
                    let () = self.ask(redis::cmd("HDEL").arg(&key).arg(id)).await?;
                }
            }
        }
        replicas.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(replicas)
    }

    async fn running_minima(&self, experiment: &str) -> Result<RunningMinima, StoreError> {
        running_minima::read(self, experiment).await
    }

    async fn merge_minima(&self, experiment: &str, more: &RunningMinima) -> Result<(), StoreError> {
        running_minima::merge(self, experiment, more).await
    }

    async fn decisions(&self) -> Result<StandingDecisions, StoreError> {
        decisions::read(self).await
    }

    async fn decide(
        &self,
        before_ms: u64,
        next: &StandingDecision,
        entry: &AuditEntry,
    ) -> Result<bool, StoreError> {
        decisions::decide(self, before_ms, next, entry).await
    }

    async fn definitions(&self) -> Result<StoredDefinitions, StoreError> {
        decisions::definitions(self).await
    }

    async fn define(&self, changed: &StoredDefinitions) -> Result<(), StoreError> {
        decisions::define(self, changed).await
    }

    async fn record_action(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        decisions::record_action(self, entry).await
    }

    async fn audit_log(&self, max: usize) -> Result<Vec<AuditEntry>, StoreError> {
        decisions::audit_log(self, max).await
    }

    async fn loaded_files(&self, max: usize) -> Result<Vec<LoadedFile>, StoreError> {
        loaded_files::read(self, max).await
    }

    async fn loaded_content(&self, number: u64) -> Result<Option<String>, StoreError> {
        loaded_files::content(self, number).await
    }

    async fn record_file(&self, file: &LoadedFile, content: &str) -> Result<bool, StoreError> {
        loaded_files::record(self, file, content).await
    }

    async fn secrets(&self, ours: &[String]) -> Result<Vec<String>, StoreError> {
        secrets::exchange(self, ours).await
    }

    async fn ended_sessions(
        &self,
        ours: &[(u64, String)],
        now_s: u64,
    ) -> Result<Vec<(u64, String)>, StoreError> {
        sessions::exchange(self, ours, now_s).await
    }

    async fn acme_entries(&self) -> Result<AcmeEntries, StoreError> {
        acme::entries(self).await
    }

    async fn lease_acme(&self, lease: AcmeLease<'_>) -> Result<bool, StoreError> {
        acme::lease(self, lease).await
    }

    async fn write_acme(
        &self,
        lease: AcmeLease<'_>,
        changes: &[(String, Option<String>)],
    ) -> Result<bool, StoreError> {
        acme::write(self, lease, changes).await
    }

    async fn enqueue(
        &self,
        event: EventMark<'_>,
        messages: &[PendingMessage],
    ) -> Result<Enqueued, StoreError> {
        messages::enqueue(self, event, messages).await
    }

    async fn reported_ms(&self, event: &str) -> Result<Option<u64>, StoreError> {
        messages::reported_ms(self, event).await
    }

    async fn take_messages(&self, taker: Taker<'_>) -> Result<TakenMessages, StoreError> {
        messages::take(self, taker).await
    }

    async fn settle_message(
        &self,
        message: &PendingMessage,
        due_ms: Option<u64>,
    ) -> Result<(), StoreError> {
        messages::settle(self, message, due_ms).await
    }

    fn damaged_records(&self) -> u64 {
        self.damage.count()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(self.link.check_again().await?)
    }
}

/// Widens counts for [`keys`].
fn wide(fields: Vec<(String, i64)>) -> Vec<(String, i128)> {
    let wide = |(field, count)| (field, i128::from(count));
    fields.into_iter().map(wide).collect()
}
