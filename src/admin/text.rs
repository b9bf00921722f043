//! The results as a table for a terminal, and as CSV.

use super::bars::{Paint, bars};
use super::metric::ONCE;
use super::said;
use super::shape::{ExperimentResult, MetricGroup, MetricResult, Results};
use comfy_table::{CellAlignment, Table, presets};

/// The results as text for a terminal; with bars where it is said how they are painted.
pub fn table(results: &Results, paint: Option<Paint>) -> String {
    let mut text = String::new();
    for experiment in &results.experiments {
        one(&mut text, experiment, results.view.is_some(), paint);
    }
    if results.experiments.is_empty() {
        text.push_str("No experiment is defined.\n");
    }
    let store = &results.store;
    if !store.healthy || store.dropped_events > 0 || store.damaged_events > 0 {
        text.push_str(&format!(
            "Careful: store healthy: {}, dropped events: {}, damaged events: {}\n",
            store.healthy, store.dropped_events, store.damaged_events
        ));
    }
    if results.disagreeing() > 0 {
        text.push_str(&format!(
            "Careful: {} of {} replicas serve other definitions than this one: give all the same routes file\n",
            results.disagreeing(),
            results.replicas.len()
        ));
    }
    text
}

fn one(text: &mut String, experiment: &ExperimentResult, fixed: bool, paint: Option<Paint>) {
    let verdict = &experiment.verdict;
    text.push_str(&format!(
        "{} ({})\n{}: {}\n",
        experiment.name,
        experiment.status,
        paint.unwrap_or(Paint::Plain).state(verdict.state),
        verdict.reason
    ));
    for alarm in said::alarms(experiment) {
        let careful = format!("Careful: {alarm}");
        text.push_str(&paint.unwrap_or(Paint::Plain).paint("bad", &careful));
        text.push('\n');
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    let mut head = vec!["group", "users", "requests", "p95 ms"]
        .into_iter()
        .map(str::to_owned)
        .collect::<Vec<_>>();
    for metric in &experiment.metrics {
        head.extend([
            metric.name.clone(),
            format!("{} lift (95 %, any look)", metric.name),
        ]);
        if fixed {
            head.push(format!("{} lift (95 %, {ONCE})", metric.name));
        }
    }
    table.set_header(head);
    for (place, group) in experiment.groups.iter().enumerate() {
        let p95 = group
            .latency_ms
            .p95
            .map_or("-".to_owned(), |ms| format!("{ms:.1}"));
        let mut row = vec![
            group.name.clone(),
            group.users.to_string(),
            group.requests.to_string(),
            p95,
        ];
        for metric in &experiment.metrics {
            row.extend([
                rate(metric, &metric.groups[place]),
                lift(&metric.groups[place]),
            ]);
            if fixed {
                row.push(said::fixed(metric.groups[place].fixed.as_ref()));
            }
        }
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    text.push_str(&format!("{table}\n"));
    if let Some(paint) = paint {
        text.push_str(&bars(&experiment.metrics, paint));
    }
    for guardrail in &experiment.guardrails {
        let groups: Vec<String> = guardrail.groups.iter().map(said::harm).collect();
        text.push_str(&format!(
            "guardrail {}: {}\n",
            said::bound(guardrail),
            groups.join("; ")
        ));
    }
    if let Some(planning) = &experiment.planning {
        text.push_str(&format!("{}\n", said::planning(planning)));
    }
    if experiment.crossed_over > 0 {
        text.push_str(&format!(
            "{} users crossed over to another group\n",
            experiment.crossed_over
        ));
    }
    text.push('\n');
}

/// A group's rate as people read it.
pub fn rate(metric: &MetricResult, group: &MetricGroup) -> String {
    group
        .rate
        .map_or("-".to_owned(), |rate| amount(metric, rate))
}

/// A rate of a metric as people read it.
pub fn amount(metric: &MetricResult, rate: f64) -> String {
    match metric.kind {
        "conversion" => format!("{:.2} %", 100.0 * rate),
        _ => format!("{rate:.3}"),
    }
}

/// A group's lift and its interval as people read them.
pub fn lift(group: &MetricGroup) -> String {
    let Some(lift) = &group.lift else {
        return "-".to_owned();
    };
    let end = |end: Option<f64>, unbounded: &str| {
        end.map_or(unbounded.to_owned(), |end| format!("{:+.1} %", 100.0 * end))
    };
    match (lift.relative, lift.relative_interval) {
        (None, (None, None)) => "-".to_owned(),
        (relative, (low, high)) => format!(
            "{} [{}, {}]",
            end(relative, "?"),
            end(low, "-100 %"),
            end(high, "∞")
        ),
    }
}

/// The results as CSV: one line for each group and metric.
pub fn csv(results: &Results) -> String {
    let mut text = String::from(
        "experiment,status,group,role,weight,users,requests,metric,kind,converted,count,sum,rate,interval_low,interval_high,lift,lift_low,lift_high,p_value\n",
    );
    for experiment in &results.experiments {
        for (place, group) in experiment.groups.iter().enumerate() {
            // Names are letters, digits and `_.-`: nothing needs quoting.
            let common = [
                experiment.name.clone(),
                experiment.status.to_owned(),
                group.name.clone(),
                group.role.to_owned(),
                number(group.weight),
                group.users.to_string(),
                group.requests.to_string(),
            ]
            .join(",");
            for metric in &experiment.metrics {
                let of = &metric.groups[place];
                let lift = of.lift.as_ref();
                let (low, high) = of.interval.unzip();
                let (lift_low, lift_high) =
                    lift.map_or((None, None), |lift| lift.relative_interval);
                let numbers = [
                    of.rate,
                    low,
                    high,
                    lift.and_then(|lift| lift.relative),
                    lift_low,
                    lift_high,
                    of.p_value,
                ];
                let numbers = numbers.map(number).join(",");
                text.push_str(&format!(
                    "{common},{},{},{},{},{},{numbers}\n",
                    metric.name, metric.kind, of.converted, of.count, of.sum
                ));
            }
            if experiment.metrics.is_empty() {
                text.push_str(&format!("{common}{}\n", ",".repeat(12)));
            }
        }
    }
    text
}

fn number(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| value.to_string())
}
