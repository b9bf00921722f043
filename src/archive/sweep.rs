//! Removes users who were forgotten from archived files.

use super::encode::{decode, encode};
use super::error::ArchiveError;
use super::forgotten::{IdColumns, removed_from};
use super::location::Location;
use super::swept::Swept;
use super::tables::RecordTable;
use crate::config::plan::{Archive, ArchiveTarget};
use crate::experiment::user_id::{readable, unreadable};
use crate::store::{AllForgotten, Store};
use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;
use futures_util::{Stream, StreamExt, TryStreamExt};
use std::collections::{BTreeMap, BTreeSet};

/// How many files are read at once.
const FILES_AT_ONCE: usize = 8;
/// How often an object store is asked again after an error of its own.
const RETRIES_MAX: usize = 5;
/// How often a file is read again because somebody else replaced it.
const ATTEMPTS_MAX: usize = 10;

/// Removes the rows of a user, and of all users who were forgotten before, from all files of an archive. The user's
/// records up to `until_ms` are removed, under every ID that counts for the user: those that the store knew, and those
/// that came with it in the archive. Reads the whole archive.
pub async fn forget(
    archive: &Archive,
    store: &dyn Store,
    (user, until_ms): (&[u8], u64),
) -> Result<Swept, ArchiveError> {
    if let ArchiveTarget::Folder(folder) = &archive.to
        && !folder.exists()
    {
        // Nothing was archived yet.
        return Ok(Swept::default());
    }
    let location = Location::open(&archive.to, RETRIES_MAX)?;
    let mut forgotten = AllForgotten::load(store).await?;
    for id in ids_of(&location, user).await? {
        forgotten.add(id, until_ms);
    }
    let _lock = location.lock().await?;
    let mut swept = Swept::default();
    for table in RecordTable::ALL {
        let names = names(&location, table)?;
        let cleaned = names
            .map(|name| async { clean(&location, table, &name?, &forgotten).await })
            .buffer_unordered(FILES_AT_ONCE);
        let mut cleaned = std::pin::pin!(cleaned);
        while let Some(replaced) = cleaned.try_next().await? {
            swept.read += 1;
            swept.replaced += u64::from(replaced);
        }
    }
    Ok(swept)
}

/// Lists the files of a table.
fn names(
    location: &Location,
    table: RecordTable,
) -> Result<impl Stream<Item = Result<String, ArchiveError>>, ArchiveError> {
    let names = location.list(table.name(), None)?;
    // A crash while a file is created leaves others in a directory.
    Ok(names.try_filter(|name| std::future::ready(name.ends_with(".parquet"))))
}

/// Returns the IDs of a user in the archive: the ID itself, and minted IDs that came with it before they came with any
/// other.
async fn ids_of(location: &Location, user: &[u8]) -> Result<BTreeSet<Vec<u8>>, ArchiveError> {
    let mut ids = BTreeSet::from([user.to_vec()]);
    let user = readable(user);
    let mut minted = BTreeSet::new();
    each_join(location, |(known, found, _)| {
        if known == user {
            minted.insert(found.to_owned());
        }
    })
    .await?;
    if minted.is_empty() {
        return Ok(ids);
    }
    let mut owners = BTreeMap::<String, (i64, String)>::new();
    each_join(location, |(known, found, at_us)| {
        if minted.contains(found) {
            let owner = (at_us, known.to_owned());
            let first = owners.entry(found.to_owned()).or_insert(owner.clone());
            *first = owner.min(first.clone());
        }
    })
    .await?;
    let owned = owners.into_iter().filter(|(_, (_, owner))| *owner == user);
    ids.extend(owned.map(|(minted, _)| unreadable(&minted)));
    Ok(ids)
}

/// Calls `each` with every known ID, the minted ID that came with it, and when, in Unix microseconds.
async fn each_join(
    location: &Location,
    mut each: impl FnMut((&str, &str, i64)),
) -> Result<(), ArchiveError> {
    let names = names(location, RecordTable::Identities)?;
    let mut read = std::pin::pin!(
        names
            .map(|name| async {
                let name = name?;
                let found = location.read(&name).await?;
                found.map_or(Ok(Vec::new()), |(bytes, _)| decode(&name, bytes))
            })
            .buffer_unordered(FILES_AT_ONCE)
    );
    while let Some(batches) = read.try_next().await? {
        for rows in &batches {
            let columns = IdColumns::of(RecordTable::Identities, rows)?;
            let [known, minted] = &columns.ids[..] else {
                continue;
            };
            for (row, (known, minted)) in known.iter().zip(minted.iter()).enumerate() {
                if let (Some(known), Some(minted)) = (known, minted) {
                    each((known, minted, columns.at_us.value(row)));
                }
            }
        }
    }
    Ok(())
}

/// Removes the rows of forgotten users from a file. The file keeps its name, also without rows: so nobody writes
/// it again. Returns whether it had any such rows. For a directory, the caller holds [`Location::lock`].
pub(super) async fn clean(
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
        let rest: Option<RecordBatch> = removed_from(forgotten, table, &rows)?;
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
