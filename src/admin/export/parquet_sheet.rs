//! Rows as Apache Parquet, a row group at a time.

use crate::admin::export::{rows::Cell, rows::CellKind, rows::ExportRow, rows::Table};
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
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
pub struct ParquetSheet<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    table: Table,
    /// Rows of the next row group.
    held: Vec<ExportRow>,
}

impl<W: Write + Send> ParquetSheet<W> {
    /// Begins a file.
    pub fn begin(table: Table, to: W) -> io::Result<ParquetSheet<W>> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .build();
        let schema = Arc::new(schema(table)?);
        Ok(ParquetSheet {
            writer: SerializedFileWriter::new(to, schema, Arc::new(properties))?,
            table,
            held: Vec::new(),
        })
    }

    /// Adds rows.
    pub fn add(&mut self, rows: Vec<ExportRow>) -> io::Result<()> {
        self.held.extend(rows);
        if self.held.len() >= GROUP_ROWS {
            self.write_group()?;
        }
        Ok(())
    }

    /// Ends the file.
    pub fn end(mut self) -> io::Result<()> {
        if !self.held.is_empty() {
            self.write_group()?;
        }
        self.writer.into_inner()?.flush()
    }

    fn write_group(&mut self) -> io::Result<()> {
        let rows = std::mem::take(&mut self.held);
        group(&mut self.writer, self.table, rows)
    }
}

/// One optional column for each of the table.
fn schema(table: Table) -> io::Result<Type> {
    let mut fields = Vec::new();
    for &(name, kind) in table.columns() {
        let physical = match kind {
            CellKind::Text => Physical::BYTE_ARRAY,
            CellKind::Whole => Physical::INT64,
            CellKind::Number => Physical::DOUBLE,
            CellKind::Truth => Physical::BOOLEAN,
        };
        let mut field =
            Type::primitive_type_builder(name, physical).with_repetition(Repetition::OPTIONAL);
        if kind == CellKind::Text {
            field = field.with_logical_type(Some(LogicalType::String));
        }
        fields.push(Arc::new(field.build()?));
    }
    Ok(Type::group_type_builder("row")
        .with_fields(fields)
        .build()?)
}

/// Writes a row group, column by column.
fn group<W: Write + Send>(
    writer: &mut SerializedFileWriter<W>,
    table: Table,
    rows: Vec<ExportRow>,
) -> io::Result<()> {
    let mut group = writer.next_row_group()?;
    let mut columns: Vec<Vec<Cell>> = table
        .columns()
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
                    _ => None,
                };
                let values: Vec<_> = cells.into_iter().filter_map(text).collect();
                to.write_batch(&values, Some(&there), None)?;
            }
            ColumnWriter::Int64ColumnWriter(to) => {
                let number = |cell| match cell {
                    Cell::Whole(number) => number,
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
    }
}
