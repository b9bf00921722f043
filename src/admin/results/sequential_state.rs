//! What is kept of looks: the smallest p-values with their times, which are displayed, and the
//! planned lift as it was at the start.
//! Names of fields, and how they enter a question and come out of a judgement.

use crate::config::plan::Plan;
use crate::experiment::metric::MetricKind;
use crate::experiment::{EpochDigest, Experiment};
use crate::stats::{self, Given, History, Judgement, Question, Role, Shown, State};
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
    // Reading from memory cannot fail, and the crate adds no error of its own.
    let wide = murmur3::murmur3_x64_128(&mut text.as_bytes(), 0).unwrap_or_default();
    format!("{:016x}", wide as u64)
}

/// Whether users of an epoch were split as they are now. Epochs of which nothing is kept are from
/// before any look, and count.
pub fn belongs(experiment: &Experiment, epoch: EpochDigest, kept: &RunningMinima) -> bool {
    let salt = kept.first.get(&salt_field(epoch));
    salt.is_none_or(|salt| *salt == digest(&experiment.salt))
}

/// Puts what is kept into the question.
pub fn recall(experiment: &Experiment, question: &mut Question, kept: &RunningMinima) {
    let identity = identity(experiment);
    question.previous_sample_ratio_p = kept.lowest.get(&sizes_field(&identity)).copied();
    let groups = &question.groups;
    for metric in &mut question.metrics {
        if let Some(detect) = planned(&identity, metric, kept) {
            metric.detect = detect;
        }
        let history = groups.iter().map(|group| {
            let field = p_field(&identity, metric, &group.name);
            History {
                lowest: shown(kept, &field),
                better: shown(kept, &side_field(BETTER, &field)),
                worse: shown(kept, &side_field(WORSE, &field)),
            }
        });
        metric.history = history.collect();
    }
    question.given = givens(&identity, question)
        .filter(|(_, field)| kept.first.contains_key(field))
        .map(|(given, _)| given)
        .collect();
}

/// Verdicts that are given after whole weeks, with the field that holds when each was.
fn givens(identity: &str, question: &Question) -> impl Iterator<Item = (Given, String)> {
    let primary = question.primary().map(|place| &question.metrics[place]);
    primary.into_iter().flat_map(move |metric| {
        let alone = [
            ((State::NoDifference, None), "no_difference", ""),
            ((State::NoPlannedLift, None), "no_planned_lift", ""),
        ];
        let winners = question.groups.iter().enumerate().map(|(place, group)| {
            let given = (State::Winner, Some(place));
            (given, "winner", &*group.name)
        });
        alone
            .into_iter()
            .chain(winners)
            .map(move |(given, word, group)| {
                let words = [&*metric.name, kind_of(metric.kind), word, group];
                (given, field("given", identity, &words))
            })
    })
}

fn shown(kept: &RunningMinima, field: &str) -> Option<Shown> {
    Some(Shown {
        p: *kept.lowest.get(field)?,
        at_ms: kept.lowest_at.get(field).copied(),
    })
}

/// What this look adds to what is kept.
pub fn found(experiment: &Experiment, question: &Question, judgement: &Judgement) -> RunningMinima {
    let identity = identity(experiment);
    let mut kept = RunningMinima::default();
    // Before its first user an experiment has not begun: what is planned may still change.
    if question.started_at_ms.is_none() {
        return kept;
    }
    let salt = digest(&experiment.salt);
    kept.first.insert(salt_field(experiment.epoch), salt);
    let verdict = (judgement.verdict.state, judgement.verdict.group);
    let given = givens(&identity, question).find(|(given, _)| *given == verdict);
    let at_ms = |(_, field): (Given, String)| (field, question.now_ms.to_string());
    kept.first.extend(given.map(at_ms));
    let sizes = judgement.sample_ratio.p_value;
    kept.lowest
        .extend(sizes.map(|p| (sizes_field(&identity), p)));
    for (metric, judged) in question.metrics.iter().zip(&judgement.metrics) {
        if !is_guardrail(metric) {
            let field = detect_field(&identity, metric);
            kept.first.insert(field, metric.detect.to_string());
        }
        for (group, judged) in question.groups.iter().zip(&judged.groups) {
            let field = p_field(&identity, metric, &group.name);
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

/// Where the file plans something else than what the experiment began with.
pub fn disagreements(plan: &Plan, experiment: &Experiment, kept: &RunningMinima) -> Vec<String> {
    let identity = identity(experiment);
    let planned = experiment.metrics.iter().filter_map(|&index| {
        let metric = plan.metric(index);
        let field = field("detect", &identity, &[&metric.name, kind(metric.kind)]);
        let began: f64 = kept.first.get(&field)?.parse().ok()?;
        (began != metric.detect).then(|| {
            format!(
                "metrics.{}.detect: the file says {}, but {} began with {}, which stays: changed later, it would cost p-values their meaning. A new `salt` begins anew",
                metric.name,
                percent(metric.detect),
                experiment.name,
                percent(began)
            )
        })
    });
    planned.collect()
}

fn planned(identity: &str, metric: &stats::Metric, kept: &RunningMinima) -> Option<f64> {
    let text = kept.first.get(&detect_field(identity, metric))?;
    let detect = text.parse().ok();
    detect.filter(|detect: &f64| *detect > 0.0 && detect.is_finite())
}

fn is_guardrail(metric: &stats::Metric) -> bool {
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

/// `detect|<identity>|<metric>|<kind>`.
fn detect_field(identity: &str, metric: &stats::Metric) -> String {
    field("detect", identity, &[&metric.name, kind_of(metric.kind)])
}

/// `p|<identity>|<metric>|<kind>|<group>`: what is tested, whatever the weights. A guardrail is
/// another hypothesis for each growth that is tolerated:
/// `guardrail|<identity>|<metric>|<kind>|<max_increase>|<group>`.
fn p_field(identity: &str, metric: &stats::Metric, group: &str) -> String {
    let kind = kind_of(metric.kind);
    match metric.role {
        Role::Guardrail { max_increase } => field(
            "guardrail",
            identity,
            &[
                &metric.name.replace(' ', "-"),
                kind,
                &max_increase.to_string(),
                group,
            ],
        ),
        Role::Primary | Role::Secondary => field("p", identity, &[&metric.name, kind, group]),
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

/// A metric's kind, as results and fields name it.
pub fn kind(kind: MetricKind) -> &'static str {
    kind_of(crate::admin::results::stats_input::kind(kind))
}

fn percent(share: f64) -> String {
    // Rounded to what a person writes: 0.1 · 100 is not always 10.
    format!("{} %", (share * 1e8).round() / 1e6)
}
