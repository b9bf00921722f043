//! The plan as journals and ledgers keep it.

use super::plan::Plan;
use crate::experiment::Experiment;
use crate::experiment::metric::Metric;
use crate::experiment::record::{Declaration, DeclaredExperiment, DeclaredGroup, DeclaredMetric};

/// What a ledger must know to fold records made under this plan.
pub fn declaration(plan: &Plan) -> Declaration {
    let experiments: Vec<_> = plan.experiments.iter().map(experiment).collect();
    let metrics: Vec<_> = plan.metrics.iter().map(metric).collect();
    let digest = digest(&format!("{experiments:?} {metrics:?}"));
    Declaration {
        digest,
        experiments,
        metrics,
    }
}

/// Names everything that decides who sees what and what counts: replicas that share a ledger
/// should agree in it.
pub fn definition(plan: &Plan) -> String {
    let Plan {
        experiments,
        metrics,
        identity,
        ..
    } = plan;
    let content = digest(&format!("{experiments:?} {metrics:?} {identity:?}"));
    format!("{content:016x}")
}

fn digest(content: &str) -> u64 {
    // Reading from a slice cannot fail, and the crate adds no error of its own.
    murmur3::murmur3_x64_128(&mut content.as_bytes(), 0).unwrap_or_default() as u64
}

fn experiment(experiment: &Experiment) -> DeclaredExperiment {
    let group = |group: &crate::experiment::Group| DeclaredGroup {
        name: group.name.to_string(),
        weight: group.weight,
    };
    DeclaredExperiment {
        name: experiment.name.to_string(),
        epoch: experiment.epoch,
        traffic: experiment.traffic,
        groups: experiment.groups.iter().map(group).collect(),
        metrics: experiment.metrics.iter().map(|metric| metric.0).collect(),
        running: experiment.winner.is_none(),
    }
}

fn metric(metric: &Metric) -> DeclaredMetric {
    DeclaredMetric {
        name: metric.name.to_string(),
        kind: metric.kind,
        goal: metric.goal,
        scale: metric.scale,
        within_ms: metric.within_ms,
    }
}
