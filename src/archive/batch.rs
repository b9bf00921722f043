//! Writes the files of one batch.

use super::claims::Claim;
use super::encode::encode;
use super::error::ArchiveError;
use super::location::Location;
use super::rows::{BatchRows, folder};
use super::sweep::clean;
use super::tables::RecordTable;
use crate::store::{AllForgotten, Store};

/// A file of a batch.
pub(super) struct BatchFile {
    /// The table.
    pub table: RecordTable,
    /// The name below the archive.
    pub name: String,
    /// Whether it was there before.
    pub was_there: bool,
}

/// Writes the files that are missing, and returns all of them.
pub(super) async fn write(
    location: &Location,
    (journal, claim): (&str, Claim),
    rows: &BatchRows<'_>,
) -> Result<Vec<BatchFile>, ArchiveError> {
    let mut files = Vec::new();
    for (table, hour, rows) in rows.batches()? {
        let name = format!("{}/{}", folder(table, hour), claim.file_name(journal));
        let was_there = !location.create(&name, encode(&rows)?).await?;
        files.push(BatchFile {
            table,
            name,
            was_there,
        });
    }
    Ok(files)
}

/// Removes users who were forgotten since `before` was loaded: whoever forgot them may have looked for their files
/// before these were written. The same holds for files of an earlier process, which did not come to this.
pub(super) async fn clean_again(
    location: &Location,
    store: &dyn Store,
    before: &AllForgotten,
    files: &[BatchFile],
) -> Result<(), ArchiveError> {
    let now = AllForgotten::load(store).await?;
    let is_same = now.is_as(before);
    let stale: Vec<_> = files.iter().filter(|it| it.was_there || !is_same).collect();
    if stale.is_empty() || now.is_empty() {
        return Ok(());
    }
    let _lock = location.lock().await?;
    for file in stale {
        clean(location, file.table, &file.name, &now).await?;
    }
    Ok(())
}
