//! A group against control on one metric, by the test that the configuration chose.

use super::bayes;
use super::conversion::{self, Evidence, planned_concentration};
use super::guardrail;
use super::interval::{Interval, finite};
use super::judgement::Lift;
use super::logistic::Term;
use super::moments::Sums;
use super::periods::{self, Period, Rate};
use super::question::{Engine, Goal, Kind, Metric, Question, Role};
use super::sequential::{self, Estimate};

/// A group and control, ready for every method.
#[derive(Clone, Debug)]
pub struct Compared {
    /// Periods of constant proportions in which both took part.
    pub periods: Vec<Period>,
    /// Their converted users.
    pub terms: Vec<Term>,
    /// Control's rate and the group's, averaged over the periods alike.
    pub rates: Option<(Rate, Rate)>,
    /// The test of the configuration.
    pub test: Test,
}

/// The test that the configuration chose, with its data.
#[derive(Clone, Debug)]
pub enum Test {
    /// Of converted users.
    Exact(Evidence),
    /// Of the log ratio of two rates; `None` until enough is known.
    Log(Option<Estimate>),
    /// Of their difference, and the planned rate that makes it relative.
    Absolute(Option<Estimate>, f64),
}

/// Compares a group with control.
pub fn compare(question: &Question, metric: &Metric, control: usize, group: usize) -> Compared {
    let periods = periods::periods(question, metric, control, group);
    let rates = periods::comparable(metric, &periods);
    let terms: Vec<Term> = periods.iter().map(Period::term).collect();
    let test = match (metric.engine, metric.kind) {
        (Engine::Exact, Kind::Conversion) => {
            let first = periods.first().map_or(0.5, |period| period.share);
            let concentration = planned_concentration(first, metric.detect);
            Test::Exact(Evidence::new(&terms, concentration))
        }
        (Engine::Absolute { baseline }, kind) => {
            let estimate = rates.and_then(|(control, own)| {
                Estimate::of_difference(kind, &control, &own, metric.detect, baseline)
            });
            Test::Absolute(estimate, baseline)
        }
        (Engine::Exact | Engine::LogLift, _) => Test::Log(log_estimate(metric, rates)),
    };
    Compared {
        periods,
        terms,
        rates,
        test,
    }
}

/// How results name the method that judges a metric.
pub fn method(metric: &Metric) -> &'static str {
    match (metric.role, metric.engine, metric.kind) {
        (Role::Guardrail { .. }, _, Kind::Conversion) => guardrail::METHOD_EXACT,
        (Role::Guardrail { .. }, _, _) => guardrail::METHOD_LOG,
        (_, Engine::Exact, Kind::Conversion) => conversion::METHOD,
        (_, Engine::Absolute { .. }, _) => sequential::METHOD_ABSOLUTE,
        (_, Engine::Exact | Engine::LogLift, _) => sequential::METHOD_LOG,
    }
}

impl Compared {
    /// ln E of no effect at this look; 0 until enough is known.
    pub fn ln_e(&self) -> f64 {
        match &self.test {
            Test::Exact(evidence) => evidence.ln_e(),
            Test::Log(estimate) | Test::Absolute(estimate, _) => {
                estimate.map_or(0.0, |estimate| estimate.ln_e())
            }
        }
    }

    /// The log ratio of the two rates as an estimate, whatever the test is.
    pub fn log_estimate(&self, metric: &Metric) -> Option<Estimate> {
        log_estimate(metric, self.rates)
    }

    /// What is known by the test of the configuration, as an estimate to plan with: the exact test
    /// knows only those who convert, so that it takes more users where most do.
    pub fn planning_estimate(&self, metric: &Metric) -> Option<Estimate> {
        let estimate = self.log_estimate(metric)?;
        let (Test::Exact(_), Some((control, own))) = (&self.test, self.rates) else {
            return Some(estimate);
        };
        let of = |rate: &Rate, share: f64| share / rate.converted as f64;
        let converters = of(&control, 1.0) + of(&own, 1.0);
        let all = of(&control, 1.0 - control.mean) + of(&own, 1.0 - own.mean);
        let variance = estimate.variance * converters / all;
        (variance.is_finite() && variance > 0.0).then_some(Estimate {
            variance,
            ..estimate
        })
    }

    /// The comparison, with intervals that miss with chance `alpha`.
    pub fn lift(&self, metric: &Metric, alpha: f64) -> Lift {
        let ratio = || {
            let (control, own) = self.rates.filter(|(control, _)| control.mean > 0.0)?;
            finite(own.mean / control.mean - 1.0)
        };
        let (relative, relative_interval) = match &self.test {
            Test::Exact(evidence) => (evidence.relative(), evidence.interval(alpha)),
            Test::Log(estimate) => (
                ratio(),
                estimate.map_or(Interval::UNKNOWN, |estimate| {
                    estimate.interval(alpha).map(f64::exp_m1)
                }),
            ),
            Test::Absolute(estimate, baseline) => (
                self.rates
                    .and_then(|(control, own)| finite((own.mean - control.mean) / baseline.abs())),
                estimate.map_or(Interval::UNKNOWN, |estimate| {
                    estimate.interval(alpha).map(|end| end / baseline.abs())
                }),
            ),
        };
        Lift {
            absolute: self.rates.map(|(control, own)| own.mean - control.mean),
            absolute_interval: self.absolute_interval(metric, alpha),
            relative,
            relative_interval,
        }
    }

    fn absolute_interval(&self, metric: &Metric, alpha: f64) -> Interval {
        if let Test::Absolute(estimate, _) = &self.test {
            return estimate.map_or(Interval::UNKNOWN, |estimate| estimate.interval(alpha));
        }
        let Some(((control, own), log)) = self.rates.zip(self.log_estimate(metric)) else {
            return Interval::UNKNOWN;
        };
        // The log-lift's own clock, so that both intervals narrow together.
        let error = (control.variance + own.variance).sqrt();
        let half = error * sequential::width(log.information(), alpha);
        Interval::around(own.mean - control.mean, half)
    }

    /// The chance to be better than control, and the expected loss of taking the group. Weights
    /// that changed would make the pooled rates compare different days: then nothing is said.
    pub fn chance(&self, metric: &Metric) -> Option<(f64, f64)> {
        let [only] = self.periods.as_slice() else {
            return None;
        };
        if only.control.users == 0 || only.own.users == 0 {
            return None;
        }
        let found = match metric.kind {
            Kind::Conversion => {
                let posterior = |sums: &Sums| bayes::Posterior::new(sums.users, sums.converted);
                bayes::compare(posterior(&only.control), posterior(&only.own))
            }
            Kind::Count | Kind::Mean | Kind::Ratio => {
                let (control, own) = self.rates?;
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

fn log_estimate(metric: &Metric, rates: Option<(Rate, Rate)>) -> Option<Estimate> {
    let (control, own) = rates?;
    Estimate::of_log(metric.kind, &control, &own, metric.detect)
}
