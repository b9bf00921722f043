//! The exported tables: their columns, and their rows read from the store page by page.

use crate::admin::results::stats_input::units;
use crate::config::plan::Plan;
use crate::experiment::metric::Metric;
use crate::experiment::user_id::readable;
use crate::store::phases;
use crate::store::running_minima::RunningMinima;
use crate::store::{GroupTotals, HourTotals, MetricTotals, Store, StoreError, UserCursor};
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// A table that can be exported.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Table {
    /// One row per user: group, first exposure, crossover.
    Assignments,
    /// One row per user and metric with a value.
    Values,
    /// One row per hour, epoch and group: users and responses.
    Hours,
    /// One row per hour, epoch, group and metric.
    HourValues,
}

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CellKind {
    /// Text.
    Text,
    /// Whole numbers.
    Whole,
    /// Numbers.
    Number,
    /// True or false.
    Truth,
    /// Points in time.
    Time,
}

/// A field of a row; `None` if it is not known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    /// A cell of [`CellKind::Text`].
    Text(Option<String>),
    /// A cell of [`CellKind::Whole`].
    Whole(Option<i64>),
    /// A cell of [`CellKind::Number`].
    Number(Option<f64>),
    /// A cell of [`CellKind::Truth`].
    Truth(bool),
    /// A cell of [`CellKind::Time`], in Unix milliseconds.
    Time(u64),
}

/// A row: its fields in the order of the table's columns.
pub(crate) type ExportRow = Vec<Cell>;

impl Table {
    /// Returns the names and types of the columns.
    pub(crate) fn columns(
        self,
        names: ColumnNames,
    ) -> impl Iterator<Item = (&'static str, CellKind)> {
        let columns: &'static [(&str, CellKind)] = match self {
            Table::Assignments => &[
                ("experiment", CellKind::Text),
                ("user_id", CellKind::Text),
                ("variation_id", CellKind::Text),
                ("epoch", CellKind::Text),
                ("first_exposure", CellKind::Time),
                ("crossed_over", CellKind::Truth),
            ],
            Table::Values => &[
                ("experiment", CellKind::Text),
                ("user_id", CellKind::Text),
                ("variation_id", CellKind::Text),
                ("metric", CellKind::Text),
                ("count", CellKind::Whole),
                ("sum", CellKind::Number),
                ("base", CellKind::Whole),
            ],
            Table::Hours => &[
                ("experiment", CellKind::Text),
                ("hour", CellKind::Time),
                ("epoch", CellKind::Text),
                ("variation_id", CellKind::Text),
                ("users", CellKind::Whole),
                ("crossed_over", CellKind::Whole),
                ("requests", CellKind::Whole),
                ("fallbacks", CellKind::Whole),
                ("status_1xx", CellKind::Whole),
                ("status_2xx", CellKind::Whole),
                ("status_3xx", CellKind::Whole),
                ("status_4xx", CellKind::Whole),
                ("status_5xx", CellKind::Whole),
            ],
            Table::HourValues => &[
                ("experiment", CellKind::Text),
                ("hour", CellKind::Time),
                ("epoch", CellKind::Text),
                ("variation_id", CellKind::Text),
                ("metric", CellKind::Text),
                ("converted", CellKind::Whole),
                ("count", CellKind::Whole),
                ("sum", CellKind::Number),
                ("base", CellKind::Whole),
            ],
        };
        columns.iter().map(move |&column| names.of(column))
    }
}

/// How columns are named.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    clap::ValueEnum,
    serde::Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ColumnNames {
    /// As in version 0.1: `user` and `group`, which SQL reserves, and times as text in Parquet.
    V1,
    /// `user_id` and `variation_id`.
    #[default]
    V2,
}

impl ColumnNames {
    fn of(self, column: (&'static str, CellKind)) -> (&'static str, CellKind) {
        match (self, column) {
            (ColumnNames::V2, column) => column,
            (ColumnNames::V1, ("user_id", kind)) => ("user", kind),
            (ColumnNames::V1, ("variation_id", kind)) => ("group", kind),
            (ColumnNames::V1, (name, CellKind::Time)) => (name, CellKind::Text),
            (ColumnNames::V1, column) => column,
        }
    }
}

/// Reads the rows and sends them page by page until all are sent or the receiver is dropped.
pub(crate) async fn read(
    store: &dyn Store,
    plan: &Plan,
    experiment: &str,
    table: Table,
    pages: &mpsc::Sender<Result<Vec<ExportRow>, StoreError>>,
) {
    let rest = match table {
        Table::Assignments | Table::Values => match Units::of(store, plan, experiment).await {
            Ok(units) => users(store, &units, experiment, table, pages).await,
            Err(error) => Err(error),
        },
        Table::Hours | Table::HourValues => hours(store, plan, experiment, table).await,
    };
    match rest {
        Ok(rest) => {
            for page in rest {
                if pages.send(Ok(page)).await.is_err() {
                    return;
                }
            }
        }
        Err(error) => {
            // A dropped receiver does not need the error.
            let _ = pages.send(Err(error)).await;
        }
    }
}

async fn hours(
    store: &dyn Store,
    plan: &Plan,
    experiment: &str,
    table: Table,
) -> Result<Vec<Vec<ExportRow>>, StoreError> {
    let units = Units::of(store, plan, experiment).await?;
    let hours = store.hours(experiment).await?;
    let pages = hours.chunks(1000);
    let pages = pages.map(|hours| hours_of(&units, experiment, table, hours));
    Ok(pages.collect())
}

async fn users(
    store: &dyn Store,
    units: &Units,
    experiment: &str,
    table: Table,
    pages: &mpsc::Sender<Result<Vec<ExportRow>, StoreError>>,
) -> Result<Vec<Vec<ExportRow>>, StoreError> {
    let text = |text: &str| Cell::Text(Some(text.to_owned()));
    let mut place = Some(UserCursor::default());
    while let Some(from) = place {
        let (users, next) = store.users(experiment, from).await?;
        let mut rows = Vec::with_capacity(users.len());
        for (user, record) in users.into_iter().filter(|(_, record)| !record.seen_once) {
            let user = readable(&user);
            if table == Table::Assignments {
                rows.push(vec![
                    text(experiment),
                    Cell::Text(Some(user)),
                    Cell::Text(Some(record.group)),
                    Cell::Text(Some(record.epoch.to_string())),
                    Cell::Time(record.first_ms),
                    Cell::Truth(record.crossed_over),
                ]);
                continue;
            }
            for (metric, of) in record.metrics {
                let sum = Cell::Number(units.value(&metric, of.counted().into()));
                rows.push(vec![
                    text(experiment),
                    text(&user),
                    text(&record.group),
                    Cell::Text(Some(metric)),
                    Cell::Whole(Some(of.count as i64)),
                    sum,
                    Cell::Whole(Some(of.base)),
                ]);
            }
        }
        if pages.send(Ok(rows)).await.is_err() {
            break;
        }
        place = next;
    }
    Ok(Vec::new())
}

fn hours_of(units: &Units, experiment: &str, table: Table, hours: &[HourTotals]) -> Vec<ExportRow> {
    let whole = |number: u64| Cell::Whole(i64::try_from(number).ok());
    let text = |text: &str| Cell::Text(Some(text.to_owned()));
    let wide = |number: i128| Cell::Whole(i64::try_from(number).ok());
    let mut rows = Vec::new();
    for hour in hours {
        let key = [
            text(experiment),
            Cell::Time(hour.hour * 3_600_000),
            text(&hour.epoch.to_string()),
            text(&hour.group),
        ];
        let GroupTotals {
            users,
            crossed_over,
            requests,
            fallbacks,
            classes,
            ..
        } = hour.totals;
        if table == Table::Hours {
            let mut row = key.to_vec();
            row.extend([users, crossed_over, requests, fallbacks].map(whole));
            row.extend(classes.map(whole));
            rows.push(row);
            continue;
        }
        for (metric, totals) in &hour.totals.metrics {
            let MetricTotals {
                converted,
                count,
                sum,
                base,
                ..
            } = *totals;
            let mut row = key.to_vec();
            row.extend([
                Cell::Text(Some(metric.clone())),
                whole(converted),
                whole(count),
                Cell::Number(units.value(metric, sum)),
                wide(base),
            ]);
            rows.push(row);
        }
    }
    rows
}

/// How many units of a metric's sums make one: as its series was defined, or where that is not kept,
/// as the file defines it.
struct Units {
    kept: RunningMinima,
    planned: BTreeMap<String, f64>,
}

impl Units {
    async fn of(store: &dyn Store, plan: &Plan, experiment: &str) -> Result<Units, StoreError> {
        let of = |metric: &Metric| (metric.name.to_string(), units(metric));
        Ok(Units {
            kept: store.running_minima(experiment).await?,
            planned: plan.metrics.iter().map(of).collect(),
        })
    }

    /// `None` for a metric of which neither is known.
    fn value(&self, series: &str, sum: i128) -> Option<f64> {
        let kept = phases::scale(&self.kept, series).map(|scale| 10f64.powi(scale.into()));
        let units = kept.or_else(|| self.planned.get(series).copied())?;
        Some(sum as f64 / units)
    }
}
