//! What is exported: four tables, row by row, read from the store page by page.

use crate::admin::format::rfc3339;
use crate::admin::results::stats_input::units;
use crate::config::plan::Plan;
use crate::experiment::metric::Metric;
use crate::store::{GroupTotals, HourTotals, MetricTotals, Store, StoreError, UserCursor};
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// What can be exported of an experiment.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Table {
    /// One row for each user: group, first exposure, crossed over.
    Assignments,
    /// One row for each user and metric that the user has a value of.
    Values,
    /// One row for each hour, epoch and group: users and answers.
    Hours,
    /// One row for each hour, epoch, group and metric.
    HourValues,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellKind {
    /// Text.
    Text,
    /// Whole numbers.
    Whole,
    /// Numbers.
    Number,
    /// True or false.
    Truth,
}

/// One field of a row; `None` where it is not known.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Of [`CellKind::Text`].
    Text(Option<String>),
    /// Of [`CellKind::Whole`].
    Whole(Option<i64>),
    /// Of [`CellKind::Number`].
    Number(Option<f64>),
    /// Of [`CellKind::Truth`].
    Truth(bool),
}

/// Fields in the order of the table's columns.
pub type ExportRow = Vec<Cell>;

impl Table {
    /// The names and kinds of the columns.
    pub fn columns(self) -> &'static [(&'static str, CellKind)] {
        match self {
            Table::Assignments => &[
                ("experiment", CellKind::Text),
                ("user", CellKind::Text),
                ("group", CellKind::Text),
                ("epoch", CellKind::Text),
                ("first_exposure", CellKind::Text),
                ("crossed_over", CellKind::Truth),
            ],
            Table::Values => &[
                ("experiment", CellKind::Text),
                ("user", CellKind::Text),
                ("group", CellKind::Text),
                ("metric", CellKind::Text),
                ("count", CellKind::Whole),
                ("sum", CellKind::Number),
                ("base", CellKind::Whole),
            ],
            Table::Hours => &[
                ("experiment", CellKind::Text),
                ("hour", CellKind::Text),
                ("epoch", CellKind::Text),
                ("group", CellKind::Text),
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
                ("hour", CellKind::Text),
                ("epoch", CellKind::Text),
                ("group", CellKind::Text),
                ("metric", CellKind::Text),
                ("converted", CellKind::Whole),
                ("count", CellKind::Whole),
                ("sum", CellKind::Number),
                ("base", CellKind::Whole),
            ],
        }
    }
}

/// Reads the rows and sends them page by page until all are sent or nobody receives any more.
pub async fn read(
    store: &dyn Store,
    plan: &Plan,
    experiment: &str,
    table: Table,
    pages: &mpsc::Sender<Result<Vec<ExportRow>, StoreError>>,
) {
    let told = match table {
        Table::Assignments | Table::Values => {
            users(store, &Units::of(plan), experiment, table, pages).await
        }
        Table::Hours | Table::HourValues => store.hours(experiment).await.map(|hours| {
            let units = Units::of(plan);
            hours
                .chunks(1000)
                .map(|hours| hours_of(&units, experiment, table, hours))
                .collect::<Vec<_>>()
        }),
    };
    match told {
        Ok(all) => {
            for page in all {
                if pages.send(Ok(page)).await.is_err() {
                    return;
                }
            }
        }
        Err(error) => {
            // Whoever does not receive any more does not miss it.
            let _ = pages.send(Err(error)).await;
        }
    }
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
        for (user, record) in users {
            let user = readable(&user);
            if table == Table::Assignments {
                rows.push(vec![
                    text(experiment),
                    Cell::Text(Some(user)),
                    Cell::Text(Some(record.group)),
                    Cell::Text(Some(record.epoch.to_string())),
                    Cell::Text(rfc3339(record.first_ms)),
                    Cell::Truth(record.crossed_over),
                ]);
                continue;
            }
            for (metric, (count, sum, base)) in record.metrics {
                let sum = Cell::Number(units.value(&metric, sum.into()));
                rows.push(vec![
                    text(experiment),
                    text(&user),
                    text(&record.group),
                    Cell::Text(Some(metric)),
                    Cell::Whole(Some(count as i64)),
                    sum,
                    Cell::Whole(Some(base)),
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
    let wide = |number: i128| Cell::Whole(i64::try_from(number).ok());
    let mut rows = Vec::new();
    for hour in hours {
        let key = [
            Some(experiment.to_owned()),
            rfc3339(hour.hour * 3_600_000),
            Some(hour.epoch.to_string()),
            Some(hour.group.clone()),
        ]
        .map(Cell::Text);
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

/// How many units of a metric's sums make one.
struct Units(BTreeMap<String, f64>);

impl Units {
    fn of(plan: &Plan) -> Units {
        let of = |metric: &Metric| (metric.name.to_string(), units(metric));
        Units(plan.metrics.iter().map(of).collect())
    }

    /// `None` for a metric that is no longer in the file: how it was scaled is not known.
    fn value(&self, metric: &str, sum: i128) -> Option<f64> {
        Some(sum as f64 / self.0.get(metric)?)
    }
}

/// An ID as text: bytes that are no UTF-8 stand as `\xff`, and a backslash as two.
pub fn readable(user: &[u8]) -> String {
    let mut text = String::with_capacity(user.len());
    for chunk in user.utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', "\\\\"));
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}
