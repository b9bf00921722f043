//! The exact test for conversions: for shares of users, at any size and at any look.
//!
//! A fixed mixture over rate ratios e^δ, weighted so that θ = w·e^δ/(w·e^δ + 1 − w) has the
//! distribution Beta(κw, κ(1−w)), gives evidence against the ratio e^r:
//!
//! E(r) = ∫ π(δ) Π_e [θ_e(δ)/θ_e(r)]^{x_Be} · [(1−θ_e(δ))/(1−θ_e(r))]^{x_Ae} dδ
//!
//! over the periods e of constant weights. With one period that is
//! ln E = lnB(κw + x_B, κ(1−w) + x_A) − lnB(κw, κ(1−w)) − x_B·ln θ(r) − x_A·ln(1 − θ(r)); with
//! several the integral is computed. It is one and the same mixture throughout, so that a change
//! of weights neither restarts the test nor spends its error twice. "No effect" is rejected when
//! E(0) ≥ 1/α; the interval is {r : E(r) < 1/α}. Only assignment by the designed shares is
//! assumed: rates may drift and conversions may come late.
//!
//! Source: Lindon and Malek, NeurIPS 2022 (arXiv 2011.03567), inhomogeneous Bernoulli processes.

use super::interval::{Interval, finite};
use super::logistic::{self, FAR, Term, likeliest, ln_integral};
use super::prior::as_converted;
use super::special::{bisect, ln_dirichlet_factor, ln_incomplete_beta, ln_sum_exp};

/// What the converted users of a group and of control say.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    terms: Vec<Term>,
    ln_e: f64,
}

impl Evidence {
    /// Of periods in order, each with a share of its own. `concentration` is κ, above 0: how
    /// many converted users the expectation of no effect weighs at the start.
    pub fn new(terms: &[Term], concentration: f64) -> Evidence {
        let share = terms.first().map_or(0.5, |first| first.share);
        Evidence::mixed(terms, &[(1.0, centered(share, concentration))])
    }

    /// By the mixture of [`super::prior`] around a planned log rate ratio, above 0.
    pub fn planned(terms: &[Term], planned: f64) -> Evidence {
        let share = terms.first().map_or(0.5, |first| first.share);
        Evidence::mixed(terms, &as_converted(share, planned))
    }

    /// By a mixture of these components, each with its weight. They have the first period's share.
    fn mixed(terms: &[Term], components: &[(f64, Term)]) -> Evidence {
        let each = components.iter().map(|(weight, prior)| {
            let ln_e = match terms {
                [] => 0.0,
                [only] => ln_dirichlet_factor(&cells(only, prior)),
                _ => ln_mixture(terms, prior, false),
            };
            weight.ln() + ln_e
        });
        Evidence {
            terms: terms.to_vec(),
            ln_e: ln_sum_exp(&each.collect::<Vec<_>>()),
        }
    }

    /// ln E of no effect.
    pub fn ln_e(&self) -> f64 {
        self.ln_e
    }

    /// ln E of this log rate ratio.
    pub fn ln_e_at(&self, log_ratio: f64) -> f64 {
        self.ln_e - logistic::ln_likelihood(&self.terms, log_ratio)
    }

    /// The likeliest relative difference. `None` while one of the groups has no converted user.
    pub fn relative(&self) -> Option<f64> {
        let peak = likeliest(&self.terms);
        (peak.abs() < FAR).then(|| peak.exp_m1()).and_then(finite)
    }

    /// Where the true log rate ratio lies, with error `alpha`. An end is `None` as long as a
    /// group has no converted user.
    pub fn interval_of_log(&self, alpha: f64) -> Interval {
        let bound = -alpha.ln();
        let peak = likeliest(&self.terms);
        let inside = |log_ratio: f64| self.ln_e_at(log_ratio) < bound;
        let end = |toward: f64| bisect(peak, toward, inside);
        let own = self.terms.iter().any(|term| term.own > 0.0);
        let control = self.terms.iter().any(|term| term.control > 0.0);
        Interval {
            low: own.then(|| end(-FAR)),
            high: control.then(|| end(FAR)),
        }
    }

    /// Where the true relative difference lies, with error `alpha`: never below −1.
    pub fn interval(&self, alpha: f64) -> Interval {
        let interval = self.interval_of_log(alpha).map(f64::exp_m1);
        Interval {
            low: Some(interval.low.unwrap_or(-1.0)),
            ..interval
        }
    }
}

/// ln E⁺ of "the group's rate is at most `ratio` times control's": the mixture above, restricted
/// to larger ratios and centered at `ratio`. Valid at any look under every smaller ratio too.
/// `None` where the evidence is so far on the other side that the remaining mass is no number.
/// Source: Howard, Ramdas, McAuliffe, Sekhon, Ann. Statist. 2021 (arXiv 1810.08240).
pub fn ln_e_above(terms: &[Term], ratio: f64, concentration: f64) -> Option<f64> {
    // Seen from `ratio`, the designed shares are those of the converted users it would give.
    let moved: Vec<Term> = terms
        .iter()
        .map(|term| Term {
            share: term.share * ratio / (term.share * ratio + 1.0 - term.share),
            ..*term
        })
        .collect();
    match moved.as_slice() {
        [] => Some(0.0),
        [only] => {
            let [own, control] = cells(only, &centered(only.share, concentration));
            let mass = |a: f64, b: f64| ln_incomplete_beta(a, b, only.share, 1.0 - only.share).1;
            let after = mass(own.0 + own.1, control.0 + control.1);
            let before = mass(own.0, control.0);
            (after > f64::MIN_POSITIVE.ln())
                .then(|| ln_dirichlet_factor(&[own, control]) + after - before)
        }
        [first, ..] => {
            let prior = centered(first.share, concentration);
            finite(ln_mixture(&moved, &prior, true))
        }
    }
}

/// The prior of no effect that weighs as much as `concentration` converted users.
fn centered(share: f64, concentration: f64) -> Term {
    Term {
        share,
        control: concentration * (1.0 - share),
        own: concentration * share,
    }
}

/// Prior, count and share of the group and of control.
fn cells(term: &Term, prior: &Term) -> [(f64, f64, f64); 2] {
    [
        (prior.own, term.own, term.share),
        (prior.control, term.control, 1.0 - term.share),
    ]
}

/// ln of the mixture's mean likelihood over that of no effect. The prior is a term like those of
/// the data.
fn ln_mixture(terms: &[Term], prior: &Term, only_above: bool) -> f64 {
    let mut all = vec![*prior];
    all.extend_from_slice(terms);
    ln_integral(&all, only_above) - ln_integral(&[*prior], only_above)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(share: f64, control: f64, own: f64) -> Term {
        Term {
            share,
            control,
            own,
        }
    }

    fn of(share: f64, control: f64, own: f64) -> Evidence {
        Evidence::new(&[term(share, control, own)], 100.0)
    }

    #[test]
    fn test_and_interval_agree_on_every_look() {
        for own in 0..400 {
            let found = of(0.5, 200.0, f64::from(own));
            let excluded = found.interval(0.05).excludes_zero();
            assert_eq!(found.ln_e() >= 20.0_f64.ln(), excluded, "{own}: {found:?}");
        }
    }

    #[test]
    fn swapping_the_groups_swaps_the_answer() {
        let (there, back) = (of(0.3, 100.0, 80.0), of(0.7, 80.0, 100.0));
        assert!((there.ln_e() - back.ln_e()).abs() < 1e-12);
        let (low, high) = (
            there.interval_of_log(0.05).low.unwrap(),
            back.interval_of_log(0.05).high.unwrap(),
        );
        assert!((low + high).abs() < 1e-9);
    }

    #[test]
    fn a_period_cut_in_two_says_the_same() {
        // The computed integral against the closed form.
        for (share, control, own) in [
            (0.5, 30.0, 50.0),
            (0.01, 2000.0, 0.0),
            (0.1, 9e6, 1.002e6),
            (0.5, 5.0002e8, 5.0001e8),
        ] {
            let whole = of(share, control, own);
            let halves = [
                term(share, control / 4.0, own),
                term(share, control * 0.75, 0.0),
            ];
            let cut = Evidence::new(&halves, 100.0);
            assert!(
                (whole.ln_e() - cut.ln_e()).abs() < 1e-7,
                "{whole:?} {cut:?}"
            );
            for ratio in [1.0, 1.1, 2.0] {
                let whole = ln_e_above(&whole.terms, ratio, 20.0);
                let cut = ln_e_above(&halves, ratio, 20.0);
                if let Some(whole) = whole.filter(|_| control < 1e6) {
                    assert!((whole - cut.unwrap()).abs() < 1e-7, "{whole:?} {cut:?}");
                }
            }
        }
    }

    #[test]
    fn mixture_of_a_period_cut_in_two_is_the_same() {
        for (share, control, own) in [(0.5, 30.0, 50.0), (0.01, 2000.0, 0.0), (0.1, 900.0, 150.0)] {
            let halves = [
                term(share, control / 4.0, own),
                term(share, control * 0.75, 0.0),
            ];
            let whole = Evidence::planned(&[term(share, control, own)], 0.1);
            let cut = Evidence::planned(&halves, 0.1);
            assert!(
                (whole.ln_e() - cut.ln_e()).abs() < 1e-7,
                "{whole:?} {cut:?}"
            );
        }
    }

    #[test]
    fn large_effect_is_found_at_a_small_site() {
        assert!(
            Evidence::planned(&[term(0.5, 0.0, 30.0)], 0.1_f64.ln_1p()).ln_e() > 2000.0_f64.ln()
        );
    }

    #[test]
    fn an_end_that_nothing_bounds_is_none() {
        let none = Evidence::new(&[], 100.0);
        assert_eq!((none.ln_e(), none.relative()), (0.0, None));
        let none_in_control = of(0.5, 0.0, 40.0);
        assert_eq!(none_in_control.relative(), None);
        assert_eq!(none_in_control.interval(0.05).high, None);
        assert!(none_in_control.interval(0.05).low.unwrap() > 0.0);
        assert_eq!(of(0.5, 40.0, 0.0).interval(0.05).low, Some(-1.0));
    }

    #[test]
    fn a_ramp_with_a_drifting_rate_is_no_effect() {
        // 1 % share at a rate of 2 %, then 50 % at 10 %: pooled, the group looks three times
        // better; by period there is nothing.
        let ramp = [term(0.01, 1980.0, 20.0), term(0.5, 5000.0, 5000.0)];
        let found = Evidence::new(&ramp, 100.0);
        assert!(found.relative().unwrap().abs() < 1e-3, "{found:?}");
        assert!(found.ln_e() < 0.0);
    }
}
