//! IDs of counted events, and counts of events that are not counted: see
//! [`crate::store::event_ids`].

use crate::store::event_ids::{EventCounts, EventIds, FORGOTTEN_AT_ONCE};
use crate::store::{Delta, EventAt, StoreError};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

/// Reads the IDs of a user, as far as these events need them.
pub(super) fn known<'a>(
    transaction: &Transaction<'_>,
    delta: &Delta,
    user: &[u8],
    events: impl Iterator<Item = &'a EventAt>,
) -> Result<EventIds, StoreError> {
    let mut ids = EventIds {
        from_ms: delta.remember_from_ms,
        ..EventIds::default()
    };
    let mut events = events.filter_map(|event| event.id).peekable();
    if events.peek().is_none() {
        return Ok(ids);
    }
    let from = delta.remember_from_ms as i64;
    let sql = "SELECT count(*) FROM event_ids WHERE experiment = ? AND user = ? AND at_ms >= ?";
    let mut count = transaction.prepare_cached(sql)?;
    let remembered: i64 =
        count.query_row(params![delta.experiment, user, from], |row| row.get(0))?;
    ids.remembered = remembered as u64;
    let sql = "SELECT 1 FROM event_ids WHERE experiment = ? AND user = ? AND id = ? AND at_ms >= ?";
    let mut find = transaction.prepare_cached(sql)?;
    for id in events {
        let found = find
            .query_row(params![delta.experiment, user, id as i64, from], |_| Ok(()))
            .optional()?;
        if found.is_some() {
            ids.counted.insert(id);
        }
    }
    Ok(ids)
}

/// Writes the new IDs of a user.
pub(super) fn keep(
    transaction: &Transaction<'_>,
    delta: &Delta,
    user: &[u8],
    ids: &EventIds,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO event_ids VALUES (?, ?, ?, ?)
               ON CONFLICT DO UPDATE SET at_ms = excluded.at_ms";
    let mut insert = transaction.prepare_cached(sql)?;
    for (&id, &at_ms) in &ids.new {
        insert.execute(params![delta.experiment, user, id as i64, at_ms as i64])?;
    }
    Ok(())
}

/// Moves the IDs of one user to another. Where both have the same ID, the other user's stays.
pub(super) fn absorb(
    transaction: &Transaction<'_>,
    experiment: &str,
    first: &[u8],
    second: &[u8],
) -> Result<(), StoreError> {
    let sql = "UPDATE OR IGNORE event_ids SET user = ? WHERE experiment = ? AND user = ?";
    let mut give = transaction.prepare_cached(sql)?;
    give.execute(params![first, experiment, second])?;
    forget(transaction, experiment, second)?;
    Ok(())
}

/// Forgets the IDs of a user.
pub(super) fn forget(
    transaction: &Transaction<'_>,
    experiment: &str,
    user: &[u8],
) -> Result<bool, StoreError> {
    let sql = "DELETE FROM event_ids WHERE experiment = ? AND user = ?";
    let mut delete = transaction.prepare_cached(sql)?;
    Ok(delete.execute(params![experiment, user])? > 0)
}

/// Forgets some old IDs; `added` is the number of new ones.
pub(super) fn forget_old(
    transaction: &Transaction<'_>,
    delta: &Delta,
    added: u64,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM event_ids WHERE experiment = ?1 AND (user, id) IN
               (SELECT user, id FROM event_ids WHERE experiment = ?1 AND at_ms < ?2
                ORDER BY at_ms LIMIT ?3)";
    let most = FORGOTTEN_AT_ONCE + 2 * added;
    transaction.prepare_cached(sql)?.execute(params![
        delta.experiment,
        delta.remember_from_ms as i64,
        most as i64
    ])?;
    Ok(())
}

/// Adds to the numbers of events that do not count.
pub(super) fn count(
    transaction: &Transaction<'_>,
    experiment: &str,
    more: EventCounts,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO event_counts VALUES (?, ?, ?)
               ON CONFLICT DO UPDATE SET count = count + excluded.count";
    let mut add = transaction.prepare_cached(sql)?;
    for (name, count) in more.named() {
        if count > 0 {
            add.execute(params![experiment, name, count as i64])?;
        }
    }
    Ok(())
}

/// Reads the numbers of events that do not count.
pub(super) fn counts(connection: &Connection, experiment: &str) -> Result<EventCounts, StoreError> {
    let sql = "SELECT name, count FROM event_counts WHERE experiment = ?";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([experiment])?;
    let mut counts = EventCounts::default();
    while let Some(row) = rows.next()? {
        let (name, count): (String, i64) = (row.get(0)?, row.get(1)?);
        counts.add([(&*name, count as u64)]);
    }
    Ok(counts)
}
