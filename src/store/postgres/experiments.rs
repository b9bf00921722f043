//! The row of an experiment: its number, which other tables have in place of its name, and its lock.

use super::connection::get;
use super::session::PostgresSession;
use crate::store::StoreError;

/// Waits until no other transaction changes the counts of an experiment, and returns its number. An experiment
/// that is not known is added.
pub(super) async fn lock(
    session: &mut PostgresSession<'_>,
    experiment: &str,
) -> Result<i32, StoreError> {
    match try_lock(session, experiment).await? {
        Some(number) => Ok(number),
        None => {
            let sql = "INSERT INTO experiments (name) VALUES ($1) ON CONFLICT (name) DO UPDATE SET name = excluded.name
                       RETURNING number";
            let row = session.row(sql, &[&experiment]).await?;
            row.map_or(Ok(0), |row| get(&row, 0))
        }
    }
}

/// The same without adding it; `None` for an experiment that is not known.
pub(super) async fn try_lock(
    session: &mut PostgresSession<'_>,
    experiment: &str,
) -> Result<Option<i32>, StoreError> {
    let sql = "SELECT number FROM experiments WHERE name = $1 FOR UPDATE";
    let row = session.row(sql, &[&experiment]).await?;
    row.map(|row| get(&row, 0)).transpose()
}

/// Returns the number of an experiment; `None` if it is not known.
pub(super) async fn number(
    session: &mut PostgresSession<'_>,
    experiment: &str,
) -> Result<Option<i32>, StoreError> {
    let sql = "SELECT number FROM experiments WHERE name = $1";
    let row = session.row(sql, &[&experiment]).await?;
    row.map(|row| get(&row, 0)).transpose()
}
