//! People and their IDs in Redis.

use super::RedisLedger;
use crate::ledger::LedgerError;
use crate::ledger::keys::ShardKeys;

/// Some fields of a hash, and what they hold.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

impl RedisLedger {
    /// Forgets a person and every ID that leads to them; whether there was anything.
    pub(super) async fn forget_one(
        &self,
        keys: &ShardKeys,
        user: &[u8],
    ) -> Result<bool, LedgerError> {
        let id = self.resolve(keys, user).await?;
        let mut call = self.forget.prepare_invoke();
        call.key(&keys.users)
            .key(&keys.totals)
            .key(&keys.hours)
            .key(&keys.waiting)
            .key(&keys.waiting_since)
            .arg(&id);
        let was_there = self
            .with(async |connection| call.invoke_async(connection).await)
            .await?;
        self.forget_aliases(keys, id).await?;
        Ok(was_there)
    }

    /// The ID that stands for a person.
    pub(super) async fn resolve(
        &self,
        keys: &ShardKeys,
        user: &[u8],
    ) -> Result<Vec<u8>, LedgerError> {
        let mut id = user.to_vec();
        loop {
            let mut get = ::redis::cmd("HGET");
            let first: Option<Vec<u8>> = self.ask(get.arg(&keys.aliases).arg(&id)).await?;
            match first {
                Some(first) => id = first,
                None => return Ok(id),
            }
        }
    }

    /// Forgets every ID that leads to this one. Page by page, so that Redis does other work in
    /// between.
    async fn forget_aliases(&self, keys: &ShardKeys, id: Vec<u8>) -> Result<(), LedgerError> {
        let mut leading = vec![id];
        while let Some(id) = leading.pop() {
            let mut cursor = 0_u64;
            loop {
                let mut scan = ::redis::cmd("HSCAN");
                scan.arg(&keys.aliases).arg(cursor).arg("COUNT").arg(1000);
                let (next, page): (u64, Fields) = self.ask(&scan).await?;
                for (alias, _) in page.into_iter().filter(|(_, first)| *first == id) {
                    let mut forget = ::redis::cmd("HDEL");
                    let () = self.ask(forget.arg(&keys.aliases).arg(&alias)).await?;
                    leading.push(alias);
                }
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(())
    }
}
