//! Users that were forgotten on purpose: what they did before stands in journals for some time, on
//! this machine and on those of other replicas, and must not be counted when it is read. PURE but for
//! [`everywhere`].
//!
//! The store keeps, for each shard of an experiment, a digest of the ID and until when its facts are
//! not counted, and a version that grows with each. A part says with which version it was folded; the
//! store takes it only if that is still the version. So no part that was folded before can bring a
//! user back.

use super::{Ledger, LedgerError};
use foldhash::fast::RandomState;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long it is kept who was forgotten: longer than a journal is behind.
pub const KEEP_MS: u64 = 30 * 24 * 3_600_000;

/// So long is waited for the clock at most.
const LATER_MS: u64 = 50;

/// Who was forgotten, in one shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forgotten {
    /// Grows with each that is forgotten.
    pub version: u64,
    until_ms: HashMap<u128, u64, RandomState>,
}

impl Forgotten {
    /// Of a store's version, digests and times.
    pub fn new(version: u64, kept: impl IntoIterator<Item = (String, u64)>) -> Forgotten {
        let read = |(digest, until_ms): (String, u64)| {
            Some((u128::from_str_radix(&digest, 16).ok()?, until_ms))
        };
        Forgotten {
            version,
            until_ms: kept.into_iter().filter_map(read).collect(),
        }
    }

    /// Until when facts of a user are not counted, in Unix milliseconds; 0 for most.
    pub fn until_ms(&self, user: &[u8]) -> u64 {
        if self.until_ms.is_empty() {
            return 0;
        }
        self.until_ms.get(&digest(user)).copied().unwrap_or(0)
    }
}

/// What is kept in the place of an ID.
pub fn written(user: &[u8]) -> String {
    format!("{:032x}", digest(user))
}

fn digest(mut user: &[u8]) -> u128 {
    // Reading from memory cannot fail, and the crate adds no error of its own.
    murmur3::murmur3_x64_128(&mut user, 0).unwrap_or_default()
}

/// Forgets a user in all experiments of the store, and in those that `run` in case that the first
/// fact is still in a journal. Returns the names of those that had something.
pub async fn everywhere(
    ledger: &dyn Ledger,
    run: impl IntoIterator<Item = String>,
    user: &[u8],
    until_ms: u64,
) -> Result<Vec<String>, LedgerError> {
    // Nothing is done where the store is away.
    ledger.ping().await?;
    let mut names: BTreeSet<String> = ledger.experiments().await?.into_iter().collect();
    names.extend(run);
    let mut had = Vec::new();
    for name in names {
        if ledger.forget_user(&name, user, until_ms).await? {
            had.push(name);
        }
    }
    // A request after this one is later than what is forgotten.
    let mut rest_ms = until_ms.saturating_sub(now_ms()) + 1;
    while (1..=LATER_MS).contains(&rest_ms) {
        tokio::time::sleep(Duration::from_millis(rest_ms)).await;
        rest_ms = (until_ms + 1).saturating_sub(now_ms());
    }
    Ok(had)
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_told_apart_by_what_is_kept() {
        let forgotten = Forgotten::new(3, [(written(b"ann"), 7), ("nonsense".to_owned(), 9)]);
        assert_eq!(
            (forgotten.until_ms(b"ann"), forgotten.until_ms(b"bob")),
            (7, 0)
        );
        assert_eq!(Forgotten::default().until_ms(b"ann"), 0);
        assert_eq!(written(b"ann").len(), 32);
    }
}
