//! Gathers the results: totals from the ledger, what the statistics say of them.

use super::look::{Look, Looks};
use super::question::unit;
use super::running;
use super::shape::{
    EpochResult, ExperimentResult, GroupResult, Latency, LiftResult, MetricGroup, MetricResult,
    ReplicaResult, Results, SampleRatio, StoreState, VerdictResult,
};
use crate::config::declare::definition;
use crate::config::plan::Plan;
use crate::experiment::metric::{Goal, Role};
use crate::experiment::{Experiment, GroupIndex};
use crate::ledger::fold::Buckets;
use crate::ledger::{Ledger, LedgerError, Replica, Totals};
use crate::stats::{Judgement, State};
use crate::vitals::Vitals;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

/// Gathers the results of all experiments, or of the one named.
pub async fn gather(
    plan: &Plan,
    ledger: &dyn Ledger,
    looks: &Looks,
    vitals: &Vitals,
    replica: &str,
    only: Option<&str>,
) -> Result<Results, LedgerError> {
    let now_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_millis() as u64);
    let wanted = |name: &str| only.is_none_or(|only| only == name);
    // Before the totals: a lag of zero then means that they hold all that was answered.
    let mut store = store_state(ledger, vitals, now_ms);
    store.dropped_events += ledger.dropped().await?;
    let mut experiments = Vec::new();
    for experiment in plan
        .experiments
        .iter()
        .filter(|experiment| wanted(&experiment.name))
    {
        let look = looks.look(plan, experiment, ledger).await?;
        experiments.push(result(plan, experiment, look));
    }
    for name in ledger.experiments().await? {
        if wanted(&name) && plan.experiment_named(&name).is_none() {
            experiments.push(ended(name.clone(), &ledger.totals(&name).await?));
        }
    }
    Ok(Results {
        generated_at: rfc3339(now_ms),
        store,
        replicas: replicas(plan, ledger, replica, now_ms).await?,
        experiments,
    })
}

/// All processes that give their facts to this ledger, and whether they serve the same as this one.
async fn replicas(
    plan: &Plan,
    ledger: &dyn Ledger,
    this: &str,
    now_ms: u64,
) -> Result<Vec<ReplicaResult>, LedgerError> {
    let definition = definition(plan);
    let shown = |replica: Replica| ReplicaResult {
        this: replica.id == this,
        // This one may not have announced its last reload yet.
        agrees: replica.id == this || replica.definition == definition,
        definition: match replica.id == this {
            true => definition.clone(),
            false => replica.definition,
        },
        seen_at: rfc3339(replica.seen_ms),
        version: replica.version,
        id: replica.id,
    };
    let all = ledger.replicas(now_ms).await?;
    Ok(all.into_iter().map(shown).collect())
}

fn store_state(ledger: &dyn Ledger, vitals: &Vitals, now_ms: u64) -> StoreState {
    let folding = &vitals.folding;
    let lag_events = vitals.lag_events();
    let caught_up_ms = folding.caught_up_ms.load(Ordering::Relaxed);
    let text =
        |slot: &std::sync::Mutex<Option<String>>| slot.lock().ok().and_then(|text| text.clone());
    StoreState {
        kind: ledger.kind(),
        healthy: !folding.failing.load(Ordering::Relaxed),
        error: text(&folding.error),
        lag_events,
        lag_seconds: if lag_events == 0 {
            0.0
        } else {
            now_ms.saturating_sub(caught_up_ms) as f64 / 1000.0
        },
        dropped_events: folding.dropped_untold.load(Ordering::Relaxed),
        damaged_events: folding.lost.load(Ordering::Relaxed),
        reload_error: text(&vitals.reload.error),
    }
}

fn result(plan: &Plan, experiment: &Experiment, look: Look) -> ExperimentResult {
    let Look {
        totals, judgement, ..
    } = look;
    let totals = &totals;
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
            p_value: judgement.sample_ratio.p_value,
            mismatch: judgement.sample_ratio.mismatch,
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
        warnings: look.warnings,
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
        warnings: Vec::new(),
    }
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
                        interval: judged.interval.low.zip(judged.interval.high),
                        lift: judged.lift.map(|lift| LiftResult {
                            absolute: lift.absolute,
                            absolute_interval: lift
                                .absolute_interval
                                .low
                                .zip(lift.absolute_interval.high),
                            relative: lift.relative,
                            relative_interval: (
                                lift.relative_interval.low,
                                lift.relative_interval.high,
                            ),
                        }),
                        p_value: judged.p_value,
                        chance_to_beat_control: judged.chance_to_beat_control,
                        expected_loss: judged.expected_loss,
                    }
                });
            MetricResult {
                name: metric.name.to_string(),
                kind: running::kind(metric.kind),
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
