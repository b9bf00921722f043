//! Aliases in Redis.

use super::client::RedisStore;
use super::decode::Fields;
use super::forgotten;
use crate::store::StoreError;
use crate::store::identities::{IdentityRole, OLD_STEPS_MAX};
use crate::store::keys::ShardKeys;
use std::collections::HashSet;

impl RedisStore {
    /// Forgets a user and every ID that counts for it. Returns whether the user was known.
    pub(super) async fn forget_one(
        &self,
        experiment: &str,
        user: &[u8],
        until_ms: u64,
    ) -> Result<bool, StoreError> {
        if until_ms > 0 {
            // The user's first record may still be in a journal.
            self.register(experiment).await?;
        }
        let Some(keys) = self.keys_of(experiment, user).await? else {
            return Ok(false);
        };
        let id = self.resolve(&keys, user).await?;
        if until_ms > 0 {
            // First, so that no delta brings one of the IDs back from now on.
            let mut ids = self.absorbed_by(&keys, &id).await?;
            ids.extend([user.to_vec(), id.clone()]);
            forgotten::keep(self, &keys.forgotten, &ids, until_ms).await?;
        }
        let mut call = self.forget.prepare_invoke();
        call.key(&keys.users)
            .key(&keys.totals)
            .key(&keys.hours)
            .key(&keys.waiting)
            .key(&keys.waiting_since)
            .key(&keys.event_ids)
            .key(&keys.event_ids_at)
            .key(&keys.event_counts)
            .key(&keys.seen_once)
            .arg(&id);
        let mut was_there = self
            .with(async |connection| call.invoke_async(connection).await)
            .await?;
        let ids = self.forget_old_aliases(&keys, id).await?;
        if until_ms > 0 && ids.len() > 1 {
            forgotten::keep(self, &keys.forgotten, &ids, until_ms).await?;
        }
        was_there |= ids.len() > 1;
        // IDs of other shards may refer to the user, too.
        for shard in 0..self.known_shards(experiment).await? {
            let keys = self.keys(experiment, shard).await?;
            let names =
                |role: &[u8]| IdentityRole::read(role).is_some_and(|role| role.names_one_of(&ids));
            let unwanted = |id: &[u8], role: &[u8]| ids.contains(id) || names(role);
            was_there |= self.forget_fields(&keys.identities, unwanted).await?;
        }
        Ok(was_there)
    }

    /// Returns the minted IDs that an ID has absorbed.
    async fn absorbed_by(
        &self,
        keys: &ShardKeys,
        id: &[u8],
    ) -> Result<HashSet<Vec<u8>>, StoreError> {
        let by = IdentityRole::Absorbed(id.to_vec()).write();
        let (mut cursor, mut found) = (0_u64, HashSet::new());
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(&keys.identities)
                .arg(cursor)
                .arg("COUNT")
                .arg(1000);
            let (next, page): (u64, Fields) = self.ask(&scan).await?;
            let absorbed = page.into_iter().filter(|(_, role)| *role == by);
            found.extend(absorbed.map(|(minted, _)| minted));
            cursor = next;
            if cursor == 0 {
                return Ok(found);
            }
        }
    }

    /// Returns the ID of an alias: one step, or several in data of version 0.1.0.
    pub(super) async fn resolve(
        &self,
        keys: &ShardKeys,
        user: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        let mut get = redis::cmd("HGET");
        let role: Option<Vec<u8>> = self.ask(get.arg(&keys.identities).arg(user)).await?;
        let mut id = match role.and_then(|role| IdentityRole::read(&role)) {
            Some(IdentityRole::Absorbed(by)) => by,
            _ => user.to_vec(),
        };
        for _ in 0..OLD_STEPS_MAX {
            let mut get = redis::cmd("HGET");
            let first: Option<Vec<u8>> = self.ask(get.arg(&keys.aliases).arg(&id)).await?;
            match first {
                Some(first) => id = first,
                None => break,
            }
        }
        Ok(id)
    }

    /// Forgets every old alias of an ID. Returns the ID and its aliases.
    async fn forget_old_aliases(
        &self,
        keys: &ShardKeys,
        id: Vec<u8>,
    ) -> Result<HashSet<Vec<u8>>, StoreError> {
        let mut leading = HashSet::from([id]);
        // An alias may lead to another one: each pass finds at least one more step.
        for _ in 0..OLD_STEPS_MAX {
            let unwanted = |alias: &[u8], first: &[u8]| {
                leading.contains(alias)
                    || (leading.contains(first) && leading.insert(alias.to_vec()))
            };
            if !self.forget_fields(&keys.aliases, unwanted).await? {
                break;
            }
        }
        Ok(leading)
    }

    /// Deletes the `unwanted` fields of a hash. Returns whether there was any. It works page by page, so
    /// that Redis can run other commands in between.
    async fn forget_fields(
        &self,
        key: &str,
        mut unwanted: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<bool, StoreError> {
        let (mut cursor, mut found) = (0_u64, false);
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(key).arg(cursor).arg("COUNT").arg(1000);
            let (next, mut page): (u64, Fields) = self.ask(&scan).await?;
            page.retain(|(field, value)| unwanted(field, value));
            if !page.is_empty() {
                let fields: Vec<_> = page.into_iter().map(|(field, _)| field).collect();
                let () = self.ask(redis::cmd("HDEL").arg(key).arg(fields)).await?;
                found = true;
            }
            cursor = next;
            if cursor == 0 {
                return Ok(found);
            }
        }
    }
}
