//! One experiment's results.

use crate::admin::format::rfc3339;
use crate::admin::results::evaluation::Evaluation;
use crate::admin::results::guardrail::guardrail_results;
use crate::admin::results::latency::Latency;
use crate::admin::results::metric::{View, metric_results};
use crate::admin::results::planning::planning;
use crate::admin::results::schema::{
    ConfirmationResult, EpochResult, ExperimentResult, GroupResult, PhaseResult, Recently,
    SampleRatio, VerdictResult,
};
use crate::admin::results::segments::segment_results;
use crate::admin::results::srm_diagnosis::{parting, stages};
use crate::admin::view::verdict_text::reason;
use crate::config::plan::Plan;
use crate::experiment::{Crossover, Experiment, GroupIndex, Lifecycle};
use crate::stats::State;
use crate::store::buckets::Buckets;
use crate::store::{EpochTotals, ExperimentTotals, GroupTotals};
use std::collections::{BTreeMap, BTreeSet};

/// Which matching users may get something else than the winner's version; nobody where there is no winner.
pub(crate) fn in_effect_except(plan: &Plan, name: &str) -> Vec<String> {
    let index = plan.experiment_named(name);
    let index = index.filter(|it| plan.experiment(*it).winner.is_some());
    index.map_or_else(Vec::new, |it| plan.winner_is_not_for(it))
}

/// The results of an experiment of the plan.
pub fn result(plan: &Plan, evaluation: &Evaluation, view: View) -> ExperimentResult {
    let Evaluation {
        totals, experiment, ..
    } = evaluation;
    let (winner, about) = (experiment.winner, &experiment.about);
    ExperimentResult {
        name: experiment.name.to_string(),
        status: experiment.lifecycle.name(),
        description: about.description.as_ref().map(ToString::to_string),
        hypothesis: about.hypothesis.as_ref().map(ToString::to_string),
        owner: about.owner.as_ref().map(ToString::to_string),
        link: about.link.as_ref().map(ToString::to_string),
        starts_at: experiment.schedule.start_ms.and_then(rfc3339),
        ends_at: experiment.schedule.end_ms.and_then(rfc3339),
        ramp: None,
        winner: winner.map(|group| experiment.groups[group.0].name.to_string()),
        started_at: started_at(totals),
        ended_at: ended_ms(experiment).and_then(rfc3339),
        decided: None,
        in_effect: winner.is_some(),
        in_effect_except: in_effect_except(plan, &experiment.name),
        epochs: totals.epochs.iter().map(epoch_result).collect(),
        groups: group_results(plan, evaluation),
        ended_groups: ended_groups(evaluation),
        count_overrides: experiment.count_overrides,
        crossed_over: crossed_over(totals),
        crossover: experiment.crossover.word(),
        enrolment: match experiment.admission.is_closed {
            true => "closed",
            false => "open",
        },
        allocation: match experiment.allocation {
            Some(_) => "thompson",
            None => "fixed",
        },
        bucket_by: experiment
            .unit
            .map(|unit| plan.units[unit.0].name.to_string()),
        seen_once: seen_once(totals),
        not_counted: not_counted(totals),
        joined: totals.identities.joined,
        shared_devices: totals.identities.shared_devices,
        joins_across_shards: totals.identities.apart,
        sample_ratio: sample_ratio(evaluation),
        planning: planning(experiment, evaluation),
        guardrails: guardrail_results(plan, experiment, evaluation),
        metrics: metric_results(plan, experiment, evaluation, view),
        segments: segment_results(plan, evaluation),
        confirm: confirmation(evaluation),
        verdict: verdict(evaluation),
        warnings: evaluation.warnings.clone(),
        mirror: None,
        uncounted: evaluation.totals.uncounted.into(),
        phase: evaluation.placement.phase,
        phases: Vec::new(),
        history: Vec::new(),
    }
}

/// The results of a phase that is over, and why it is.
pub(crate) fn past_phase(
    plan: &Plan,
    evaluation: &Evaluation,
    view: View,
    ended_because: String,
) -> PhaseResult {
    let Evaluation {
        totals, experiment, ..
    } = evaluation;
    let mut groups = group_results(plan, evaluation);
    for group in &mut groups {
        // It may have had another one then.
        (group.upstream, group.recently) = (None, None);
    }
    groups.extend(ended_groups(evaluation));
    PhaseResult {
        phase: evaluation.placement.phase,
        started_at: started_at(totals),
        ended_because,
        epochs: totals.epochs.iter().map(epoch_result).collect(),
        groups,
        crossed_over: crossed_over(totals),
        sample_ratio: sample_ratio(evaluation),
        guardrails: guardrail_results(plan, experiment, evaluation),
        metrics: metric_results(plan, experiment, evaluation, view),
        segments: segment_results(plan, evaluation),
        verdict: verdict(evaluation),
    }
}

fn verdict(evaluation: &Evaluation) -> VerdictResult {
    let Evaluation {
        judgement,
        question,
        experiment,
        ..
    } = evaluation;
    let name_of = |group: usize| experiment.groups[group].name.to_string();
    let harms = judgement.verdict.harms.iter();
    VerdictResult {
        state: match judgement.verdict.state {
            State::Collecting => "collecting",
            State::Winner => "winner",
            State::Loser => "loser",
            State::NoDifference => "no_difference",
            State::NoPlannedLift => "no_planned_lift",
            State::Inconclusive => "inconclusive",
            State::Invalid => "invalid",
        },
        group: judgement.verdict.group.map(name_of),
        reason: reason(question, judgement),
        harms: harms
            .map(|&metric| question.metrics[metric].name.clone())
            .collect(),
    }
}

fn confirmation(evaluation: &Evaluation) -> Option<ConfirmationResult> {
    let group = evaluation.judgement.verdict.group?;
    Some(ConfirmationResult {
        waits_for: evaluation.waits_for()?,
        group: evaluation.experiment.groups[group].name.to_string(),
    })
}

fn sample_ratio(evaluation: &Evaluation) -> SampleRatio {
    let found = &evaluation.judgement.sample_ratio;
    SampleRatio {
        p_value: found.p_value,
        mismatch: found.mismatch,
        single_look_p: found.single_look_p,
        parting: parting(&evaluation.experiment, evaluation),
        stages: stages(evaluation),
    }
}

/// Groups that the file no longer has, and that users were in.
fn ended_groups(evaluation: &Evaluation) -> Vec<GroupResult> {
    let Evaluation {
        totals, experiment, ..
    } = evaluation;
    let names = totals.epochs.iter().flat_map(|epoch| epoch.groups.keys());
    let names: BTreeSet<&String> = names.collect();
    let ended = names
        .into_iter()
        .filter(|name| experiment.group_named(name).is_none());
    ended
        .map(|name| group_result(name, "experiment", None, None, totals))
        .collect()
}

fn group_results(plan: &Plan, evaluation: &Evaluation) -> Vec<GroupResult> {
    let Evaluation {
        totals, experiment, ..
    } = evaluation;
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
            label: group.label.as_ref().map(ToString::to_string),
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
    groups.collect()
}

/// When the planned end came, in Unix milliseconds.
fn ended_ms(experiment: &Experiment) -> Option<u64> {
    let is_over = experiment.lifecycle == Lifecycle::Ended;
    experiment.schedule.end_ms.filter(|_| is_over)
}

/// An experiment that is no longer in the file: the counts of its last phase are kept and shown.
pub(crate) fn ended(name: String, phase: u32, totals: &ExperimentTotals) -> ExperimentResult {
    let PhaseResult {
        started_at,
        epochs,
        groups,
        crossed_over,
        sample_ratio,
        verdict,
        ..
    } = ended_phase(phase, totals);
    ExperimentResult {
        name,
        status: "ended",
        description: None,
        hypothesis: None,
        owner: None,
        link: None,
        starts_at: None,
        ends_at: None,
        ramp: None,
        winner: None,
        started_at,
        ended_at: None,
        decided: None,
        in_effect: false,
        in_effect_except: Vec::new(),
        epochs,
        groups,
        ended_groups: Vec::new(),
        count_overrides: false,
        crossed_over,
        crossover: Crossover::First.word(),
        enrolment: "closed",
        allocation: "fixed",
        bucket_by: None,
        seen_once: seen_once(totals),
        not_counted: not_counted(totals),
        joined: totals.identities.joined,
        shared_devices: totals.identities.shared_devices,
        joins_across_shards: totals.identities.apart,
        sample_ratio,
        planning: None,
        guardrails: Vec::new(),
        metrics: Vec::new(),
        segments: Vec::new(),
        confirm: None,
        verdict,
        warnings: Vec::new(),
        mirror: None,
        uncounted: totals.uncounted.into(),
        phase,
        phases: Vec::new(),
        history: Vec::new(),
    }
}

/// A phase of an experiment that is no longer in the file.
pub(crate) fn ended_phase(phase: u32, totals: &ExperimentTotals) -> PhaseResult {
    let names = totals.epochs.iter().flat_map(|epoch| epoch.groups.keys());
    let names: BTreeSet<&String> = names.collect();
    let role = |name: &str| match name {
        "control" => "control",
        _ => "experiment",
    };
    let groups = names.into_iter();
    let groups = groups.map(|name| group_result(name, role(name), None, None, totals));
    PhaseResult {
        phase,
        started_at: started_at(totals),
        ended_because: "the experiment is no longer in the file".to_owned(),
        epochs: totals.epochs.iter().map(epoch_result).collect(),
        groups: groups.collect(),
        crossed_over: crossed_over(totals),
        sample_ratio: SampleRatio {
            p_value: None,
            mismatch: false,
            single_look_p: None,
            parting: None,
            stages: Vec::new(),
        },
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
        label: None,
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
        seen_once: mine().map(|group| group.seen_once).sum(),
        recently: None,
        down: None,
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

fn all_groups(totals: &ExperimentTotals) -> impl Iterator<Item = &GroupTotals> {
    totals.epochs.iter().flat_map(|epoch| epoch.groups.values())
}

fn crossed_over(totals: &ExperimentTotals) -> u64 {
    all_groups(totals).map(|group| group.crossed_over).sum()
}

fn seen_once(totals: &ExperimentTotals) -> u64 {
    all_groups(totals).map(|group| group.seen_once).sum()
}

/// Requests that were served but not counted, by reason.
fn not_counted(totals: &ExperimentTotals) -> BTreeMap<&'static str, u64> {
    let mut by_reason = BTreeMap::new();
    for (why, count) in all_groups(totals).flat_map(|group| &group.not_counted) {
        *by_reason.entry(why.name()).or_default() += count;
    }
    by_reason
}

#[cfg(test)]
impl ExperimentResult {
    /// A running experiment with these metrics, for tests of what is shown.
    pub fn of_metrics(
        metrics: Vec<crate::admin::results::schema::MetricResult>,
    ) -> ExperimentResult {
        let group = |name: &str, role| GroupResult {
            name: name.to_owned(),
            role,
            ..GroupResult::default()
        };
        ExperimentResult {
            name: "site".to_owned(),
            status: "running",
            groups: vec![group("control", "control"), group("next", "treatment")],
            metrics,
            verdict: VerdictResult {
                state: "collecting",
                ..VerdictResult::default()
            },
            ..ExperimentResult::default()
        }
    }
}
