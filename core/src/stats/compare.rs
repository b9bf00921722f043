//! A group against control on one metric: evidence, interval and estimate.
//!
//! For shares of users the evidence is the mean of two: E = ½·E_C + ½·E_L, where E_C is exact and
//! knows converted users only, and E_L is asymptotic and knows all users. A mean of e-values is
//! one, so nothing is chosen, before or by looking at data: E_C is strong where few convert and at
//! small sites, E_L where many do. While too few users are there for E_L, it is 1.

use super::analysis::{Lift, Method};
use super::bayes;
use super::exact_conversion::Evidence;
use super::horizon::{NewEstimate, PlannedAnalysis};
use super::input::{Goal, Kind, MetricInput, Question, Role, Samples};
use super::interval::{Interval, finite};
use super::logistic::{FAR, Term, likeliest, ln_likelihood};
use super::moments::Sums;
use super::normal_mixture::Estimate;
use super::planning;
use super::quantile::{self, SampleCounts};
use super::special::{bisect, ln_sum_exp};
use super::stratified::{self, Period, Rates};
use std::f64::consts::LN_2;

/// A group and control, ready for every method.
#[derive(Clone, Debug)]
pub struct Compared {
    /// Periods of constant proportions in which both took part.
    pub periods: Vec<Period>,
    /// Their converted users.
    pub terms: Vec<Term>,
    /// Their rates, averaged over the periods alike.
    pub rates: Option<Rates>,
    /// What the effect is a number of.
    scale: Scale,
    /// Of converted users; for shares of users only.
    exact: Option<Evidence>,
    /// Of the effect; `None` until enough is known.
    estimate: Option<Estimate>,
    /// Of quantiles; for those only.
    quantiles: Option<Quantiles>,
}

/// The quantiles of both groups.
#[derive(Clone, Debug)]
struct Quantiles {
    evidence: quantile::QuantileComparison,
    /// Control's quantile and the group's, in the metric's unit, averaged over the periods alike.
    both: Option<(f64, f64)>,
}

/// The group's share in a period, control's samples and the group's.
type PeriodSamples = (f64, SampleCounts, SampleCounts);

impl Quantiles {
    fn new(question: &Question, samples: &Samples, control: usize, group: usize) -> Quantiles {
        let periods = stratified::samples(question, samples, control, group);
        // Each period has the same weight in both groups, as in `stratified::comparable`.
        let users = |of: &SampleCounts| of.values().sum::<u64>() as f64;
        let weight = |(_, control, own): &PeriodSamples| {
            let (control, own) = (users(control), users(own));
            match control > 0.0 && own > 0.0 {
                true => control * (own / (control + own)),
                false => 0.0,
            }
        };
        let of = |which: fn(&PeriodSamples) -> &SampleCounts| {
            let weighted = periods.iter().map(|both| (weight(both), which(both)));
            let weighted = weighted.filter(|(weight, _)| *weight > 0.0);
            let bucket = quantile::quantile(&weighted.collect::<Vec<_>>(), samples.share)?;
            Some(samples.middle(bucket))
        };
        Quantiles {
            both: of(|(_, control, _)| control).zip(of(|(_, _, own)| own)),
            evidence: quantile::QuantileComparison::new(&periods, samples.share, samples.step),
        }
    }
}

/// What an effect is a number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    /// The logarithm of the ratio of the rates.
    Log,
    /// Their difference.
    Difference,
}

/// Compares a group with control.
pub fn compare(
    question: &Question,
    metric: &MetricInput,
    control: usize,
    group: usize,
) -> Compared {
    let periods = stratified::periods(question, metric, control, group);
    let is_rate = metric.samples.is_none();
    let rates = stratified::comparable(metric, &periods).filter(|_| is_rate);
    let terms: Vec<Term> = periods.iter().map(Period::term).collect();
    let scale = scale(metric, rates.as_ref());
    let estimate = rates.as_ref().and_then(|rates| match scale {
        Scale::Log => Estimate::of_log(metric.kind, rates, metric.detect),
        Scale::Difference => {
            let planned = metric.detect * size(metric, rates);
            Estimate::of_difference(metric.kind, rates, planned)
        }
    });
    let exact =
        (metric.kind == Kind::Conversion).then(|| Evidence::planned(&terms, metric.detect.ln_1p()));
    Compared {
        periods,
        terms,
        rates,
        scale,
        exact,
        estimate,
        quantiles: metric
            .samples
            .as_ref()
            .map(|samples| Quantiles::new(question, samples, control, group)),
    }
}

/// Ratios need rates above 0: of values that may be negative, differences are judged, where the
/// configuration names a baseline and where a rate is not above 0.
fn scale(metric: &MetricInput, rates: Option<&Rates>) -> Scale {
    let is_positive = rates.is_none_or(|rates| rates.control.mean > 0.0 && rates.own.mean > 0.0);
    match (metric.kind, metric.baseline) {
        (Kind::Conversion | Kind::Count | Kind::Quantile, _) => Scale::Log,
        (Kind::Mean | Kind::Ratio, None) if is_positive => Scale::Log,
        (Kind::Mean | Kind::Ratio, _) => Scale::Difference,
    }
}

/// What the planned difference is a share of: the baseline, or else the size of both groups' rate;
/// never less than what is noise, because a rate may be 0.
fn size(metric: &MetricInput, rates: &Rates) -> f64 {
    let seen = rates.pooled.mean.abs().max(rates.pooled.variance.sqrt());
    metric.baseline.map_or(seen, f64::abs)
}

/// The method that judges a metric.
pub fn method(metric: &MetricInput) -> Method {
    match (metric.role, metric.kind, metric.baseline) {
        (Role::Guardrail { .. }, Kind::Conversion, _) => Method::HarmedUsers,
        (Role::Guardrail { .. }, Kind::Quantile, _) => Method::HarmOnQuantile,
        (Role::Guardrail { .. }, _, _) => Method::HarmOnLog,
        (_, Kind::Quantile, _) => Method::Quantile,
        (_, Kind::Conversion, _) => Method::Shares,
        (_, Kind::Mean | Kind::Ratio, Some(_)) => Method::Difference,
        (_, Kind::Count | Kind::Mean | Kind::Ratio, _) => Method::Log,
    }
}

impl Compared {
    /// ln E of no effect at this look; 0 until enough is known.
    pub fn ln_e(&self) -> f64 {
        match &self.quantiles {
            Some(quantiles) => quantiles.evidence.ln_e(),
            None => self.ln_e_at(0.0),
        }
    }

    /// The evidence of quantiles, for those only.
    pub fn quantiles(&self) -> Option<&quantile::QuantileComparison> {
        self.quantiles.as_ref().map(|it| &it.evidence)
    }

    /// ln E of an effect on the scale that decides; 0 until enough is known.
    fn ln_e_at(&self, effect: f64) -> f64 {
        let estimated = self
            .estimate
            .map_or(0.0, |estimate| estimate.ln_e_at(effect));
        match &self.exact {
            None => estimated,
            Some(exact) => ln_sum_exp(&[exact.ln_e_at(effect), estimated]) - LN_2,
        }
    }

    /// ln of the likelihood ratio of no effect against the planned one in the direction of `goal`:
    /// evidence that neither that nor a larger one is there. 0 until enough is known.
    pub fn ln_futility(&self, metric: &MetricInput) -> f64 {
        let sign = match metric.goal {
            Goal::Increase => 1.0,
            Goal::Decrease => -1.0,
        };
        if let Some(quantiles) = self.quantiles() {
            let planned = metric.detect.ln_1p();
            return match metric.goal {
                Goal::Increase => quantiles.ln_e_below(planned),
                Goal::Decrease => quantiles.ln_e_above(-planned),
            };
        }
        let estimated = self.estimate.map_or(0.0, |estimate| {
            let planned = sign * estimate.tau;
            planned * (0.5 * planned - estimate.delta) / estimate.variance
        });
        if self.exact.is_none() {
            return estimated;
        }
        let exact = -ln_likelihood(&self.terms, sign * metric.detect.ln_1p());
        ln_sum_exp(&[exact, estimated]) - LN_2
    }

    /// Whether the group is better than the other one beyond doubt, in the direction of `goal`.
    pub fn is_better(&self, metric: &MetricInput, alpha: f64) -> bool {
        let interval = self.interval(alpha);
        match metric.goal {
            Goal::Increase => interval.low.is_some_and(|low| low > 0.0),
            Goal::Decrease => interval.high.is_some_and(|high| high < 0.0),
        }
    }

    /// The log ratio of the two rates as an estimate, whatever the scale is.
    pub fn log_estimate(&self, metric: &MetricInput) -> Option<Estimate> {
        Estimate::of_log(metric.kind, &self.rates?, metric.detect)
    }

    /// How many times the users there are now it takes to find the planned effect with a chance of
    /// `power`.
    pub fn users_factor(&self, alpha: f64, power: f64) -> Option<f64> {
        let estimate = self.estimate?;
        let of_converted = self.exact.as_ref().zip(self.rates).map(|(_, rates)| {
            let Rates { control, own, .. } = rates;
            1.0 / control.converted as f64 + 1.0 / own.converted as f64
        });
        finite(planning::users_factor(
            &estimate,
            of_converted,
            alpha,
            power,
        ))
    }

    /// Where the true effect lies on the scale that decides, with error `alpha`. It holds the
    /// estimate, also where the groups' sizes and their weights say different things.
    fn interval(&self, alpha: f64) -> Interval {
        if let Some(quantiles) = self.quantiles() {
            return quantiles.interval(alpha);
        }
        if self.exact.is_none() {
            let interval = |estimate: Estimate| estimate.mixture_interval(alpha);
            return self.estimate.map_or(Interval::UNKNOWN, interval);
        }
        let inside = |effect: f64| self.ln_e_at(effect) < -alpha.ln();
        let seen = self.log_ratio();
        let start = self.likeliest();
        let end = |toward: f64| match inside(start) {
            true => bisect(start, toward, inside),
            false => start,
        };
        let own = self.terms.iter().any(|term| term.own > 0.0);
        let control = self.terms.iter().any(|term| term.control > 0.0);
        let (low, high) = (own.then(|| end(-FAR)), control.then(|| end(FAR)));
        Interval {
            low: low.map(|low| seen.map_or(low, |seen| low.min(seen))),
            high: high.map(|high| seen.map_or(high, |seen| high.max(seen))),
        }
    }

    /// The effect with the least evidence against it, which is between those of the two methods:
    /// ln E is convex.
    fn likeliest(&self) -> f64 {
        let exact = likeliest(&self.terms);
        let Some(estimate) = self.estimate else {
            return exact;
        };
        let (mut low, mut high) = (exact.min(estimate.delta), exact.max(estimate.delta));
        for _ in 0..60 {
            let third = (high - low) / 3.0;
            if self.ln_e_at(low + third) < self.ln_e_at(high - third) {
                high -= third;
            } else {
                low += third;
            }
        }
        0.5 * (low + high)
    }

    fn log_ratio(&self) -> Option<f64> {
        let Rates { control, own, .. } = self.rates?;
        finite((own.mean / control.mean).ln())
    }

    /// The estimate on the scale that decides; `None` until enough is known.
    pub fn estimate(&self) -> Option<NewEstimate> {
        let Estimate {
            delta, variance, ..
        } = self.estimate?;
        Some(NewEstimate {
            delta,
            variance,
            is_difference: self.scale == Scale::Difference,
        })
    }

    /// The comparison, with intervals that miss with chance `alpha`.
    pub fn lift(&self, metric: &MetricInput, alpha: f64) -> Lift {
        self.lift_in(metric, self.interval(alpha))
    }

    /// The comparison, with the interval of a planned analysis, which holds the estimate of now.
    pub fn lift_at(&self, metric: &MetricInput, analysis: Option<&PlannedAnalysis>) -> Lift {
        let now = self.estimate();
        let analysis =
            analysis.filter(|it| now.is_none_or(|now| it.is_difference == now.is_difference));
        let interval = analysis.map_or(Interval::UNKNOWN, |analysis| {
            let around = Interval::around(analysis.delta, analysis.half_width());
            let now = now.map_or(analysis.delta, |now| now.delta);
            Interval {
                low: around.low.map(|low| low.min(now)),
                high: around.high.map(|high| high.max(now)),
            }
        });
        self.lift_in(metric, interval)
    }

    fn lift_in(&self, metric: &MetricInput, effect: Interval) -> Lift {
        let both = self.both();
        if both.is_none() {
            // A group without users cannot be compared, whatever is known of the other one.
            return Lift::default();
        }
        let difference = both.map(|(control, own)| own - control);
        let common = Lift {
            absolute: difference,
            averaged: self.averaged(),
            ..Lift::default()
        };
        match self.scale {
            Scale::Log => {
                let ratio = || {
                    let (control, own) = both.filter(|(control, _)| *control > 0.0)?;
                    finite(own / control - 1.0)
                };
                let interval = effect.map(f64::exp_m1);
                // A share or a latency cannot fall further than to nothing.
                let is_share = matches!(metric.kind, Kind::Conversion | Kind::Quantile);
                let lowest = is_share.then_some(-1.0);
                Lift {
                    absolute_interval: self.as_difference(effect),
                    relative: ratio(),
                    relative_interval: Interval {
                        low: interval.low.or(lowest),
                        ..interval
                    },
                    margin: Some(metric.margin),
                    shrunken: self.estimate.map(|estimate| estimate.shrunken().exp_m1()),
                    ..common
                }
            }
            Scale::Difference => {
                let of = self.control_size();
                let relative = |value: f64| Some(value / of?);
                Lift {
                    absolute_interval: effect,
                    relative: difference.and_then(relative),
                    relative_interval: Interval {
                        low: effect.low.and_then(relative),
                        high: effect.high.and_then(relative),
                    },
                    is_absolute: true,
                    margin: metric
                        .baseline
                        .map(f64::abs)
                        .or(of)
                        .map(|of| metric.margin * of),
                    shrunken: self.estimate.and_then(|it| relative(it.shrunken())),
                    ..common
                }
            }
        }
    }

    /// Over several periods: control's rate and the group's, averaged alike.
    fn averaged(&self) -> Option<(f64, f64)> {
        self.both().filter(|_| self.periods.len() > 1)
    }

    /// Control's rate and the group's, averaged over the periods alike.
    fn both(&self) -> Option<(f64, f64)> {
        match &self.quantiles {
            Some(quantiles) => quantiles.both,
            None => {
                let Rates { control, own, .. } = self.rates?;
                Some((control.mean, own.mean))
            }
        }
    }

    /// The size of control's rate, where it is surely not 0: percentages of differences are of it.
    fn control_size(&self) -> Option<f64> {
        let control = self.rates?.control;
        let is_sure = control.mean * control.mean >= 16.0 * control.variance;
        (is_sure && control.mean != 0.0).then(|| control.mean.abs())
    }

    /// An interval of log ratios as one of differences: as many standard errors from the estimate.
    fn as_difference(&self, effect: Interval) -> Interval {
        let Some((rates, log)) = self.rates.zip(self.estimate) else {
            return Interval::UNKNOWN;
        };
        let Rates {
            control,
            own,
            pooled,
        } = rates;
        let error = (control.variance + own.variance)
            .max(pooled.variance)
            .sqrt();
        let scale = error / log.variance.sqrt();
        effect.map(|end| own.mean - control.mean + (end - log.delta) * scale)
    }

    /// The chance to be better than control, and the expected loss of taking the group. Where
    /// weights changed, by the rates that are averaged over the periods alike.
    pub fn chance(&self, metric: &MetricInput) -> Option<(f64, f64)> {
        let found = match (metric.kind, self.periods.as_slice()) {
            (Kind::Conversion, [only]) => {
                if only.control.users == 0 || only.own.users == 0 {
                    return None;
                }
                let posterior = |sums: &Sums| bayes::Posterior::new(sums.users, sums.converted);
                bayes::compare(posterior(&only.control), posterior(&only.own))
            }
            _ => {
                let Rates { control, own, .. } = self.rates?;
                let spread = (control.variance + own.variance).sqrt();
                (spread > 0.0).then(|| bayes::of_difference(own.mean - control.mean, spread))?
            }
        };
        let harm = matches!(metric.role, Role::Guardrail { .. });
        let (chance, loss) = if metric.goal == Goal::Increase && !harm {
            (found.own_is_higher, found.loss_if_own)
        } else {
            (1.0 - found.own_is_higher, found.loss_if_control)
        };
        Some((finite(chance)?.clamp(0.0, 1.0), finite(loss)?))
    }
}
