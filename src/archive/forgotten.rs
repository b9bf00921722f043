//! Users who were forgotten: their rows are not archived, and are removed from what is archived.

use super::error::ArchiveError;
use super::tables::RecordTable;
use crate::experiment::user_id::unreadable;
use crate::store::Store;
use crate::store::forgotten::ForgottenUsers;
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{BooleanArray, RecordBatch, StringArray};
use arrow_select::filter::filter_record_batch;
use std::collections::HashMap;

/// The forgotten users of all experiments of a store.
#[derive(Clone, Debug, Default)]
pub struct AllForgotten {
    shards: Vec<ForgottenUsers>,
}

impl AllForgotten {
    /// Loads them.
    pub async fn load(store: &dyn Store) -> Result<AllForgotten, ArchiveError> {
        let mut shards = Vec::new();
        for experiment in store.experiments().await? {
            for shard in 0..store.shards(&experiment).await? {
                shards.push(store.forgotten(&experiment, shard).await?);
            }
        }
        shards.retain(|shard| shard.version > 0);
        Ok(AllForgotten { shards })
    }

    /// Whether nobody was forgotten.
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// Whether nobody was forgotten since `earlier` was loaded.
    pub fn is_as(&self, earlier: &AllForgotten) -> bool {
        let versions = |all: &AllForgotten| -> Vec<u64> {
            all.shards.iter().map(|shard| shard.version).collect()
        };
        versions(self) == versions(earlier)
    }

    /// Returns the time up to which records of a user are forgotten, in Unix milliseconds; 0 for a user who was not
    /// forgotten.
    pub fn until_ms(&self, user: &[u8]) -> u64 {
        let until = self.shards.iter().map(|shard| shard.until_ms(user));
        until.max().unwrap_or(0)
    }

    /// Removes the rows of forgotten users; `None` where there are none of them.
    pub fn removed_from(
        &self,
        table: RecordTable,
        rows: &RecordBatch,
    ) -> Result<Option<RecordBatch>, ArchiveError> {
        if self.shards.is_empty() {
            return Ok(None);
        }
        let at = rows.column_by_name(table.recorded_at());
        let at = at.and_then(|it| it.as_primitive_opt::<TimestampMicrosecondType>());
        let ids = table.ids().iter().map(|name| rows.column_by_name(name));
        let ids: Option<Vec<&StringArray>> = ids.map(|it| it?.as_string_opt::<i32>()).collect();
        let (Some(at), Some(ids)) = (at, ids) else {
            let why = "a column of users or times is missing".to_owned();
            let path = table.name().to_owned();
            return Err(ArchiveError::Unreadable { path, why });
        };
        let mut known = HashMap::<&str, i64>::new();
        let mut kept = vec![true; rows.num_rows()];
        for ids in ids {
            for (row, id) in ids.iter().enumerate() {
                let Some(id) = id else { continue };
                let until_us = known
                    .entry(id)
                    .or_insert_with(|| 1000 * self.until_ms(&unreadable(id)) as i64);
                // Times of rows are whole milliseconds.
                kept[row] &= at.value(row) > *until_us;
            }
        }
        if kept.iter().all(|kept| *kept) {
            return Ok(None);
        }
        Ok(Some(filter_record_batch(rows, &BooleanArray::from(kept))?))
    }
}
