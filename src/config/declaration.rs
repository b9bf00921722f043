//! The plan as journals and stores keep it.

use super::plan::Plan;
use crate::experiment::guardrail::{Guardrail, GuardrailTarget};
use crate::experiment::metric::{Metric, MetricGoal, MetricKind};
use crate::experiment::record::{Declaration, DeclaredExperiment, DeclaredGroup, DeclaredMetric};
use crate::experiment::{Experiment, Lifecycle};
use std::collections::BTreeSet;

/// What a store must know to fold records made under this plan.
pub fn declaration(plan: &Plan) -> Declaration {
    let experiments: Vec<_> = plan.experiments.iter().map(experiment).collect();
    let mut metrics: Vec<_> = plan.metrics.iter().map(metric).collect();
    // In the order in which they were given their places.
    let guardrails = plan.experiments.iter().flat_map(|own| &own.guardrails);
    let counted = guardrails.filter(|own| !matches!(own.what, GuardrailTarget::Metric(_)));
    metrics.extend(counted.map(|guardrail| harm(guardrail, plan)));
    let digest = digest(&format!("{experiments:?} {metrics:?}"));
    Declaration {
        digest,
        experiments,
        metrics,
    }
}

/// Names everything that decides who sees what and what counts: replicas that share a store
/// should agree in it.
pub fn definition(plan: &Plan) -> String {
    let Plan {
        metrics,
        identity,
        segments,
        ..
    } = plan;
    // Without the tables by which experiments are found: their order is another one in each process.
    let mut experiments = plan.experiments.to_vec();
    for experiment in experiments.iter_mut().filter(|own| !own.ended_by_file) {
        // Decisions reach replicas one after the other.
        (experiment.winner, experiment.lifecycle) = (None, Lifecycle::Running);
    }
    let content = digest(&format!(
        "{experiments:?} {metrics:?} {identity:?} {segments:?}"
    ));
    format!("{content:016x}")
}

fn digest(content: &str) -> u64 {
    // ReadContext from a slice cannot fail, and the crate adds no error of its own.
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
        metrics: counted(experiment).into_iter().collect(),
        running: experiment.winner.is_none(),
    }
}

/// What judges an experiment, and what its guardrails bound.
fn counted(experiment: &Experiment) -> BTreeSet<usize> {
    let judging = experiment.metrics.iter().map(|metric| metric.0);
    let bounded = experiment.guardrails.iter().map(|own| own.counted_as.0);
    judging.chain(bounded).collect()
}

fn harm(guardrail: &Guardrail, plan: &Plan) -> DeclaredMetric {
    DeclaredMetric {
        name: guardrail.counted_name(&plan.metrics).into_owned(),
        kind: MetricKind::Conversion,
        goal: MetricGoal::Decrease,
        scale: 0,
        within_ms: None,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_means_the_same_to_every_replica() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("routes.yaml");
        let mut text =
            "upstreams: { a: \"http://127.0.0.1:9\", b: \"http://127.0.0.1:9\" }\nexperiments:\n"
                .to_owned();
        for number in 0..40 {
            text.push_str(&format!(
                "  e{number}: {{ match: /p{number}/**, groups: {{ control: {{ weight: 1, upstream: a }}, next: {{ weight: 1, upstream: b }} }} }}\n"
            ));
        }
        std::fs::write(&file, text).unwrap();
        let meant = || definition(&crate::config::load(&file).unwrap());
        let once = meant();
        assert!((0..5).all(|_| meant() == once));
    }
}
