//! The shared house: Redis or Valkey, 6.2 or later. One script call adds one part.

use super::account::{Additions, WAITING_USERS_MAX};
use super::keys::{self, ShardKeys};
use super::{Applied, HourTotals, JournalId, Ledger, LedgerError, Part, Totals, UserRecord};
use ::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use ::redis::{Client, ErrorKind, RedisError, Script};
use std::time::Duration;

/// How long Redis may take to answer before the call counts as failed (and is made again).
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// Counts in Redis.
#[derive(Clone)]
pub struct RedisLedger {
    connection: ConnectionManager,
    prefix: String,
    apply: std::sync::Arc<Script>,
}

/// Why a Redis cannot be used, however long one waits.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The address is not one of Redis.
    #[error("the address is not understood")]
    Address(#[source] RedisError),
    /// It asks for a password, or for another one.
    #[error("it refuses the user or password (or asks for one that the address does not give)")]
    Password(#[source] RedisError),
    /// Something else listens there.
    #[error("what listens there does not answer like Redis")]
    NotRedis(#[source] RedisError),
    /// It is too old.
    #[error("it is version {0}, and 6.2 is the oldest that works")]
    TooOld(String),
    /// It is a node of a cluster.
    #[error(
        "it is a node of a Redis Cluster, which this version does not support yet; give a standalone Redis"
    )]
    Cluster,
}

impl RedisLedger {
    /// Uses the Redis at this address, all keys beginning with `prefix`. A Redis that cannot be
    /// reached now is waited for (facts are kept in the journal until then); one that will never
    /// do is an error.
    pub async fn connect(url: &str, prefix: &str) -> Result<RedisLedger, Unusable> {
        let client = Client::open(url.replacen("valkey", "redis", 1)).map_err(Unusable::Address)?;
        match probe(&client).await {
            Ok(()) => {}
            Err(Probe::Unusable(unusable)) => return Err(unusable),
            Err(Probe::Away(error)) => {
                tracing::error!(
                    "Redis cannot be reached: {error}; requests are served, facts wait in the journal. If it should be there, correct `store`"
                );
            }
        }
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(ANSWER_WITHIN))
            .set_connection_timeout(Some(CONNECT_WITHIN))
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_secs(1));
        let connection =
            ConnectionManager::new_lazy_with_config(client, config).map_err(Unusable::Address)?;
        let apply = std::sync::Arc::new(Script::new(concat!(
            include_str!("account.lua"),
            include_str!("apply.lua")
        )));
        Ok(RedisLedger {
            connection,
            prefix: prefix.to_owned(),
            apply,
        })
    }

    fn keys(&self, experiment: &str, shard: u32) -> ShardKeys {
        keys::shard_keys(&self.prefix, experiment, shard)
    }

    async fn fields(&self, key: &str) -> Result<Vec<(String, i128)>, LedgerError> {
        let fields: Vec<(String, i64)> = self.ask(::redis::cmd("HGETALL").arg(key)).await?;
        Ok(fields
            .into_iter()
            .map(|(field, value)| (field, i128::from(value)))
            .collect())
    }

    async fn ask<T: ::redis::FromRedisValue>(
        &self,
        command: &::redis::Cmd,
    ) -> Result<T, LedgerError> {
        Ok(command.query_async(&mut self.connection.clone()).await?)
    }
}

enum Probe {
    Unusable(Unusable),
    Away(RedisError),
}

impl From<RedisError> for Probe {
    fn from(error: RedisError) -> Probe {
        let refused = matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"));
        match error.kind() {
            _ if refused => Probe::Unusable(Unusable::Password(error)),
            ErrorKind::AuthenticationFailed => Probe::Unusable(Unusable::Password(error)),
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => {
                Probe::Unusable(Unusable::NotRedis(error))
            }
            ErrorKind::InvalidClientConfig => Probe::Unusable(Unusable::Address(error)),
            // Loading its data, or a replica without its master: it will answer later.
            _ => Probe::Away(error),
        }
    }
}

async fn probe(client: &Client) -> Result<(), Probe> {
    let config = ::redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_WITHIN))
        .set_response_timeout(Some(CONNECT_WITHIN));
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await?;
    let info: String = ::redis::cmd("INFO").query_async(&mut connection).await?;
    let value = |name: &str| {
        info.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    // Valkey says the version of Redis that it is compatible with here.
    let version = value("redis_version").unwrap_or("0");
    let mut numbers = version
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or(0));
    if (numbers.next(), numbers.next()) < (Some(6), Some(2)) {
        return Err(Probe::Unusable(Unusable::TooOld(version.to_owned())));
    }
    if value("cluster_enabled") == Some("1") {
        return Err(Probe::Unusable(Unusable::Cluster));
    }
    if let Some(policy) = value("maxmemory_policy").filter(|policy| *policy != "noeviction")
        && value("maxmemory").is_some_and(|bytes| bytes != "0")
    {
        tracing::warn!(
            "Redis may evict counts when its memory is full (maxmemory-policy {policy}): set it to noeviction"
        );
    }
    Ok(())
}

#[async_trait::async_trait]
impl Ledger for RedisLedger {
    fn kind(&self) -> &'static str {
        "redis"
    }

    async fn shards(&self, experiment: &str) -> Result<u32, LedgerError> {
        let key = keys::experiments_key(&self.prefix);
        let () = self
            .ask(::redis::cmd("HSETNX").arg(&key).arg(experiment).arg(1))
            .await?;
        self.ask(::redis::cmd("HGET").arg(&key).arg(experiment))
            .await
    }

    async fn applied(
        &self,
        experiment: &str,
        shard: u32,
        journals: &[JournalId],
    ) -> Result<Vec<u64>, LedgerError> {
        let key = self.keys(experiment, shard).applied;
        let names: Vec<&str> = journals.iter().map(|journal| &**journal).collect();
        let has: Vec<Option<u64>> = self.ask(::redis::cmd("HMGET").arg(key).arg(names)).await?;
        Ok(has.into_iter().map(Option::unwrap_or_default).collect())
    }

    async fn apply(&self, part: &Part) -> Result<Applied, LedgerError> {
        let keys = self.keys(&part.experiment, part.shard);
        let mut call = self.apply.prepare_invoke();
        call.key(keys.users)
            .key(keys.totals)
            .key(keys.hours)
            .key(keys.epochs)
            .key(keys.applied)
            .key(keys.waiting)
            .key(keys.waiting_since);
        arguments(&mut call, part);
        let answer: Vec<String> = call.invoke_async(&mut self.connection.clone()).await?;
        read_answer(part, answer)
    }

    async fn forget(
        &self,
        experiment: &str,
        shard: u32,
        journal: &JournalId,
    ) -> Result<(), LedgerError> {
        let key = self.keys(experiment, shard).applied;
        self.ask(::redis::cmd("HDEL").arg(key).arg(&**journal))
            .await
    }

    async fn experiments(&self) -> Result<Vec<String>, LedgerError> {
        let mut names: Vec<String> = self
            .ask(::redis::cmd("HKEYS").arg(keys::experiments_key(&self.prefix)))
            .await?;
        names.sort();
        Ok(names)
    }

    async fn totals(&self, experiment: &str) -> Result<Totals, LedgerError> {
        let (mut definitions, mut fields) = (Vec::new(), Vec::new());
        for shard in 0..self.known_shards(experiment).await? {
            let keys = self.keys(experiment, shard);
            // Counts first: every epoch that they name is defined by then.
            fields.extend(self.fields(&keys.totals).await?);
            let texts: Vec<(String, String)> =
                self.ask(::redis::cmd("HGETALL").arg(&keys.epochs)).await?;
            for (digest, text) in texts {
                let unreadable = || LedgerError::Unreadable {
                    place: keys.epochs.clone(),
                    found: text.clone(),
                };
                let (first_ms, definition) = text.split_once(' ').ok_or_else(unreadable)?;
                let first_ms = first_ms.parse().map_err(|_| unreadable())?;
                definitions.push(keys::read_definition(&digest, first_ms, definition)?);
            }
        }
        keys::totals(definitions, fields)
    }

    async fn hours(&self, experiment: &str) -> Result<Vec<HourTotals>, LedgerError> {
        let mut fields = Vec::new();
        for shard in 0..self.known_shards(experiment).await? {
            fields.extend(self.fields(&self.keys(experiment, shard).hours).await?);
        }
        keys::hours(fields)
    }

    async fn user(&self, experiment: &str, user: &[u8]) -> Result<Option<UserRecord>, LedgerError> {
        let shards = self.known_shards(experiment).await?;
        let shard = super::fold::shard_of(user, shards as usize) as u32;
        let key = self.keys(experiment, shard).users;
        let text: Option<String> = self.ask(::redis::cmd("HGET").arg(key).arg(user)).await?;
        text.map(|text| keys::read_user(&text)).transpose()
    }

    async fn ping(&self) -> Result<(), LedgerError> {
        self.ask(&::redis::cmd("PING")).await
    }
}

impl RedisLedger {
    /// Like `shards`, but a question about an experiment does not make it.
    async fn known_shards(&self, experiment: &str) -> Result<u32, LedgerError> {
        let key = keys::experiments_key(&self.prefix);
        let shards: Option<u32> = self
            .ask(::redis::cmd("HGET").arg(key).arg(experiment))
            .await?;
        Ok(shards.unwrap_or(0))
    }
}

/// Writes a part as the script reads it.
fn arguments(call: &mut ::redis::ScriptInvocation<'_>, part: &Part) {
    call.arg(part.spans.len());
    for span in &part.spans {
        call.arg(&*span.journal).arg(span.after).arg(span.through);
    }
    call.arg(part.epochs.len());
    for epoch in &part.epochs {
        call.arg(epoch.digest.to_string())
            .arg(epoch.first_ms)
            .arg(keys::write_definition(epoch));
    }
    let additions = Additions::of_tallies(part);
    for counts in [&additions.totals, &additions.hours] {
        call.arg(counts.len());
        for (field, count) in counts {
            call.arg(field).arg(count.to_string());
        }
    }
    call.arg(part.users.len());
    for user in &part.users {
        call.arg(&user.user).arg(user.exposures.len());
        for exposure in &user.exposures {
            call.arg(exposure.at_ms)
                .arg(exposure.epoch.to_string())
                .arg(&exposure.group);
        }
        call.arg(user.events.len());
        for event in &user.events {
            let within = event
                .within_ms
                .map_or(String::new(), |within| within.to_string());
            call.arg(event.at_ms)
                .arg(&event.metric)
                .arg(within)
                .arg(event.count)
                .arg(event.sum)
                .arg(event.base)
                .arg(event.id.map_or(String::new(), |id| format!("{id:016x}")));
        }
    }
    call.arg(part.wait_from_ms).arg(WAITING_USERS_MAX);
}

fn read_answer(part: &Part, answer: Vec<String>) -> Result<Applied, LedgerError> {
    let unreadable = || LedgerError::Unreadable {
        place: "the script's answer".to_owned(),
        found: answer.join(" "),
    };
    let (word, has) = answer.split_first().ok_or_else(unreadable)?;
    match &**word {
        "now" => Ok(Applied::Now),
        "before" => Ok(Applied::Before),
        "mismatch" if has.len() == part.spans.len() => {
            let has = has
                .iter()
                .map(|text| text.parse().map_err(|_| unreadable()))
                .collect::<Result<Vec<u64>, _>>()?;
            Ok(Applied::Mismatch(
                part.spans
                    .iter()
                    .map(|span| span.journal.clone())
                    .zip(has)
                    .collect(),
            ))
        }
        _ => Err(unreadable()),
    }
}
