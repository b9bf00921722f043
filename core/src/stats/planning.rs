//! How many users it takes.

use super::normal_mixture::Estimate;
use super::special::{bisect, ln_sum_exp, normal_cdf, normal_quantile};
use std::f64::consts::LN_2;

/// The chance to find the planned lift that experiments are planned for.
pub const POWER: f64 = 0.8;

/// What is to be found: a change of a share of users.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleSizePlan {
    /// Control's share, above 0 and below 1.
    pub share: f64,
    /// The relative lift to find, not 0, such as 0.1; the lifted share must be below 1.
    pub lift: f64,
    /// The error allowed, two-sided, such as 0.05.
    pub alpha: f64,
    /// The chance to find it, such as 0.8.
    pub power: f64,
    /// Users of the group for each user of control, above 0.
    pub ratio: f64,
}

/// Users of control for a test that is looked at once. A sequential test is given twice as many:
/// then it finds the planned lift in 80 to 85 of 100 runs (79 where experiments may also end without it).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    /// With each group's own variance; not rounded.
    pub unpooled: f64,
    /// With the pooled variance under no effect, as the pooled z-test has it; not rounded.
    pub pooled_null: f64,
}

/// The size for a share of users. Source: Fleiss, Levin, Paik, "Statistical Methods for Rates
/// and Proportions", 2003, chapter 4.
pub fn sample_size(plan: &SampleSizePlan) -> Size {
    let (a, k) = (plan.share, plan.ratio);
    let b = a * (1.0 + plan.lift);
    let mean = (a + k * b) / (1.0 + k);
    let own = (a * (1.0 - a) + b * (1.0 - b) / k).sqrt();
    let null = (mean * (1.0 - mean) * (1.0 + 1.0 / k)).sqrt();
    let of = |null: f64| {
        let z = -normal_quantile(0.5 * plan.alpha) * null + normal_quantile(plan.power) * own;
        (z / (b - a)).powi(2)
    };
    Size {
        unpooled: of(own),
        pooled_null: of(null),
    }
}

/// How many times the users of an even split it takes with these shares of users to compare every group with
/// control alike precisely: at least 1. Shares at least 0, of any sum above 0; groups without a share do not
/// count. `None` if control or every other group has none. The variance of a difference of two means is
/// proportional to 1/n + 1/m, with equal variances in both groups.
pub fn split_factor(shares: &[f64], control: usize) -> Option<f64> {
    let all: f64 = shares.iter().sum();
    let groups = shares.iter().filter(|share| **share > 0.0).count() as f64;
    let of_control = shares.get(control).filter(|share| **share > 0.0)?;
    let others = shares.iter().enumerate();
    let others = others.filter(|(place, share)| *place != control && **share > 0.0);
    let smallest = others.map(|(_, share)| *share).min_by(f64::total_cmp)?;
    Some((all / of_control + all / smallest) / (2.0 * groups))
}

/// Users of each group to find an absolute change of a share, with control's variance under no
/// effect. Source: the sample size calculator of Evan Miller.
pub fn sample_size_of_difference(share: f64, difference: f64, alpha: f64, power: f64) -> f64 {
    let own = |p: f64| p * (1.0 - p);
    let null = (2.0 * own(share)).sqrt();
    let both = (own(share) + own(share + difference)).sqrt();
    let z = -normal_quantile(0.5 * alpha) * null + normal_quantile(power) * both;
    (z / difference).powi(2)
}

/// Users of control to find a difference of means of `effect` standard deviations (not 0), both
/// tails counted, with `ratio` users of the group for each of control.
pub fn sample_size_of_effect(effect: f64, alpha: f64, power: f64, ratio: f64) -> f64 {
    let z = -normal_quantile(0.5 * alpha);
    let reached = |n: f64| {
        let shift = effect.abs() * (n * ratio / (1.0 + ratio)).sqrt();
        normal_cdf(shift - z) + normal_cdf(-shift - z)
    };
    let mut high = 1.0;
    while reached(high) < power && high < 1e300 {
        high *= 2.0;
    }
    bisect(0.0, high, |n| reached(n) < power)
}

/// How many times the users there are now it takes until the sequential test has found the
/// planned lift with chance `power`: at least 1, and counted without the chance to stop earlier.
/// The smallest N′/N with Φ((δ − Δ′)/SE′) ≥ power, where δ is the planned lift, never the observed
/// one, and Δ′ is the smallest estimate that would be shown then. `of_converted` is the variance
/// of the exact test, whose evidence counts half, for shares of users.
pub fn users_factor(estimate: &Estimate, of_converted: Option<f64>, alpha: f64, power: f64) -> f64 {
    let planned = estimate.tau;
    let reached = |factor: f64| {
        let ln_e = |delta: f64, variance: f64| {
            let variance = variance / factor;
            let estimate = Estimate {
                delta,
                variance,
                tau: planned,
            };
            estimate.ln_e_at(0.0)
        };
        let is_short = |delta: f64| {
            let all = ln_e(delta, estimate.variance);
            let found = of_converted.map_or(all, |of_converted| {
                ln_sum_exp(&[all, ln_e(delta, of_converted)]) - LN_2
            });
            found < -alpha.ln()
        };
        let shown = bisect(0.0, 1e3 * planned, is_short);
        normal_cdf((planned - shown) / (estimate.variance / factor).sqrt())
    };
    let mut high = 1.0;
    if reached(high) >= power {
        return high;
    }
    while reached(high) < power && high < 1e300 {
        high *= 2.0;
    }
    bisect(0.5 * high, high, |factor| reached(factor) < power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uneven_split_takes_more_users() {
        let check = |shares: &[f64], expected: Option<f64>| {
            let found = split_factor(shares, 0);
            let is_close = found
                .zip(expected)
                .is_some_and(|(a, b)| (a - b).abs() < 1e-9);
            assert!(is_close || found == expected, "{shares:?}: {found:?}");
        };
        check(&[50.0, 50.0], Some(1.0));
        check(&[1.0, 1.0, 1.0], Some(1.0));
        // (1/0.9 + 1/0.1) / 4
        check(&[90.0, 10.0], Some(2.777_777_777_777_778));
        check(&[80.0, 10.0, 10.0], Some((1.25 + 10.0) / 6.0));
        check(&[90.0, 10.0, 0.0], Some(2.777_777_777_777_778));
        check(&[0.0, 100.0], None);
        check(&[100.0, 0.0], None);
    }

    #[test]
    fn a_known_plan_takes_its_users() {
        let plan = SampleSizePlan {
            share: 0.05,
            lift: 0.1,
            alpha: 0.05,
            power: 0.8,
            ratio: 1.0,
        };
        let size = sample_size(&plan);
        assert_eq!((2.0 * size.unpooled).round(), 62_461.0);
        assert!(size.pooled_null > size.unpooled);
    }

    #[test]
    fn a_small_effect_takes_many_and_twice_the_effect_a_quarter() {
        let one = sample_size_of_effect(0.02, 0.05, 0.8, 1.0);
        assert!((one - 39_244.3).abs() < 0.1);
        let two = sample_size_of_effect(-0.04, 0.05, 0.8, 1.0);
        assert!((one / two - 4.0).abs() < 1e-6);
    }

    #[test]
    fn the_sequential_test_takes_somewhat_more_than_one_look() {
        // At the fixed test's size for 80 %: SE = τ/2.80.
        let tau = 0.1_f64.ln_1p();
        let estimate = Estimate {
            delta: 0.0,
            variance: (tau / 2.8016).powi(2),
            tau,
        };
        let factor = users_factor(&estimate, None, 0.05, 0.8);
        assert!((1.9..2.1).contains(&factor), "{factor}");
        let later = Estimate {
            variance: estimate.variance / 3.0,
            ..estimate
        };
        // The exact test, which knows few of the users, adds little to the mean of both.
        let both = users_factor(&estimate, Some(20.0 * estimate.variance), 0.05, 0.8);
        assert!((factor..1.3 * factor).contains(&both), "{both}");
        assert_eq!(users_factor(&later, None, 0.05, 0.8), 1.0);
    }
}
