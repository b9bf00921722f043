//! Writes rows as CSV, JSON Lines or Parquet.

use crate::admin::csv_escape::neutral;
#[cfg(feature = "parquet")]
use crate::admin::export::parquet_sheet::ParquetSheet;
use crate::admin::export::{rows::Cell, rows::ExportRow, rows::Table};
use crate::features::{Feature, MissingFeature};
use serde_json::{Map, Value};
use std::io::{self, Write};

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
    /// Returns an error if the format needs a feature that the program was built without.
    pub fn check(self, is_built: fn(Feature) -> bool) -> Result<(), MissingFeature> {
        match self {
            Format::Parquet if !is_built(Feature::Parquet) => Err(MissingFeature(Feature::Parquet)),
            Format::Csv | Format::Jsonl | Format::Parquet => Ok(()),
        }
    }

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

/// A file that is being written.
pub enum Sheet<W: Write + Send> {
    /// CSV; `true` if texts are written unchanged.
    Csv(Box<csv::Writer<W>>, bool),
    /// JSON Lines.
    Jsonl(W, Table),
    /// Parquet.
    #[cfg(feature = "parquet")]
    Parquet(ParquetSheet<W>),
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
            #[cfg(feature = "parquet")]
            Format::Parquet => Ok(Sheet::Parquet(ParquetSheet::begin(table, to)?)),
            #[cfg(not(feature = "parquet"))]
            Format::Parquet => Err(io::ErrorKind::Unsupported.into()),
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
            #[cfg(feature = "parquet")]
            Sheet::Parquet(sheet) => sheet.add(rows),
        }
    }

    /// Ends the file.
    pub fn end(self) -> io::Result<()> {
        match self {
            Sheet::Csv(mut csv, _) => csv.flush(),
            Sheet::Jsonl(mut to, _) => to.flush(),
            #[cfg(feature = "parquet")]
            Sheet::Parquet(sheet) => sheet.end(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_whose_feature_is_missing_is_an_error_that_names_it() {
        assert_eq!(Format::Csv.check(|_| false), Ok(()));
        assert_eq!(Format::Parquet.check(|_| true), Ok(()));
        let missing = Format::Parquet.check(|_| false).unwrap_err();
        let text = format!("{missing}; {}", missing.hint());
        assert!(text.contains("without its feature `parquet`"), "{text}");
        assert!(text.contains("--features parquet"), "{text}");
    }
}
