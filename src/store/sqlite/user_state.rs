//! The rows of users in SQLite.

use super::rows::text;
use super::{seen_once, waiting};
use crate::store::damage::Damage;
use crate::store::delta_rows::{RowChanges, UserRows};
use crate::store::{Delta, StoreError, UserRecord, keys};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

/// Reads what is known of a user, without event IDs.
pub(super) fn known(
    connection: &Connection,
    experiment: &str,
    user: &[u8],
    damage: &Damage,
) -> Result<UserRows, StoreError> {
    let waiting = damage.skip(waiting::waiting(connection, experiment, user))?;
    let record = record(connection, experiment, user, damage)?;
    Ok(UserRows::new(record, waiting.unwrap_or_default()))
}

/// Writes what changed of users.
pub(super) fn keep(
    transaction: &Transaction<'_>,
    delta: &Delta,
    changes: &RowChanges,
) -> Result<(), StoreError> {
    let sql =
        "INSERT INTO users VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET record = excluded.record";
    let mut set = transaction.prepare_cached(sql)?;
    let sql = "DELETE FROM users WHERE experiment = ? AND user = ?";
    let mut delete = transaction.prepare_cached(sql)?;
    for (user, record) in &changes.records {
        match record {
            Some(record) => set.execute(params![delta.experiment, user, record])?,
            None => delete.execute(params![delta.experiment, user])?,
        };
    }
    seen_once::keep(transaction, delta, changes)?;
    waiting::keep(transaction, delta, changes)
}

/// Reads the record of a user.
pub(super) fn record(
    connection: &Connection,
    experiment: &str,
    user: &[u8],
    damage: &Damage,
) -> Result<Option<UserRecord>, StoreError> {
    let sql = "SELECT record FROM users WHERE experiment = ? AND user = ?";
    let found = connection
        .prepare_cached(sql)?
        .query_row(params![experiment, user], |row| Ok(text(row, 0)))
        .optional()?;
    let record = found.map(|text| damage.skip(text.and_then(|text| keys::read_user(&text))));
    Ok(record.transpose()?.flatten())
}
