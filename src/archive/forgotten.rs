//! Users who were forgotten: their rows are not archived, and are removed from what is archived.

use super::error::ArchiveError;
use super::tables::RecordTable;
use crate::experiment::user_id::unreadable;
use crate::store::AllForgotten;
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_select::filter::filter_record_batch;
use std::collections::HashMap;

/// The columns of a table that tell whose rows it has.
pub(super) struct IdColumns<'a> {
    /// The time of each record, in Unix microseconds.
    pub at_us: &'a TimestampMicrosecondArray,
    /// The columns of [`RecordTable::ids`].
    pub ids: Vec<&'a StringArray>,
}

impl<'a> IdColumns<'a> {
    /// Finds the columns in rows of a table.
    pub(super) fn of(
        table: RecordTable,
        rows: &'a RecordBatch,
    ) -> Result<IdColumns<'a>, ArchiveError> {
        let at = rows.column_by_name(table.recorded_at());
        let at = at.and_then(|it| it.as_primitive_opt::<TimestampMicrosecondType>());
        let ids = table.ids().iter().map(|name| rows.column_by_name(name));
        let ids: Option<Vec<&StringArray>> = ids.map(|it| it?.as_string_opt::<i32>()).collect();
        match (at, ids) {
            (Some(at_us), Some(ids)) => Ok(IdColumns { at_us, ids }),
            _ => {
                let why = "a column of users or times is missing".to_owned();
                let path = table.name().to_owned();
                Err(ArchiveError::Unreadable { path, why })
            }
        }
    }
}

/// Removes the rows of forgotten users; `None` where there are none of them.
pub(super) fn removed_from(
    forgotten: &AllForgotten,
    table: RecordTable,
    rows: &RecordBatch,
) -> Result<Option<RecordBatch>, ArchiveError> {
    if forgotten.is_empty() {
        return Ok(None);
    }
    let IdColumns { at_us, ids } = IdColumns::of(table, rows)?;
    let mut known = HashMap::<&str, i64>::new();
    let mut kept = vec![true; rows.num_rows()];
    for ids in ids {
        for (row, id) in ids.iter().enumerate() {
            let Some(id) = id else { continue };
            let until_us = known
                .entry(id)
                .or_insert_with(|| 1000 * forgotten.until_ms(&unreadable(id)) as i64);
            // Times of rows are whole milliseconds.
            kept[row] &= at_us.value(row) > *until_us;
        }
    }
    if kept.iter().all(|kept| *kept) {
        return Ok(None);
    }
    Ok(Some(filter_record_batch(rows, &BooleanArray::from(kept))?))
}
