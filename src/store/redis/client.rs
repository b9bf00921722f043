//! The client of one Redis: its connection, its scripts, and the shards of experiments.

use super::decode;
use super::error::{LinkError, Unusable};
use super::link::{Connection, Link};
use crate::redis_address::Address;
use crate::store::StoreError;
use crate::store::aggregate;
use crate::store::damage::Damage;
use crate::store::keys::{self, ShardKeys};
use crate::tls::TlsFiles;
use redis::{Cmd, FromRedisValue, RedisError, Script};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The most shards of an experiment: a cluster has no more slots. A larger number is damage.
const SHARDS_MAX: u32 = 16_384;

/// Counts in Redis.
#[derive(Debug)]
pub struct RedisStore {
    pub(super) link: Link,
    pub(super) prefix: String,
    pub(super) apply: Script,
    pub(super) forget: Script,
    /// The number of shards of each experiment, as last seen.
    shards: Mutex<HashMap<String, u32>>,
    pub(super) damage: Damage,
}

impl RedisStore {
    /// Connects to Redis; all keys begin with `prefix`. A Redis that is unavailable now is not an error,
    /// but one that can never be used is.
    pub async fn connect(url: &str, tls: TlsFiles, prefix: &str) -> Result<RedisStore, Unusable> {
        let store = RedisStore::at(url, tls, prefix)?;
        match store.link.connection().await {
            Err(LinkError::Unusable(unusable)) => Err(unusable),
            Ok(_) | Err(LinkError::Away(_)) => Ok(store),
        }
    }

    /// Makes a store without connecting. Each call connects until that is possible. Only an invalid address
    /// is an error.
    pub fn at(url: &str, tls: TlsFiles, prefix: &str) -> Result<RedisStore, Unusable> {
        let address = Address::read(url, tls).map_err(Unusable::Address)?;
        let link = Link::new(address, keys::format_key(prefix));
        Ok(RedisStore {
            link,
            prefix: prefix.to_owned(),
            apply: Script::new(concat!(
                include_str!("../apply_semantics.lua"),
                include_str!("../apply.lua")
            )),
            forget: Script::new(concat!(
                include_str!("../apply_semantics.lua"),
                include_str!("../forget.lua")
            )),
            shards: Mutex::default(),
            damage: Damage::default(),
        })
    }

    /// Returns the keys of a shard.
    pub(super) async fn keys(&self, experiment: &str, shard: u32) -> Result<ShardKeys, StoreError> {
        let known = self.known().get(experiment).copied();
        let shards = match known {
            Some(shards) => shards,
            None => self.register(experiment).await?,
        };
        Ok(keys::shard_keys(&self.prefix, experiment, shard, shards))
    }

    pub(super) fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, u32>> {
        // No code that holds this lock can leave the map half-changed.
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        self.with(async |connection| command.query_async(connection).await)
            .await
    }

    /// Runs `work` on the connection, and closes a connection that is broken.
    pub(super) async fn with<T>(
        &self,
        work: impl AsyncFnOnce(&mut Connection) -> Result<T, RedisError>,
    ) -> Result<T, StoreError> {
        let mut connection = self.link.connection().await?;
        match work(&mut connection).await {
            Ok(done) => Ok(done),
            Err(error) => {
                self.link.learn_from(&error).await;
                Err(error.into())
            }
        }
    }

    /// Returns the number of shards of a new experiment: one on a single server, one per master of a
    /// cluster.
    async fn shards_to_begin_with(&self) -> Result<u32, StoreError> {
        self.with(async |connection| match connection {
            Connection::One(_) => Ok(1),
            Connection::Cluster(cluster) => {
                let info: String = redis::cmd("CLUSTER")
                    .arg("INFO")
                    .query_async(cluster)
                    .await?;
                let size = info
                    .lines()
                    .find_map(|line| line.strip_prefix("cluster_size:")?.trim().parse().ok());
                Ok(size.unwrap_or(1).max(1))
            }
        })
        .await
    }

    /// Registers an experiment and returns its number of shards. The number never changes, also in
    /// a Redis that has lost its data.
    pub(super) async fn register(&self, experiment: &str) -> Result<u32, StoreError> {
        let key = keys::experiments_key(&self.prefix);
        let known = self.known().get(experiment).copied();
        let wanted = match known {
            Some(shards) => shards,
            None => self.shards_to_begin_with().await?,
        };
        let mut set = redis::cmd("HSETNX");
        let () = self.ask(set.arg(&key).arg(experiment).arg(wanted)).await?;
        // Redis lost it in between: the next audit registers it again.
        let shards = match self.known_shards(experiment).await? {
            0 => wanted,
            shards => shards,
        };
        self.known().insert(experiment.to_owned(), shards);
        Ok(shards)
    }

    /// Returns the keys of a user's shard; `None` for an experiment without counts.
    pub(super) async fn keys_of(
        &self,
        experiment: &str,
        user: &[u8],
    ) -> Result<Option<ShardKeys>, StoreError> {
        match self.known_shards(experiment).await? {
            0 => Ok(None),
            shards => {
                let shard = aggregate::shard_of(user, shards as usize) as u32;
                self.keys(experiment, shard).await.map(Some)
            }
        }
    }

    /// Returns the number of shards without registering the experiment; 0 if it is not registered.
    pub(super) async fn known_shards(&self, experiment: &str) -> Result<u32, StoreError> {
        let key = keys::experiments_key(&self.prefix);
        let mut get = redis::cmd("HGET");
        let value: Option<Vec<u8>> = self.ask(get.arg(&key).arg(experiment)).await?;
        let Some(value) = value else { return Ok(0) };
        if let Ok(shards @ 1..=SHARDS_MAX) = decode::number(&key, experiment, &value) {
            return Ok(shards);
        }
        let found = format!("{experiment}: {}", String::from_utf8_lossy(&value));
        self.damage.note(&key, &found);
        // Its counts may still be there: in the shards that a new experiment would have.
        let known = self.known().get(experiment).copied();
        match known {
            Some(shards) => Ok(shards),
            None => self.shards_to_begin_with().await,
        }
    }
}
