//! The versions of the tables.

use super::connection::{PostgresConnection, get};
use crate::store::StoreError;

/// The version of the tables that this program writes.
const VERSION: i64 = STEPS.len() as i64;

/// The statements that migrate the tables of each version to the next.
const STEPS: [&str; 1] = [include_str!("version_1.sql")];

/// Creates or migrates the tables, if they are missing or older. Newer ones and another program's are an error, and
/// stay unchanged.
pub(super) async fn migrate(
    connection: &mut PostgresConnection,
    schema: &str,
) -> Result<(), StoreError> {
    if find(connection, schema).await? == Found::Version(VERSION) {
        return Ok(());
    }
    // Of several replicas that start at once, one migrates and the others wait.
    connection.batch("BEGIN").await?;
    let sql = "SELECT pg_advisory_xact_lock(hashtext('watershed'), hashtext($1))";
    connection.rows(sql, &[&schema]).await?;
    let version = match find(connection, schema).await? {
        Found::Version(version) => version,
        Found::Nothing { has_schema } => {
            if !has_schema {
                let sql = format!("CREATE SCHEMA {}", quoted(schema));
                connection.batch(&sql).await?;
            }
            0
        }
    };
    for step in STEPS.iter().skip(version as usize) {
        connection.batch(step).await?;
    }
    if version < VERSION {
        let sql = "INSERT INTO format VALUES (true, $1)
                   ON CONFLICT (single) DO UPDATE SET version = excluded.version RETURNING version";
        connection.rows(sql, &[&VERSION]).await?;
    }
    connection.batch("COMMIT").await
}

/// Writes an identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What a schema has.
#[derive(PartialEq)]
enum Found {
    Nothing { has_schema: bool },
    Version(i64),
}

async fn find(connection: &mut PostgresConnection, schema: &str) -> Result<Found, StoreError> {
    let sql = "SELECT nspname::text, (SELECT relname::text FROM pg_class WHERE relnamespace = n.oid
                 ORDER BY relname = 'format' DESC, relname LIMIT 1)
               FROM pg_namespace n WHERE nspname = $1";
    let rows = connection.rows(sql, &[&schema]).await?;
    let Some(row) = rows.first() else {
        return Ok(Found::Nothing { has_schema: false });
    };
    let place = format!("the schema {} of {}", quoted(schema), connection.place());
    let foreign = |found: String| StoreError::Foreign {
        place: place.clone(),
        found,
    };
    match get::<Option<String>>(row, 1)?.as_deref() {
        None => return Ok(Found::Nothing { has_schema: true }),
        Some("format") => {}
        Some(table) => return Err(foreign(format!("the table {table:?}"))),
    }
    let sql =
        "SELECT 1 FROM pg_attribute WHERE attrelid = 'format'::regclass AND attname = 'single'";
    if connection.rows(sql, &[]).await?.is_empty() {
        return Err(foreign("another table \"format\"".to_owned()));
    }
    let rows = connection.rows("SELECT version FROM format", &[]).await?;
    match rows.first().map(|row| get::<i64>(row, 0)).transpose()? {
        Some(version @ 1..=VERSION) => Ok(Found::Version(version)),
        Some(version) => Err(StoreError::Newer {
            place,
            found: version.to_string(),
            known: VERSION,
        }),
        None => Err(foreign("an empty table \"format\"".to_owned())),
    }
}
