//! What is answered: plain data about one experiment. `None` is not known yet, or unbounded;
//! nothing here is ever NaN or infinite, but `ln_e` where the evidence is.

use super::covariate::Gain;
use super::guardrail::GuardrailJudgement;
use super::horizon::PlannedAnalysis;
use super::input::{Goal, History, MetricInput, Role};
use super::interval::Interval;
use super::srm::SampleRatioTest;
use super::verdict::Verdict;

/// What can be said of one experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// Whether the groups have the sizes that their weights ask for. If not, nothing else here
    /// is to be believed.
    pub sample_ratio: SampleRatioTest,
    /// In the order of the question's metrics.
    pub metrics: Vec<MetricJudgement>,
    /// Which group is better, or why that cannot be said.
    pub verdict: Verdict,
}

/// What can be said of one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricJudgement {
    /// Which method gave p-values and intervals of lifts.
    pub method: Method,
    /// In the order of the question's groups.
    pub groups: Vec<GroupJudgement>,
    /// About how many users, of all groups, it takes until the planned lift would be found with
    /// a chance of 80 %. `None` where nothing is known yet, and for guardrails.
    pub users_needed: Option<u64>,
    /// What a covariate gains; `None` without one, and while too few users are known from before.
    pub gain: Option<Gain>,
}

/// How a group is compared with control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Shares of users: the mean of the exact evidence of conversions and that of the log-lift.
    Shares,
    /// The logarithm of the ratio of two rates.
    Log,
    /// The difference of two rates.
    Difference,
    /// Planned analyses, with alpha spending.
    PlannedAnalyses,
    /// Quantiles of one sample per user.
    Quantile,
    /// A guardrail on a quantile, one-sided.
    HarmOnQuantile,
    /// A guardrail on users with a bad event: exact and one-sided.
    HarmedUsers,
    /// A guardrail on other rates: the logarithm of their ratio, one-sided.
    HarmOnLog,
}

/// What can be said of one metric in one group. `None` is not known yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupJudgement {
    /// The rate over all users: a share from 0 to 1, a mean or a ratio in the metric's own unit.
    pub rate: Option<f64>,
    /// Where the true rate lies, at any look, with the question's error.
    pub interval: Interval,
    /// The comparison with control; `None` for control itself.
    pub lift: Option<Lift>,
    /// min(1, 1/E) of this analysis: 0 to 1, valid however often one looks, and free to rise.
    /// `None` for control, and before both groups have users.
    pub p_value: Option<f64>,
    /// What this and all earlier analyses found. To be kept and given back in the question.
    pub history: History,
    /// The p-value that accounts for the other groups (primary: Holm) or for the other secondary
    /// metrics and groups (e-BH, of this look); 0 to 1. `None` for guardrails.
    pub adjusted_p: Option<f64>,
    /// ln of the evidence against no effect at this look.
    pub ln_e: Option<f64>,
    /// min(1, 1/E) of the planned lift, or a larger one, on the better side: small where the planned
    /// lift is not there. `None` for control, guardrails, and before both groups have users.
    pub planned_lift_p: Option<f64>,
    /// Whether an effect is shown, accounting for all groups and metrics.
    pub significant: bool,
    /// The chance that the group is better than control, for a metric whose weights never
    /// changed. Not protected against peeking.
    pub chance_to_beat_control: Option<f64>,
    /// What is lost, in the rate's unit, by taking the group when it may be worse. Not protected
    /// against peeking.
    pub expected_loss: Option<f64>,
    /// With a planned end, for the metric that decides: the analyses that were made until now, this one
    /// among them where it is one. To be kept and given back in the question.
    pub analyses: Vec<PlannedAnalysis>,
    /// For guardrails: whether the group does harm.
    pub guardrail: Option<GuardrailJudgement>,
}

/// Which side of control an effect is on, by the metric's goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The group is better than control.
    Better,
    /// It is worse, or breaches a guardrail.
    Worse,
}

impl GroupJudgement {
    /// The side on which this analysis shows an effect.
    pub fn shown(&self, metric: &MetricInput) -> Option<Side> {
        if !self.significant {
            return None;
        }
        if let Role::Guardrail { .. } = metric.role {
            return Some(Side::Worse);
        }
        let interval = self.lift?.decisive();
        let is_higher = match (interval.low, interval.high) {
            (Some(low), _) if low > 0.0 => true,
            (_, Some(high)) if high < 0.0 => false,
            _ => return None,
        };
        if is_higher == (metric.goal == Goal::Increase) {
            Some(Side::Better)
        } else {
            Some(Side::Worse)
        }
    }
}

/// A group compared with control.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lift {
    /// The difference of the rates; over several periods, of both averaged alike.
    pub absolute: Option<f64>,
    /// Where the true difference lies, at any look. The verdict is by the relative one.
    pub absolute_interval: Interval,
    /// The relative difference: 0.1 is a tenth more than control.
    pub relative: Option<f64>,
    /// Where the true relative difference lies, at any look, by the method named. Its error is
    /// the question's, shared by all groups (primary) or all secondary metrics and groups.
    pub relative_interval: Interval,
    /// Whether the difference of the rates decides, not their ratio.
    pub is_absolute: bool,
    /// What counts as no difference, on the scale that decides.
    pub margin: Option<f64>,
    /// The relative difference, less what stopping at a lucky moment adds to it on average.
    pub shrunken: Option<f64>,
    /// Where weights changed: control's rate and the group's, averaged over the periods alike.
    /// Their ratio is the lift; the rates of all users compare different days.
    pub averaged: Option<(f64, f64)>,
}

impl Lift {
    /// The interval that decides.
    pub fn decisive(&self) -> Interval {
        if self.is_absolute {
            self.absolute_interval
        } else {
            self.relative_interval
        }
    }

    /// Whether the groups differ by less than the margin.
    pub fn is_same(&self) -> bool {
        self.margin
            .is_some_and(|margin| self.decisive().within(margin))
    }
}
