//! The results as tables for a terminal. PURE.

use crate::admin::format;
use crate::admin::format::thousands;
use crate::admin::results::schema::{ExperimentResult, Results};
use crate::admin::view::advice;
use crate::admin::view::bars::{Paint, bars};
use crate::admin::view::lifecycle;
use crate::admin::view::metric_values::{lift, rate};
use crate::admin::view::mirror;
use crate::admin::view::narrative;
use crate::admin::view::planning_text;
use crate::admin::view::segments;
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

/// Returns the results as text for a terminal, with bars if `paint` is given.
pub(crate) fn table(results: &Results, paint: Option<Paint>) -> String {
    let mut text = String::new();
    let painted = paint.unwrap_or(Paint::Plain);
    let warn = |text: &mut String, problem: &str| {
        text.push_str(&painted.paint("bad", &format!("Warning: {problem}")));
        text.push('\n');
    };
    for problem in narrative::process_problems(results) {
        warn(&mut text, &problem);
    }
    for experiment in &results.experiments {
        let verdict = &experiment.verdict;
        text.push_str(&format!("{} ({})\n", experiment.name, experiment.status));
        for (label, about) in lifecycle::about(experiment) {
            text.push_str(&format!("{label}: {about}\n"));
        }
        let decided = narrative::decided(experiment);
        if let Some(decided) = &decided {
            text.push_str(&format!("Decided: {decided}\n"));
        }
        let state = match (verdict.state, decided) {
            // What a decision says is no verdict.
            ("collecting", Some(_)) => "no verdict".to_owned(),
            _ => narrative::state(experiment),
        };
        text.push_str(&format!(
            "{}: {}\n",
            painted.verdict(verdict.state, &state),
            verdict.reason
        ));
        for alarm in narrative::alarms(experiment) {
            warn(&mut text, &alarm);
        }
        let advice = advice::advice(experiment);
        text.push_str(&format!("What to do now: {advice}\n\n"));
        numbers(&mut text, experiment, results.view.is_some(), paint);
    }
    if results.experiments.is_empty() {
        text.push_str("No experiment is defined.\n");
    }
    text
}

fn numbers(text: &mut String, experiment: &ExperimentResult, fixed: bool, paint: Option<Paint>) {
    let mut groups = plain(&[
        "group",
        "users",
        "requests",
        "errors (5xx)",
        "p50",
        "p95",
        "p99",
    ]);
    for group in &experiment.groups {
        let failed = group.responses.get("5xx").copied().unwrap_or(0);
        let latency = &group.latency_ms;
        groups.add_row([
            experiment.shown(&group.name).to_owned(),
            thousands(group.users),
            thousands(group.requests),
            format::part(failed, group.requests),
            format::latency(latency.p50),
            format::latency(latency.p95),
            format::latency(latency.p99),
        ]);
    }
    text.push_str(&format!("{}\n", finished(groups, 1)));
    for note in narrative::past(experiment) {
        text.push_str(&format!("{note}\n"));
    }
    if !experiment.metrics.is_empty() {
        let metrics = metrics(experiment, fixed);
        text.push_str(&format!("\n{}\n", finished(metrics, 2)));
    }
    for note in experiment.metrics.iter().flat_map(narrative::notes) {
        text.push_str(&format!("{note}\n"));
    }
    if let Some(paint) = paint {
        let bars = bars(&experiment.metrics, paint);
        if !bars.is_empty() {
            text.push_str(&format!("\n{bars}"));
        }
    }
    text.push_str(&(by_segment(experiment) + &mirrored(experiment)));
    for guardrail in &experiment.guardrails {
        let groups = guardrail.groups.iter();
        let groups: Vec<String> = groups
            .map(|group| narrative::harm(experiment, group))
            .collect();
        text.push_str(&format!(
            "guardrail {}: {}\n",
            narrative::bound(guardrail),
            groups.join("; ")
        ));
    }
    if let Some(planning) = planning_text::planning(experiment) {
        text.push_str(&format!("{planning}\n"));
    }
    if experiment.crossed_over > 0 {
        text.push_str(&format!(
            "{} users were exposed to more than one group (crossovers)\n",
            experiment.crossed_over
        ));
    }
    if experiment.seen_once > 0 || !experiment.not_counted.is_empty() {
        let who = narrative::not_counted(experiment);
        text.push_str(&format!("not counted: {who}\n"));
    }
    if experiment.shared_devices > 0 {
        text.push_str(&format!("{}\n", narrative::shared_devices(experiment)));
    }
    text.push('\n');
}

/// Returns a table with a row per metric and group, so that it fits a terminal.
fn metrics(experiment: &ExperimentResult, fixed: bool) -> Table {
    let mut head = vec!["metric", "group", "rate", "lift (95 % CI, always valid)"];
    if fixed {
        head.push("lift (95 % CI, fixed horizon)");
    }
    let mut table = plain(&head);
    for metric in &experiment.metrics {
        for (place, group) in metric.groups.iter().enumerate() {
            let name = if place == 0 { &*metric.name } else { "" };
            let mut row = vec![
                name.to_owned(),
                experiment.shown(&group.name).to_owned(),
                rate(metric, group),
                lift(group),
            ];
            if fixed {
                row.push(narrative::fixed(group.fixed.as_ref()));
            }
            table.add_row(row);
        }
    }
    table
}

/// What mirroring has found; empty without a mirror.
fn mirrored(experiment: &ExperimentResult) -> String {
    let Some(mirror) = &experiment.mirror else {
        return String::new();
    };
    let mut text = "\n".to_owned();
    for sentence in mirror::sentences(mirror) {
        text.push_str(&format!("{sentence}\n"));
    }
    let rows = mirror::rows(mirror);
    if rows.is_empty() {
        return text;
    }
    let mut table = plain(&["path", "compared", "differing", "example"]);
    for row in rows {
        table.add_row([row.path, row.compared, row.differing, row.example]);
    }
    format!("{text}{}\n", finished(table, 4))
}

/// The results by segment; empty without segments.
fn by_segment(experiment: &ExperimentResult) -> String {
    let rows = segments::rows(experiment);
    if rows.is_empty() {
        return String::new();
    }
    let mut table = plain(&["segment", "metric", "group", "users", "rate", "lift"]);
    for row in rows {
        table.add_row([
            row.segment,
            row.metric,
            row.group,
            row.users,
            row.rate,
            row.lift,
        ]);
    }
    let mut text = format!("\n{}\n{}\n", segments::NOTE, finished(table, 3));
    for remark in segments::remarks(experiment) {
        text.push_str(&format!("{remark}\n"));
    }
    text
}

fn plain(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')));
    table.set_header(head.iter().copied());
    table
}

/// Right-aligns the columns from `numbers_from` on.
fn finished(mut table: Table, numbers_from: usize) -> String {
    for column in table.column_iter_mut().skip(numbers_from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}
