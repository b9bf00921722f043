//! Pure mathematics: totals in; estimates, intervals and a verdict out.
//!
//! Everything here holds however often one looks: results are looked at all day, and a test that
//! is sound only when looked at once would find winners where there are none. [`judge`] is the
//! front door. The engines are [`conversions`] (exact, for shares of users) and [`sequence`]
//! (for means); [`balance`] says whether the groups have the sizes they should.

pub mod balance;
pub mod conversions;
pub mod moments;
pub mod sequence;
pub mod verdict;

use moments::{Moments, Sums};
pub use verdict::{State, Verdict};

/// What is asked about one experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Names of the groups, in file order.
    pub groups: Vec<String>,
    /// The place of the control group.
    pub control: usize,
    /// Periods of constant weights, in order.
    pub epochs: Vec<Epoch>,
    /// What judges the experiment; the primary metric first.
    pub metrics: Vec<Metric>,
    /// Whether the earliest time for a verdict has come.
    pub ripe: bool,
    /// The whole error allowed, such as 0.05.
    pub alpha: f64,
}

/// A period of constant weights. Vectors are in the order of the groups.
#[derive(Clone, Debug, PartialEq)]
pub struct Epoch {
    /// The designed share of each group, adding up to 1; 0 for a group that was not there.
    pub shares: Vec<f64>,
    /// Users first exposed in this epoch.
    pub users: Vec<u64>,
}

/// One metric's data.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// How users become a rate.
    pub kind: Kind,
    /// Whether more is better.
    pub increase: bool,
    /// The planned relative lift, such as 0.1.
    pub detect: f64,
    /// The relative difference that counts as none, such as 0.01.
    pub margin: f64,
    /// By epoch, then by group.
    pub sums: Vec<Vec<Sums>>,
}

/// How a metric's users become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Share of users with an event.
    Conversion,
    /// Sum of values per user. Counts are values of 1.
    Mean,
    /// Sum of values over sum of a base.
    Ratio,
}

/// What can be said of one experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// Whether the groups have the sizes that their weights ask for.
    pub balance: balance::Balance,
    /// In the order of the question's metrics.
    pub metrics: Vec<MetricJudgement>,
    /// Which group is better, or why that cannot be said.
    pub verdict: Verdict,
}

/// What can be said of one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricJudgement {
    /// Which method gave the intervals of lifts.
    pub method: &'static str,
    /// In the order of the question's groups.
    pub groups: Vec<GroupJudgement>,
}

/// What can be said of one metric in one group. `None` is not known yet, or unbounded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupJudgement {
    /// The rate: a share, a mean or a ratio.
    pub rate: Option<f64>,
    /// Where the true rate lies.
    pub interval: Option<(f64, f64)>,
    /// The comparison with control; `None` for control itself.
    pub lift: Option<Lift>,
}

/// A group compared with control.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lift {
    /// The difference of the rates.
    pub absolute: Option<f64>,
    /// Where the true difference lies.
    pub absolute_interval: Option<(f64, f64)>,
    /// The relative difference: 0.1 is 10 % more than control.
    pub relative: Option<f64>,
    /// Where the true relative difference lies; an end can be unbounded.
    pub relative_interval: (Option<f64>, Option<f64>),
    /// The chance of such evidence at any look, were there no difference; at most 1.
    pub p_value: Option<f64>,
}

/// What the data say. The error is split over the comparisons with control (Bonferroni), so that
/// with several groups the whole is still at most `alpha`.
pub fn judge(question: &Question) -> Judgement {
    let comparisons = question.groups.len().saturating_sub(1).max(1);
    let alpha = question.alpha / comparisons as f64;
    let balance = balance::balance(&question.epochs);
    let metrics: Vec<_> = question
        .metrics
        .iter()
        .map(|metric| judge_metric(question, metric, alpha))
        .collect();
    let verdict = verdict::verdict(question, &balance, metrics.first());
    Judgement {
        balance,
        metrics,
        verdict,
    }
}

fn judge_metric(question: &Question, metric: &Metric, alpha: f64) -> MetricJudgement {
    let pooled = |group: usize| {
        metric
            .sums
            .iter()
            .map(|groups| groups[group])
            .fold(Sums::default(), Sums::plus)
    };
    let moments: Vec<_> = (0..question.groups.len())
        .map(|group| Moments::of(metric.kind, &pooled(group)))
        .collect();
    let control = moments[question.control];
    let judge = |group: usize| {
        let own = moments[group];
        GroupJudgement {
            rate: own.mean,
            interval: sequence::interval_of_mean(&own, question.alpha),
            lift: (group != question.control)
                .then(|| lift(question, metric, group, &control, &own, alpha)),
        }
    };
    MetricJudgement {
        method: match metric.kind {
            Kind::Conversion => conversions::METHOD,
            Kind::Mean | Kind::Ratio => sequence::METHOD,
        },
        groups: (0..question.groups.len()).map(judge).collect(),
    }
}

fn lift(
    question: &Question,
    metric: &Metric,
    group: usize,
    control: &Moments,
    own: &Moments,
    alpha: f64,
) -> Lift {
    let absolute = own
        .mean
        .zip(control.mean)
        .map(|(own, control)| own - control);
    let plan = sequence::Plan {
        detect: metric.detect,
        alpha,
    };
    let mut lift = Lift {
        absolute,
        ..Lift::default()
    };
    match metric.kind {
        Kind::Conversion => {
            let pairs: Vec<_> = question
                .epochs
                .iter()
                .zip(&metric.sums)
                .filter_map(|(epoch, sums)| {
                    conversions::Pair::new(
                        epoch.shares[question.control],
                        epoch.shares[group],
                        sums[question.control].converted,
                        sums[group].converted,
                    )
                })
                .collect();
            lift.absolute_interval = sequence::interval_of_difference(control, own, &plan);
            if let Some(found) = conversions::compare(&pairs, alpha) {
                // With one set of weights the observed rates say it best. Over several, their pooled
                // ratio would compare different mixtures of days: then the likeliest ratio does.
                let observed = own.mean.zip(control.mean.filter(|&mean| mean > 0.0));
                lift.relative = match (&pairs[..], observed) {
                    ([_], Some((own, control))) => Some(own / control - 1.0),
                    _ => found.relative,
                };
                lift.relative_interval = found.relative_interval;
                lift.p_value = Some(found.p_value);
            }
        }
        Kind::Mean | Kind::Ratio => {
            // Pooling periods of different weights would compare different mixtures of days, so
            // only the last one is compared.
            let last = metric.sums.last().map(|sums| {
                let of = |group: usize| Moments::of(metric.kind, &sums[group]);
                (of(question.control), of(group))
            });
            let Some((control, own)) = last else {
                return lift;
            };
            lift.absolute_interval = sequence::interval_of_difference(&control, &own, &plan);
            if let Some(found) = sequence::compare(&control, &own, &plan) {
                lift.relative = Some(found.relative);
                lift.relative_interval = (
                    Some(found.relative_interval.0),
                    Some(found.relative_interval.1),
                );
                lift.p_value = Some(found.p_value);
            }
        }
    }
    lift
}
