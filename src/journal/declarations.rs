//! A declaration as it lies on disk. PURE.

use crate::experiment::EpochDigest;
use crate::experiment::assign::{Share, Weight};
use crate::experiment::metric::{MetricGoal, MetricKind};
use crate::experiment::record::{Declaration, DeclaredExperiment, DeclaredGroup, DeclaredMetric};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub(super) struct DeclarationShape {
    digest: u64,
    experiments: Vec<ExperimentShape>,
    metrics: Vec<MetricShape>,
}

#[derive(Serialize, Deserialize)]
struct ExperimentShape {
    name: String,
    epoch: u64,
    traffic: f64,
    groups: Vec<(String, f64)>,
    metrics: Vec<u32>,
    running: bool,
}

#[derive(Serialize, Deserialize)]
struct MetricShape {
    name: String,
    kind: u8,
    increase: bool,
    scale: u8,
    within_ms: Option<u64>,
}

impl From<&Declaration> for DeclarationShape {
    fn from(declaration: &Declaration) -> Self {
        let experiment = |experiment: &DeclaredExperiment| ExperimentShape {
            name: experiment.name.clone(),
            epoch: experiment.epoch.0,
            traffic: experiment.traffic.get(),
            groups: experiment
                .groups
                .iter()
                .map(|group| (group.name.clone(), group.weight.get()))
                .collect(),
            metrics: experiment
                .metrics
                .iter()
                .map(|&metric| metric as u32)
                .collect(),
            running: experiment.running,
        };
        let metric = |metric: &DeclaredMetric| MetricShape {
            name: metric.name.clone(),
            kind: match metric.kind {
                MetricKind::Conversion => 0,
                MetricKind::Count => 1,
                MetricKind::Mean => 2,
                MetricKind::Ratio => 3,
                MetricKind::Latency => 4,
            },
            increase: metric.goal == MetricGoal::Increase,
            scale: metric.scale,
            within_ms: metric.within_ms,
        };
        DeclarationShape {
            digest: declaration.digest,
            experiments: declaration.experiments.iter().map(experiment).collect(),
            metrics: declaration.metrics.iter().map(metric).collect(),
        }
    }
}

impl DeclarationShape {
    pub(super) fn read(self) -> Option<Declaration> {
        let group = |(name, weight): (String, f64)| {
            Some(DeclaredGroup {
                name,
                weight: Weight::new(weight)?,
            })
        };
        let experiment = |shape: ExperimentShape| {
            Some(DeclaredExperiment {
                name: shape.name,
                epoch: EpochDigest(shape.epoch),
                traffic: Share::new(shape.traffic)?,
                groups: shape.groups.into_iter().map(group).collect::<Option<_>>()?,
                metrics: shape
                    .metrics
                    .into_iter()
                    .map(|metric| metric as usize)
                    .collect(),
                running: shape.running,
            })
        };
        let metric = |shape: MetricShape| {
            let kind = match shape.kind {
                0 => MetricKind::Conversion,
                1 => MetricKind::Count,
                2 => MetricKind::Mean,
                3 => MetricKind::Ratio,
                4 => MetricKind::Latency,
                _ => return None,
            };
            let goal = if shape.increase {
                MetricGoal::Increase
            } else {
                MetricGoal::Decrease
            };
            let MetricShape {
                name,
                scale,
                within_ms,
                ..
            } = shape;
            Some(DeclaredMetric {
                name,
                kind,
                goal,
                scale,
                within_ms,
            })
        };
        Some(Declaration {
            digest: self.digest,
            experiments: self
                .experiments
                .into_iter()
                .map(experiment)
                .collect::<Option<_>>()?,
            metrics: self
                .metrics
                .into_iter()
                .map(metric)
                .collect::<Option<_>>()?,
        })
    }
}
