//! Reads what is kept as it is kept.

use crate::ledger::EpochDefinition;
use crate::ledger::{LedgerError, keys};
use rusqlite::Connection;

/// All epochs of an experiment.
pub fn definitions(
    connection: &Connection,
    experiment: &str,
) -> Result<Vec<EpochDefinition>, LedgerError> {
    let sql = "SELECT digest, first_ms, definition FROM epochs WHERE experiment = ?";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([experiment])?;
    let mut definitions = Vec::new();
    while let Some(row) = rows.next()? {
        let (digest, first_ms, text): (String, i64, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        definitions.push(keys::read_definition(&digest, first_ms as u64, &text)?);
    }
    Ok(definitions)
}

/// All fields of an experiment, in one table.
pub fn fields(
    connection: &Connection,
    table: &str,
    experiment: &str,
) -> Result<Vec<(String, i128)>, LedgerError> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT field, value FROM {table} WHERE experiment = ?"
    ))?;
    let mut rows = statement.query([experiment])?;
    let mut fields = Vec::new();
    while let Some(row) = rows.next()? {
        let text: String = row.get(1)?;
        fields.push((row.get(0)?, number(table, &text)?));
    }
    Ok(fields)
}

/// A number that is kept as a text.
pub fn number(place: &str, text: &str) -> Result<i128, LedgerError> {
    text.parse().map_err(|_| LedgerError::Unreadable {
        place: place.to_owned(),
        found: text.to_owned(),
    })
}
