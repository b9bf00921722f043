//! Removes users who were forgotten from archived files.

use super::encode::{decode, encode};
use super::error::ArchiveError;
use super::forgotten::AllForgotten;
use super::found::Swept;
use super::location::Location;
use super::tables::RecordTable;
use crate::config::plan::Archive;
use crate::store::Store;
use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;
use futures_util::{StreamExt, TryStreamExt};

/// How many files are read at once.
const FILES_AT_ONCE: usize = 8;
/// How often a file is read again because somebody else replaced it.
const ATTEMPTS_MAX: usize = 10;

/// Removes the rows of users who were forgotten from all files of an archive.
pub async fn forget(archive: &Archive, store: &dyn Store) -> Result<Swept, ArchiveError> {
    sweep(&Location::open(&archive.to)?, store).await
}

/// Removes the rows of all users who were forgotten from all files. Reads the whole archive.
async fn sweep(location: &Location, store: &dyn Store) -> Result<Swept, ArchiveError> {
    let mut swept = Swept::default();
    let forgotten = AllForgotten::load(store).await?;
    if forgotten.is_empty() {
        return Ok(swept);
    }
    let _lock = location.lock().await?;
    for table in RecordTable::ALL {
        let names = location.list(table.name(), None)?;
        // A crash while a file was created leaves others in a directory.
        let names = names.try_filter(|name| std::future::ready(name.ends_with(".parquet")));
        let cleaned = names
            .map(|name| async { clean(location, table, &name?, &forgotten).await })
            .buffer_unordered(FILES_AT_ONCE);
        let mut cleaned = std::pin::pin!(cleaned);
        while let Some(replaced) = cleaned.try_next().await? {
            swept.read += 1;
            swept.replaced += u64::from(replaced);
        }
    }
    Ok(swept)
}

/// Removes the rows of forgotten users from a file. The file keeps its name, also without rows: so nobody writes
/// it again. Returns whether it had any such rows. For a directory, the caller holds [`Location::lock`].
pub async fn clean(
    location: &Location,
    table: RecordTable,
    name: &str,
    forgotten: &AllForgotten,
) -> Result<bool, ArchiveError> {
    for _ in 0..ATTEMPTS_MAX {
        let Some((bytes, version)) = location.read(name).await? else {
            return Ok(false);
        };
        let batches = decode(name, bytes)?;
        let rows = concat_batches(&table.schema(), &batches).map_err(|error| {
            ArchiveError::Unreadable {
                path: name.to_owned(),
                why: error.to_string(),
            }
        })?;
        let rest: Option<RecordBatch> = forgotten.removed_from(table, &rows)?;
        let Some(rest) = rest else {
            return Ok(false);
        };
        if location.replace(name, version, encode(&rest)?).await? {
            return Ok(true);
        }
    }
    Err(ArchiveError::Unreadable {
        path: name.to_owned(),
        why: "another program replaces it again and again".to_owned(),
    })
}
