//! The forgotten users of all experiments, for those who read journals beside ingestion.

use super::error::StoreError;
use super::forgotten::ForgottenUsers;
use super::interface::Store;
use std::collections::HashMap;

/// The forgotten users of all experiments of a store, and others.
#[derive(Clone, Debug, Default)]
pub struct AllForgotten {
    shards: Vec<ForgottenUsers>,
    others: HashMap<Vec<u8>, u64>,
}

impl AllForgotten {
    /// Loads them.
    pub async fn load(store: &dyn Store) -> Result<AllForgotten, StoreError> {
        let mut shards = Vec::new();
        for experiment in store.experiments().await? {
            for shard in 0..store.shards(&experiment).await? {
                shards.push(store.forgotten(&experiment, shard).await?);
            }
        }
        shards.retain(|shard| shard.version > 0);
        let others = HashMap::new();
        Ok(AllForgotten { shards, others })
    }

    /// Adds an ID whose records up to this time, in Unix milliseconds, are forgotten.
    pub fn add(&mut self, id: Vec<u8>, until_ms: u64) {
        self.others.insert(id, until_ms);
    }

    /// Whether nobody was forgotten.
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty() && self.others.is_empty()
    }

    /// Whether nobody was forgotten since `earlier` was loaded.
    pub fn is_as(&self, earlier: &AllForgotten) -> bool {
        let versions = |all: &AllForgotten| -> Vec<u64> {
            all.shards.iter().map(|shard| shard.version).collect()
        };
        versions(self) == versions(earlier)
    }

    /// Returns the time up to which records of a user are forgotten, in Unix milliseconds; 0 for a user who was not
    /// forgotten.
    pub fn until_ms(&self, user: &[u8]) -> u64 {
        let until = self.shards.iter().map(|shard| shard.until_ms(user));
        until
            .chain(self.others.get(user).copied())
            .max()
            .unwrap_or(0)
    }
}
