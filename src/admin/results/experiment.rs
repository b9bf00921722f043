//! One experiment's results.

use crate::admin::format::rfc3339;
use crate::admin::results::evaluator::Evaluation;
use crate::admin::results::guardrail::guardrail_results;
use crate::admin::results::metric::{View, metric_results};
use crate::admin::results::planning::planning;
use crate::admin::results::schema::{
    EpochResult, ExperimentResult, GroupResult, Latency, Recently, SampleRatio, VerdictResult,
};
use crate::admin::results::segments::segment_results;
use crate::admin::results::srm_diagnosis::{parting, stages};
use crate::admin::view::verdict_text::reason;
use crate::config::plan::Plan;
use crate::experiment::{Experiment, GroupIndex};
use crate::stats::State;
use crate::store::buckets::Buckets;
use crate::store::{EpochTotals, ExperimentTotals};
use std::collections::{BTreeMap, BTreeSet};

/// The results of an experiment of the plan.
pub fn result(
    plan: &Plan,
    experiment: &Experiment,
    evaluation: &Evaluation,
    view: View,
) -> ExperimentResult {
    let Evaluation {
        totals, judgement, ..
    } = evaluation;
    let name_of = |group: usize| experiment.groups[group].name.to_string();
    let groups = experiment.groups.iter().enumerate().map(|(place, group)| {
        let role = if GroupIndex(place) == experiment.control {
            "control"
        } else {
            "experiment"
        };
        let upstream = group
            .upstream
            .map(|upstream| plan.upstream(upstream).name.to_string());
        GroupResult {
            recently: evaluation.recent.groups.get(place).map(|recent| Recently {
                answers: recent.answers,
                failed: recent.failed,
                dead: evaluation.recent.is_dead(place, experiment.control.0),
            }),
            ..group_result(
                &group.name,
                role,
                Some(group.weight.get()),
                upstream,
                totals,
            )
        }
    });
    ExperimentResult {
        name: experiment.name.to_string(),
        status: experiment.lifecycle.name(),
        winner: experiment.winner.map(|group| name_of(group.0)),
        started_at: started_at(totals),
        epochs: totals.epochs.iter().map(epoch_result).collect(),
        groups: groups.collect(),
        count_overrides: experiment.count_overrides,
        crossed_over: crossed_over(totals),
        joined: totals.identities.joined,
        shared_devices: totals.identities.shared_devices,
        joins_across_shards: totals.identities.apart,
        sample_ratio: SampleRatio {
            p_value: judgement.sample_ratio.p_value,
            mismatch: judgement.sample_ratio.mismatch,
            single_look_p: judgement.sample_ratio.single_look_p,
            parting: parting(experiment, evaluation),
            stages: stages(evaluation),
        },
        planning: planning(experiment, evaluation),
        guardrails: guardrail_results(plan, experiment, evaluation),
        metrics: metric_results(plan, experiment, evaluation, view),
        segments: segment_results(plan, experiment, evaluation),
        verdict: VerdictResult {
            state: match judgement.verdict.state {
                State::Collecting => "collecting",
                State::Winner => "winner",
                State::Loser => "loser",
                State::NoDifference => "no_difference",
                State::NoPlannedLift => "no_planned_lift",
                State::Invalid => "invalid",
            },
            group: judgement.verdict.group.map(name_of),
            reason: reason(&evaluation.question, judgement),
            harms: judgement
                .verdict
                .harms
                .iter()
                .map(|&metric| evaluation.question.metrics[metric].name.clone())
                .collect(),
        },
        warnings: evaluation.warnings.clone(),
        uncounted: evaluation.totals.uncounted.into(),
    }
}

/// An experiment that is no longer in the file: its counts are kept and shown.
pub fn ended(name: String, totals: &ExperimentTotals) -> ExperimentResult {
    let names: BTreeSet<&String> = totals
        .epochs
        .iter()
        .flat_map(|epoch| epoch.groups.keys())
        .collect();
    let role = |name: &str| {
        if name == "control" {
            "control"
        } else {
            "experiment"
        }
    };
    ExperimentResult {
        name,
        status: "ended",
        winner: None,
        started_at: started_at(totals),
        epochs: totals.epochs.iter().map(epoch_result).collect(),
        groups: names
            .into_iter()
            .map(|name| group_result(name, role(name), None, None, totals))
            .collect(),
        count_overrides: false,
        crossed_over: crossed_over(totals),
        joined: totals.identities.joined,
        shared_devices: totals.identities.shared_devices,
        joins_across_shards: totals.identities.apart,
        sample_ratio: SampleRatio {
            p_value: None,
            mismatch: false,
            single_look_p: None,
            parting: None,
            stages: Vec::new(),
        },
        planning: None,
        guardrails: Vec::new(),
        metrics: Vec::new(),
        segments: Vec::new(),
        verdict: VerdictResult {
            state: "collecting",
            group: None,
            reason: "the experiment is no longer in the file; put it back to see its metrics"
                .to_owned(),
            harms: Vec::new(),
        },
        warnings: Vec::new(),
        uncounted: totals.uncounted.into(),
    }
}

fn group_result(
    name: &str,
    role: &'static str,
    weight: Option<f64>,
    upstream: Option<String>,
    totals: &ExperimentTotals,
) -> GroupResult {
    let mut classes = [0; 5];
    let mut latency = BTreeMap::new();
    let mine = || {
        totals
            .epochs
            .iter()
            .filter_map(|epoch| epoch.groups.get(name))
    };
    for group in mine() {
        for (sum, count) in classes.iter_mut().zip(group.classes) {
            *sum += count;
        }
        for (&bucket, &count) in &group.latency {
            *latency.entry(bucket).or_insert(0) += count;
        }
    }
    let quantile = |share: f64| Buckets::quantile(&latency, share).map(|us| us as f64 / 1000.0);
    GroupResult {
        name: name.to_owned(),
        role,
        weight,
        upstream,
        users: mine().map(|group| group.users).sum(),
        requests: mine().map(|group| group.requests).sum(),
        responses: ["1xx", "2xx", "3xx", "4xx", "5xx"]
            .into_iter()
            .zip(classes)
            .filter(|(_, count)| *count > 0)
            .collect(),
        fallbacks: mine().map(|group| group.fallbacks).sum(),
        recently: None,
        latency_ms: Latency {
            p50: quantile(0.5),
            p95: quantile(0.95),
            p99: quantile(0.99),
        },
    }
}

fn epoch_result(epoch: &EpochTotals) -> EpochResult {
    EpochResult {
        number: epoch.number,
        digest: epoch.definition.digest.to_string(),
        started_at: rfc3339(epoch.definition.first_ms),
        traffic: epoch.definition.traffic,
        weights: epoch.definition.groups.iter().cloned().collect(),
        users: epoch
            .groups
            .iter()
            .map(|(name, group)| (name.clone(), group.users))
            .collect(),
    }
}

fn started_at(totals: &ExperimentTotals) -> Option<String> {
    rfc3339(
        totals
            .epochs
            .iter()
            .map(|epoch| epoch.definition.first_ms)
            .min()?,
    )
}

fn crossed_over(totals: &ExperimentTotals) -> u64 {
    totals
        .epochs
        .iter()
        .flat_map(|epoch| epoch.groups.values())
        .map(|group| group.crossed_over)
        .sum()
}
