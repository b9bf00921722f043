//! The state of one user in SQLite.

use super::event_ids;
use super::rows::text;
use super::seen_once;
use super::waiting;
use crate::store::apply_semantics::UserState;
use crate::store::damage::Damage;
use crate::store::event_ids::EventIds;
use crate::store::{Delta, StoreError, UserRecord, keys};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

/// Reads what is known of a user.
pub(super) fn known(
    connection: &Connection,
    experiment: &str,
    user: &[u8],
    damage: &Damage,
) -> Result<UserState, StoreError> {
    let waiting = damage.skip(waiting::waiting(connection, experiment, user))?;
    Ok(UserState {
        record: record(connection, experiment, user, damage)?,
        waiting: waiting.unwrap_or_default(),
        ids: EventIds::default(),
    })
}

/// Writes what changed of a user. Most users return without a change.
pub(super) fn keep(
    transaction: &Transaction<'_>,
    delta: &Delta,
    user: &[u8],
    before: &UserState,
    after: &UserState,
) -> Result<(), StoreError> {
    if after.record != before.record {
        let (experiment, sql) = (
            &delta.experiment,
            match after.record {
                Some(_) => {
                    "INSERT INTO users VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET record = excluded.record"
                }
                None => "DELETE FROM users WHERE experiment = ? AND user = ?",
            },
        );
        let mut statement = transaction.prepare_cached(sql)?;
        match &after.record {
            Some(record) => {
                statement.execute(params![experiment, user, keys::write_user(record)])?
            }
            None => statement.execute(params![experiment, user])?,
        };
    }
    let records = (before.record.as_ref(), after.record.as_ref());
    seen_once::keep(transaction, delta, user, records.0, records.1)?;
    let is_exposed = after.record.is_some();
    if after.waiting != before.waiting || is_exposed != before.record.is_some() {
        waiting::keep(transaction, delta, user, &after.waiting, is_exposed)?;
    }
    event_ids::keep(transaction, delta, user, &after.ids)
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
