//! Visitors who were seen once: see [`crate::store::seen_once`]. Triggers keep the sum of their bytes.

use crate::store::delta_rows::RowChanges;
use crate::store::seen_once::{BYTES_MAX, FORGOTTEN_AT_ONCE, from_ms};
use crate::store::{Delta, StoreError};
use rusqlite::{OptionalExtension, Transaction, params};

/// Notes what a delta changed: a visitor who was seen once has an entry, a counted user has none.
pub(super) fn keep(
    transaction: &Transaction<'_>,
    delta: &Delta,
    changes: &RowChanges,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM seen_once WHERE experiment = ? AND user = ?";
    let mut delete = transaction.prepare_cached(sql)?;
    let sql = "INSERT INTO seen_once VALUES (?, ?, ?, ?)
               ON CONFLICT DO UPDATE SET first_ms = excluded.first_ms, bytes = excluded.bytes";
    let mut set = transaction.prepare_cached(sql)?;
    for (user, entry) in &changes.seen_once {
        match *entry {
            Some((first_ms, bytes)) => {
                let of = params![delta.experiment, user, first_ms as i64, bytes as i64];
                set.execute(of)?
            }
            None => delete.execute(params![delta.experiment, user])?,
        };
    }
    Ok(())
}

/// Forgets visitors who were seen too long ago, and the oldest beyond the limit of bytes.
pub(super) fn forget_old(transaction: &Transaction<'_>, delta: &Delta) -> Result<(), StoreError> {
    forget_oldest(transaction, delta, from_ms(delta), FORGOTTEN_AT_ONCE)?;
    while total_bytes(transaction, &delta.experiment)? > BYTES_MAX
        && forget_oldest(transaction, delta, i64::MAX as u64, 100)? > 0
    {}
    Ok(())
}

/// Forgets so many of those who were first seen before a time, the oldest first. Returns their number.
fn forget_oldest(
    transaction: &Transaction<'_>,
    delta: &Delta,
    before_ms: u64,
    at_once: u64,
) -> Result<usize, StoreError> {
    let mut forgotten = 0;
    for table in ["users", "seen_once"] {
        let sql = format!(
            "DELETE FROM {table} WHERE experiment = ?1 AND user IN
             (SELECT user FROM seen_once WHERE experiment = ?1 AND first_ms < ?2
              ORDER BY first_ms, user LIMIT ?3)"
        );
        let of = params![delta.experiment, before_ms as i64, at_once as i64];
        forgotten = transaction.prepare_cached(&sql)?.execute(of)?;
    }
    Ok(forgotten)
}

fn total_bytes(transaction: &Transaction<'_>, experiment: &str) -> Result<u64, StoreError> {
    let sql = "SELECT bytes FROM seen_once_bytes WHERE experiment = ?";
    let bytes: Option<i64> = transaction
        .prepare_cached(sql)?
        .query_row([experiment], |row| row.get(0))
        .optional()?;
    Ok(bytes.unwrap_or(0).max(0) as u64)
}
