//! Writes rows as CSV, JSON Lines or Parquet.

use crate::admin::csv_escape::neutral;
#[cfg(feature = "parquet")]
use crate::admin::export::parquet_sheet::ParquetSheet;
use crate::admin::export::rows::{Cell, ColumnNames, ExportRow, Table};
use crate::admin::format::rfc3339;
use crate::features::{Feature, MissingFeature};
use jiff::tz::TimeZone;
use serde_json::{Map, Value};
use std::io::{self, Write};

/// The format of an export.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// CSV (RFC 4180) with a header line.
    Csv,
    /// One JSON object per line.
    Jsonl,
    /// Apache Parquet, Snappy-compressed.
    Parquet,
}

impl Format {
    /// Returns an error if the format needs a feature that the program was built without.
    pub(crate) fn check(self, is_built: fn(Feature) -> bool) -> Result<(), MissingFeature> {
        match self {
            Format::Parquet if !is_built(Feature::Parquet) => Err(MissingFeature(Feature::Parquet)),
            Format::Csv | Format::Jsonl | Format::Parquet => Ok(()),
        }
    }

    /// Returns the `Content-Type`.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Format::Csv => "text/csv; charset=utf-8",
            Format::Jsonl => "application/jsonl",
            Format::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// Returns the extension of file names.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Format::Csv => "csv",
            Format::Jsonl => "jsonl",
            Format::Parquet => "parquet",
        }
    }
}

/// What is exported, and how it is written.
#[derive(Clone, Debug)]
pub(crate) struct ExportLayout {
    /// The table.
    pub table: Table,
    /// The format.
    pub format: Format,
    /// Whether CSV has texts unchanged. Otherwise texts that a spreadsheet would read as formulas get a leading `'`.
    pub raw: bool,
    /// How columns are named.
    pub names: ColumnNames,
    /// The zone of times that are written as text.
    pub zone: TimeZone,
}

/// Finds a time zone by its name, such as `Europe/Berlin`.
pub(crate) fn zone(name: &str) -> Result<TimeZone, String> {
    if name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(name).map_err(|_| {
        format!("there is no time zone {name:?}; names are those of the IANA database, such as Europe/Berlin")
    })
}

/// A file that is being written.
pub(crate) struct Sheet<W: Write + Send> {
    layout: ExportLayout,
    file: File<W>,
}

enum File<W: Write + Send> {
    Csv(Box<csv::Writer<W>>),
    Jsonl(W),
    #[cfg(feature = "parquet")]
    Parquet(Box<ParquetSheet<W>>),
}

impl<W: Write + Send> Sheet<W> {
    /// Starts a file.
    pub(crate) fn begin(layout: ExportLayout, to: W) -> io::Result<Sheet<W>> {
        let columns = || layout.table.columns(layout.names);
        let file = match layout.format {
            Format::Csv => {
                let mut csv = csv::Writer::from_writer(to);
                csv.write_record(columns().map(|(name, _)| name))?;
                File::Csv(Box::new(csv))
            }
            Format::Jsonl => File::Jsonl(to),
            #[cfg(feature = "parquet")]
            Format::Parquet => {
                File::Parquet(Box::new(ParquetSheet::begin(columns().collect(), to)?))
            }
            #[cfg(not(feature = "parquet"))]
            Format::Parquet => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(Sheet { layout, file })
    }

    /// Adds rows.
    pub(crate) fn add(&mut self, rows: Vec<ExportRow>) -> io::Result<()> {
        let layout = &self.layout;
        match &mut self.file {
            File::Csv(csv) => {
                for row in rows {
                    csv.write_record(row.iter().map(|cell| field(cell, layout)))?;
                }
                csv.flush()
            }
            File::Jsonl(to) => {
                for row in rows {
                    let names = layout.table.columns(layout.names);
                    let names = names.map(|(name, _)| name.to_owned());
                    let values = row.into_iter().map(|cell| json(cell, layout));
                    let object: Map<String, Value> = names.zip(values).collect();
                    serde_json::to_writer(&mut *to, &object)?;
                    to.write_all(b"\n")?;
                }
                Ok(())
            }
            #[cfg(feature = "parquet")]
            File::Parquet(sheet) => sheet.add(rows),
        }
    }

    /// Ends the file.
    pub(crate) fn end(self) -> io::Result<()> {
        match self.file {
            File::Csv(mut csv) => csv.flush(),
            File::Jsonl(mut to) => to.flush(),
            #[cfg(feature = "parquet")]
            File::Parquet(sheet) => sheet.end(),
        }
    }
}

impl ExportLayout {
    /// A time in RFC 3339, in the zone.
    fn time(&self, ms: u64) -> Option<String> {
        if self.zone == TimeZone::UTC {
            return rfc3339(ms);
        }
        let time = jiff::Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()?;
        let offset = self.zone.to_offset(time);
        Some(time.display_with_offset(offset).to_string())
    }
}

fn field(cell: &Cell, layout: &ExportLayout) -> String {
    match cell {
        Cell::Text(Some(text)) if !layout.raw => neutral(text).into_owned(),
        Cell::Text(text) => text.clone().unwrap_or_default(),
        Cell::Whole(number) => number.map_or(String::new(), |number| number.to_string()),
        Cell::Number(number) => number.map_or(String::new(), |number| number.to_string()),
        Cell::Truth(truth) => truth.to_string(),
        Cell::Time(ms) => layout.time(*ms).unwrap_or_default(),
    }
}

fn json(cell: Cell, layout: &ExportLayout) -> Value {
    match cell {
        Cell::Text(text) => text.into(),
        Cell::Whole(number) => number.into(),
        Cell::Number(number) => number.into(),
        Cell::Truth(truth) => truth.into(),
        Cell::Time(ms) => layout.time(ms).into(),
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
