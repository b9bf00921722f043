//! Writes rows as CSV, JSON Lines or Parquet.

use crate::admin::csv_escape::neutral;
use crate::admin::export::{rows::Cell, rows::CellKind, rows::ExportRow, rows::Table};
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use serde_json::{Map, Value};
use std::io::{self, Write};
use std::sync::Arc;

/// The format of an export.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// CSV (RFC 4180) with a header line.
    Csv,
    /// One JSON object per line.
    Jsonl,
    /// Apache Parquet, Snappy-compressed.
    Parquet,
}

impl Format {
    /// Returns the `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Csv => "text/csv; charset=utf-8",
            Format::Jsonl => "application/jsonl",
            Format::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// Returns the extension of file names.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Csv => "csv",
            Format::Jsonl => "jsonl",
            Format::Parquet => "parquet",
        }
    }
}

/// Rows of a Parquet row group, all of which are held in memory.
const GROUP_ROWS: usize = 20_000;

/// A file that is being written.
pub enum Sheet<W: Write + Send> {
    /// CSV; `true` if texts are written unchanged.
    Csv(Box<csv::Writer<W>>, bool),
    /// JSON Lines.
    Jsonl(W, Table),
    /// Parquet, with the rows of the next row group.
    Parquet(Box<SerializedFileWriter<W>>, Table, Vec<ExportRow>),
}

impl<W: Write + Send> Sheet<W> {
    /// Starts a file. In CSV, texts that a spreadsheet would read as formulas get a leading `'` unless
    /// `raw` is set.
    pub fn begin(format: Format, raw: bool, table: Table, to: W) -> io::Result<Sheet<W>> {
        match format {
            Format::Csv => {
                let mut csv = csv::Writer::from_writer(to);
                csv.write_record(table.columns().iter().map(|(name, _)| name))?;
                Ok(Sheet::Csv(Box::new(csv), raw))
            }
            Format::Jsonl => Ok(Sheet::Jsonl(to, table)),
            Format::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::SNAPPY)
                    .build();
                let schema = Arc::new(schema(table)?);
                let writer = SerializedFileWriter::new(to, schema, Arc::new(properties))?;
                Ok(Sheet::Parquet(Box::new(writer), table, Vec::new()))
            }
        }
    }

    /// Adds rows.
    pub fn add(&mut self, rows: Vec<ExportRow>) -> io::Result<()> {
        match self {
            Sheet::Csv(csv, raw) => {
                for row in rows {
                    csv.write_record(row.iter().map(|cell| field(cell, *raw)))?;
                }
                csv.flush()
            }
            Sheet::Jsonl(to, table) => {
                for row in rows {
                    let names = table.columns().iter().map(|(name, _)| (*name).to_owned());
                    let object: Map<String, Value> = names.zip(row.into_iter().map(json)).collect();
                    serde_json::to_writer(&mut *to, &object)?;
                    to.write_all(b"\n")?;
                }
                Ok(())
            }
            Sheet::Parquet(writer, table, held) => {
                held.extend(rows);
                if held.len() >= GROUP_ROWS {
                    group(writer, *table, std::mem::take(held))?;
                }
                Ok(())
            }
        }
    }

    /// Ends the file.
    pub fn end(self) -> io::Result<()> {
        match self {
            Sheet::Csv(mut csv, _) => csv.flush(),
            Sheet::Jsonl(mut to, _) => to.flush(),
            Sheet::Parquet(mut writer, table, held) => {
                if !held.is_empty() {
                    group(&mut writer, table, held)?;
                }
                writer.into_inner()?.flush()
            }
        }
    }
}

fn field(cell: &Cell, raw: bool) -> String {
    match cell {
        Cell::Text(Some(text)) if !raw => neutral(text).into_owned(),
        Cell::Text(text) => text.clone().unwrap_or_default(),
        Cell::Whole(number) => number.map_or(String::new(), |number| number.to_string()),
        Cell::Number(number) => number.map_or(String::new(), |number| number.to_string()),
        Cell::Truth(truth) => truth.to_string(),
    }
}

fn json(cell: Cell) -> Value {
    match cell {
        Cell::Text(text) => text.into(),
        Cell::Whole(number) => number.into(),
        Cell::Number(number) => number.into(),
        Cell::Truth(truth) => truth.into(),
    }
}

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
            // The schema has no other types.
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
