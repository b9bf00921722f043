//! The likelihood of a log rate ratio when only the converted users are known.
//!
//! Where a group's designed share of two groups' users is w, each converted user of the two is
//! in that group with probability θ(δ) = w·e^δ / (w·e^δ + 1 − w) when its rate is e^δ times the
//! other's, whatever that rate is and however it drifts.

use super::quadrature::rule;

/// Converted users of a period of constant weights, or the pseudo-users of a prior.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Term {
    /// The group's designed share of the two groups' users, above 0 and below 1.
    pub share: f64,
    /// Converted users of control, at least 0.
    pub control: f64,
    /// Converted users of the group, at least 0.
    pub own: f64,
}

impl Term {
    /// ln of the likelihood of `log_ratio` over that of 0. At most 0 where both ends lose.
    fn ln_likelihood(&self, log_ratio: f64) -> f64 {
        let all = self.own + self.control;
        // Written from the side on which the exponential cannot overflow.
        if log_ratio <= 0.0 {
            self.own * log_ratio - all * (self.share * log_ratio.exp_m1()).ln_1p()
        } else {
            let rest = 1.0 - self.share;
            -self.control * log_ratio - all * (rest * (-log_ratio).exp_m1()).ln_1p()
        }
    }

    fn chance(&self, log_ratio: f64) -> f64 {
        1.0 / (1.0 + (1.0 - self.share) / self.share * (-log_ratio).exp())
    }
}

/// ln of the likelihood of `log_ratio` over that of 0, over all periods.
pub fn ln_likelihood(terms: &[Term], log_ratio: f64) -> f64 {
    terms.iter().map(|term| term.ln_likelihood(log_ratio)).sum()
}

/// A log ratio beyond all that data can tell from 0 or infinity.
pub const FAR: f64 = 700.0;

/// The likeliest log ratio: where the slope, which only falls, is 0; ±[`FAR`] where one of the
/// groups has no converted user.
pub fn likeliest(terms: &[Term]) -> f64 {
    let own: f64 = terms.iter().map(|term| term.own).sum();
    let control: f64 = terms.iter().map(|term| term.control).sum();
    if own == 0.0 || control == 0.0 {
        return if own > 0.0 { FAR } else { -FAR };
    }
    if let [only] = terms {
        return (only.own / only.control * ((1.0 - only.share) / only.share)).ln();
    }
    // Newton's steps, kept inside what halving has left.
    let (mut low, mut high, mut at) = (-FAR, FAR, 0.0);
    for _ in 0..200 {
        let (slope, bend) = slopes(terms, at);
        if slope > 0.0 {
            low = at;
        } else {
            high = at;
        }
        let next = at + slope / bend;
        let next = if next > low && next < high {
            next
        } else {
            0.5 * (low + high)
        };
        if (next - at).abs() <= 1e-15 * (1.0 + at.abs()) {
            break;
        }
        at = next;
    }
    at
}

/// ln ∫ likelihood(δ) dδ over all δ, or over those above 0. The logarithm of the integrand is
/// concave, so that panels as wide as its own spread, from its peak outward, find all of it.
/// Some term must have both groups above 0.
pub fn ln_integral(terms: &[Term], only_above: bool) -> f64 {
    let peak = likeliest(terms);
    let peak = if only_above { peak.max(0.0) } else { peak };
    let top = ln_likelihood(terms, peak);
    let (slope, bend) = slopes(terms, peak);
    // At the border of the half-line the slope, not the bend, says how fast it falls.
    let step = 1.0 / bend.sqrt().max(slope.abs());
    let mut sum = 0.0;
    for direction in [1.0, -1.0] {
        let border = if only_above && direction < 0.0 {
            peak
        } else {
            f64::INFINITY
        };
        sum += outward(terms, peak, top, direction * step, border);
    }
    top + sum.ln()
}

/// ∫ e^(ln likelihood − top) from the peak outward, no farther than `border` away.
fn outward(terms: &[Term], peak: f64, top: f64, step: f64, border: f64) -> f64 {
    // What lies below e^−45 of the peak adds no digit.
    const DEEP: f64 = -45.0;
    const PANELS_MAX: usize = 2000;
    let (mut sum, mut from, mut step) = (0.0, 0.0_f64, step);
    for _ in 0..PANELS_MAX {
        let to = (from + step).clamp(-border, border);
        if to == from {
            break;
        }
        let values = rule()
            .nodes_in(from, to)
            .map(|node| (ln_likelihood(terms, peak + node) - top).exp());
        sum += rule().sum((to - from).abs(), &values);
        let left = ln_likelihood(terms, peak + to) - top;
        if left < DEEP {
            break;
        }
        // A long exponential tail: wider panels do.
        if left - (ln_likelihood(terms, peak + from) - top) > -1.0 {
            step *= 1.5;
        }
        from = to;
    }
    sum
}

/// The slope of the log-likelihood, and its bend taken positive.
fn slopes(terms: &[Term], log_ratio: f64) -> (f64, f64) {
    let each = terms.iter().map(|term| {
        let (all, chance) = (term.own + term.control, term.chance(log_ratio));
        (term.own - all * chance, all * chance * (1.0 - chance))
    });
    each.fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_likelihood_meet() {
        let term = Term {
            share: 0.3,
            control: 5.0,
            own: 7.0,
        };
        let mirrored = Term {
            share: 0.7,
            control: 7.0,
            own: 5.0,
        };
        for log_ratio in [-600.0, -2.0, -1e-9, 0.0, 1e-9, 0.5, 600.0] {
            let there = term.ln_likelihood(log_ratio);
            let back = mirrored.ln_likelihood(-log_ratio);
            assert!((there - back).abs() <= 1e-12 * (1.0 + there.abs()));
        }
    }

    #[test]
    fn the_integral_is_a_beta_function() {
        // ∫ θ^a (1−θ)^b dδ = B(a, b), here relative to its value at δ = 0, θ = ½.
        let term = Term {
            share: 0.5,
            control: 3.0,
            own: 4.0,
        };
        let expected = (1.0 / 60.0_f64).ln() + 7.0 * std::f64::consts::LN_2;
        assert!((ln_integral(&[term], false) - expected).abs() < 1e-13);
        let even = Term { own: 3.0, ..term };
        let both = ln_integral(&[even], false);
        let above = ln_integral(&[even], true);
        assert!((both - above - std::f64::consts::LN_2).abs() < 1e-13);
    }
}
