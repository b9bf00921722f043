//! `watershed judge`: gives the verdict on totals that were counted elsewhere, such as in a warehouse.

mod totals;

use super::output::Output;
use crate::admin::results::evaluator::{CountsSnapshot, Evaluator};
use crate::admin::results::schema::{ExperimentResult, MetricGroup};
use crate::admin::{View, experiment_result};
use crate::config;
use crate::config::plan::Plan;
use crate::server::ErrorWithHint;
use crate::store::phases::Placement;
use crate::store::running_minima::RunningMinima;
use crate::telemetry::Counted;
use anyhow::Context;
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// The arguments of `judge`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The totals, as CSV: a row for each group and metric
    #[arg(value_name = "TOTALS")]
    file: PathBuf,
    /// The routes file, which defines experiments and metrics
    #[arg(short, long, value_name = "FILE", default_value = "config/routes.yaml")]
    config: PathBuf,
    /// The first exposure, such as 2026-11-01T00:00:00Z, where the totals have no `first_exposure`
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<u64>,
    /// When the totals were counted [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<u64>,
}

/// Reads a time in RFC 3339, as Unix milliseconds.
fn time(text: &str) -> Result<u64, String> {
    totals::time(text).ok_or_else(|| "a time in RFC 3339, such as 2026-11-01T00:00:00Z".to_owned())
}

/// Prints the verdict on each experiment of the totals.
pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let plan = config::load(&arguments.config)?;
    let path = arguments.file.display();
    let text = std::fs::read(&arguments.file).with_context(|| format!("{path} cannot be read"))?;
    let counted = totals::read(&plan, &text, arguments.since);
    let counted = counted.map_err(|error| {
        ErrorWithHint::new(
            format!("{path}: {error}"),
            "docs/judge.md describes the columns",
        )
    })?;
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
    let at_ms = arguments.at.unwrap_or(now_ms);
    let mut judged = Vec::new();
    for (experiment, totals) in counted {
        for warning in &totals.warnings {
            eprintln!("warning: {}: {warning}", totals.experiment.name);
        }
        judged.push(judge(&plan, &experiment, totals, at_ms));
    }
    let document = serde_json::to_value(&judged)?;
    Ok(output.print(|| judged.iter().map(shown).collect(), || document)?)
}

/// The result for an experiment, as if watershed had counted it.
fn judge(
    plan: &Plan,
    name: &str,
    counted: totals::CountedElsewhere,
    at_ms: u64,
) -> ExperimentResult {
    let counts = CountsSnapshot {
        totals: counted.totals,
        hours: None,
        placement: Placement::first(name),
        counted: Counted::Wholly,
        at_ms,
    };
    let kept = RunningMinima::default();
    let evaluation = Evaluator::default().judge(plan, &counted.experiment, counts, &kept);
    experiment_result(plan, &evaluation, View::default())
}

/// The verdict and a table of each metric.
pub(super) fn shown(result: &ExperimentResult) -> String {
    let verdict = &result.verdict;
    let mut text = format!("{}\n{}: {}\n", result.name, verdict.state, verdict.reason);
    for metric in &result.metrics {
        let mut table = Table::new();
        table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─')));
        table.set_header(["group", "users", "rate", "lift", "interval", "p"]);
        for group in &metric.groups {
            table.add_row(row(group));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        text.push_str(&format!(
            "\n{} ({}, {})\n{table}\n",
            metric.name, metric.kind, metric.role
        ));
    }
    text.push('\n');
    text
}

fn row(group: &MetricGroup) -> [String; 6] {
    let number = |number: Option<f64>| number.map_or("-".to_owned(), |it| format!("{it:.4}"));
    let percent =
        |share: Option<f64>| share.map_or("-".to_owned(), |it| format!("{:+.1}%", 100.0 * it));
    let lift = group.lift.as_ref();
    let interval = lift.map(|lift| lift.relative_interval);
    let interval = interval.map_or("-".to_owned(), |(low, high)| {
        format!("{} to {}", percent(low), percent(high))
    });
    [
        group.name.clone(),
        group.users.to_string(),
        number(group.rate),
        percent(lift.and_then(|lift| lift.relative)),
        interval,
        number(group.p_value),
    ]
}
