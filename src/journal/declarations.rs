//! The format of a declaration on disk. PURE.

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

/// What lies behind the shape since version 0.2: version 0.1 does not write it, and passes over it.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct DeclarationMore {
    /// In the order of the experiments.
    experiments: Vec<ExperimentMore>,
    /// In the order of the metrics.
    metrics: Vec<MetricMore>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct ExperimentMore {
    salt: Option<String>,
    /// In the order of the groups.
    upstreams: Vec<Option<String>>,
}

/// What lies behind that: what each experiment divides, in their order.
pub(super) type DeclaredUnits = Vec<Option<String>>;

#[derive(Clone, Default, Serialize, Deserialize)]
struct MetricMore {
    cap: Option<i64>,
    definition: Option<String>,
    covariate_ms: Option<u64>,
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

impl From<&Declaration> for DeclarationMore {
    fn from(declaration: &Declaration) -> Self {
        let experiment = |experiment: &DeclaredExperiment| ExperimentMore {
            salt: experiment.salt.clone(),
            upstreams: experiment
                .groups
                .iter()
                .map(|group| group.upstream.clone())
                .collect(),
        };
        let metric = |metric: &DeclaredMetric| MetricMore {
            cap: metric.cap,
            definition: metric.definition.clone(),
            covariate_ms: metric.covariate_ms,
        };
        DeclarationMore {
            experiments: declaration.experiments.iter().map(experiment).collect(),
            metrics: declaration.metrics.iter().map(metric).collect(),
        }
    }
}

impl DeclarationShape {
    pub(super) fn read(self, more: DeclarationMore, units: DeclaredUnits) -> Option<Declaration> {
        let group = |((name, weight), upstream): ((String, f64), Option<String>)| {
            Some(DeclaredGroup {
                name,
                weight: Weight::new(weight)?,
                upstream,
            })
        };
        type Read = ((ExperimentShape, ExperimentMore), Option<String>);
        let experiment = |((shape, more), unit): Read| {
            let upstreams = more.upstreams.into_iter().chain(std::iter::repeat(None));
            let groups = shape.groups.into_iter().zip(upstreams);
            Some(DeclaredExperiment {
                name: shape.name,
                epoch: EpochDigest(shape.epoch),
                traffic: Share::new(shape.traffic)?,
                groups: groups.map(group).collect::<Option<_>>()?,
                metrics: shape
                    .metrics
                    .into_iter()
                    .map(|metric| metric as usize)
                    .collect(),
                running: shape.running,
                salt: more.salt,
                unit,
            })
        };
        let DeclarationMore {
            experiments,
            metrics,
        } = more;
        let of_experiments = experiments.into_iter();
        let of_experiments = of_experiments.chain(std::iter::repeat(ExperimentMore::default()));
        let of_metrics = metrics.into_iter();
        let of_metrics = of_metrics.chain(std::iter::repeat(MetricMore::default()));
        Some(Declaration {
            digest: self.digest,
            experiments: self
                .experiments
                .into_iter()
                .zip(of_experiments)
                .zip(units.into_iter().chain(std::iter::repeat(None)))
                .map(experiment)
                .collect::<Option<_>>()?,
            metrics: self
                .metrics
                .into_iter()
                .zip(of_metrics)
                .map(read_metric)
                .collect::<Option<_>>()?,
        })
    }
}

fn read_metric((shape, more): (MetricShape, MetricMore)) -> Option<DeclaredMetric> {
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
        cap: more.cap,
        definition: more.definition,
        covariate_ms: more.covariate_ms,
    })
}
