//! Loaded files in SQLite.

use super::rows::text;
use crate::store::StoreError;
use crate::store::damage::Damage;
use crate::store::json::{read_json, written};
use crate::store::loaded_files::{LOADED_FILES_MAX, LoadedFile};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

pub(super) fn read(
    connection: &Connection,
    max: usize,
    damage: &Damage,
) -> Result<Vec<LoadedFile>, StoreError> {
    let sql = "SELECT entry FROM loaded_files ORDER BY number DESC LIMIT ?";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([max.min(LOADED_FILES_MAX) as i64])?;
    let mut files = Vec::new();
    while let Some(row) = rows.next()? {
        let read = || read_json("loaded_files", &text(row, 0)?);
        files.extend(damage.skip(read())?);
    }
    Ok(files)
}

pub(super) fn content(connection: &Connection, number: u64) -> Result<Option<String>, StoreError> {
    let sql = "SELECT content FROM loaded_files WHERE number = ?";
    let found = connection.query_row(sql, [number as i64], |row| row.get(0));
    Ok(found.optional()?)
}

pub(super) fn record(
    transaction: &Transaction<'_>,
    file: &LoadedFile,
    content: &str,
) -> Result<bool, StoreError> {
    let sql = "SELECT coalesce(max(number), 0) FROM loaded_files";
    let latest: i64 = transaction.query_row(sql, [], |row| row.get(0))?;
    let number = file.number as i64;
    if latest + 1 != number {
        return Ok(false);
    }
    let sql = "INSERT INTO loaded_files VALUES (?, ?, ?)";
    transaction.execute(sql, params![number, written(file)?, content])?;
    let sql = "DELETE FROM loaded_files WHERE number <= ?";
    transaction.execute(sql, [number - LOADED_FILES_MAX as i64])?;
    Ok(true)
}
