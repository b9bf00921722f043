//! Events that wait for their user's exposure: see [`crate::store::waiting`]. Triggers keep the
//! sum of their bytes.

use super::rows::text;
use crate::store::delta_rows::RowChanges;
use crate::store::waiting::{BYTES_MAX, EXPOSED_MS, USERS_MAX};
use crate::store::{Delta, EventAt, StoreError, keys};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

/// Reads the waiting events of a user.
pub(super) fn waiting(
    connection: &Connection,
    experiment: &str,
    user: &[u8],
) -> Result<Vec<EventAt>, StoreError> {
    let sql = "SELECT events FROM waiting WHERE experiment = ? AND user = ?";
    let found = connection
        .prepare_cached(sql)?
        .query_row(params![experiment, user], |row| Ok(text(row, 0)))
        .optional()?;
    found.map_or(Ok(Vec::new()), |text| keys::read_waiting(&text?))
}

/// Writes the waiting events of users.
pub(super) fn keep(
    transaction: &Transaction<'_>,
    delta: &Delta,
    changes: &RowChanges,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM waiting WHERE experiment = ? AND user = ?";
    let mut delete = transaction.prepare_cached(sql)?;
    let sql = "INSERT INTO waiting VALUES (?, ?, ?, ?)
               ON CONFLICT DO UPDATE SET since_ms = excluded.since_ms, events = excluded.events";
    let mut set = transaction.prepare_cached(sql)?;
    for (user, entry) in &changes.waiting {
        match entry {
            Some((rank, events)) => {
                set.execute(params![delta.experiment, user, *rank as i64, events])?
            }
            None => delete.execute(params![delta.experiment, user])?,
        };
    }
    Ok(())
}

/// Drops events that waited too long, and those beyond the limits. Returns the number of the latter.
pub(super) fn stop(transaction: &Transaction<'_>, delta: &Delta) -> Result<u64, StoreError> {
    let sql = "DELETE FROM waiting WHERE experiment = ?1
               AND (since_ms < ?2 OR since_ms >= ?3 AND since_ms < ?3 + ?2)";
    transaction.prepare_cached(sql)?.execute(params![
        delta.experiment,
        delta.wait_from_ms as i64,
        EXPOSED_MS as i64
    ])?;
    let sql = "DELETE FROM waiting WHERE experiment = ?1 AND since_ms <
               (SELECT since_ms FROM waiting WHERE experiment = ?1 ORDER BY since_ms DESC LIMIT 1 OFFSET ?2)
               RETURNING events";
    let mut statement = transaction.prepare_cached(sql)?;
    let gone = statement.query_map(params![delta.experiment, USERS_MAX as i64], |row| {
        row.get(0)
    })?;
    let mut dropped = 0;
    for events in gone {
        let events: String = events?;
        dropped += count(&events);
    }
    while bytes(transaction, &delta.experiment)? > BYTES_MAX {
        let sql = "DELETE FROM waiting WHERE experiment = ?1 AND user =
                   (SELECT user FROM waiting WHERE experiment = ?1 ORDER BY since_ms, user LIMIT 1)
                   RETURNING events";
        let events: Option<String> = transaction
            .prepare_cached(sql)?
            .query_row([&delta.experiment], |row| row.get(0))
            .optional()?;
        match events {
            Some(events) => dropped += count(&events),
            None => break,
        }
    }
    Ok(dropped)
}

/// Counts events of [`keys::write_waiting`].
fn count(events: &str) -> u64 {
    events.split(' ').count() as u64
}

fn bytes(transaction: &Transaction<'_>, experiment: &str) -> Result<u64, StoreError> {
    let sql = "SELECT bytes FROM waiting_bytes WHERE experiment = ?";
    let bytes: Option<i64> = transaction
        .prepare_cached(sql)?
        .query_row([experiment], |row| row.get(0))
        .optional()?;
    Ok(bytes.unwrap_or(0).max(0) as u64)
}
