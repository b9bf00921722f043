//! Running minima in SQLite.

use crate::store::StoreError;
use crate::store::running_minima::{RunningMinima, time_field, timed};
use rusqlite::{Connection, Transaction, params};

pub(super) fn read(connection: &Connection, experiment: &str) -> Result<RunningMinima, StoreError> {
    let mut minima = RunningMinima::default();
    let sql = "SELECT field, value FROM lowest WHERE experiment = ?";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([experiment])?;
    while let Some(row) = rows.next()? {
        let (field, value): (String, f64) = (row.get(0)?, row.get(1)?);
        match timed(&field) {
            Some(of) => minima
                .lowest_at
                .insert(of.to_owned(), value as u64)
                .is_some(),
            None => minima.lowest.insert(field, value).is_some(),
        };
    }
    let sql = "SELECT field, value FROM first WHERE experiment = ?";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([experiment])?;
    while let Some(row) = rows.next()? {
        minima.first.insert(row.get(0)?, row.get(1)?);
    }
    Ok(minima)
}

pub(super) fn merge(
    transaction: &Transaction<'_>,
    experiment: &str,
    more: &RunningMinima,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO lowest VALUES (?, ?, ?)
               ON CONFLICT DO UPDATE SET value = excluded.value WHERE excluded.value < value";
    let mut lowest = transaction.prepare_cached(sql)?;
    let sql = "INSERT OR REPLACE INTO lowest VALUES (?, ?, ?)";
    let mut time = transaction.prepare_cached(sql)?;
    let sql = "DELETE FROM lowest WHERE experiment = ? AND field = ?";
    let mut no_time = transaction.prepare_cached(sql)?;
    for (field, value) in &more.lowest {
        if lowest.execute(params![experiment, field, value])? == 0 {
            continue;
        }
        let of = time_field(field);
        match more.lowest_at.get(field) {
            Some(&at_ms) => time.execute(params![experiment, of, at_ms as f64])?,
            None => no_time.execute(params![experiment, of])?,
        };
    }
    let sql = "INSERT INTO first VALUES (?, ?, ?) ON CONFLICT DO NOTHING";
    let mut first = transaction.prepare_cached(sql)?;
    for (field, text) in &more.first {
        first.execute(params![experiment, field, text])?;
    }
    Ok(())
}
