//! IDs of counted events, and counts of events that are not counted: see
//! [`crate::store::event_ids`].

use crate::store::delta_rows::{Absorption, Joined, RowChanges, UserRows, Users, WantedIds};
use crate::store::event_ids::{EventCounts, FORGOTTEN_AT_ONCE};
use crate::store::{Delta, StoreError};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::collections::BTreeSet;

/// Reads the IDs of a delta's users, as far as they are needed.
pub(super) fn read(
    transaction: &Transaction<'_>,
    delta: &Delta,
    joined: &Joined,
    users: &mut Users,
) -> Result<(), StoreError> {
    for (user, wanted) in joined.wanted_ids(delta, users) {
        let rows = users.entry(user.clone()).or_default();
        match wanted {
            WantedIds::All => all(transaction, delta, &user, rows)?,
            WantedIds::These(ids) => some(transaction, delta, (&user, &ids), rows)?,
        }
    }
    Ok(())
}

fn all(
    transaction: &Transaction<'_>,
    delta: &Delta,
    user: &[u8],
    rows: &mut UserRows,
) -> Result<(), StoreError> {
    let sql = "SELECT id, at_ms FROM event_ids WHERE experiment = ? AND user = ? AND at_ms >= ?";
    let mut find = transaction.prepare_cached(sql)?;
    let from = delta.remember_from_ms as i64;
    let found = find.query_map(params![delta.experiment, user, from], |row| {
        Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64))
    })?;
    rows.ids = found.collect::<Result<_, _>>()?;
    Ok(())
}

fn some(
    transaction: &Transaction<'_>,
    delta: &Delta,
    (user, ids): (&[u8], &BTreeSet<u64>),
    rows: &mut UserRows,
) -> Result<(), StoreError> {
    let from = delta.remember_from_ms as i64;
    let sql = "SELECT count(*) FROM event_ids WHERE experiment = ? AND user = ? AND at_ms >= ?";
    let mut count = transaction.prepare_cached(sql)?;
    let kept: i64 = count.query_row(params![delta.experiment, user, from], |row| row.get(0))?;
    let sql =
        "SELECT at_ms FROM event_ids WHERE experiment = ? AND user = ? AND id = ? AND at_ms >= ?";
    let mut find = transaction.prepare_cached(sql)?;
    for &id in ids {
        let of = params![delta.experiment, user, id as i64, from];
        let found: Option<i64> = find.query_row(of, |row| row.get(0)).optional()?;
        rows.ids.extend(found.map(|at_ms| (id, at_ms as u64)));
    }
    rows.further_ids = kept as u64 - rows.ids.len() as u64;
    Ok(())
}

/// Moves the IDs of absorbed users, and writes new ones.
pub(super) fn keep(
    transaction: &Transaction<'_>,
    delta: &Delta,
    joined: &Joined,
    changes: &RowChanges,
) -> Result<(), StoreError> {
    for Absorption { first, second, .. } in &joined.absorptions {
        // Where both have the same ID, the other user's stays.
        let sql = "UPDATE OR IGNORE event_ids SET user = ? WHERE experiment = ? AND user = ?";
        let mut give = transaction.prepare_cached(sql)?;
        give.execute(params![first, delta.experiment, second])?;
        forget(transaction, &delta.experiment, second)?;
    }
    let sql = "INSERT INTO event_ids VALUES (?, ?, ?, ?)
               ON CONFLICT DO UPDATE SET at_ms = excluded.at_ms";
    let mut insert = transaction.prepare_cached(sql)?;
    for (user, id, at_ms) in &changes.event_ids {
        insert.execute(params![delta.experiment, user, *id as i64, *at_ms as i64])?;
    }
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
