//! Rows as Apache Parquet, a row group at a time.

use crate::admin::export::rows::{Cell, CellKind, ExportRow};
use crate::admin::format::rfc3339;
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use std::io::{self, Write};
use std::sync::Arc;

/// Rows of a row group: what is held in memory at once.
const GROUP_ROWS: usize = 20_000;

/// A Parquet file that is being written.
pub(super) struct ParquetSheet<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    columns: Vec<(&'static str, CellKind)>,
    /// Rows of the next row group.
    held: Vec<ExportRow>,
}

impl<W: Write + Send> ParquetSheet<W> {
    /// Begins a file with these columns.
    pub(super) fn begin(
        columns: Vec<(&'static str, CellKind)>,
        to: W,
    ) -> io::Result<ParquetSheet<W>> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .build();
        let schema = Arc::new(schema(&columns)?);
        Ok(ParquetSheet {
            writer: SerializedFileWriter::new(to, schema, Arc::new(properties))?,
            columns,
            held: Vec::new(),
        })
    }

    /// Adds rows.
    pub(super) fn add(&mut self, rows: Vec<ExportRow>) -> io::Result<()> {
        self.held.extend(rows);
        if self.held.len() >= GROUP_ROWS {
            self.write_group()?;
        }
        Ok(())
    }

    /// Ends the file.
    pub(super) fn end(mut self) -> io::Result<()> {
        if !self.held.is_empty() {
            self.write_group()?;
        }
        self.writer.into_inner()?.flush()
    }

    fn write_group(&mut self) -> io::Result<()> {
        let rows = std::mem::take(&mut self.held);
        group(&mut self.writer, &self.columns, rows)
    }
}

/// One optional column for each of the table.
fn schema(columns: &[(&'static str, CellKind)]) -> io::Result<Type> {
    let mut fields = Vec::new();
    for &(name, kind) in columns {
        let physical = match kind {
            CellKind::Text => Physical::BYTE_ARRAY,
            CellKind::Whole | CellKind::Time => Physical::INT64,
            CellKind::Number => Physical::DOUBLE,
            CellKind::Truth => Physical::BOOLEAN,
        };
        let mut field =
            Type::primitive_type_builder(name, physical).with_repetition(Repetition::OPTIONAL);
        let logical = match kind {
            CellKind::Text => Some(LogicalType::String),
            CellKind::Time => Some(LogicalType::timestamp(true, TimeUnit::MICROS)),
            CellKind::Whole | CellKind::Number | CellKind::Truth => None,
        };
        field = field.with_logical_type(logical);
        fields.push(Arc::new(field.build()?));
    }
    Ok(Type::group_type_builder("row")
        .with_fields(fields)
        .build()?)
}

/// Writes a row group, column by column.
fn group<W: Write + Send>(
    writer: &mut SerializedFileWriter<W>,
    types: &[(&'static str, CellKind)],
    rows: Vec<ExportRow>,
) -> io::Result<()> {
    let mut group = writer.next_row_group()?;
    let mut columns: Vec<Vec<Cell>> = types
        .iter()
        .map(|_| Vec::with_capacity(rows.len()))
        .collect();
    for row in rows {
        for (column, cell) in columns.iter_mut().zip(row) {
            column.push(cell);
        }
    }
    for cells in columns {
        let Some(mut column) = group.next_column()? else {
            break;
        };
        let there: Vec<i16> = cells.iter().map(|cell| i16::from(is_there(cell))).collect();
        match column.untyped() {
            ColumnWriter::ByteArrayColumnWriter(to) => {
                let text = |cell| match cell {
                    Cell::Text(text) => text.map(|text| ByteArray::from(text.into_bytes())),
                    // In files with the columns of version 0.1.
                    Cell::Time(ms) => rfc3339(ms).map(|text| ByteArray::from(text.into_bytes())),
                    _ => None,
                };
                let values: Vec<_> = cells.into_iter().filter_map(text).collect();
                to.write_batch(&values, Some(&there), None)?;
            }
            ColumnWriter::Int64ColumnWriter(to) => {
                let number = |cell| match cell {
                    Cell::Whole(number) => number,
                    Cell::Time(ms) => micros(ms),
                    _ => None,
                };
                let values: Vec<_> = cells.into_iter().filter_map(number).collect();
                to.write_batch(&values, Some(&there), None)?;
            }
            ColumnWriter::DoubleColumnWriter(to) => {
                let number = |cell| match cell {
                    Cell::Number(number) => number,
                    _ => None,
                };
                let values: Vec<_> = cells.into_iter().filter_map(number).collect();
                to.write_batch(&values, Some(&there), None)?;
            }
            ColumnWriter::BoolColumnWriter(to) => {
                let truth = |cell| match cell {
                    Cell::Truth(truth) => Some(truth),
                    _ => None,
                };
                let values: Vec<_> = cells.into_iter().filter_map(truth).collect();
                to.write_batch(&values, Some(&there), None)?;
            }
            // The schema knows no other.
            _ => {}
        }
        column.close()?;
    }
    group.close()?;
    Ok(())
}

fn is_there(cell: &Cell) -> bool {
    match cell {
        Cell::Text(text) => text.is_some(),
        Cell::Whole(number) => number.is_some(),
        Cell::Number(number) => number.is_some(),
        Cell::Truth(_) => true,
        Cell::Time(ms) => micros(*ms).is_some(),
    }
}

/// A time in Unix microseconds; `None` for one that RFC 3339 does not have either.
fn micros(ms: u64) -> Option<i64> {
    rfc3339(ms)?;
    i64::try_from(ms).ok()?.checked_mul(1000)
}
