//! Totals as CSV: a row for each experiment, epoch, group and metric.

use crate::config::plan::Plan;
use crate::experiment::decimal::Decimal;
use crate::experiment::guardrail::GuardrailTarget;
use crate::experiment::metric::{Metric, MetricKind};
use crate::experiment::{EpochDigest, Experiment, ExperimentIndex};
use crate::store::{EpochDefinition, EpochTotals, ExperimentTotals, GroupTotals, MetricTotals};
use std::collections::BTreeMap;

/// What was counted of one experiment.
#[derive(Debug)]
pub(super) struct CountedElsewhere {
    /// The experiment, without guardrails that the totals say nothing of.
    pub experiment: Experiment,
    /// The totals.
    pub totals: ExperimentTotals,
    /// What a person should know, each a sentence.
    pub warnings: Vec<String>,
}

/// Columns that say whose totals a row has.
const KEYS: [&str; 8] = [
    "experiment",
    "epoch",
    "group",
    "weight",
    "users",
    "crossed_over",
    "first_exposure",
    "metric",
];
/// Columns of totals.
const NUMBERS: [&str; 14] = [
    "converted",
    "count",
    "count_sq",
    "sum",
    "sum_sq",
    "base",
    "base_sq",
    "cross",
    "capped",
    "known",
    "known_sum",
    "before",
    "before_sq",
    "before_cross",
];

/// Reads a time in RFC 3339, as Unix milliseconds.
pub(super) fn time(text: &str) -> Option<u64> {
    let time: jiff::Timestamp = text.trim().parse().ok()?;
    u64::try_from(time.as_millisecond()).ok()
}

/// Reads the totals of each experiment of the file that they name, by name and in file order. `since` is the first
/// exposure, where they name none.
pub(super) fn read(
    plan: &Plan,
    text: &[u8],
    since: Option<u64>,
) -> Result<Vec<(String, CountedElsewhere)>, String> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(text);
    let header = reader.headers().map_err(|error| error.to_string())?.clone();
    for name in &header {
        if !KEYS.contains(&name) && !NUMBERS.contains(&name) {
            let known = KEYS.iter().chain(&NUMBERS).copied().collect::<Vec<_>>();
            return Err(format!(
                "unknown column {name:?}; known: {}",
                known.join(", ")
            ));
        }
    }
    let mut all = BTreeMap::<ExperimentIndex, Reading>::new();
    for record in reader.records() {
        let record = record.map_err(|error| error.to_string())?;
        let line = record.position().map_or(0, csv::Position::line);
        let row = Row {
            header: &header,
            record: &record,
        };
        let added = row.experiment(plan).and_then(|index| {
            let reading = all.entry(index).or_default();
            reading.add(plan, plan.experiment(index), &row)
        });
        added.map_err(|error| format!("line {line}: {error}"))?;
    }
    if all.is_empty() {
        return Err("there are no rows".to_owned());
    }
    let counted = all.into_iter().map(|(index, reading)| {
        let experiment = plan.experiment(index);
        let name = experiment.name.to_string();
        let counted = reading.end(plan, experiment, since);
        counted
            .map(|counted| (name.clone(), counted))
            .map_err(|error| format!("{name}: {error}"))
    });
    counted.collect()
}

/// One line.
struct Row<'a> {
    header: &'a csv::StringRecord,
    record: &'a csv::StringRecord,
}

impl Row<'_> {
    /// A field; `None` where the column is missing or empty.
    fn get(&self, column: &str) -> Option<&str> {
        let place = self.header.iter().position(|name| name == column)?;
        self.record.get(place).filter(|field| !field.is_empty())
    }

    fn needed(&self, column: &str) -> Result<&str, String> {
        self.get(column)
            .ok_or_else(|| format!("`{column}` is missing"))
    }

    fn experiment(&self, plan: &Plan) -> Result<ExperimentIndex, String> {
        let Some(name) = self.get("experiment") else {
            return match plan.experiments.len() {
                1 => Ok(ExperimentIndex(0)),
                _ => Err("`experiment` is missing, and the routes file has several".to_owned()),
            };
        };
        let found = plan.experiment_named(name);
        found.ok_or_else(|| format!("the routes file has no experiment {name:?}"))
    }

    /// A number that is not negative and has no fraction.
    fn whole(&self, column: &str) -> Result<Option<u64>, String> {
        let number = self.units(column, 0)?;
        let number = number.map(u64::try_from).transpose();
        number.map_err(|_| format!("`{column}` is negative, or too large"))
    }

    /// A number in units of 10^-scale.
    fn units(&self, column: &str, scale: u8) -> Result<Option<i128>, String> {
        let Some(text) = self.get(column) else {
            return Ok(None);
        };
        let number = Decimal::read(text.as_bytes());
        let units = number.and_then(|number| number.wide_units(scale));
        let units = units.ok_or_else(|| format!("`{column}` is {text:?}, and no number"))?;
        Ok(Some(units))
    }
}

/// The totals of one experiment while they are read.
#[derive(Debug, Default)]
struct Reading {
    /// By the text of `epoch`.
    epochs: BTreeMap<String, EpochReading>,
}

#[derive(Debug, Default)]
struct EpochReading {
    weights: BTreeMap<String, f64>,
    groups: BTreeMap<String, GroupTotals>,
    first_ms: Option<u64>,
}

impl Reading {
    fn add(&mut self, plan: &Plan, experiment: &Experiment, row: &Row<'_>) -> Result<(), String> {
        let group = row.needed("group")?;
        if experiment.group_named(group).is_none() {
            return Err(format!("{} has no group {group:?}", experiment.name));
        }
        let epoch = row.get("epoch").unwrap_or_default().to_owned();
        let epoch = self.epochs.entry(epoch).or_default();
        if let Some(text) = row.get("weight") {
            let weight: Option<f64> = text.parse().ok();
            let weight = weight.filter(|weight| weight.is_finite() && *weight > 0.0);
            let weight =
                weight.ok_or_else(|| format!("`weight` is {text:?}, and no positive number"))?;
            if *epoch.weights.entry(group.to_owned()).or_insert(weight) != weight {
                return Err(format!("{group} has another `weight` above"));
            }
        }
        if let Some(text) = row.get("first_exposure") {
            let first = time(text)
                .ok_or_else(|| format!("`first_exposure` is {text:?}, and no time in RFC 3339"))?;
            epoch.first_ms = Some(epoch.first_ms.map_or(first, |known| known.min(first)));
        }
        row.needed("users")?;
        let users = row.whole("users")?.unwrap_or_default();
        let crossed_over = row.whole("crossed_over")?.unwrap_or_default();
        let totals = epoch.groups.entry(group.to_owned()).or_insert(GroupTotals {
            users,
            crossed_over,
            ..GroupTotals::default()
        });
        if totals.users != users {
            return Err(format!("{group} has other `users` above"));
        }
        let Some(name) = row.get("metric") else {
            return Ok(());
        };
        let counted = metric_totals(metric_of(plan, experiment, name)?, users, row)?;
        let name = counted_name(plan, experiment, name);
        match totals.metrics.insert(name, counted) {
            None => Ok(()),
            Some(_) => Err(format!("{group} has another row of this metric")),
        }
    }

    /// The totals of all rows.
    fn end(
        self,
        plan: &Plan,
        experiment: &Experiment,
        since: Option<u64>,
    ) -> Result<CountedElsewhere, String> {
        let mut experiment = experiment.clone();
        let mut warnings = Vec::new();
        self.check_metrics(plan, &mut experiment, &mut warnings)?;
        let mut epochs = Vec::new();
        for (place, (name, epoch)) in self.epochs.into_iter().enumerate() {
            let first_ms = epoch.first_ms.or(since);
            let first_ms = first_ms.ok_or(
                "when did the first user come? Add the column `first_exposure`, or --since TIME",
            )?;
            let mut groups = Vec::new();
            for group in &experiment.groups {
                let weight = match epoch.weights.is_empty() {
                    true => Some(group.weight.get()),
                    false => epoch.weights.get(&*group.name).copied(),
                };
                groups.extend(weight.map(|weight| (group.name.to_string(), weight)));
                if weight.is_some() && !epoch.groups.contains_key(&*group.name) {
                    return Err(format!(
                        "there is no row of {} in epoch {name:?}",
                        group.name
                    ));
                }
            }
            epochs.push(EpochTotals {
                definition: EpochDefinition {
                    digest: EpochDigest(place as u64),
                    traffic: experiment.traffic.get(),
                    groups,
                    first_ms,
                    series: Vec::new(),
                },
                number: place as u32,
                groups: epoch.groups,
            });
        }
        epochs.sort_by_key(|epoch| epoch.definition.first_ms);
        Ok(CountedElsewhere {
            experiment,
            totals: ExperimentTotals {
                epochs,
                ..ExperimentTotals::default()
            },
            warnings,
        })
    }

    /// Every group must have a row of every metric that judges; guardrails of which there is none are left out.
    fn check_metrics(
        &self,
        plan: &Plan,
        experiment: &mut Experiment,
        warnings: &mut Vec<String>,
    ) -> Result<(), String> {
        let groups = || self.epochs.values().flat_map(|epoch| &epoch.groups);
        let missing = |name: &str| {
            let mut without = groups().filter(|(_, totals)| !totals.metrics.contains_key(name));
            without.next().map(|(group, _)| group.clone())
        };
        for index in &experiment.metrics {
            let metric = plan.metric(*index);
            if metric.kind == MetricKind::Latency {
                return Err(format!(
                    "{} is a quantile of latencies, which totals do not have",
                    metric.name
                ));
            }
            if let Some(group) = missing(&metric.name) {
                return Err(format!("{group} has no row of the metric {}", metric.name));
            }
            if metric.within_ms.is_some() {
                warnings.push(format!(
                    "{} has a window: count only users whose window is over",
                    metric.name
                ));
            }
        }
        let mut kept = Vec::new();
        for guardrail in &experiment.guardrails {
            let name = guardrail.counted_name(&plan.metrics);
            match missing(&name) {
                None => kept.push(guardrail.clone()),
                Some(_) => warnings.push(format!(
                    "the guardrail {} is not judged: not all groups have a row of the metric {name}",
                    guardrail.name(&plan.metrics)
                )),
            }
        }
        experiment.guardrails = kept.into();
        Ok(())
    }
}

/// The metric with this name; `None` for harm that the proxy sees.
fn metric_of<'a>(
    plan: &'a Plan,
    experiment: &Experiment,
    name: &str,
) -> Result<Option<&'a Metric>, String> {
    if let Some(metric) = plan.metrics.iter().find(|metric| &*metric.name == name) {
        return Ok(Some(metric));
    }
    let counted = counted_name(plan, experiment, name);
    let mut guardrails = experiment.guardrails.iter();
    match guardrails.any(|it| it.counted_name(&plan.metrics) == counted) {
        true => Ok(None),
        false => Err(format!("the routes file has no metric {name:?}")),
    }
}

/// How stores name what is counted: `errors` stands for the guardrail of this name.
fn counted_name(plan: &Plan, experiment: &Experiment, name: &str) -> String {
    let mut guardrails = experiment.guardrails.iter();
    let found = guardrails.find(|it| {
        !matches!(it.what, GuardrailTarget::Metric(_)) && it.name(&plan.metrics) == name
    });
    found.map_or(name.to_owned(), |it| {
        it.counted_name(&plan.metrics).into_owned()
    })
}

/// The totals of a metric. Those that its kind needs must be there.
fn metric_totals(
    metric: Option<&Metric>,
    users: u64,
    row: &Row<'_>,
) -> Result<MetricTotals, String> {
    let kind = metric.map_or(MetricKind::Conversion, |metric| metric.kind);
    let needed: &[&str] = match kind {
        MetricKind::Conversion | MetricKind::Latency => &["converted"],
        MetricKind::Count => &["count", "count_sq"],
        MetricKind::Mean => &["sum", "sum_sq"],
        MetricKind::Ratio => &["sum", "sum_sq", "base", "base_sq", "cross"],
    };
    for column in needed {
        row.needed(column)?;
    }
    let scale = metric.map_or(0, |metric| metric.scale);
    let whole = |column| Ok::<_, String>(row.whole(column)?.unwrap_or_default());
    let units = |column, scale| Ok::<_, String>(row.units(column, scale)?.unwrap_or_default());
    let converted = whole("converted")?;
    let totals = MetricTotals {
        converted,
        count: row.whole("count")?.unwrap_or(converted),
        count_sq: row.units("count_sq", 0)?.unwrap_or(converted.into()),
        sum: units("sum", scale)?,
        sum_sq: units("sum_sq", 2 * scale)?,
        base: units("base", 0)?,
        base_sq: units("base_sq", 0)?,
        cross: units("cross", scale)?,
        capped: whole("capped")?,
        cut: 0,
        known: whole("known")?,
        known_sum: units("known_sum", scale)?,
        before: units("before", scale)?,
        before_sq: units("before_sq", 2 * scale)?,
        before_cross: units("before_cross", 2 * scale)?,
    };
    for (column, count) in [("converted", converted), ("known", totals.known)] {
        if count > users {
            return Err(format!("{count} `{column}` of {users} users"));
        }
    }
    // The mean of squares is at least the square of the mean (Cauchy and Schwarz).
    let n = users as f64;
    for (column, sum, squares) in [
        ("count_sq", totals.count as f64, totals.count_sq as f64),
        ("sum_sq", totals.sum as f64, totals.sum_sq as f64),
        ("base_sq", totals.base as f64, totals.base_sq as f64),
    ] {
        if squares * n < sum * sum * (1.0 - 1e-9) {
            return Err(format!(
                "`{column}` is too small: it is the sum of the squares of each user's total"
            ));
        }
    }
    Ok(totals)
}
