//! The results, in the shape that the contract fixes: fields may be added, not renamed. What is
//! not known yet is `null`.

use crate::config::plan::Plan;
use crate::experiment::metric::{Goal, Kind, Metric, Role};
use crate::experiment::{Experiment, GroupIndex};
use crate::ledger::fold::Buckets;
use crate::ledger::{GroupTotals, Ledger, LedgerError, MetricTotals, Totals};
use crate::stats::{self, Judgement, State, moments::Sums};
use crate::vitals::Vitals;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

/// Everything that `/admin/results` says.
#[derive(Debug, Serialize)]
#[expect(
    missing_docs,
    reason = "the contract in docs/results.md says what each field is"
)]
pub struct Results {
    pub generated_at: Option<String>,
    pub store: StoreState,
    pub experiments: Vec<ExperimentResult>,
}

/// How the store is.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct StoreState {
    pub kind: &'static str,
    pub healthy: bool,
    pub error: Option<String>,
    pub lag_events: u64,
    pub lag_seconds: f64,
    pub dropped_events: u64,
    pub damaged_events: u64,
    pub reload_error: Option<String>,
}

/// One experiment.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct ExperimentResult {
    pub name: String,
    pub status: &'static str,
    pub winner: Option<String>,
    pub started_at: Option<String>,
    pub epochs: Vec<EpochResult>,
    pub groups: Vec<GroupResult>,
    pub crossed_over: u64,
    pub sample_ratio: SampleRatio,
    pub metrics: Vec<MetricResult>,
    pub verdict: VerdictResult,
}

/// A period of constant weights.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct EpochResult {
    pub number: u32,
    pub digest: String,
    pub started_at: Option<String>,
    pub traffic: f64,
    pub weights: BTreeMap<String, f64>,
    pub users: BTreeMap<String, u64>,
}

/// One group.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct GroupResult {
    pub name: String,
    pub role: &'static str,
    pub weight: Option<f64>,
    pub upstream: Option<String>,
    pub users: u64,
    pub requests: u64,
    pub responses: BTreeMap<&'static str, u64>,
    pub fallbacks: u64,
    pub latency_ms: Latency,
}

/// Times to the head of the answer, in milliseconds.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct Latency {
    pub p50: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
}

/// Whether the groups have the sizes that their weights ask for.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct SampleRatio {
    pub p_value: Option<f64>,
    pub mismatch: bool,
}

/// One metric.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct MetricResult {
    pub name: String,
    pub kind: &'static str,
    pub goal: &'static str,
    pub role: &'static str,
    pub method: &'static str,
    pub groups: Vec<MetricGroup>,
}

/// One metric in one group.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct MetricGroup {
    pub name: String,
    pub users: u64,
    pub converted: u64,
    pub count: u64,
    pub sum: f64,
    pub rate: Option<f64>,
    pub interval: Option<(f64, f64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lift: Option<LiftResult>,
    pub p_value: Option<f64>,
    pub chance_to_beat_control: Option<f64>,
    pub expected_loss: Option<f64>,
}

/// A group compared with control.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct LiftResult {
    pub absolute: Option<f64>,
    pub absolute_interval: Option<(f64, f64)>,
    pub relative: Option<f64>,
    pub relative_interval: (Option<f64>, Option<f64>),
}

/// Which group is better.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "see docs/results.md")]
pub struct VerdictResult {
    pub state: &'static str,
    pub group: Option<String>,
    pub reason: String,
}

/// The error allowed to verdicts and intervals.
const ALPHA: f64 = 0.05;

/// Gathers the results of all experiments, or of the one named.
pub async fn gather(
    plan: &Plan,
    ledger: &dyn Ledger,
    vitals: &Vitals,
    only: Option<&str>,
) -> Result<Results, LedgerError> {
    let now_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_millis() as u64);
    let wanted = |name: &str| only.is_none_or(|only| only == name);
    let mut experiments = Vec::new();
    for experiment in plan
        .experiments
        .iter()
        .filter(|experiment| wanted(&experiment.name))
    {
        let totals = ledger.totals(&experiment.name).await?;
        experiments.push(result(plan, experiment, &totals, now_ms));
    }
    for name in ledger.experiments().await? {
        if wanted(&name) && plan.experiment_named(&name).is_none() {
            experiments.push(ended(name.clone(), &ledger.totals(&name).await?));
        }
    }
    Ok(Results {
        generated_at: rfc3339(now_ms),
        store: store_state(ledger, vitals, now_ms),
        experiments,
    })
}

fn store_state(ledger: &dyn Ledger, vitals: &Vitals, now_ms: u64) -> StoreState {
    let folding = &vitals.folding;
    let oldest_ms = folding.oldest_ms.load(Ordering::Relaxed);
    let text =
        |slot: &std::sync::Mutex<Option<String>>| slot.lock().ok().and_then(|text| text.clone());
    StoreState {
        kind: ledger.kind(),
        healthy: !folding.failing.load(Ordering::Relaxed),
        error: text(&folding.error),
        lag_events: folding.lag_events.load(Ordering::Relaxed),
        lag_seconds: if oldest_ms == 0 {
            0.0
        } else {
            now_ms.saturating_sub(oldest_ms) as f64 / 1000.0
        },
        dropped_events: vitals.sum(|worker| &worker.dropped),
        damaged_events: folding.lost.load(Ordering::Relaxed),
        reload_error: text(&vitals.reload.error),
    }
}

fn result(plan: &Plan, experiment: &Experiment, totals: &Totals, now_ms: u64) -> ExperimentResult {
    let judgement = stats::judge(&question(plan, experiment, totals, now_ms));
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
        group_result(
            &group.name,
            role,
            Some(group.weight.get()),
            upstream,
            totals,
        )
    });
    ExperimentResult {
        name: experiment.name.to_string(),
        status: match (experiment.winner, totals.epochs.is_empty()) {
            (Some(_), _) => "promoted",
            (None, _) => "running",
        },
        winner: experiment.winner.map(|group| name_of(group.0)),
        started_at: started_at(totals),
        epochs: totals.epochs.iter().map(epoch_result).collect(),
        groups: groups.collect(),
        crossed_over: crossed_over(totals),
        sample_ratio: SampleRatio {
            p_value: judgement.balance.p_value,
            mismatch: judgement.balance.mismatch,
        },
        metrics: metric_results(plan, experiment, totals, &judgement),
        verdict: VerdictResult {
            state: match judgement.verdict.state {
                State::Collecting => "collecting",
                State::Winner => "winner",
                State::Loser => "loser",
                State::NoDifference => "no_difference",
                State::Invalid => "invalid",
            },
            group: judgement.verdict.group.map(name_of),
            reason: judgement.verdict.reason,
        },
    }
}

/// An experiment that is no longer in the file: its counts are kept and shown.
fn ended(name: String, totals: &Totals) -> ExperimentResult {
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
        crossed_over: crossed_over(totals),
        sample_ratio: SampleRatio {
            p_value: None,
            mismatch: false,
        },
        metrics: Vec::new(),
        verdict: VerdictResult {
            state: "collecting",
            group: None,
            reason: "the experiment is no longer in the file; put it back to see its metrics"
                .to_owned(),
        },
    }
}

fn question(plan: &Plan, experiment: &Experiment, totals: &Totals, now_ms: u64) -> stats::Question {
    let groups: Vec<&str> = experiment.groups.iter().map(|group| &*group.name).collect();
    let epochs = totals.epochs.iter().map(|epoch| {
        let weight = |name: &&str| {
            epoch
                .definition
                .groups
                .iter()
                .find(|(other, _)| other == name)
                .map_or(0.0, |(_, weight)| *weight)
        };
        let all: f64 = epoch
            .definition
            .groups
            .iter()
            .map(|(_, weight)| weight)
            .sum();
        stats::Epoch {
            shares: groups.iter().map(|name| weight(name) / all).collect(),
            users: groups
                .iter()
                .map(|&name| epoch.groups.get(name).map_or(0, |group| group.users))
                .collect(),
        }
    });
    let sums = |metric: &Metric| -> Vec<Vec<Sums>> {
        let of = |group: Option<&GroupTotals>| {
            group.map_or_else(Sums::default, |group| sums_of(metric, group))
        };
        totals
            .epochs
            .iter()
            .map(|epoch| {
                groups
                    .iter()
                    .map(|&name| of(epoch.groups.get(name)))
                    .collect()
            })
            .collect()
    };
    let metrics = experiment.metrics.iter().map(|&index| {
        let metric = plan.metric(index);
        stats::Metric {
            kind: match metric.kind {
                Kind::Conversion => stats::Kind::Conversion,
                Kind::Count | Kind::Mean => stats::Kind::Mean,
                Kind::Ratio => stats::Kind::Ratio,
            },
            increase: metric.goal == Goal::Increase,
            detect: metric.detect,
            margin: metric.margin,
            sums: sums(metric),
        }
    });
    let first_ms = totals
        .epochs
        .iter()
        .map(|epoch| epoch.definition.first_ms)
        .min();
    stats::Question {
        epochs: epochs.collect(),
        metrics: metrics.collect(),
        control: experiment.control.0,
        ripe: first_ms
            .is_some_and(|first| now_ms >= first.saturating_add(experiment.min_duration_ms)),
        groups: groups.into_iter().map(str::to_owned).collect(),
        alpha: ALPHA,
    }
}

fn sums_of(metric: &Metric, group: &GroupTotals) -> Sums {
    let MetricTotals {
        converted,
        count,
        count_sq,
        sum,
        sum_sq,
        base,
        base_sq,
        cross,
    } = group
        .metrics
        .get(&*metric.name)
        .copied()
        .unwrap_or_default();
    let counts = metric.kind == Kind::Count;
    Sums {
        users: group.users,
        converted,
        sum: if counts { i128::from(count) } else { sum },
        sum_sq: if counts { count_sq } else { sum_sq },
        base,
        base_sq,
        cross,
        unit: if counts { 1.0 } else { unit(metric) },
    }
}

fn unit(metric: &Metric) -> f64 {
    10f64.powi(-i32::from(metric.scale))
}

fn metric_results(
    plan: &Plan,
    experiment: &Experiment,
    totals: &Totals,
    judgement: &Judgement,
) -> Vec<MetricResult> {
    let each = experiment
        .metrics
        .iter()
        .zip(&judgement.metrics)
        .enumerate()
        .map(|(place, (&index, judged))| {
            let metric = plan.metric(index);
            let groups = experiment
                .groups
                .iter()
                .zip(&judged.groups)
                .map(|(group, judged)| {
                    let of = |epoch: &crate::ledger::EpochTotals| {
                        let group = epoch.groups.get(&*group.name)?;
                        Some((
                            group.users,
                            group
                                .metrics
                                .get(&*metric.name)
                                .copied()
                                .unwrap_or_default(),
                        ))
                    };
                    let all: Vec<_> = totals.epochs.iter().filter_map(of).collect();
                    let sum: i128 = all.iter().map(|(_, totals)| totals.sum).sum();
                    MetricGroup {
                        name: group.name.to_string(),
                        users: all.iter().map(|(users, _)| users).sum(),
                        converted: all.iter().map(|(_, totals)| totals.converted).sum(),
                        count: all.iter().map(|(_, totals)| totals.count).sum(),
                        sum: sum as f64 * unit(metric),
                        rate: judged.rate,
                        interval: judged.interval,
                        lift: judged.lift.map(|lift| LiftResult {
                            absolute: lift.absolute,
                            absolute_interval: lift.absolute_interval,
                            relative: lift.relative,
                            relative_interval: lift.relative_interval,
                        }),
                        p_value: judged.lift.and_then(|lift| lift.p_value),
                        chance_to_beat_control: None,
                        expected_loss: None,
                    }
                });
            MetricResult {
                name: metric.name.to_string(),
                kind: match metric.kind {
                    Kind::Conversion => "conversion",
                    Kind::Count => "count",
                    Kind::Mean => "mean",
                    Kind::Ratio => "ratio",
                },
                goal: if metric.goal == Goal::Increase {
                    "increase"
                } else {
                    "decrease"
                },
                role: if place == 0 || metric.role == Role::Primary {
                    "primary"
                } else {
                    "secondary"
                },
                method: judged.method,
                groups: groups.collect(),
            }
        });
    each.collect()
}

fn group_result(
    name: &str,
    role: &'static str,
    weight: Option<f64>,
    upstream: Option<String>,
    totals: &Totals,
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
        latency_ms: Latency {
            p50: quantile(0.5),
            p95: quantile(0.95),
            p99: quantile(0.99),
        },
    }
}

fn epoch_result(epoch: &crate::ledger::EpochTotals) -> EpochResult {
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

fn started_at(totals: &Totals) -> Option<String> {
    rfc3339(
        totals
            .epochs
            .iter()
            .map(|epoch| epoch.definition.first_ms)
            .min()?,
    )
}

fn crossed_over(totals: &Totals) -> u64 {
    totals
        .epochs
        .iter()
        .flat_map(|epoch| epoch.groups.values())
        .map(|group| group.crossed_over)
        .sum()
}

/// Unix milliseconds as RFC 3339.
pub fn rfc3339(ms: u64) -> Option<String> {
    let time = jiff::Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()?;
    Some(time.to_string())
}
