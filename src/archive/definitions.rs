//! Declarations as rows of the table `definitions`.

use super::columns::{hex, in_value_scale, ints, longs, texts, times, values};
use super::rows::PhaseNumbers;
use super::tables;
use crate::experiment::metric::MetricGoal;
use crate::experiment::record::{Declaration, DeclaredExperiment, DeclaredGroup, DeclaredMetric};
use crate::journal::rows::JournaledRecord;
use arrow_array::{BooleanArray, Float64Array, RecordBatch};
use arrow_schema::ArrowError;
use std::sync::Arc;

/// Returns the name of a declaration's file.
pub(super) fn file_name(digest: u64) -> String {
    format!("{}/{}.parquet", tables::DEFINITIONS, hex(digest))
}

/// A row: a group or a metric of an experiment, or a metric that no experiment counts.
#[derive(Clone, Copy, Default)]
struct Row<'a> {
    experiment: Option<(usize, &'a DeclaredExperiment)>,
    group: Option<(usize, &'a DeclaredGroup)>,
    metric: Option<(usize, &'a DeclaredMetric)>,
}

/// Returns the rows of a declaration, which `first` refers to.
pub(super) fn rows(
    declaration: &Declaration,
    first: JournaledRecord<'_>,
    phases: &PhaseNumbers,
) -> Result<RecordBatch, ArrowError> {
    let rows = all_rows(declaration);
    let all = || rows.iter();
    let experiment = || all().map(|row| row.experiment.map(|(_, it)| it));
    let group = || all().map(|row| row.group.map(|(_, it)| it));
    let metric = || all().map(|row| row.metric.map(|(_, it)| it));
    let kind = |row: &Row<'_>| match row.group {
        Some(_) => "variation",
        None => "metric",
    };
    let goal = |it: &DeclaredMetric| match it.goal {
        MetricGoal::Increase => "increase",
        MetricGoal::Decrease => "decrease",
    };
    let epoch = |it: Option<&DeclaredExperiment>| it.map(|it| it.epoch.to_string());
    let traffic = experiment().map(|it| it.map(|it| it.traffic.get()));
    let running = experiment().map(|it| it.map(|it| it.running));
    let weight = group().map(|it| it.map(|it| it.weight.get()));
    let cap = |it: &DeclaredMetric| it.cap.map(|cap| in_value_scale(cap, it.scale));
    let index = |place: usize| place as i32;
    let phase = |row: &Row<'_>| phases.get(&(declaration.digest, row.experiment?.0));
    let columns = vec![
        texts(all().map(|_| Some(hex(declaration.digest)))),
        texts(all().map(|row| Some(kind(row)))),
        times(all().map(|_| first.record.at_ms)),
        texts(experiment().map(|it| it.map(|it| &*it.name))),
        ints(all().map(|row| row.experiment.map(|(place, _)| index(place)))),
        ints(all().map(|row| phase(row).map(|phase| *phase as i32))),
        texts(experiment().map(epoch)),
        Arc::new(Float64Array::from_iter(traffic)),
        texts(experiment().map(|it| it.and_then(|it| it.salt.as_deref()))),
        texts(experiment().map(|it| it.and_then(|it| it.unit.as_deref()))),
        Arc::new(BooleanArray::from_iter(running)),
        texts(group().map(|it| it.map(|it| &*it.name))),
        ints(all().map(|row| row.group.map(|(place, _)| index(place)))),
        Arc::new(Float64Array::from_iter(weight)),
        texts(group().map(|it| it.and_then(|it| it.upstream.as_deref()))),
        texts(metric().map(|it| it.map(|it| &*it.name))),
        ints(all().map(|row| row.metric.map(|(place, _)| index(place)))),
        texts(metric().map(|it| it.map(|it| it.kind.name()))),
        texts(metric().map(|it| it.map(goal))),
        ints(metric().map(|it| it.map(|it| it.scale.into()))),
        longs(metric().map(|it| it?.within_ms.map(|ms| ms as i64))),
        values(metric().map(|it| it.and_then(cap)))?,
        longs(metric().map(|it| it?.covariate_ms.map(|ms| ms as i64))),
        texts(metric().map(|it| it.and_then(|it| it.definition.as_deref()))),
        texts(all().map(|_| Some(first.journal))),
        longs(all().map(|_| Some(first.seq as i64))),
    ];
    RecordBatch::try_new(tables::definitions(), columns)
}

fn all_rows(declaration: &Declaration) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    for experiment in declaration.experiments.iter().enumerate() {
        let experiment_row = Row {
            experiment: Some(experiment),
            ..Row::default()
        };
        for group in experiment.1.groups.iter().enumerate() {
            rows.push(Row {
                group: Some(group),
                ..experiment_row
            });
        }
        for &place in &experiment.1.metrics {
            rows.push(Row {
                metric: declaration.metrics.get(place).map(|it| (place, it)),
                ..experiment_row
            });
        }
    }
    // Those that no experiment counts have a place among all, too.
    for metric in declaration.metrics.iter().enumerate() {
        let mut experiments = declaration.experiments.iter();
        if !experiments.any(|it| it.metrics.contains(&metric.0)) {
            rows.push(Row {
                metric: Some(metric),
                ..Row::default()
            });
        }
    }
    rows
}
