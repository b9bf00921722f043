//! What is kept of looks: the smallest p-values with their times, which are displayed, and what
//! decides as it was when the phase began.
//! Names of fields, and how they enter a question and come out of a judgement.

use crate::admin::results::stats_input;
use crate::config::plan::Plan;
use crate::experiment::guardrail::GuardrailTarget;
use crate::experiment::metric::Metric;
use crate::experiment::metric_definition::duration;
use crate::experiment::{EpochDigest, Experiment, Group, Horizon, MetricIndex};
use crate::stats::{
    self, ANALYSES, Given, Goal, History, Judgement, PlannedAnalysis, Question, Role, Shown, State,
};
use crate::store::phases::{self, Placement};
use crate::store::running_minima::RunningMinima;

/// What makes an experiment itself: with another salt users are split anew, and with another
/// control something else is compared. Nothing of an earlier identity is used then.
fn identity(experiment: &Experiment) -> String {
    let control = &experiment.groups[experiment.control.0].name;
    let (name, salt) = (&experiment.name, &experiment.salt);
    // Lengths stand before texts, so that no two identities write the same text.
    digest(&format!(
        "{}:{name} {}:{salt} {control}",
        name.len(),
        salt.len()
    ))
}

fn digest(text: &str) -> String {
    format!("{:016x}", phases::digest(text))
}

/// An experiment with what decides as it was when the phase began: the metric, first of all, and the
/// shortest duration. What the file says otherwise holds from the next phase on.
pub(crate) fn as_begun(plan: &Plan, experiment: &Experiment, kept: &RunningMinima) -> Experiment {
    let mut begun = experiment.clone();
    let identity = identity(experiment);
    let is_primary = |index: &MetricIndex| {
        kept.first.get(&primary_field(&identity)) == Some(&plan.metric(*index).name.to_string())
    };
    if let Some(place) = begun.metrics.iter().position(is_primary) {
        begun.metrics[..=place].rotate_right(1);
    }
    let shortest = kept.first.get(&min_duration_field(&identity));
    let shortest = shortest.and_then(|text| text.parse().ok());
    begun.min_duration_ms = shortest.unwrap_or(experiment.min_duration_ms);
    if let Some(text) = kept.first.get(&horizon_field(&identity)) {
        begun.horizon = read_horizon(text);
    }
    begun
}

/// The metric that decides, where the file no longer has it: then there can be no verdict.
pub(crate) fn gone_primary(
    plan: &Plan,
    experiment: &Experiment,
    kept: &RunningMinima,
) -> Option<String> {
    let began = kept.first.get(&primary_field(&identity(experiment)))?;
    let mut metrics = experiment.metrics.iter();
    let is_there = metrics.any(|&index| *plan.metric(index).name == **began);
    (!is_there).then(|| began.clone())
}

/// Whether users of an epoch were split as they are now: version 0.1 counted other salts under the
/// same name. Epochs of which nothing is kept count.
pub(crate) fn belongs(experiment: &Experiment, epoch: EpochDigest, kept: &RunningMinima) -> bool {
    let salt = kept.first.get(&salt_field(epoch));
    salt.is_none_or(|salt| *salt == digest(&experiment.salt))
}

/// Puts what is kept into the question.
pub(crate) fn recall(
    experiment: &Experiment,
    placement: &Placement,
    question: &mut Question,
    kept: &RunningMinima,
) {
    let identity = identity(experiment);
    question.previous_sample_ratio_p = kept.lowest.get(&sizes_field(&identity)).copied();
    for metric in &mut question.metrics {
        let began = |what: &str| kept.first.get(&metric_field(what, &identity, metric));
        let share = |what: &str| began(what).and_then(|text| sound_share(text));
        let (detect, margin) = (share("detect"), share("margin"));
        let goal = began("goal").map(|text| goal_named(text));
        if !is_guardrail(metric) {
            metric.detect = detect.unwrap_or(metric.detect);
            metric.margin = margin.unwrap_or(metric.margin);
            metric.goal = goal.unwrap_or(metric.goal);
        }
        let series = placement.series_of(&metric.name);
        let history = experiment.groups.iter().map(|group| {
            let field = p_field(&identity, (metric, series), &group.name);
            History {
                lowest: shown(kept, &field),
                better: shown(kept, &side_field(BETTER, &field)),
                worse: shown(kept, &side_field(WORSE, &field)),
            }
        });
        metric.history = history.collect();
    }
    recall_analyses(experiment, placement, question, kept);
    question.given = givens(&identity, experiment, placement, question)
        .into_iter()
        .filter(|(_, field)| kept.first.contains_key(field))
        .map(|(given, _)| given)
        .collect();
}

/// Puts the analyses on the way to a planned end into the question.
fn recall_analyses(
    experiment: &Experiment,
    placement: &Placement,
    question: &mut Question,
    kept: &RunningMinima,
) {
    let primary = question.primary().map(|place| &question.metrics[place]);
    let (Some(primary), Some(horizon)) = (primary, &mut question.horizon) else {
        return;
    };
    let identity = identity(experiment);
    let series = placement.series_of(&primary.name);
    let of_group = |group: &Group| {
        let field = |number: u32| {
            let words = [
                series,
                kind_of(primary.kind),
                &*group.name,
                &number.to_string(),
            ];
            field("analysis", &identity, &words)
        };
        let numbers = 1..=ANALYSES;
        let made = numbers.filter_map(|number| {
            let text = kept.first.get(&field(number))?;
            read_analysis(number, text)
        });
        made.collect()
    };
    horizon.made = experiment.groups.iter().map(of_group).collect();
}

/// What is kept of an analysis: progress, estimate, variance, bound, time, and `difference` or
/// `ratio`.
fn write_analysis(analysis: &PlannedAnalysis) -> String {
    let PlannedAnalysis {
        progress,
        delta,
        variance,
        bound,
        is_difference,
        at_ms,
        ..
    } = analysis;
    let scale = if *is_difference {
        "difference"
    } else {
        "ratio"
    };
    format!("{progress:e} {delta:e} {variance:e} {bound:e} {at_ms} {scale}")
}

fn read_analysis(number: u32, text: &str) -> Option<PlannedAnalysis> {
    let words: Vec<&str> = text.split(' ').collect();
    let [progress, delta, variance, bound, at_ms, scale] = words[..] else {
        return None;
    };
    let number_of = |text: &str| text.parse().ok().filter(|number: &f64| number.is_finite());
    Some(PlannedAnalysis {
        number,
        progress: number_of(progress)?,
        delta: number_of(delta)?,
        variance: number_of(variance).filter(|variance| *variance > 0.0)?,
        bound: number_of(bound)?,
        is_difference: scale == "difference",
        at_ms: at_ms.parse().ok()?,
    })
}

/// Verdicts that are given after whole weeks, with the field that holds when each was.
fn givens(
    identity: &str,
    experiment: &Experiment,
    placement: &Placement,
    question: &Question,
) -> Vec<(Given, String)> {
    let Some(primary) = question.primary() else {
        return Vec::new();
    };
    let metric = &question.metrics[primary];
    let (series, kind) = (placement.series_of(&metric.name), kind_of(metric.kind));
    let alone = [
        ((State::NoDifference, None), "no_difference", ""),
        ((State::NoPlannedLift, None), "no_planned_lift", ""),
        ((State::Inconclusive, None), "inconclusive", ""),
    ];
    let winners = experiment.groups.iter().enumerate().map(|(place, group)| {
        let given = (State::Winner, Some(place));
        (given, "winner", &*group.name)
    });
    let all = alone.into_iter().chain(winners);
    all.map(|(given, word, group)| {
        (
            given,
            field("given", identity, &[series, kind, word, group]),
        )
    })
    .collect()
}

fn shown(kept: &RunningMinima, field: &str) -> Option<Shown> {
    Some(Shown {
        p: *kept.lowest.get(field)?,
        at_ms: kept.lowest_at.get(field).copied(),
    })
}

/// What this look adds to what is kept.
pub(crate) fn found(
    experiment: &Experiment,
    placement: &Placement,
    question: &Question,
    judgement: &Judgement,
) -> RunningMinima {
    let identity = identity(experiment);
    let mut kept = RunningMinima::default();
    // Before its first user an experiment has not begun: what is planned may still change.
    if question.started_at_ms.is_none() {
        return kept;
    }
    let min_duration = question.min_duration_ms.to_string();
    kept.first
        .insert(min_duration_field(&identity), min_duration);
    let horizon = experiment
        .horizon
        .map_or(NO_HORIZON.to_owned(), Horizon::text);
    kept.first.insert(horizon_field(&identity), horizon);
    let primary = question
        .primary()
        .map(|place| question.metrics[place].name.clone());
    kept.first
        .extend(primary.map(|name| (primary_field(&identity), name)));
    let verdict = (judgement.verdict.state, judgement.verdict.group);
    let givens = givens(&identity, experiment, placement, question);
    let given = givens.into_iter().find(|(given, _)| *given == verdict);
    let at_ms = |(_, field): (Given, String)| (field, question.now_ms.to_string());
    kept.first.extend(given.map(at_ms));
    let sizes = judgement.sample_ratio.p_value;
    kept.lowest
        .extend(sizes.map(|p| (sizes_field(&identity), p)));
    for (metric, judged) in question.metrics.iter().zip(&judgement.metrics) {
        if !is_guardrail(metric) {
            for (what, text) in [
                ("detect", metric.detect.to_string()),
                ("margin", metric.margin.to_string()),
                ("goal", goal_name(metric.goal).to_owned()),
            ] {
                let field = metric_field(what, &identity, metric);
                kept.first.insert(field, text);
            }
        }
        let series = placement.series_of(&metric.name);
        for (group, judged) in experiment.groups.iter().zip(&judged.groups) {
            for analysis in &judged.analyses {
                let number = analysis.number.to_string();
                let words = [series, kind_of(metric.kind), &*group.name, &number];
                let field = field("analysis", &identity, &words);
                kept.first.insert(field, write_analysis(analysis));
            }
            let field = p_field(&identity, (metric, series), &group.name);
            let History {
                lowest,
                better,
                worse,
            } = judged.history;
            for (field, shown) in [
                (side_field(BETTER, &field), better),
                (side_field(WORSE, &field), worse),
                (field, lowest),
            ] {
                let Some(shown) = shown else { continue };
                let at_ms = shown.at_ms.map(|at_ms| (field.clone(), at_ms));
                kept.lowest_at.extend(at_ms);
                kept.lowest.insert(field, shown.p);
            }
        }
    }
    kept
}

/// Where the file says something else than what the phase began with: which of both holds, and from
/// when on.
pub(crate) fn disagreements(
    plan: &Plan,
    experiment: &Experiment,
    placement: &Placement,
    kept: &RunningMinima,
) -> Vec<String> {
    let identity = identity(experiment);
    let name = &experiment.name;
    let began = |field: String| kept.first.get(&field);
    let stays = |key: String, file: String, began: String| {
        format!(
            "{key}: the file says {file}, but {name} began with {began}, which decides until a new phase begins (with another `salt`): changed later, it would cost verdicts their meaning"
        )
    };
    let mut told = Vec::new();
    if let (Some(primary), Some(&index)) =
        (began(primary_field(&identity)), experiment.metrics.first())
        && **primary != *plan.metric(index).name
    {
        let file = plan.metric(index).name.to_string();
        told.push(stays(
            format!("experiments.{name}.metrics"),
            file,
            primary.clone(),
        ));
    }
    let shortest = began(min_duration_field(&identity)).and_then(|text| text.parse().ok());
    if let Some(shortest) = shortest.filter(|ms| *ms != experiment.min_duration_ms) {
        told.push(stays(
            format!("experiments.{name}.min_duration"),
            duration(experiment.min_duration_ms),
            duration(shortest),
        ));
    }
    let file = experiment
        .horizon
        .map_or(NO_HORIZON.to_owned(), Horizon::text);
    if let Some(began) = began(horizon_field(&identity)).filter(|began| **began != file) {
        let key = format!("experiments.{name}.horizon");
        told.push(stays(key, file, began.clone()));
    }
    for &index in &experiment.metrics {
        let metric = plan.metric(index);
        let words = [&*metric.name, metric.kind.name()];
        let began = |what: &str| began(field(what, &identity, &words));
        for (what, file) in [("detect", metric.detect), ("margin", metric.margin)] {
            let began = began(what).and_then(|text| sound_share(text));
            if let Some(began) = began.filter(|began| *began != file) {
                let key = format!("metrics.{}.{what}", metric.name);
                told.push(stays(key, percent(file), percent(began)));
            }
        }
        let file = goal_name(stats_input::goal(metric.goal));
        if let Some(began) = began("goal").filter(|began| **began != file) {
            let key = format!("metrics.{}.goal", metric.name);
            told.push(stays(key, file.to_owned(), began.clone()));
        }
        told.extend(other_series(metric, experiment, placement, kept));
    }
    told.extend(later_guardrails(plan, experiment, placement));
    told
}

/// Guardrails that were added after the phase had begun. Metrics have a warning of their own.
fn later_guardrails(plan: &Plan, experiment: &Experiment, placement: &Placement) -> Vec<String> {
    let name = &experiment.name;
    let added = experiment.guardrails.iter().filter(|guardrail| {
        let counted = guardrail.counted_name(&plan.metrics);
        !matches!(guardrail.what, GuardrailTarget::Metric(_))
            && placement.series.contains_key(&*counted)
    });
    let told = added.map(|guardrail| {
        format!(
            "experiments.{name}.guardrails.{}: it was added after {name} had begun, and counts users who came since",
            guardrail.name(&plan.metrics)
        )
    });
    told.collect()
}

/// That a metric is counted otherwise than when the phase began.
fn other_series(
    metric: &Metric,
    experiment: &Experiment,
    placement: &Placement,
    kept: &RunningMinima,
) -> Option<String> {
    placement.series.get(&*metric.name)?;
    let (name, now) = (&metric.name, metric.definition());
    let began = phases::began(kept)?.remove(&*metric.name);
    Some(match began {
        Some(began) => format!(
            "metrics.{name}: {} began with ({began}), and the file says ({now}): what it counted until then is kept, and a new series counts users who came since",
            experiment.name
        ),
        None => format!(
            "metrics.{name}: it was added after {} had begun, and counts users who came since",
            experiment.name
        ),
    })
}

fn sound_share(text: &str) -> Option<f64> {
    let share = text.parse().ok();
    share.filter(|share: &f64| *share > 0.0 && share.is_finite())
}

/// A goal as the file writes it.
pub(crate) fn goal_name(goal: Goal) -> &'static str {
    match goal {
        Goal::Increase => "increase",
        Goal::Decrease => "decrease",
    }
}

fn goal_named(text: &str) -> Goal {
    match text {
        "decrease" => Goal::Decrease,
        _ => Goal::Increase,
    }
}

fn is_guardrail(metric: &stats::MetricInput) -> bool {
    matches!(metric.role, Role::Guardrail { .. })
}

/// `salt|<epoch>`.
fn salt_field(epoch: EpochDigest) -> String {
    format!("salt|{epoch}")
}

/// `sizes|<identity>`.
fn sizes_field(identity: &str) -> String {
    field("sizes", identity, &[])
}

/// `detect|<identity>|<metric>|<kind>`, and so on.
fn metric_field(what: &str, identity: &str, metric: &stats::MetricInput) -> String {
    field(what, identity, &[&metric.name, kind_of(metric.kind)])
}

/// `primary|<identity>`: the metric that decides.
fn primary_field(identity: &str) -> String {
    field("primary", identity, &[])
}

/// `horizon|<identity>`: as the file writes it.
fn horizon_field(identity: &str) -> String {
    field("horizon", identity, &[])
}

const NO_HORIZON: &str = "none";

fn read_horizon(text: &str) -> Option<Horizon> {
    match text.parse() {
        Ok(users) => Some(Horizon::Users(users)),
        Err(_) => {
            let time = humantime::parse_duration(text).ok()?;
            Some(Horizon::Time(time.as_millis() as u64))
        }
    }
}

/// `min_duration|<identity>`, in milliseconds.
fn min_duration_field(identity: &str) -> String {
    field("min_duration", identity, &[])
}

/// `p|<identity>|<series>|<kind>|<group>`: what is tested, whatever the weights. A guardrail is
/// another hypothesis for each growth that is tolerated:
/// `guardrail|<identity>|<series>|<kind>|<max_increase>|<group>`.
fn p_field(identity: &str, (metric, series): (&stats::MetricInput, &str), group: &str) -> String {
    let kind = kind_of(metric.kind);
    match metric.role {
        Role::Guardrail { max_increase } => field(
            "guardrail",
            identity,
            &[
                &series.replace(' ', "-"),
                kind,
                &max_increase.to_string(),
                group,
            ],
        ),
        Role::Primary | Role::Secondary => field("p", identity, &[series, kind, group]),
    }
}

/// `better|` or `worse|` before the field of the p-value: the smallest corrected p-value of those
/// analyses that showed that side.
fn side_field(side: &str, p_field: &str) -> String {
    format!("{side}|{p_field}")
}

const BETTER: &str = "better";
const WORSE: &str = "worse";

fn field(what: &str, identity: &str, rest: &[&str]) -> String {
    let mut field = format!("{what}|{identity}");
    for word in rest {
        field.push('|');
        field.push_str(word);
    }
    field
}

fn kind_of(kind: stats::Kind) -> &'static str {
    match kind {
        stats::Kind::Conversion => "conversion",
        stats::Kind::Count => "count",
        stats::Kind::Mean => "mean",
        stats::Kind::Ratio => "ratio",
        stats::Kind::Quantile => "latency",
    }
}

fn percent(share: f64) -> String {
    // Rounded to what a person writes: 0.1 · 100 is not always 10.
    format!("{} %", (share * 1e8).round() / 1e6)
}
