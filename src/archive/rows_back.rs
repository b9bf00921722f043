//! Columns of archived rows, by their names.

use super::error::ArchiveError;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, RecordBatch};

/// Rows of a file.
pub(super) struct ArchivedRows<'a> {
    path: &'a str,
    rows: &'a RecordBatch,
}

impl<'a> ArchivedRows<'a> {
    /// Rows of the file at `path`.
    pub(super) fn new(path: &'a str, rows: &'a RecordBatch) -> ArchivedRows<'a> {
        ArchivedRows { path, rows }
    }

    /// Returns the number of rows.
    pub(super) fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// Returns a text.
    pub(super) fn text(&self, name: &str, row: usize) -> Result<Option<&'a str>, ArchiveError> {
        let column = self.column(name)?.as_string_opt::<i32>();
        let column = column.ok_or_else(|| self.unreadable(name))?;
        Ok(column.is_valid(row).then(|| column.value(row)))
    }

    /// Returns a text that every row has.
    pub(super) fn needed(&self, name: &str, row: usize) -> Result<&'a str, ArchiveError> {
        let text = self.text(name, row)?;
        text.ok_or_else(|| self.unreadable(name))
    }

    /// Returns a number, 0 where there is none.
    pub(super) fn long(&self, name: &str, row: usize) -> Result<i64, ArchiveError> {
        Ok(self.number::<Int64Type>(name, row)?.unwrap_or_default())
    }

    /// Returns a small number.
    pub(super) fn int(&self, name: &str, row: usize) -> Result<Option<i32>, ArchiveError> {
        self.number::<Int32Type>(name, row)
    }

    /// Returns a number with a fraction.
    pub(super) fn double(&self, name: &str, row: usize) -> Result<Option<f64>, ArchiveError> {
        self.number::<Float64Type>(name, row)
    }

    /// Returns a value, in units of 10^-[`VALUE_SCALE`](super::tables::VALUE_SCALE).
    pub(super) fn value(&self, name: &str, row: usize) -> Result<Option<i128>, ArchiveError> {
        self.number::<Decimal128Type>(name, row)
    }

    /// Returns a time, in Unix milliseconds.
    pub(super) fn ms(&self, name: &str, row: usize) -> Result<u64, ArchiveError> {
        let us = self.number::<TimestampMicrosecondType>(name, row)?;
        Ok(us.unwrap_or_default().max(0) as u64 / 1000)
    }

    /// Returns whether something holds; false where it is not known.
    pub(super) fn truth(&self, name: &str, row: usize) -> Result<bool, ArchiveError> {
        let column = self.column(name)?.as_boolean_opt();
        let column = column.ok_or_else(|| self.unreadable(name))?;
        Ok(column.is_valid(row) && column.value(row))
    }

    /// The error for a column that is not as it should be.
    pub(super) fn unreadable(&self, name: &str) -> ArchiveError {
        ArchiveError::Unreadable {
            path: self.path.to_owned(),
            why: format!("its column {name} is missing, or holds something else"),
        }
    }

    fn number<T: ArrowPrimitiveType>(
        &self,
        name: &str,
        row: usize,
    ) -> Result<Option<T::Native>, ArchiveError> {
        let column = self.column(name)?.as_primitive_opt::<T>();
        let column = column.ok_or_else(|| self.unreadable(name))?;
        Ok(column.is_valid(row).then(|| column.value(row)))
    }

    fn column(&self, name: &str) -> Result<&'a ArrayRef, ArchiveError> {
        let column = self.rows.column_by_name(name);
        column.ok_or_else(|| self.unreadable(name))
    }
}
