//! From a question to a judgement, from top to bottom.

use super::analysis::{GroupJudgement, Judgement, Method, MetricJudgement, Side};
use super::compare::{Compared, compare, method};
use super::covariate::Slopes;
use super::decision::verdict;
use super::guardrail::{self, Data};
use super::horizon::{self, EndAfter, PlannedAnalysis, PlannedEnd};
use super::input::{History, Kind, MetricInput, Question, Role, Samples, Shown};
use super::interval::{Interval, finite};
use super::moments::{Sums, unit};
use super::multiple_testing::{self, Corrected, interval_levels};
use super::planning::POWER;
use super::quantile;
use super::srm::sample_ratio;
use super::stratified;
use super::{normal_mixture, proportion_interval};

/// What the data say. Same question, same judgement: nothing else is looked at.
pub fn judge(question: &Question) -> Judgement {
    let control = question.control();
    let primary = question.primary();
    let sample_ratio = sample_ratio(&question.epochs, question.previous_sample_ratio_p);
    let cases = compare_all(question, control);
    let mut metrics: Vec<MetricJudgement> = question
        .metrics
        .iter()
        .map(|metric| describe(question, metric))
        .collect();
    describe_comparisons(question, &cases, &mut metrics);
    let (guardrails, others): (Vec<&Case>, Vec<&Case>) = cases
        .iter()
        .partition(|case| max_increase(&question.metrics[case.metric]).is_some());
    let (primaries, secondaries): (Vec<&Case>, Vec<&Case>) = others
        .into_iter()
        .partition(|case| Some(case.metric) == primary);
    judge_primary(question, &primaries, &mut metrics);
    if let Some(horizon) = &question.horizon {
        judge_planned(question, horizon, &primaries, &mut metrics);
    }
    judge_secondary(question, &secondaries, &mut metrics);
    judge_guardrails(question, &guardrails, &mut metrics);
    write_history(question, control, &mut metrics);
    let verdict = verdict(question, primary, &sample_ratio, &metrics);
    Judgement {
        sample_ratio,
        metrics,
        verdict,
    }
}

/// One group against control on one metric.
struct Case {
    metric: usize,
    group: usize,
    compared: Compared,
}

fn compare_all(question: &Question, control: usize) -> Vec<Case> {
    let groups = || (0..question.groups.len()).filter(move |&group| group != control);
    let metrics = question.metrics.iter().enumerate();
    metrics
        .flat_map(|(place, metric)| {
            groups().map(move |group| Case {
                metric: place,
                group,
                compared: compare(question, metric, control, group),
            })
        })
        .collect()
}

fn max_increase(metric: &MetricInput) -> Option<f64> {
    match metric.role {
        Role::Guardrail { max_increase } => Some(max_increase),
        Role::Primary | Role::Secondary => None,
    }
}

/// Each group by itself.
fn describe(question: &Question, metric: &MetricInput) -> MetricJudgement {
    let groups = (0..question.groups.len()).map(|group| {
        if let Some(samples) = &metric.samples {
            return describe_quantile(question, samples, group);
        }
        let sums = pooled(metric, group);
        GroupJudgement {
            rate: mean_of(metric, &sums),
            interval: match metric.kind {
                Kind::Conversion => {
                    proportion_interval::interval(sums.users, sums.converted, question.alpha)
                }
                kind => stratified::plain(metric, &sums).map_or(Interval::UNKNOWN, |plain| {
                    normal_mixture::interval_of_rate(kind, &plain, metric.detect, question.alpha)
                }),
            },
            ..GroupJudgement::default()
        }
    });
    MetricJudgement {
        method: method(metric),
        groups: groups.collect(),
        users_needed: None,
        gain: Slopes::of(metric).map(|slopes| slopes.gain()),
    }
}

/// One group's quantile over all of its users.
fn describe_quantile(question: &Question, samples: &Samples, group: usize) -> GroupJudgement {
    let counts = samples.counts.iter().filter_map(|epoch| epoch.get(group));
    let all = quantile::together(counts);
    let bucket = quantile::quantile(&[(1.0, &all)], samples.share);
    let evidence = quantile::QuantileEvidence::new(&all, samples.share);
    let (low, high) = evidence.interval(question.alpha);
    GroupJudgement {
        rate: bucket.map(|bucket| samples.middle(bucket)),
        interval: Interval {
            low: low.map(|low| samples.edge(f64::from(low))),
            high: high.map(|high| samples.edge(f64::from(high + 1))),
        },
        ..GroupJudgement::default()
    }
}

fn pooled(metric: &MetricInput, group: usize) -> Sums {
    let each = metric.totals.iter().filter_map(|totals| totals.get(group));
    each.fold(Sums::default(), |sum, totals| {
        sum.plus(Sums::of(metric.kind, totals))
    })
}

/// The rate, which is known before its variance is.
fn mean_of(metric: &MetricInput, sums: &Sums) -> Option<f64> {
    let raw = match metric.kind {
        Kind::Ratio => (sums.base != 0).then(|| sums.sum as f64 / sums.base as f64)?,
        Kind::Conversion | Kind::Count | Kind::Mean => sums.mean()?,
        Kind::Quantile => return None,
    };
    let shift = stratified::overall(metric).map_or(0.0, |it| it.shift(sums));
    finite((raw - shift) * unit(metric))
}

/// What needs no correction for other groups and metrics.
fn describe_comparisons(question: &Question, cases: &[Case], judged: &mut [MetricJudgement]) {
    for case in cases {
        let metric = &question.metrics[case.metric];
        let seen = case
            .compared
            .periods
            .iter()
            .any(|period| period.control.users > 0 && period.own.users > 0);
        let ln_e = match max_increase(metric) {
            Some(max_increase) => guardrail::ln_e(&data(metric, &case.compared), max_increase),
            None => case.compared.ln_e(),
        };
        let chance = case.compared.chance(metric);
        let group = &mut judged[case.metric].groups[case.group];
        group.ln_e = seen.then_some(ln_e).and_then(finite);
        group.p_value = seen.then(|| multiple_testing::p_value(ln_e)).flatten();
        let futility = multiple_testing::p_value(case.compared.ln_futility(metric));
        group.planned_lift_p = futility.filter(|_| seen && max_increase(metric).is_none());
        group.chance_to_beat_control = chance.map(|(chance, _)| chance);
        group.expected_loss = chance.map(|(_, loss)| loss);
    }
}

/// Holm over the groups, on the p-values of this analysis.
fn judge_primary(question: &Question, cases: &[&Case], judged: &mut [MetricJudgement]) {
    let p = |case: &&Case| {
        judged[case.metric].groups[case.group]
            .p_value
            .unwrap_or(1.0)
    };
    let p: Vec<f64> = cases.iter().map(p).collect();
    correct(
        question,
        cases,
        &multiple_testing::holm(&p, question.alpha),
        judged,
    );
    let needed = |case: &&Case| {
        let alpha = question.alpha / cases.len() as f64;
        case.compared.users_factor(alpha, POWER)
    };
    let users = question.users();
    // The slowest group decides; a group of which nothing is known yet has no pace.
    let factors: Option<Vec<f64>> = cases.iter().map(needed).collect();
    if let (Some(factors), Some(first)) = (factors, cases.first()) {
        let slowest = factors.iter().copied().fold(1.0, f64::max);
        judged[first.metric].users_needed = Some((slowest * users as f64).ceil() as u64);
    }
}

/// By the analyses on the way to a planned end, which take the place of what holds at any look.
fn judge_planned(
    question: &Question,
    planned: &PlannedEnd,
    cases: &[&Case],
    judged: &mut [MetricJudgement],
) {
    let alpha = question.alpha / cases.len().max(1) as f64;
    for case in cases {
        let metric = &question.metrics[case.metric];
        let users: u64 = metric.totals.iter().flatten().map(|it| it.users).sum();
        let progress = question.progress(metric).unwrap_or(0.0);
        let mut made = planned.made.get(case.group).cloned().unwrap_or_default();
        let estimate = case.compared.estimate().filter(|_| !question.is_partial);
        let due = estimate
            .and_then(|estimate| horizon::due(&made, progress, &estimate, alpha, question.now_ms));
        made.extend(due);
        judged[case.metric].method = Method::PlannedAnalyses;
        judged[case.metric].users_needed = match planned.at {
            EndAfter::Users(users) => Some(users),
            EndAfter::Time(_) => (progress > 0.0).then(|| (users as f64 / progress).ceil() as u64),
        };
        let group = &mut judged[case.metric].groups[case.group];
        let lift = case.compared.lift_at(metric, made.last());
        let is_shown = made.last().is_some_and(PlannedAnalysis::shows);
        group.significant = is_shown && lift.decisive().excludes_zero();
        group.lift = Some(lift);
        group.analyses = made;
    }
}

/// All secondary metrics and groups together: e-BH, on the evidence of this look.
fn judge_secondary(question: &Question, cases: &[&Case], judged: &mut [MetricJudgement]) {
    let ln_e = |case: &&Case| judged[case.metric].groups[case.group].ln_e.unwrap_or(0.0);
    let ln_e: Vec<f64> = cases.iter().map(ln_e).collect();
    correct(
        question,
        cases,
        &multiple_testing::e_bh(&ln_e, question.alpha),
        judged,
    );
}

/// Writes down what the correction found, and intervals to match.
fn correct(
    question: &Question,
    cases: &[&Case],
    corrected: &Corrected,
    judged: &mut [MetricJudgement],
) {
    let levels = interval_levels(&corrected.reject, question.alpha);
    for (place, case) in cases.iter().enumerate() {
        let metric = &question.metrics[case.metric];
        let group = &mut judged[case.metric].groups[case.group];
        group.adjusted_p = Some(corrected.adjusted[place]);
        let lift = case.compared.lift(metric, levels[place]);
        group.significant = corrected.reject[place] && lift.decisive().excludes_zero();
        group.lift = Some(lift);
    }
}

/// Each guardrail and group at its part of the error.
fn judge_guardrails(question: &Question, cases: &[&Case], judged: &mut [MetricJudgement]) {
    let alpha = question.guardrail_alpha / cases.len() as f64;
    for case in cases {
        let metric = &question.metrics[case.metric];
        let group = &mut judged[case.metric].groups[case.group];
        let rates = case.compared.rates;
        let dead = guardrail::dead(
            metric.kind,
            rates.as_ref().map(|rates| &rates.control),
            rates.as_ref().map(|rates| &rates.own),
        );
        let found = guardrail::judge(&data(metric, &case.compared), group.p_value, dead, alpha);
        let mut lift = case.compared.lift(metric, alpha);
        lift.relative_interval = found.interval();
        group.lift = Some(lift);
        group.significant = found.breached;
        group.guardrail = Some(found);
    }
}

/// Adds this analysis to what earlier ones found.
fn write_history(question: &Question, control: usize, judged: &mut [MetricJudgement]) {
    for (metric, judged) in question.metrics.iter().zip(judged) {
        for (place, group) in judged.groups.iter_mut().enumerate() {
            if place == control {
                continue;
            }
            let known = metric.history.get(place).copied().unwrap_or_default();
            group.history = match group.p_value {
                Some(p) if !question.is_partial => after(question, metric, group, known, p),
                _ => known,
            };
        }
    }
}

fn after(
    question: &Question,
    metric: &MetricInput,
    group: &GroupJudgement,
    known: History,
    p: f64,
) -> History {
    let at = |p: f64| Shown {
        p,
        at_ms: Some(question.now_ms),
    };
    let corrected = at(group.adjusted_p.unwrap_or(p));
    let mut history = History {
        lowest: Shown::lower(known.lowest, at(p)),
        ..known
    };
    match group.shown(metric) {
        Some(Side::Better) => history.better = Shown::lower(known.better, corrected),
        Some(Side::Worse) => history.worse = Shown::lower(known.worse, corrected),
        None => {}
    }
    history
}

fn data<'a>(metric: &MetricInput, compared: &'a Compared) -> Data<'a> {
    if let Some(quantiles) = compared.quantiles() {
        return Data::Quantile(quantiles);
    }
    match metric.kind {
        Kind::Conversion => Data::Users(&compared.terms),
        Kind::Count | Kind::Mean | Kind::Ratio | Kind::Quantile => {
            Data::Log(compared.log_estimate(metric))
        }
    }
}
