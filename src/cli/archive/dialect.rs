//! The views of the archive in the dialects of databases. The views are the same in all of them; tables and functions of
//! time differ.

use crate::config::plan::{ArchiveTarget, BucketPath};
use anyhow::Context;
use std::path::Path;

/// The views, with `{ms COLUMN}` for the Unix milliseconds of a time, and `{double}` for a type.
const VIEWS: &str = include_str!("views.sql");

/// Tables and their columns: name and type, as in the standard.
const TABLES: [(&str, &[(&str, ColumnType)]); 4] = {
    use ColumnType::{Decimal, Double, Integer, Long, Text, Time, Truth};
    [
        (
            "exposures",
            &[
                ("ts", Time),
                ("user_id", Text),
                ("experiment_id", Text),
                ("variation_id", Text),
                ("phase", Integer),
                ("served", Text),
                ("not_counted", Text),
                ("status", Integer),
                ("latency_us", Long),
                ("segments", Text),
                ("epoch", Text),
                ("is_new", Truth),
                ("unit", Text),
                ("declaration", Text),
                ("journal", Text),
                ("seq", Long),
            ],
        ),
        (
            "events",
            &[
                ("ts", Time),
                ("reported_ts", Time),
                ("user_id", Text),
                ("event", Text),
                ("value", Decimal),
                ("n", Long),
                ("base", Long),
                ("event_id", Text),
                ("status", Integer),
                ("latency_us", Long),
                ("ordinal", Integer),
                ("is_new", Truth),
                ("unit", Text),
                ("declaration", Text),
                ("journal", Text),
                ("seq", Long),
            ],
        ),
        (
            "identities",
            &[
                ("ts", Time),
                ("user_id", Text),
                ("minted_id", Text),
                ("is_new", Truth),
                ("unit", Text),
                ("declaration", Text),
                ("journal", Text),
                ("seq", Long),
            ],
        ),
        (
            "definitions",
            &[
                ("declaration", Text),
                ("kind", Text),
                ("ts", Time),
                ("experiment_id", Text),
                ("experiment_index", Integer),
                ("phase", Integer),
                ("epoch", Text),
                ("traffic", Double),
                ("salt", Text),
                ("unit", Text),
                ("running", Truth),
                ("variation_id", Text),
                ("variation_index", Integer),
                ("weight", Double),
                ("upstream", Text),
                ("event", Text),
                ("event_index", Integer),
                ("metric_kind", Text),
                ("goal", Text),
                ("value_scale", Integer),
                ("within_ms", Long),
                ("cap", Decimal),
                ("covariate_ms", Long),
                ("definition", Text),
                ("journal", Text),
                ("seq", Long),
            ],
        ),
    ]
};

/// The type of a column.
#[derive(Clone, Copy, Debug)]
enum ColumnType {
    Time,
    Text,
    Integer,
    Long,
    Decimal,
    Double,
    Truth,
}

/// A database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Dialect {
    /// DuckDB.
    Duckdb,
    /// ClickHouse, also in its embedded form chDB.
    Clickhouse,
    /// BigQuery.
    Bigquery,
    /// Snowflake.
    Snowflake,
    /// PostgreSQL: tables, which you load.
    Postgres,
}

impl Dialect {
    /// Returns the statements for an archive.
    pub(super) fn sql(self, archive: &ArchiveTarget) -> anyhow::Result<String> {
        let mut sql = format!(
            "-- The archive {archive}, as `watershed archive sql` of {} knows it.\n",
            env!("CARGO_PKG_VERSION")
        );
        sql.push_str(&self.setup(archive)?);
        for (table, columns) in TABLES {
            sql.push_str(&self.table(archive, table, columns)?);
        }
        sql.push_str(&self.views());
        Ok(sql)
    }

    /// What comes before the tables.
    fn setup(self, archive: &ArchiveTarget) -> anyhow::Result<String> {
        Ok(match (self, archive) {
            (Dialect::Duckdb, ArchiveTarget::S3(_) | ArchiveTarget::GoogleCloud(_)) => {
                "INSTALL httpfs;\nLOAD httpfs;\n".to_owned()
            }
            (Dialect::Duckdb, ArchiveTarget::Azure(_)) => {
                "INSTALL azure;\nLOAD azure;\n".to_owned()
            }
            (Dialect::Snowflake, _) => format!(
                "-- Make the stage once, with your storage integration:\n-- CREATE STAGE watershed_stage URL = '{}' STORAGE_INTEGRATION = …;\n",
                url(archive)?.replacen("gs://", "gcs://", 1).replacen("az://", "azure://ACCOUNT.blob.core.windows.net/", 1)
            ),
            (Dialect::Postgres, _) => {
                "-- Load each table from its files, for example with pg_parquet:\n-- COPY watershed_exposures FROM '…/exposures/dt=2026-11-30/hour=03/….parquet' WITH (format 'parquet');\n".to_owned()
            }
            _ => String::new(),
        })
    }

    fn table(
        self,
        archive: &ArchiveTarget,
        table: &str,
        columns: &[(&str, ColumnType)],
    ) -> anyhow::Result<String> {
        let is_partitioned = table != "definitions";
        let files = match is_partitioned {
            true => format!("{table}/*/*/*.parquet"),
            false => format!("{table}/*.parquet"),
        };
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        let names = names.join(", ");
        Ok(match self {
            Dialect::Duckdb => format!(
                "CREATE OR REPLACE VIEW watershed_{table} AS\nSELECT {names}{}\nFROM read_parquet({}, hive_partitioning = true);\n",
                if is_partitioned { ", dt, hour" } else { "" },
                text(&format!("{}/{files}", url(archive)?)),
            ),
            Dialect::Clickhouse => format!(
                "CREATE OR REPLACE VIEW watershed_{table} AS\nSELECT {names}\nFROM {};\n",
                clickhouse_source(archive, &files)?
            ),
            Dialect::Bigquery => self.bigquery_table(archive, table, is_partitioned)?,
            Dialect::Snowflake => {
                let each = columns.iter().map(|(name, kind)| {
                    let kind = self.type_of(*kind);
                    format!("  {name} {kind} AS (VALUE:{name}::{kind})")
                });
                format!(
                    "CREATE OR REPLACE EXTERNAL TABLE watershed_{table} (\n{}\n)\nLOCATION = @watershed_stage/{table}/\nFILE_FORMAT = (TYPE = PARQUET);\n",
                    each.collect::<Vec<_>>().join(",\n")
                )
            }
            Dialect::Postgres => {
                let each = columns
                    .iter()
                    .map(|(name, kind)| format!("  {name} {}", self.type_of(*kind)));
                format!(
                    "CREATE TABLE IF NOT EXISTS watershed_{table} (\n{}\n);\n",
                    each.collect::<Vec<_>>().join(",\n")
                )
            }
        })
    }

    fn bigquery_table(
        self,
        archive: &ArchiveTarget,
        table: &str,
        is_partitioned: bool,
    ) -> anyhow::Result<String> {
        let place = url(archive)?;
        let partitions = match is_partitioned {
            true => "WITH PARTITION COLUMNS (dt DATE, hour STRING)\n",
            false => "",
        };
        let prefix = match is_partitioned {
            true => format!(", hive_partition_uri_prefix = '{place}/{table}'"),
            false => String::new(),
        };
        Ok(format!(
            "CREATE OR REPLACE EXTERNAL TABLE watershed_{table}\n{partitions}OPTIONS (format = 'PARQUET', uris = ['{place}/{table}/*']{prefix});\n"
        ))
    }

    fn type_of(self, kind: ColumnType) -> &'static str {
        match (kind, self) {
            (ColumnType::Time, Dialect::Snowflake) => "TIMESTAMP_TZ",
            (ColumnType::Time, _) => "TIMESTAMP WITH TIME ZONE",
            (ColumnType::Text, _) => "VARCHAR",
            (ColumnType::Integer, _) => "INTEGER",
            (ColumnType::Long, _) => "BIGINT",
            (ColumnType::Decimal, _) => "DECIMAL(38, 6)",
            (ColumnType::Double, Dialect::Bigquery) => "FLOAT64",
            (ColumnType::Double, _) => "DOUBLE PRECISION",
            (ColumnType::Truth, _) => "BOOLEAN",
        }
    }

    /// The views, with the functions of this database.
    fn views(self) -> String {
        let mut sql = String::new();
        let mut rest = VIEWS;
        while let Some((before, after)) = rest.split_once('{') {
            let (what, after) = after.split_once('}').unwrap_or((after, ""));
            sql.push_str(before);
            match what.strip_prefix("ms ") {
                Some(time) => sql.push_str(&self.ms(time)),
                None => sql.push_str(self.type_of(ColumnType::Double)),
            }
            rest = after;
        }
        sql.push_str(rest);
        sql
    }

    /// The Unix milliseconds of a time.
    fn ms(self, time: &str) -> String {
        match self {
            Dialect::Duckdb => format!("epoch_ms({time})"),
            Dialect::Clickhouse => format!("toUnixTimestamp64Milli({time})"),
            Dialect::Bigquery => format!("UNIX_MILLIS({time})"),
            Dialect::Snowflake => format!("DATE_PART(EPOCH_MILLISECOND, {time})"),
            Dialect::Postgres => format!("CAST(EXTRACT(EPOCH FROM {time}) * 1000 AS BIGINT)"),
        }
    }
}

/// The address of an archive; that of a directory is its whole path.
fn url(archive: &ArchiveTarget) -> anyhow::Result<String> {
    match archive {
        ArchiveTarget::Folder(path) => absolute(path),
        bucket => Ok(bucket.to_string()),
    }
}

fn absolute(path: &Path) -> anyhow::Result<String> {
    let path = std::path::absolute(path)?;
    let text = path
        .to_str()
        .context("the path of the archive is no text")?;
    Ok(text.to_owned())
}

fn clickhouse_source(archive: &ArchiveTarget, files: &str) -> anyhow::Result<String> {
    let within = |BucketPath { prefix, .. }: &BucketPath| match prefix.is_empty() {
        true => files.to_owned(),
        false => format!("{prefix}/{files}"),
    };
    Ok(match archive {
        ArchiveTarget::Folder(path) => {
            let place = format!("{}/{files}", absolute(path)?);
            format!("file({}, 'Parquet')", text(&place))
        }
        ArchiveTarget::S3(place) => {
            let address = format!(
                "https://{}.s3.amazonaws.com/{}",
                place.bucket,
                within(place)
            );
            format!("s3({}, 'Parquet')", text(&address))
        }
        ArchiveTarget::GoogleCloud(place) => {
            let address = format!(
                "https://storage.googleapis.com/{}/{}",
                place.bucket,
                within(place)
            );
            format!("gcs({}, 'Parquet')", text(&address))
        }
        ArchiveTarget::Azure(place) => format!(
            "azureBlobStorage(watershed_azure, container = {}, blob_path = {}, format = 'Parquet')",
            text(&place.bucket),
            text(&within(place))
        ),
    })
}

/// A text in SQL.
fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
