//! Tables below the results of an experiment: guardrails, stages and settings. PURE.

use crate::admin::format::{self, change, share, thousands};
use crate::admin::results::schema::{ExperimentResult, GuardrailGroup, GuardrailResult};
use serde_json::Value;

/// One guardrail in one group.
#[derive(Debug, PartialEq)]
pub(crate) struct GuardrailRow {
    /// The guardrail.
    pub name: String,
    /// The group as people read it.
    pub group: String,
    /// The share of users with it.
    pub rate: String,
    /// The relative increase over control.
    pub increase: String,
    /// The largest increase that is tolerated.
    pub limit: String,
    /// The p-value of an increase above the limit, and the level that proves it.
    pub p: String,
    /// What follows.
    pub state: &'static str,
    /// Whether that is good or bad.
    pub class: &'static str,
}

/// A row for each guardrail and group.
pub(crate) fn guardrails(experiment: &ExperimentResult) -> Vec<GuardrailRow> {
    let all = experiment.guardrails.iter();
    let rows = all.flat_map(|guardrail| {
        let groups = guardrail.groups.iter();
        groups.map(move |group| guardrail_row(experiment, guardrail, group))
    });
    rows.collect()
}

fn guardrail_row(
    experiment: &ExperimentResult,
    guardrail: &GuardrailResult,
    group: &GuardrailGroup,
) -> GuardrailRow {
    let (state, class) = match (group.dead, group.breached) {
        (Some(true), _) => ("harm: more than half of the users", "bad"),
        (_, Some(true)) => ("harm proven", "bad"),
        (_, Some(false)) if group.increase.is_some_and(|it| it > guardrail.max_increase) => {
            ("above the limit, not proven", "wait")
        }
        (_, Some(false)) => ("no harm shown", ""),
        (_, None) => ("", ""),
    };
    let is_compared = group.breached.is_some();
    let over = guardrail
        .over_ms
        .map_or(String::new(), |ms| format!(" over {ms} ms"));
    GuardrailRow {
        name: format!("{}{over}", guardrail.name),
        group: experiment.shown(&group.name).to_owned(),
        rate: match group.rate {
            Some(rate) => format!(
                "{:.2} % ({} of {})",
                100.0 * rate,
                thousands(group.harmed),
                thousands(group.users)
            ),
            None => "–".to_owned(),
        },
        increase: match group.increase.filter(|_| is_compared) {
            Some(increase) => change(increase),
            None => "–".to_owned(),
        },
        limit: match is_compared {
            true => format!("+{}", share(guardrail.max_increase)),
            false => String::new(),
        },
        p: match group.p_value.filter(|_| is_compared) {
            Some(p) => format!(
                "{} of {}",
                format::p_value(p),
                format::p_value(guardrail.alpha)
            ),
            None => String::new(),
        },
        state,
        class,
    }
}

/// How many of each group reached a stage.
#[derive(Debug, PartialEq)]
pub(crate) struct StageRow {
    /// The stage, and what is counted.
    pub stage: String,
    /// By group, each with its share.
    pub groups: Vec<String>,
}

/// The stages from the split to the counts.
pub(crate) fn stages(experiment: &ExperimentResult) -> Vec<StageRow> {
    let stages = experiment.sample_ratio.stages.iter();
    let row = stages.map(|stage| {
        let all: u64 = stage.groups.values().sum();
        let groups = experiment.groups.iter().map(|group| {
            let count = stage.groups.get(&group.name).copied().unwrap_or(0);
            format::part(count, all)
        });
        let unit = match stage.unit {
            "answers" => "responses",
            unit => unit,
        };
        StageRow {
            stage: format!("{} ({unit})", stage.stage.replace('_', " ")),
            groups: groups.collect(),
        }
    });
    row.collect()
}

/// One key of the file.
#[derive(Debug, PartialEq)]
pub(crate) struct SettingRow {
    /// Its path.
    pub key: String,
    /// Its value.
    pub value: String,
    /// What a change of it does.
    pub change: &'static str,
}

/// The keys of an experiment and of its metrics in the file, whose secrets are hidden.
pub(crate) fn settings(file: &Value, experiment: &ExperimentResult) -> Vec<SettingRow> {
    let mut rows = Vec::new();
    if let Some(metric) = experiment.metrics.first() {
        let value = format!("a lift of {}", share(metric.detect));
        rows.push(SettingRow {
            key: format!("planned for ({})", metric.name),
            value,
            change: FIXED,
        });
    }
    flatten(
        &file["experiments"][&experiment.name],
        String::new(),
        &mut rows,
    );
    for metric in &experiment.metrics {
        let key = format!("metrics.{}", metric.name);
        flatten(&file["metrics"][&metric.name], key, &mut rows);
    }
    rows
}

const FIXED: &str = "is fixed at the start";

fn flatten(value: &Value, path: String, rows: &mut Vec<SettingRow>) {
    let below = |key: &str| match path.is_empty() {
        true => key.to_owned(),
        false => format!("{path}.{key}"),
    };
    match value {
        Value::Null => {}
        Value::Object(map) => {
            for (key, value) in map {
                flatten(value, below(key), rows);
            }
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(text).collect();
            let value = items.join(", ");
            let change = effect(&path);
            rows.push(SettingRow {
                key: path,
                value,
                change,
            });
        }
        other => {
            let (value, change) = (text(other), effect(&path));
            rows.push(SettingRow {
                key: path,
                value,
                change,
            });
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What a change of a key does to an experiment that runs.
fn effect(path: &str) -> &'static str {
    let last = path.rsplit('.').next().unwrap_or(path);
    if path.starts_with("metrics.") {
        return match last {
            "detect" | "margin" | "baseline" => FIXED,
            "label" | "unit" | "max" => "takes effect at once",
            _ => "counts this metric anew",
        };
    }
    match last {
        "salt" | "upstream" | "control" | "experiment" | "algorithm" => "starts a new phase",
        "percent" | "weight" | "traffic" | "ramp" => "starts a new epoch; counts stay",
        "horizon" => FIXED,
        _ => "takes effect at once",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::results::schema::MetricResult;

    #[test]
    fn settings_say_what_a_change_does() {
        let file = serde_json::json!({
            "experiments": { "site": { "control": "a", "percent": 10, "match": { "path": ["/a", "/b"] } } },
            "metrics": { "buy": "POST /buy -> 2xx" },
        });
        let metric = MetricResult {
            name: "buy".to_owned(),
            detect: 0.1,
            ..MetricResult::default()
        };
        let rows = settings(&file, &ExperimentResult::of_metrics(vec![metric]));
        let rows: Vec<(&str, &str, &str)> = rows
            .iter()
            .map(|row| (&*row.key, &*row.value, row.change))
            .collect();
        assert_eq!(
            rows,
            [
                ("planned for (buy)", "a lift of 10 %", FIXED),
                ("control", "a", "starts a new phase"),
                ("match.path", "/a, /b", "takes effect at once"),
                ("percent", "10", "starts a new epoch; counts stay"),
                ("metrics.buy", "POST /buy -> 2xx", "counts this metric anew"),
            ]
        );
    }

    #[test]
    fn guardrail_above_its_limit_is_harm_only_when_proven() {
        let group = |increase: f64, breached: Option<bool>| GuardrailGroup {
            name: "next".to_owned(),
            users: 1000,
            harmed: 20,
            rate: Some(0.02),
            increase: Some(increase),
            at_least: None,
            p_value: Some(0.01),
            p_value_lowest: None,
            p_value_lowest_at: None,
            breached,
            dead: Some(false),
        };
        let guardrail = |group| GuardrailResult {
            name: "slow".to_owned(),
            over_ms: Some(50.0),
            max_increase: 0.1,
            alpha: 0.0025,
            method: "",
            groups: vec![group],
        };
        let row = |increase, breached| {
            let mut experiment = ExperimentResult::of_metrics(Vec::new());
            experiment.guardrails = vec![guardrail(group(increase, breached))];
            guardrails(&experiment).remove(0)
        };
        let proven = row(0.8, Some(true));
        assert_eq!((proven.state, proven.class), ("harm proven", "bad"));
        assert_eq!(
            (&*proven.name, &*proven.limit),
            ("slow over 50 ms", "+10 %")
        );
        assert_eq!(proven.rate, "2.00 % (20 of 1,000)");
        assert_eq!(row(0.8, Some(false)).state, "above the limit, not proven");
        assert_eq!(row(0.05, Some(false)).state, "no harm shown");
        let control = row(0.0, None);
        assert_eq!(
            (&*control.increase, &*control.p, control.state),
            ("–", "", "")
        );
    }
}
