//! Users that were forgotten on request. Their earlier records stay in journals for some time, on
//! this machine and on those of other replicas, and must not be counted when they are read.
//!
//! For each shard of an experiment, the store keeps a keyed digest of the ID, the time up to which its
//! records do not count, and a version that grows with each forgotten user. A delta carries the version
//! that it was aggregated with, and the store refuses it if the version has changed since. So no delta
//! can bring back a user who was forgotten after it was aggregated.

use super::error::StoreError;
use crate::experiment::key_ring::KeyRing;
use foldhash::fast::RandomState;
use std::collections::HashMap;

/// How long the store remembers a forgotten user: longer than ingestion may lag behind.
pub const KEEP_MS: u64 = 30 * 24 * 3_600_000;

/// Prefix of the entry that holds the key of a shard's digests. The key is random and is made with the
/// first digest.
pub const KEY_MARK: &str = "key:";
/// Prefix of a user's entry, followed by the digest. Earlier versions wrote digests without a prefix
/// and without a key.
const DIGEST_MARK: &str = "hmac:";

/// The forgotten users of one shard.
#[derive(Clone, Debug, Default)]
pub struct ForgottenUsers {
    /// Grows with each forgotten user.
    pub version: u64,
    /// One key, or several if replicas made keys at the same time.
    keys: Vec<KeyRing>,
    until_ms: HashMap<u128, u64, RandomState>,
    /// The same for digests without a key.
    old_until_ms: HashMap<u128, u64, RandomState>,
}

impl ForgottenUsers {
    /// Reads a store's version and its entries with their times. Entries of other formats are skipped.
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

    /// Returns the time up to which records of a user do not count, in Unix milliseconds; 0 for a user
    /// who was not forgotten.
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

/// Makes an entry with a new random key.
pub fn new_key() -> Result<String, StoreError> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    let digits = secret.map(|byte| format!("{byte:02x}")).concat();
    Ok(format!("{KEY_MARK}{digits}"))
}

/// Returns the entry that stands for an ID. Without the key, nobody can test IDs against it.
pub fn written(key_entry: &str, user: &[u8]) -> String {
    format!("{DIGEST_MARK}{:032x}", digest(&key(key_entry), user))
}

fn key(entry: &str) -> KeyRing {
    KeyRing::new("forgotten", entry.as_bytes(), [])
}

fn digest(key: &KeyRing, user: &[u8]) -> u128 {
    u128::from_be_bytes(key.sign(&[user]))
}

/// Computes the digest of earlier versions, which can be found by trying IDs.
fn old_digest(mut user: &[u8]) -> u128 {
    // Reading from memory cannot fail, and the crate adds no error of its own.
    murmur3::murmur3_x64_128(&mut user, 0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_identify_the_forgotten_users() {
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
    fn digest_is_keyed_and_digest_of_earlier_versions_is_read() {
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
