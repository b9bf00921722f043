//! What is kept beside the counts.

use crate::ledger::LedgerError;
use crate::ledger::kept::Kept;
use rusqlite::{Connection, Transaction, params};

pub fn kept(connection: &Connection, experiment: &str) -> Result<Kept, LedgerError> {
    let mut kept = Kept::default();
    let sql = "SELECT field, value FROM lowest WHERE experiment = ?";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([experiment])?;
    while let Some(row) = rows.next()? {
        kept.lowest.insert(row.get(0)?, row.get(1)?);
    }
    let sql = "SELECT field, value FROM first WHERE experiment = ?";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([experiment])?;
    while let Some(row) = rows.next()? {
        kept.first.insert(row.get(0)?, row.get(1)?);
    }
    Ok(kept)
}

pub fn keep(
    transaction: &Transaction<'_>,
    experiment: &str,
    more: &Kept,
) -> Result<(), LedgerError> {
    let sql = "INSERT INTO lowest VALUES (?, ?, ?)
               ON CONFLICT DO UPDATE SET value = min(value, excluded.value)";
    let mut lowest = transaction.prepare_cached(sql)?;
    for (field, value) in &more.lowest {
        lowest.execute(params![experiment, field, value])?;
    }
    let sql = "INSERT INTO first VALUES (?, ?, ?) ON CONFLICT DO NOTHING";
    let mut first = transaction.prepare_cached(sql)?;
    for (field, text) in &more.first {
        first.execute(params![experiment, field, text])?;
    }
    Ok(())
}
