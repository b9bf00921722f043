//! What the evaluation loop finds that webhooks are told: verdicts, harm, and data that stays away.

use crate::admin::results::evaluation::Evaluation;
use crate::admin::results::hours::HOUR_MS;
use crate::admin::view::verdict_text::{harm, reason};
use crate::config::plan::{NotificationKind, Plan};
use crate::experiment::Experiment;
use crate::notify::{Board, Notification, upstream_event, winner_key};
use crate::stats::{Finding, State};
use crate::store::messages::EventMark;
use crate::store::{ExperimentTotals, GroupTotals, HourTotals};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long an analysis stands before it is told, in at least two rounds: events that another replica is
/// given may be partly counted at one of them.
const CONFIRMED_AFTER: Duration = Duration::from_secs(4);
/// How long an experiment is without data before that is told, in milliseconds.
const NO_DATA_MS: u64 = HOUR_MS;

/// What was found of each experiment of the plan.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// By experiment: what the last analysis found, each with when it was found first.
    found: HashMap<String, Vec<(Notification, Instant)>>,
    /// By experiment: its data.
    data: HashMap<String, Data>,
}

/// The data of an experiment.
#[derive(Clone, Debug)]
struct Data {
    /// The phase, by its key in the store.
    phase: String,
    /// The number of all that was counted.
    counted: u64,
    /// When that number changed last, in Unix milliseconds.
    changed_ms: u64,
}

impl Findings {
    /// Forgets experiments that the plan does not have, also on the board.
    pub(crate) fn begin(&mut self, plan: &Plan, board: &Board) {
        let is_told = |name: &str| {
            let tells = !plan.webhooks.is_empty();
            tells && plan.experiment_named(name).is_some()
        };
        self.found.retain(|name, _| is_told(name));
        self.data.retain(|name, _| is_told(name));
        board.retain(|source| source.starts_with('/') || is_told(source));
    }

    /// Whether another analysis is needed although nothing was counted: what was found is not confirmed yet, or
    /// ends with time alone.
    pub(crate) fn is_open(&self, experiment: &Experiment) -> bool {
        let found = self.found.get(&*experiment.name);
        let mut found = found.into_iter().flatten();
        found.any(|(it, since)| it.is_lasting() || since.elapsed() < CONFIRMED_AFTER)
    }

    /// Notes what was counted. `hours` tells when data came last, for a phase that is not known yet.
    pub(crate) fn count(
        &mut self,
        experiment: &Experiment,
        phase: &str,
        totals: &ExperimentTotals,
        hours: &[HourTotals],
        now_ms: u64,
    ) {
        let counted = counted(totals);
        let is_running = experiment.is_running();
        let known = self.data.get_mut(&*experiment.name);
        match known.filter(|data| data.phase == phase) {
            Some(data) => {
                // After the clock was set back, data that came later came now. Nobody waits for the data of an
                // experiment that does not run.
                if data.counted != counted || data.changed_ms > now_ms || !is_running {
                    (data.counted, data.changed_ms) = (counted, now_ms);
                }
            }
            None => {
                let last = hours.iter().map(|hour| (hour.hour + 1) * HOUR_MS).max();
                let data = Data {
                    phase: phase.to_owned(),
                    counted,
                    changed_ms: last.map_or(now_ms, |last| last.min(now_ms)),
                };
                self.data.insert(experiment.name.to_string(), data);
            }
        }
    }

    /// Notes an analysis of counts that are complete.
    pub(crate) fn judge(&mut self, plan: &Plan, evaluation: &Evaluation) {
        if evaluation.experiment.is_running() {
            self.note(plan, evaluation, Instant::now());
        }
    }

    /// Notes an analysis before a rule acts on it. What it finds was there at `since`, so webhooks are told of it,
    /// even if the experiment stops running.
    pub(crate) fn act(
        &mut self,
        plan: &Plan,
        evaluation: &Evaluation,
        since: Instant,
        board: &Board,
    ) {
        if !plan.webhooks.is_empty() {
            self.note(plan, evaluation, since);
            self.tell(&evaluation.experiment, board, evaluation.at_ms);
        }
    }

    fn note(&mut self, plan: &Plan, evaluation: &Evaluation, at: Instant) {
        let name = evaluation.experiment.name.to_string();
        let before = self.found.remove(&name).unwrap_or_default();
        let since = |key: &str| {
            let known = before.iter().find(|(it, _)| it.key == key);
            known.map_or(at, |(_, since)| at.min(*since))
        };
        let found = found(plan, evaluation).into_iter();
        let found = found.map(|it| {
            let since = since(&it.key);
            (it, since)
        });
        self.found.insert(name, found.collect());
    }

    /// Sets on the board what is confirmed of an experiment. If the experiment no longer runs, what was confirmed
    /// before stays there until the store has it.
    pub(crate) fn tell(&mut self, experiment: &Experiment, board: &Board, now_ms: u64) {
        if !experiment.is_running()
            && let Some(found) = self.found.get_mut(&*experiment.name)
        {
            found.retain(|(it, since)| {
                is_confirmed(*since) && !it.is_lasting() && !board.is_reported(&it.key)
            });
        }
        let found = self.found.get(&*experiment.name).into_iter().flatten();
        let confirmed = found.filter(|(_, since)| is_confirmed(*since));
        let mut told: Vec<Notification> = confirmed.map(|(it, _)| it.clone()).collect();
        let data = self.data.get(&*experiment.name);
        told.extend(data.and_then(|data| no_data(experiment, data, now_ms)));
        board.set(&experiment.name, told);
    }
}

fn is_confirmed(since: Instant) -> bool {
    since.elapsed() >= CONFIRMED_AFTER
}

/// The number of all that was counted of an experiment.
fn counted(totals: &ExperimentTotals) -> u64 {
    let groups = totals.epochs.iter().flat_map(|epoch| epoch.groups.values());
    let of_group = |group: &GroupTotals| {
        let events: u64 = group.metrics.values().map(|metric| metric.count).sum();
        let uncounted: u64 = group.not_counted.values().sum();
        group.requests + group.fallbacks + group.users + group.seen_once + events + uncounted
    };
    groups.map(of_group).sum()
}

fn no_data(experiment: &Experiment, data: &Data, now_ms: u64) -> Option<Notification> {
    let for_ms = now_ms.saturating_sub(data.changed_ms);
    if !experiment.is_running() || for_ms < NO_DATA_MS {
        return None;
    }
    let name = &experiment.name;
    let minutes = for_ms / 60_000;
    Some(Notification {
        kind: NotificationKind::NoData,
        experiment: Some(name.to_string()),
        // Every replica counts the same, and the number grows with the next data.
        key: format!("no_data|{}|{}", data.phase, data.counted),
        quiet_ms: EventMark::ONCE,
        at_ms: now_ms,
        data: json!({ "minutes": minutes }),
        text: format!(
            "{name}: no data for {minutes} minutes; check that its requests arrive and that `match` still means them"
        ),
    })
}

/// What an analysis finds.
fn found(plan: &Plan, evaluation: &Evaluation) -> Vec<Notification> {
    let judgement = &evaluation.judgement;
    let mut found = vec![verdict(evaluation)];
    if judgement.sample_ratio.mismatch {
        let p_value = judgement.sample_ratio.p_value;
        found.push(Some(event(
            evaluation,
            NotificationKind::Mismatch,
            "",
            json!({ "p_value": p_value }),
            reason(&evaluation.question, judgement),
        )));
    } else {
        found.extend(harms(evaluation).into_iter().map(Some));
    }
    found.extend(dead(plan, evaluation).into_iter().map(Some));
    found.into_iter().flatten().collect()
}

/// Makes an event that a phase has once.
fn event(
    evaluation: &Evaluation,
    kind: NotificationKind,
    what: &str,
    mut data: Value,
    why: String,
) -> Notification {
    let (name, phase) = (&evaluation.experiment.name, &evaluation.placement.key);
    data["reason"] = Value::String(why.clone());
    Notification {
        kind,
        experiment: Some(name.to_string()),
        key: format!("{}|{phase}|{what}", kind.name()),
        quiet_ms: EventMark::ONCE,
        at_ms: evaluation.at_ms,
        data,
        text: format!("{name}: {why}"),
    }
}

/// The winner, or an end without an effect.
fn verdict(evaluation: &Evaluation) -> Option<Notification> {
    let Evaluation {
        experiment,
        judgement,
        question,
        placement,
        ..
    } = evaluation;
    let verdict = &judgement.verdict;
    let why = reason(question, judgement);
    let word = match verdict.state {
        State::Winner => {
            let group = &*experiment.groups[verdict.group?].name;
            let harms = verdict
                .harms
                .iter()
                .map(|metric| &question.metrics[*metric].name);
            let harms: Vec<&String> = harms.collect();
            let waits_for = evaluation.waits_for();
            let data = json!({ "group": group, "harms": harms, "waits_for": waits_for });
            let mut won = event(evaluation, NotificationKind::Winner, group, data, why);
            won.key = winner_key(&placement.key, group);
            if let Some(waits_for) = waits_for {
                won.text = format!("{}; it waits for a {waits_for} to confirm", won.text);
            }
            return Some(won);
        }
        State::NoDifference => "no_difference",
        State::NoPlannedLift => "no_planned_lift",
        State::Inconclusive => "inconclusive",
        State::Collecting | State::Loser | State::Invalid => return None,
    };
    let (kind, data) = (NotificationKind::NoPlannedLift, json!({ "verdict": word }));
    Some(event(evaluation, kind, "", data, why))
}

/// Harm: guardrails that are breached, a loser, and metrics on which a winner is worse.
fn harms(evaluation: &Evaluation) -> Vec<Notification> {
    let Evaluation {
        experiment,
        judgement,
        question,
        ..
    } = evaluation;
    let verdict = &judgement.verdict;
    let name_of = |group: usize| &*experiment.groups[group].name;
    let mut found = Vec::new();
    let harm_of = |group: usize, metric: &str, is_guardrail: bool, why: String| {
        let data = json!({ "group": name_of(group), "metric": metric, "guardrail": is_guardrail });
        let what = format!("{}|{metric}", name_of(group));
        event(evaluation, NotificationKind::Harm, &what, data, why)
    };
    for (metric, judged) in judgement.metrics.iter().enumerate() {
        let breached = |group: &usize| {
            judged.groups[*group]
                .guardrail
                .is_some_and(|it| it.breached)
        };
        for group in (0..judged.groups.len()).filter(breached) {
            let why = harm(question, judgement, metric, group);
            found.push(harm_of(group, &question.metrics[metric].name, true, why));
        }
    }
    let why = || reason(question, judgement);
    let is_breach = matches!(verdict.finding, Finding::Breach { .. });
    if let (State::Loser, Some(primary), false) = (verdict.state, question.primary(), is_breach) {
        let others = (0..experiment.groups.len()).filter(|it| *it != experiment.control.0);
        let group = verdict.group.or(others.last()).unwrap_or_default();
        found.push(harm_of(
            group,
            &question.metrics[primary].name,
            false,
            why(),
        ));
    }
    if let (State::Winner, Some(group)) = (verdict.state, verdict.group) {
        let worse = verdict.harms.iter();
        found.extend(
            worse.map(|metric| harm_of(group, &question.metrics[*metric].name, false, why())),
        );
    }
    found
}

/// Versions most of whose responses failed in this hour and the one before.
fn dead(plan: &Plan, evaluation: &Evaluation) -> Vec<Notification> {
    let experiment = &evaluation.experiment;
    let groups = experiment.groups.iter().enumerate();
    let is_dead = |place: usize| evaluation.recent.is_dead(place, experiment.control.0);
    let dead = groups
        .filter(|(place, _)| is_dead(*place))
        .map(|(place, group)| {
            let upstream = group
                .upstream
                .map(|upstream| &*plan.upstream(upstream).name);
            let recent = evaluation.recent.groups[place];
            let (name, shown) = (&experiment.name, group.shown());
            let text = format!(
                "{name}: most responses of {shown} fail: {} of {} in this hour and the one before",
                recent.failed, recent.answers
            );
            // A group without an upstream is a version all the same.
            let own = format!("{name}/{}", group.name);
            Notification {
                experiment: Some(name.to_string()),
                data: json!({
                    "upstream": upstream,
                    "group": *group.name,
                    "experiments": [**name],
                    "responses": recent.answers,
                    "failed": recent.failed,
                    "reason": format!("{} of {} responses failed in this hour and the one before", recent.failed, recent.answers),
                }),
                ..upstream_event(upstream.unwrap_or(&own), text, evaluation.at_ms)
            }
        });
    dead.collect()
}
