//! Decodes rows.

use crate::store::damage::Damage;
use crate::store::{EpochDefinition, StoreError, keys};
use rusqlite::{Connection, Row};

/// Reads all epochs of an experiment.
pub(super) fn definitions(
    connection: &Connection,
    experiment: &str,
    damage: &Damage,
) -> Result<Vec<EpochDefinition>, StoreError> {
    let sql = "SELECT digest, first_ms, definition FROM epochs WHERE experiment = ?";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([experiment])?;
    let mut definitions = Vec::new();
    while let Some(row) = rows.next()? {
        let read = || {
            let (digest, definition) = (text(row, 0)?, text(row, 2)?);
            keys::read_definition(&digest, whole(row, 1)? as u64, &definition)
        };
        definitions.extend(damage.skip(read())?);
    }
    Ok(definitions)
}

/// Reads all fields of an experiment in one table.
pub(super) fn fields(
    connection: &Connection,
    table: &str,
    experiment: &str,
    damage: &Damage,
) -> Result<Vec<(String, i128)>, StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT field, value FROM {table} WHERE experiment = ?"
    ))?;
    let mut rows = statement.query([experiment])?;
    let mut fields = Vec::new();
    while let Some(row) = rows.next()? {
        let read = || Ok((text(row, 0)?, number(table, &text(row, 1)?)?));
        fields.extend(damage.skip(read())?);
    }
    Ok(fields)
}

/// Decodes a text. A value of another type is damage, not an error of the file.
pub(super) fn text(row: &Row<'_>, column: usize) -> Result<String, StoreError> {
    row.get(column)
        .map_err(|error| of_another_type(row, column, error))
}

/// Decodes a whole number.
pub(super) fn whole(row: &Row<'_>, column: usize) -> Result<i64, StoreError> {
    row.get(column)
        .map_err(|error| of_another_type(row, column, error))
}

fn of_another_type(row: &Row<'_>, column: usize, error: rusqlite::Error) -> StoreError {
    let name = row.as_ref().column_name(column).unwrap_or_default();
    match error {
        rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::Utf8Error(..) => StoreError::Unreadable {
            place: format!("a {name}"),
            found: format!("{:?}", row.get_ref(column)),
        },
        error => StoreError::Sqlite(error),
    }
}

/// Decodes a number that is kept as a text.
pub(super) fn number(place: &str, text: &str) -> Result<i128, StoreError> {
    text.parse().map_err(|_| StoreError::Unreadable {
        place: place.to_owned(),
        found: text.to_owned(),
    })
}
