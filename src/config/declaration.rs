//! The part of a plan that journals and stores keep.

use super::plan::Plan;
use crate::experiment::guardrail::{Guardrail, GuardrailTarget};
use crate::experiment::lifecycle::About;
use crate::experiment::metric::{Metric, MetricGoal, MetricKind};
use crate::experiment::record::{Declaration, DeclaredExperiment, DeclaredGroup, DeclaredMetric};
use crate::experiment::{Experiment, Lifecycle, UpstreamIndex};
use std::collections::BTreeSet;

/// Returns what ingestion must know to aggregate records that were made under this plan.
pub fn declaration(plan: &Plan) -> Declaration {
    let of_experiment = |own: &Experiment| experiment(plan, own);
    // Those that have left the file come last, and record nothing.
    let in_file = plan.experiments.iter().filter(|own| !own.has_left_file);
    let experiments: Vec<_> = in_file.map(of_experiment).collect();
    let metrics = metrics(plan);
    let digest = digest(&format!("{experiments:?} {metrics:?}"));
    Declaration {
        digest,
        experiments,
        metrics,
    }
}

/// Returns everything that is counted for experiments of a plan, metrics first.
pub fn metrics(plan: &Plan) -> Vec<DeclaredMetric> {
    let mut metrics: Vec<_> = plan.metrics.iter().map(metric).collect();
    // In the order of their indices.
    let guardrails = plan.experiments.iter().flat_map(|own| &own.guardrails);
    let counted = guardrails.filter(|own| !matches!(own.what, GuardrailTarget::Metric(_)));
    metrics.extend(counted.map(|guardrail| harm(guardrail, plan)));
    metrics
}

/// Returns a digest of everything that decides assignment and counting. Replicas that share a store
/// should have the same digest.
pub fn definition(plan: &Plan) -> String {
    let Plan {
        metrics,
        identity,
        segments,
        counting,
        ..
    } = plan;
    // Without the lookup tables of experiments: their order differs between processes.
    let mut experiments = plan.experiments.to_vec();
    experiments.retain(|own| !own.has_left_file);
    for experiment in &mut experiments {
        experiment.about = About::default();
        if !experiment.exposes_by_difference() {
            // Then copies decide nothing that is counted.
            experiment.mirror = None;
        }
        if experiment.ended_by_file {
            continue;
        }
        // Decisions reach replicas at different times.
        (experiment.winner, experiment.lifecycle) = (None, Lifecycle::Running);
        if let Some(allocation) = experiment.allocation.clone() {
            experiment.reweigh(&allocation.first);
        }
        if let Some(ramp) = experiment.ramp.take() {
            experiment.admit(&ramp.steps[0]);
            experiment.ramp = Some(ramp);
        }
    }
    let content = digest(&format!(
        "{experiments:?} {metrics:?} {identity:?} {segments:?} {counting:?}"
    ));
    format!("{content:016x}")
}

fn digest(content: &str) -> u64 {
    // Reading from a slice cannot fail, and the crate adds no error of its own.
    murmur3::murmur3_x64_128(&mut content.as_bytes(), 0).unwrap_or_default() as u64
}

/// One experiment of a plan.
pub fn experiment(plan: &Plan, experiment: &Experiment) -> DeclaredExperiment {
    let upstream = |index: UpstreamIndex| plan.upstream(index).name.to_string();
    let group = |group: &crate::experiment::Group| DeclaredGroup {
        name: group.name.to_string(),
        weight: group.weight,
        upstream: Some(group.upstream.map_or(String::new(), upstream)),
    };
    DeclaredExperiment {
        name: experiment.name.to_string(),
        epoch: experiment.epoch,
        traffic: experiment.traffic,
        groups: experiment.groups.iter().map(group).collect(),
        metrics: counted(experiment).into_iter().collect(),
        running: experiment.is_running(),
        salt: Some(experiment.salt.to_string()),
        unit: experiment
            .unit
            .map(|unit| plan.units[unit.0].name.to_string()),
    }
}

/// The metrics that an experiment counts: its own, and those of its guardrails.
fn counted(experiment: &Experiment) -> BTreeSet<usize> {
    let judging = experiment.metrics.iter().map(|metric| metric.0);
    let bounded = experiment.guardrails.iter().map(|own| own.counted_as.0);
    judging.chain(bounded).collect()
}

fn harm(guardrail: &Guardrail, plan: &Plan) -> DeclaredMetric {
    let name = guardrail.counted_name(&plan.metrics).into_owned();
    DeclaredMetric {
        // What it counts is in its name. With a definition, one that is added later counts users who
        // come from then on, and none whose harm was not counted.
        definition: Some(name.clone()),
        name,
        kind: MetricKind::Conversion,
        goal: MetricGoal::Decrease,
        scale: 0,
        within_ms: None,
        cap: None,
        covariate_ms: None,
    }
}

fn metric(metric: &Metric) -> DeclaredMetric {
    DeclaredMetric {
        name: metric.name.to_string(),
        kind: metric.kind,
        goal: metric.goal,
        scale: metric.scale,
        within_ms: metric.within_ms,
        cap: metric.cap,
        covariate_ms: metric.covariate_ms,
        definition: Some(metric.definition()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_a_file_is_the_same_on_every_replica() {
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
