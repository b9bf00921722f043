//! Whether a group does harm: one-sided, at any look, and a hard stop for what is plainly dead.

use super::exact_conversion;
use super::input::Kind;
use super::interval::Interval;
use super::logistic::{FAR, Term};
use super::normal_mixture::{self, Estimate};
use super::quantile::QuantileComparison;
use super::special::bisect;
use super::stratified::Rate;

/// What a guardrail says of one group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GuardrailJudgement {
    /// Whether the group is to be taken away: harm is shown, or its upstream is dead.
    pub breached: bool,
    /// Whether more than half of its users, at least 50, had the bad event, and at most a quarter
    /// of control's.
    pub dead: bool,
    /// The most growth that the evidence leaves no doubt about: the true relative growth is at
    /// least this, whenever one looks. `None` while it could be a fall without bound.
    pub at_least: Option<f64>,
}

/// κ of the mixture over ratios larger than tolerated.
const CONCENTRATION: f64 = 20.0;
/// The hard stop: this many users, this share of them with a bad event, and at most this share of
/// control's. Between the two shares lies what chance alone never bridges: with shares that are
/// equal, A/A runs of any share raise the alarm in at most 0.1 %.
const DEAD_USERS: u64 = 50;
const DEAD_SHARE: f64 = 0.5;
const DEAD_SHARE_OF_CONTROL: f64 = 0.25;

/// What is tested.
pub enum Data<'a> {
    /// Users with at least one bad event, by period.
    Users(&'a [Term]),
    /// An estimate of the log ratio; `None` until there is one.
    Log(Option<Estimate>),
    /// Quantiles of one sample per user.
    Quantile(&'a QuantileComparison),
}

/// ln E⁺ of "the rate grew by at most `max_increase`" (at least 0): 0 while nothing is known.
pub fn ln_e(data: &Data<'_>, max_increase: f64) -> f64 {
    ln_e_at(data, max_increase.max(0.0).ln_1p())
}

/// The judgement of a group whose p-value of this analysis is `p`, at its part `alpha` of the
/// error.
pub fn judge(data: &Data<'_>, p: Option<f64>, dead: bool, alpha: f64) -> GuardrailJudgement {
    let shown = p.is_some_and(|p| p <= alpha);
    GuardrailJudgement {
        breached: shown || dead,
        dead,
        at_least: at_least(data, alpha),
    }
}

/// The hard stop. A bad event that many of control's users have too is no sign of death.
pub fn dead(kind: Kind, control: Option<&Rate>, own: Option<&Rate>) -> bool {
    let mostly = |rate: &Rate| rate.users >= DEAD_USERS && rate.mean > DEAD_SHARE;
    let is_sound = |rate: &Rate| rate.users >= DEAD_USERS && rate.mean <= DEAD_SHARE_OF_CONTROL;
    kind == Kind::Conversion && own.is_some_and(mostly) && control.is_some_and(is_sound)
}

/// The relative growth as an interval that nothing bounds above.
impl GuardrailJudgement {
    /// From what is shown upward.
    pub fn interval(&self) -> Interval {
        Interval {
            low: self.at_least,
            high: None,
        }
    }
}

fn ln_e_at(data: &Data<'_>, log_ratio: f64) -> f64 {
    match data {
        // Without a number the evidence is far on control's side: never an alarm.
        Data::Users(terms) => exact_conversion::ln_e_above(terms, log_ratio.exp(), CONCENTRATION)
            .unwrap_or(f64::NEG_INFINITY),
        Data::Log(None) => 0.0,
        Data::Quantile(quantiles) => quantiles.ln_e_above(log_ratio),
        Data::Log(Some(estimate)) => {
            normal_mixture::ln_e_above(estimate.delta - log_ratio, estimate.variance, estimate.tau)
        }
    }
}

/// The largest growth that is rejected, by the same test: it agrees with it on every look.
fn at_least(data: &Data<'_>, alpha: f64) -> Option<f64> {
    if let Data::Quantile(quantiles) = data {
        return quantiles.at_least(alpha).map(f64::exp_m1);
    }
    let rejected = |log_ratio: f64| ln_e_at(data, log_ratio) >= -alpha.ln();
    let mut low = -1.0;
    while !rejected(low) {
        low *= 2.0;
        if low < -FAR / 20.0 {
            return None;
        }
    }
    Some(bisect(low, FAR / 20.0, rejected).exp_m1())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(control: f64, own: f64) -> [Term; 1] {
        [Term {
            share: 0.1,
            control,
            own,
        }]
    }

    fn rate(users: u64, bad: u64) -> Rate {
        Rate {
            mean: bad as f64 / users as f64,
            variance: 0.0,
            users,
            converted: bad,
        }
    }

    #[test]
    fn harm_is_shown_and_tolerance_is_kept() {
        for (own, tolerated, breached) in [
            (1.0, 0.0, false),
            (2.0, 0.0, false),
            (12.0, 0.0, true),
            (12.0, 20.0, false),
            (0.0, 0.0, false),
        ] {
            let terms = term(9.0, own);
            let data = Data::Users(&terms);
            let ln_e = ln_e(&data, tolerated);
            let found = judge(&data, Some((-ln_e).exp()), false, 0.01);
            assert_eq!(found.breached, breached, "{own}: {found:?}");
            assert_eq!(
                found.at_least.is_some_and(|least| least > tolerated),
                breached
            );
        }
    }

    #[test]
    fn a_dead_upstream_is_not_waited_for() {
        let dead = |control, own| dead(Kind::Conversion, Some(&control), Some(&own));
        assert!(dead(rate(1000, 5), rate(50, 26)));
        assert!(!dead(rate(1000, 5), rate(49, 49)));
        assert!(!dead(rate(1000, 5), rate(50, 25)));
        assert!(!dead(rate(1000, 600), rate(50, 40)));
        assert!(!dead(rate(1000, 251), rate(50, 40)));
        assert!(dead(rate(1000, 250), rate(50, 40)));
        assert!(!dead(rate(49, 0), rate(50, 40)));
        let judged = judge(&Data::Users(&[]), None, true, 0.01);
        assert!(judged.breached && judged.at_least.is_none());
    }

    #[test]
    fn other_kinds_are_tested_by_their_logarithm() {
        let estimate = Estimate {
            delta: 0.5,
            variance: 0.01,
            tau: 0.1,
        };
        let data = Data::Log(Some(estimate));
        assert!(ln_e(&data, 0.0) > 100.0_f64.ln());
        assert!(ln_e(&data, 0.6) < 0.0);
        assert_eq!(ln_e(&Data::Log(None), 0.0), 0.0);
    }
}
