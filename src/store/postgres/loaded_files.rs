//! Loaded files in PostgreSQL.

use super::connection::{get, whole};
use super::session::{PostgresLink, PostgresSession};
use crate::store::StoreError;
use crate::store::damage::Damage;
use crate::store::json::{read_json, written};
use crate::store::loaded_files::{LOADED_FILES_MAX, LoadedFile};

pub(super) async fn read(
    link: &PostgresLink,
    max: usize,
    damage: &Damage,
) -> Result<Vec<LoadedFile>, StoreError> {
    let sql = "SELECT entry FROM loaded_files ORDER BY number DESC LIMIT $1";
    let mut files = Vec::new();
    for row in link
        .rows(sql, &[&(max.min(LOADED_FILES_MAX) as i64)])
        .await?
    {
        files.extend(damage.skip(read_json("loaded_files", get(&row, 0)?))?);
    }
    Ok(files)
}

pub(super) async fn content(
    link: &PostgresLink,
    number: u64,
) -> Result<Option<String>, StoreError> {
    let sql = "SELECT content FROM loaded_files WHERE number = $1";
    let rows = link.rows(sql, &[&(number as i64)]).await?;
    rows.first().map(|row| get(row, 0)).transpose()
}

pub(super) async fn record(
    session: &mut PostgresSession<'_>,
    file: &LoadedFile,
    content: &str,
) -> Result<bool, StoreError> {
    session.lock("loaded_files").await?;
    let sql = "SELECT coalesce(max(number), 0) FROM loaded_files";
    let latest = session.row(sql, &[]).await?;
    if latest.map_or(Ok(0), |row| whole(&row, 0))? + 1 != file.number {
        return Ok(false);
    }
    let sql = "INSERT INTO loaded_files VALUES ($1, $2, $3)";
    let number = file.number as i64;
    session
        .execute(sql, &[&number, &written(file)?, &content])
        .await?;
    let sql = "DELETE FROM loaded_files WHERE number <= $1";
    session
        .execute(sql, &[&(number - LOADED_FILES_MAX as i64)])
        .await?;
    Ok(true)
}
