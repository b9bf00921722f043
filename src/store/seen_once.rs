//! Visitors whose minted ID has not come back, and their limits. They are in the table of users with a mark,
//! and count for nothing. The store forgets them after a time, and the oldest first when they need too much
//! room; the count of those who were seen once stays. PURE.

use super::Delta;
use super::aggregate::WAIT_MS;
use super::{UserRecord, keys};
use crate::experiment::identity::SEEN_ONCE_MS;

/// The most bytes of all such visitors of a shard, including [`OVERHEAD_BYTES`].
pub const BYTES_MAX: u64 = 64 << 20;

/// The bytes that a store needs for a visitor, besides twice the ID and the record.
pub const OVERHEAD_BYTES: u64 = 150;

/// The most visitors that one delta forgets because of their age.
pub const FORGOTTEN_AT_ONCE: u64 = 1_000;

/// What a visitor needs, in bytes; `None` for a user who is counted.
pub fn bytes(user: &[u8], record: Option<&UserRecord>) -> Option<u64> {
    let record = record.filter(|record| record.seen_once)?;
    let text = keys::write_user(record);
    Some(OVERHEAD_BYTES + 2 * user.len() as u64 + text.len() as u64)
}

/// Visitors from before this time, in Unix milliseconds, are forgotten with a delta.
pub fn from_ms(delta: &Delta) -> u64 {
    (delta.wait_from_ms + WAIT_MS).saturating_sub(SEEN_ONCE_MS)
}
