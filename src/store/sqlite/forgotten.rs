//! Forgotten users in SQLite.

use crate::store::StoreError;
use crate::store::forgotten::{ForgottenUsers, KEEP_MS, KEY_MARK, new_key, written};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

/// The entry that holds the version of an experiment, in place of a digest.
const VERSION: &str = "";

pub(super) fn forgotten(
    connection: &Connection,
    experiment: &str,
) -> Result<ForgottenUsers, StoreError> {
    let sql = "SELECT user, until_ms FROM forgotten WHERE experiment = ? AND user <> ''";
    let mut statement = connection.prepare_cached(sql)?;
    let kept = statement.query_map([experiment], |row| {
        Ok((row.get(0)?, row.get::<_, i64>(1)? as u64))
    })?;
    let kept: Vec<(String, u64)> = kept.collect::<Result<_, _>>()?;
    Ok(ForgottenUsers::new(version(connection, experiment)?, kept))
}

pub(super) fn version(connection: &Connection, experiment: &str) -> Result<u64, StoreError> {
    let sql = "SELECT until_ms FROM forgotten WHERE experiment = ? AND user = ?";
    let version: Option<i64> = connection
        .prepare_cached(sql)?
        .query_row(params![experiment, VERSION], |row| row.get(0))
        .optional()?;
    Ok(version.unwrap_or(0) as u64)
}

/// Adds forgotten users.
pub(super) fn keep(
    transaction: &Transaction<'_>,
    experiment: &str,
    users: &[Vec<u8>],
    until_ms: u64,
) -> Result<(), StoreError> {
    let sql =
        "SELECT user FROM forgotten WHERE experiment = ?1 AND substr(user, 1, length(?2)) = ?2";
    let known: Option<String> = transaction
        .query_row(sql, params![experiment, KEY_MARK], |row| row.get(0))
        .optional()?;
    let sql = "INSERT INTO forgotten VALUES (?, ?, ?)
               ON CONFLICT DO UPDATE SET until_ms = max(until_ms, excluded.until_ms)";
    let mut add = transaction.prepare_cached(sql)?;
    let key = match known {
        Some(key) => key,
        None => {
            let key = new_key()?;
            // The key never expires.
            add.execute(params![experiment, key, i64::MAX])?;
            key
        }
    };
    for user in users {
        add.execute(params![experiment, written(&key, user), until_ms as i64])?;
    }
    let sql = "INSERT INTO forgotten VALUES (?, ?, 1)
               ON CONFLICT DO UPDATE SET until_ms = until_ms + 1";
    transaction.execute(sql, params![experiment, VERSION])?;
    let sql = "DELETE FROM forgotten WHERE experiment = ? AND user <> ? AND until_ms < ?";
    let gone = until_ms.saturating_sub(KEEP_MS) as i64;
    transaction.execute(sql, params![experiment, VERSION, gone])?;
    Ok(())
}
