//! Users that were forgotten on purpose: what they did before stands in journals for some time, on
//! this machine and on those of other replicas, and must not be counted when it is read. PURE but for
//! [`everywhere`].
//!
//! The store keeps, for each shard of an experiment, a keyed digest of the ID and until when its facts
//! are not counted, and a version that grows with each. A delta says with which version it was folded; the
//! store takes it only if that is still the version. So no delta that was folded before can bring a
//! user back.

use super::{Store, StoreError};
use crate::experiment::key_ring::KeyRing;
use foldhash::fast::RandomState;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long it is kept who was forgotten: longer than a journal is behind.
pub const KEEP_MS: u64 = 30 * 24 * 3_600_000;

/// So long is waited for the clock at most.
const LATER_MS: u64 = 50;

/// Begins the entry that holds the key of a shard's digests: random, and made with the first of them.
pub const KEY_MARK: &str = "key:";
/// Begins an entry of a user: the digest follows. One without a mark is older, and has no key.
const DIGEST_MARK: &str = "hmac:";

/// Who was forgotten, in one shard.
#[derive(Clone, Debug, Default)]
pub struct ForgottenUsers {
    /// Grows with each that is forgotten.
    pub version: u64,
    /// One; more where several were made at once.
    keys: Vec<KeyRing>,
    until_ms: HashMap<u128, u64, RandomState>,
    /// The same by digests without a key.
    old_until_ms: HashMap<u128, u64, RandomState>,
}

impl ForgottenUsers {
    /// Of a store's version, entries and times. Entries of other versions are left out.
    pub fn new(version: u64, kept: impl IntoIterator<Item = (String, u64)>) -> ForgottenUsers {
        let mut forgotten = ForgottenUsers {
            version,
            ..ForgottenUsers::default()
        };
        for (entry, until_ms) in kept {
            if entry.starts_with(KEY_MARK) {
                forgotten.keys.push(key(&entry));
                continue;
            }
            let (digests, digits) = match entry.strip_prefix(DIGEST_MARK) {
                Some(digits) => (&mut forgotten.until_ms, digits),
                None => (&mut forgotten.old_until_ms, &*entry),
            };
            if let Ok(digest) = u128::from_str_radix(digits, 16) {
                digests.insert(digest, until_ms);
            }
        }
        forgotten
    }

    /// Until when facts of a user are not counted, in Unix milliseconds; 0 for most.
    pub fn until_ms(&self, user: &[u8]) -> u64 {
        let mut found = None;
        if !self.until_ms.is_empty() {
            let digests = self.keys.iter().map(|key| digest(key, user));
            found = digests.filter_map(|it| self.until_ms.get(&it)).max();
        }
        if !self.old_until_ms.is_empty() {
            found = found.max(self.old_until_ms.get(&old_digest(user)));
        }
        found.copied().unwrap_or(0)
    }
}

/// A new entry of a key.
pub fn new_key() -> Result<String, StoreError> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    let digits = secret.map(|byte| format!("{byte:02x}")).concat();
    Ok(format!("{KEY_MARK}{digits}"))
}

/// What is kept in the place of an ID. Without the key nobody can try IDs against it.
pub fn written(key_entry: &str, user: &[u8]) -> String {
    format!("{DIGEST_MARK}{:032x}", digest(&key(key_entry), user))
}

fn key(entry: &str) -> KeyRing {
    KeyRing::new("forgotten", entry.as_bytes(), [])
}

fn digest(key: &KeyRing, user: &[u8]) -> u128 {
    u128::from_be_bytes(key.sign(&[user]))
}

/// The digest of earlier versions: it can be found by trying IDs.
fn old_digest(mut user: &[u8]) -> u128 {
    // Reading from memory cannot fail, and the crate adds no error of its own.
    murmur3::murmur3_x64_128(&mut user, 0).unwrap_or_default()
}

/// Forgets a user in all experiments of the store, and in those that `run` in case that the first
/// fact is still in a journal. Returns the names of those that had something.
pub async fn everywhere(
    store: &dyn Store,
    run: impl IntoIterator<Item = String>,
    user: &[u8],
    until_ms: u64,
) -> Result<Vec<String>, StoreError> {
    // Nothing is done where the store is away.
    store.ping().await?;
    let mut names: BTreeSet<String> = store.experiments().await?.into_iter().collect();
    names.extend(run);
    let mut had = Vec::new();
    for name in names {
        if store.forget_user(&name, user, until_ms).await? {
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
        let keys = [new_key().unwrap(), new_key().unwrap()];
        let kept = [
            (written(&keys[0], b"ann"), 7),
            (written(&keys[1], b"bob"), 8),
            (keys[0].clone(), 0),
            ("nonsense".to_owned(), 9),
            ("hmac:nonsense".to_owned(), 9),
        ];
        let forgotten = ForgottenUsers::new(3, kept.clone());
        assert_eq!(forgotten.until_ms(b"ann"), 7);
        assert_eq!(forgotten.until_ms(b"bob"), 0, "the key is not known");
        let both = ForgottenUsers::new(3, kept.into_iter().chain([(keys[1].clone(), 0)]));
        let users = [&b"ann"[..], b"bob", b"eve"];
        assert_eq!(users.map(|user| both.until_ms(user)), [7, 8, 0]);
        assert_eq!(ForgottenUsers::default().until_ms(b"ann"), 0);
    }

    /// Computed with Python's hmac: HMAC(HMAC(key, "watershed/forgotten"), 03000000 "ann").
    #[test]
    fn the_digest_is_keyed_and_that_of_earlier_versions_is_read() {
        let key = format!("{KEY_MARK}{}", "ab".repeat(32));
        assert_eq!(
            written(&key, b"ann"),
            "hmac:c366f0e0bea2d45185fb555c658ca1ca"
        );
        let old = format!("{:032x}", old_digest(b"ann"));
        let forgotten = ForgottenUsers::new(1, [(old, 7), (written(&key, b"bob"), 8), (key, 0)]);
        let users = [&b"ann"[..], b"bob", b"eve"];
        assert_eq!(users.map(|user| forgotten.until_ms(user)), [7, 8, 0]);
    }
}
