//! Normal mixtures: tests of asymptotically normal estimates that hold at every look.
//!
//! For an estimate Δ with variance V and a mixture N(0, τ²) over the true value,
//!
//! g = τ²/V;  ln E = ½·(Δ²/V)·g/(1+g) − ½·ln(1+g);  Δ ± √V·c(g), c² = (1+g)/g·[ln(1+g) + 2·ln(1/α)]
//!
//! The clock g is the information that the data hold, not a number of users: so it is right for
//! unequal groups and for heavy tails. Sources: Robbins, Ann. Math. Statist. 1970; Johari,
//! Koomen, Pekelis, Walsh, KDD 2017; for asymptotically normal estimates Waudby-Smith, Arbour,
//! Sinha, Kennedy, Ramdas, Ann. Statist. 2024 (arXiv 2103.06476).

use super::input::Kind;
use super::interval::Interval;
use super::prior::MIXTURE;
use super::special::{bisect, ln_normal_cdf, ln_sum_exp};
use super::stratified::{Rate, Rates};

/// ln E of "the true value is 0", against values on both sides. All finite, V and τ above 0.
pub fn ln_e(delta: f64, variance: f64, tau: f64) -> f64 {
    let g = tau * tau / variance;
    0.5 * (delta * delta / variance) * (g / (1.0 + g)) - 0.5 * g.ln_1p()
}

/// ln E⁺ of "the true value is at most 0": the mixture restricted to values above 0.
/// Source: Howard, Ramdas, McAuliffe, Sekhon, Ann. Statist. 2021 (arXiv 1810.08240).
pub fn ln_e_above(delta: f64, variance: f64, tau: f64) -> f64 {
    let g = tau * tau / variance;
    let z = delta / variance.sqrt() * (g / (1.0 + g)).sqrt();
    ln_e(delta, variance, tau) + std::f64::consts::LN_2 + ln_normal_cdf(z)
}

/// c(g): how many standard errors the interval is wide on each side.
pub fn width(g: f64, alpha: f64) -> f64 {
    ((1.0 + g) / g * (g.ln_1p() - 2.0 * alpha.ln())).sqrt()
}

/// The g at which [`width`] is smallest, to within a thousandth: −2·ln α + ln(1 − 2·ln α).
/// 7.94 for α = 0.05.
pub fn tightest_information(alpha: f64) -> f64 {
    let log = -2.0 * alpha.ln();
    log + log.ln_1p()
}

/// The s from which on [`ln_e_above`] of "at most 0" rejects at `alpha`, for a sum of intrinsic
/// time `v` and a mixture of precision `rho` (Δ = s/v, V = 1/v, τ² = 1/ρ).
pub fn bound_above(v: f64, rho: f64, alpha: f64) -> f64 {
    let ln_e = |s: f64| ln_e_above(s / v, 1.0 / v, (1.0 / rho).sqrt());
    let mut high = 1.0;
    while ln_e(high) < -alpha.ln() && high < 1e300 {
        high *= 2.0;
    }
    bisect(0.0, high, |s| ln_e(s) < -alpha.ln())
}

/// ln of the chance density of an estimate under the mixture of [`super::prior`], over that under
/// an effect which is exactly the estimate: at most 0. E of an effect r is this, times
/// e^((Δ − r)²/2V), in closed form for each component.
fn ln_mixture(delta: f64, variance: f64, planned: f64) -> f64 {
    let each = MIXTURE.map(|component| {
        let spread = component.spread * planned;
        let total = variance + spread * spread;
        let off = delta - component.center * planned;
        component.weight.ln() + 0.5 * (variance / total).ln() - 0.5 * off * off / total
    });
    ln_sum_exp(&each)
}

/// Effects as they are before anything is seen: most of them small, in units of the planned one.
/// Weights and standard deviations around no effect. The lift at stopping as a winner reads 1.5
/// times the truth where that is the planned one, and the mean under this prior 1.1 times.
const SKEPTICAL: [(f64, f64); 3] = [(0.7, 0.5), (0.2, 3.0), (0.1, 10.0)];

/// An estimate that is asymptotically normal, and what it was planned to find.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The estimate: 0 is no effect.
    pub delta: f64,
    /// Its variance, above 0.
    pub variance: f64,
    /// The planned effect, above 0: what the mixture over true values is tuned by.
    pub tau: f64,
}

impl Estimate {
    /// The logarithm of the ratio of two rates; τ = ln(1 + detect). `None` until both rates are
    /// above 0 and enough users are behind them.
    ///
    /// Its variance is the larger of two: by each group's own spread, and by the spread of both
    /// together. A small group that has not met its large buyer yet has a small mean *and* a small
    /// spread of its own, and a group in which everybody converted has none.
    pub fn of_log(kind: Kind, rates: &Rates, detect: f64) -> Option<Estimate> {
        let Rates {
            control,
            own,
            pooled,
        } = rates;
        let sound = control.mean > 0.0 && own.mean > 0.0 && pooled.mean > 0.0;
        let relative = |rate: &Rate| rate.variance / (rate.mean * rate.mean);
        let variance = (relative(control) + relative(own)).max(relative(pooled));
        let sound = sound && rates.enough(kind);
        (sound && variance > 0.0 && variance.is_finite()).then(|| Estimate {
            delta: (own.mean / control.mean).ln(),
            variance,
            tau: detect.ln_1p(),
        })
    }

    /// The difference of two rates, planned to be `planned` (above 0). `None` until enough users
    /// are behind them. Its variance is the larger of two, as above.
    pub fn of_difference(kind: Kind, rates: &Rates, planned: f64) -> Option<Estimate> {
        let Rates {
            control,
            own,
            pooled,
        } = rates;
        let variance = (control.variance + own.variance).max(pooled.variance);
        let sound = rates.enough(kind) && planned > 0.0 && planned.is_finite();
        (sound && variance > 0.0).then_some(Estimate {
            delta: own.mean - control.mean,
            variance,
            tau: planned,
        })
    }

    /// ln E, by the mixture of [`super::prior`], of a true effect of `effect`.
    pub fn ln_e_at(&self, effect: f64) -> f64 {
        let off = self.delta - effect;
        ln_mixture(self.delta, self.variance, self.tau) + 0.5 * off * off / self.variance
    }

    /// Where the true effect lies by that mixture, with error `alpha`.
    pub fn mixture_interval(&self, alpha: f64) -> Interval {
        let left = -alpha.ln() - ln_mixture(self.delta, self.variance, self.tau);
        Interval::around(self.delta, (2.0 * self.variance * left).sqrt())
    }

    /// A guess at the true effect that is less flattered by having stopped: its mean under the
    /// prior [`SKEPTICAL`].
    pub fn shrunken(&self) -> f64 {
        let parts = SKEPTICAL.map(|(weight, spread)| {
            let prior = (spread * self.tau).powi(2);
            let total = prior + self.variance;
            let density = -0.5 * self.delta * self.delta / total - 0.5 * total.ln();
            (weight.ln() + density, self.delta * prior / total)
        });
        let all = ln_sum_exp(&parts.map(|(weight, _)| weight));
        let each = parts
            .iter()
            .map(|(weight, mean)| (weight - all).exp() * mean);
        each.sum()
    }

    /// ln E of no effect, by the one normal mixture.
    pub fn ln_e(&self) -> f64 {
        ln_e(self.delta, self.variance, self.tau)
    }

    /// g = τ²/V.
    pub fn information(&self) -> f64 {
        self.tau * self.tau / self.variance
    }

    /// Where the true value lies by the one normal mixture, with error `alpha`.
    pub fn interval(&self, alpha: f64) -> Interval {
        let half = self.variance.sqrt() * width(self.information(), alpha);
        Interval::around(self.delta, half)
    }
}

/// Where one group's true rate lies at any look, with error `alpha`: the interval above for its
/// logarithm, with the planned lift as spread, so that a positive rate stays positive. `None`
/// ends until the rate is above 0 with enough users behind it.
pub fn interval_of_rate(kind: Kind, rate: &Rate, detect: f64, alpha: f64) -> Interval {
    let variance = rate.variance / (rate.mean * rate.mean);
    if !(rate.mean > 0.0 && variance > 0.0 && enough(kind, rate)) {
        return Interval::UNKNOWN;
    }
    let around = Estimate {
        delta: 0.0,
        variance,
        tau: detect.ln_1p(),
    };
    around.interval(alpha).map(|log| rate.mean * log.exp())
}

/// So many users of each group have a value before values are compared.
pub const VALUED_USERS_MIN: u64 = 100;
/// So many users of each group have an event before counts are compared.
pub const COUNTED_USERS_MIN: u64 = 25;

/// Whether enough users are behind one group's rate for an asymptotic claim.
fn enough(kind: Kind, rate: &Rate) -> bool {
    match kind {
        Kind::Conversion => rate.converted.min(rate.users - rate.converted) >= 10,
        Kind::Count => rate.converted >= COUNTED_USERS_MIN,
        Kind::Mean | Kind::Ratio => rate.converted >= VALUED_USERS_MIN,
        Kind::Quantile => false,
    }
}

impl Rates {
    /// Whether enough users are behind two rates for an asymptotic claim about their comparison:
    /// 10 that convert and 10 that do not, as expected of each group by the rate of both, 25 with
    /// an event, or 100 with a value, of which few may be large. Below, such claims were seen to
    /// break: with 25 to 50, log-normal values of σ 1 and 1.6 at 90/10 raised 5.0 to 7.2 % false
    /// alarms, with 100 2.7 to 5.2 %.
    fn enough(&self, kind: Kind) -> bool {
        let each = [&self.control, &self.own];
        match kind {
            Kind::Conversion => {
                let share = self.pooled.mean;
                let expected = |rate: &Rate| rate.users as f64 * share.min(1.0 - share);
                each.iter().all(|rate| expected(rate) >= 10.0)
            }
            Kind::Count | Kind::Mean | Kind::Ratio | Kind::Quantile => {
                each.iter().all(|rate| enough(kind, rate))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(users: u64, converted: u64) -> Rate {
        let mean = converted as f64 / users as f64;
        Rate {
            mean,
            variance: mean * (1.0 - mean) / users as f64,
            users,
            converted,
        }
    }

    #[test]
    fn the_width_is_smallest_where_it_should_be() {
        let best = tightest_information(0.05);
        for (g, expected) in [(best, 3.04), (best / 100.0, 9.08), (best * 100.0, 3.56)] {
            assert!((width(g, 0.05) - expected).abs() < 0.005, "c({g})");
        }
        assert!(width(best * 1.2, 0.05) > width(best, 0.05));
        assert!(width(best / 1.2, 0.05) > width(best, 0.05));
    }

    /// Two shares of users.
    fn rates(control: Rate, own: Rate) -> Rates {
        let all = share(control.users + own.users, control.converted + own.converted);
        let (a, b) = (control.users as f64, own.users as f64);
        Rates {
            control,
            own,
            pooled: Rate {
                variance: all.mean * (1.0 - all.mean) * (1.0 / a + 1.0 / b),
                ..all
            },
        }
    }

    #[test]
    fn test_and_interval_agree_on_every_look() {
        for own in (1000..2000).step_by(7) {
            let rates = rates(share(20_000, 1500), share(20_000, own));
            let found = Estimate::of_log(Kind::Conversion, &rates, 0.1).unwrap();
            let bound = 20.0_f64.ln();
            assert_eq!(
                found.ln_e() >= bound,
                found.interval(0.05).excludes_zero(),
                "{found:?}"
            );
            let interval = found.mixture_interval(0.05);
            assert_eq!(found.ln_e_at(0.0) >= bound, interval.excludes_zero());
            assert!((found.ln_e_at(interval.low.unwrap()) - bound).abs() < 1e-9);
        }
    }

    #[test]
    fn mixture_is_the_mean_of_its_components() {
        let estimate = Estimate {
            delta: 0.2,
            variance: 0.004,
            tau: 0.1,
        };
        let density = |x: f64, variance: f64| (-0.5 * x * x / variance).exp() / variance.sqrt();
        let mixture = 0.25 * (density(0.1, 0.0065) + density(0.3, 0.0065))
            + 0.25 * (density(0.2, 0.094) + density(0.2, 1.004));
        let expected = (mixture / density(0.2, 0.004)).ln();
        assert!((estimate.ln_e_at(0.0) - expected).abs() < 1e-12);
    }

    #[test]
    fn nothing_is_said_before_enough_is_known() {
        let of = |kind, control: Rate, own: Rate| Estimate::of_log(kind, &rates(control, own), 0.1);
        assert_eq!(of(Kind::Conversion, share(100, 5), share(100, 14)), None);
        assert_eq!(of(Kind::Conversion, share(100, 95), share(100, 86)), None);
        assert_eq!(of(Kind::Conversion, share(100, 0), share(100, 50)), None);
        assert!(of(Kind::Conversion, share(100, 100), share(100, 50)).is_some());
        assert_eq!(of(Kind::Mean, share(100, 24), share(100, 50)), None);
        let unknown = interval_of_rate(Kind::Mean, &share(100, 24), 0.1, 0.05);
        assert_eq!(unknown, Interval::UNKNOWN);
    }

    #[test]
    fn one_side_is_half_of_both() {
        let (above, below) = (ln_e_above(0.3, 0.01, 0.1), ln_e_above(-0.3, 0.01, 0.1));
        let both = ln_e(0.3, 0.01, 0.1);
        assert!((0.5 * (above.exp() + below.exp()) - both.exp()).abs() < 1e-12);
        let bound = bound_above(50.0, 10.0, 0.01);
        let at = ln_e_above(bound / 50.0, 1.0 / 50.0, 0.1_f64.sqrt());
        assert!((at - 100.0_f64.ln()).abs() < 1e-9);
    }
}
