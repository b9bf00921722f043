//! The tables of the archive and their columns. No name is reserved in SQL.

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use std::sync::Arc;

/// Decimal places of values, as many as a metric may keep.
pub(super) const VALUE_SCALE: u8 = 6;
/// Decimal digits of values.
pub(super) const VALUE_PRECISION: u8 = 38;

/// A table of records. Definitions have a place of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RecordTable {
    /// One row for each response and each experiment that the user took part in.
    Exposures,
    /// One row for each event, whatever the number of experiments.
    Events,
    /// One row where a minted ID came with a known one, or came back.
    Identities,
}

/// The folder of definitions.
pub(super) const DEFINITIONS: &str = "definitions";

impl RecordTable {
    /// All of them. Identities are last: they tell which rows of the others are one user's.
    pub(super) const ALL: [RecordTable; 3] = [
        RecordTable::Exposures,
        RecordTable::Events,
        RecordTable::Identities,
    ];

    /// Returns the name of the table and its folder.
    pub(super) fn name(self) -> &'static str {
        match self {
            RecordTable::Exposures => "exposures",
            RecordTable::Events => "events",
            RecordTable::Identities => "identities",
        }
    }

    /// Returns the columns.
    pub(super) fn schema(self) -> SchemaRef {
        let columns = match self {
            RecordTable::Exposures => vec![
                needed("ts", timestamp()),
                optional("user_id", DataType::Utf8),
                needed("experiment_id", DataType::Utf8),
                needed("variation_id", DataType::Utf8),
                needed("phase", DataType::Int32),
                needed("served", DataType::Utf8),
                optional("not_counted", DataType::Utf8),
                needed("status", DataType::Int32),
                needed("latency_us", DataType::Int64),
                needed("segments", DataType::Utf8),
                needed("epoch", DataType::Utf8),
            ],
            RecordTable::Events => vec![
                needed("ts", timestamp()),
                needed("reported_ts", timestamp()),
                needed("user_id", DataType::Utf8),
                needed("event", DataType::Utf8),
                optional("value", value()),
                needed("n", DataType::Int64),
                needed("base", DataType::Int64),
                needed("event_id", DataType::Utf8),
                needed("status", DataType::Int32),
                needed("latency_us", DataType::Int64),
                needed("ordinal", DataType::Int32),
            ],
            RecordTable::Identities => vec![
                needed("ts", timestamp()),
                needed("user_id", DataType::Utf8),
                optional("minted_id", DataType::Utf8),
            ],
        };
        let of_every_record = [
            needed("is_new", DataType::Boolean),
            optional("unit", DataType::Utf8),
            needed("declaration", DataType::Utf8),
            needed("journal", DataType::Utf8),
            needed("seq", DataType::Int64),
        ];
        let columns = columns.into_iter().chain(of_every_record);
        Arc::new(Schema::new(columns.collect::<Vec<_>>()))
    }

    /// Returns the column with the time of the record: users are forgotten up to a time.
    pub(super) fn recorded_at(self) -> &'static str {
        match self {
            RecordTable::Events => "reported_ts",
            RecordTable::Exposures | RecordTable::Identities => "ts",
        }
    }

    /// Returns the columns with IDs of users.
    pub(super) fn ids(self) -> &'static [&'static str] {
        match self {
            RecordTable::Exposures | RecordTable::Events => &["user_id"],
            RecordTable::Identities => &["user_id", "minted_id"],
        }
    }
}

/// Returns the columns of definitions: a row for each experiment and group (`kind` is `variation`), and for each
/// experiment and metric (`metric`).
pub(super) fn definitions() -> SchemaRef {
    Arc::new(Schema::new(vec![
        needed("declaration", DataType::Utf8),
        needed("kind", DataType::Utf8),
        needed("ts", timestamp()),
        optional("experiment_id", DataType::Utf8),
        optional("experiment_index", DataType::Int32),
        optional("phase", DataType::Int32),
        optional("epoch", DataType::Utf8),
        optional("traffic", DataType::Float64),
        optional("salt", DataType::Utf8),
        optional("unit", DataType::Utf8),
        optional("running", DataType::Boolean),
        optional("variation_id", DataType::Utf8),
        optional("variation_index", DataType::Int32),
        optional("weight", DataType::Float64),
        optional("upstream", DataType::Utf8),
        optional("event", DataType::Utf8),
        optional("event_index", DataType::Int32),
        optional("metric_kind", DataType::Utf8),
        optional("goal", DataType::Utf8),
        optional("value_scale", DataType::Int32),
        optional("within_ms", DataType::Int64),
        optional("cap", value()),
        optional("covariate_ms", DataType::Int64),
        optional("definition", DataType::Utf8),
        needed("journal", DataType::Utf8),
        needed("seq", DataType::Int64),
    ]))
}

fn needed(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, false)
}

fn optional(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, true)
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn value() -> DataType {
    DataType::Decimal128(VALUE_PRECISION, VALUE_SCALE as i8)
}
