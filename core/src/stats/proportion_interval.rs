//! Where one group's true share of converted users lies, at any size and at any look.
//!
//! Beta–binomial mixtures: E(p) = ∫ Π (q/p)^x·((1−q)/(1−p))^{n−x} dBeta(q), and the interval is
//! {p : E(p) < 1/α}.

use super::interval::Interval;
use super::special::{bisect, deviance, ln_dirichlet_factor, ln_incomplete_beta};

/// Where the true share lies after `converted` of `users`, with error `alpha`, from the prior
/// Beta(½, ½). Ends are `None` without users; else from 0 to 1.
/// Source: Waudby-Smith and Ramdas, NeurIPS 2020 (arXiv 2006.04347), prior-posterior ratio.
pub fn interval(users: u64, converted: u64, alpha: f64) -> Interval {
    if users == 0 {
        return Interval::UNKNOWN;
    }
    let (n, x) = (users as f64, converted.min(users) as f64);
    let share = x / n;
    // At x/n itself, where the likelihood is greatest; what is lost elsewhere is a divergence.
    let at_share = ln_factor_at(x, n - x, share);
    let ln_e = |p: f64| at_share + deviance(x, n * p) + deviance(n - x, n * (1.0 - p));
    let inside = |p: f64| ln_e(p) < -alpha.ln();
    Interval {
        low: Some(if x == 0.0 {
            0.0
        } else {
            bisect(share, 0.0, inside)
        }),
        high: Some(if x == n {
            1.0
        } else {
            bisect(share, 1.0, inside)
        }),
    }
}

/// ln E at the observed share, also where that is 0 or 1: there the other kind has no count.
fn ln_factor_at(x: f64, rest: f64, share: f64) -> f64 {
    if x > 0.0 && rest > 0.0 {
        return ln_dirichlet_factor(&[(0.5, x, share), (0.5, rest, 1.0 - share)]);
    }
    let n = x + rest;
    // lnB(½ + n, ½) − lnB(½, ½): against ½, moved to a likelihood of 1.
    ln_dirichlet_factor(&[(0.5, n, 0.5), (0.5, 0.0, 0.5)]) - n * std::f64::consts::LN_2
}

/// The Beta–binomial mixture of the sub-Bernoulli process, with steps from −g to h around 0 and
/// precision `r`: ln E after a sum `s` with intrinsic time `v`; restricted to positive drifts
/// when `above`. All but s above 0. Source: Howard, Ramdas, McAuliffe, Sekhon, Ann. Statist. 2021
/// (arXiv 1810.08240), proposition 7, and its package confseq, `beta_binomial_log_mixture`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SubBernoulli {
    /// The largest step down.
    pub g: f64,
    /// The largest step up.
    pub h: f64,
    /// The mixture's precision, on the scale of intrinsic time.
    pub r: f64,
    /// Whether only positive drifts are mixed over.
    pub above: bool,
}

impl SubBernoulli {
    /// Tightest at intrinsic time `v_opt` for the error `alpha_opt`.
    pub fn tuned(g: f64, h: f64, v_opt: f64, alpha_opt: f64, above: bool) -> SubBernoulli {
        let alpha = if above { 2.0 * alpha_opt } else { alpha_opt };
        let rho = v_opt / super::normal_mixture::tightest_information(alpha);
        let r = (rho - g * h).max(1e-3 * g * h);
        SubBernoulli { g, h, r, above }
    }

    /// ln E after the sum `s` at intrinsic time `v`.
    pub fn ln_e(&self, s: f64, v: f64) -> f64 {
        let (g, h, all) = (self.g, self.h, self.g + self.h);
        // A step up is a success of chance g/(g+h).
        let chance = g / all;
        let (ups, downs) = ((v + h * s) / (h * all), (v - g * s) / (g * all));
        let (a, b) = (self.r / (h * all), self.r / (g * all));
        let both = ln_dirichlet_factor(&[(a, ups, chance), (b, downs, 1.0 - chance)]);
        if !self.above {
            return both;
        }
        let mass = |a: f64, b: f64| ln_incomplete_beta(a, b, chance, 1.0 - chance).1;
        both + mass(a + ups, b + downs) - mass(a, b)
    }

    /// The s from which on it rejects at `alpha`, at intrinsic time `v`.
    pub fn bound(&self, v: f64, alpha: f64) -> f64 {
        let far = v / self.g;
        bisect(0.0, far, |s| self.ln_e(s, v) < -alpha.ln())
    }
}

/// The confidence sequence of confseq for a share, whose mixture is centered at each share asked
/// about and tightest at `t_opt` users. Ends from 0 to 1.
pub fn tuned_interval(trials: f64, successes: f64, alpha: f64, t_opt: f64) -> Interval {
    const ALPHA_OPT: f64 = 0.05;
    const EDGE: f64 = 1e-12;
    let inside = |p: f64| {
        let (g, h) = (p, 1.0 - p);
        let mixture = SubBernoulli::tuned(g, h, t_opt * g * h, ALPHA_OPT, false);
        mixture.ln_e(successes - p * trials, trials * g * h) < -alpha.ln()
    };
    let share = (successes / trials).clamp(EDGE, 1.0 - EDGE);
    let end = |toward: f64, limit: f64| {
        if inside(toward) {
            limit
        } else {
            bisect(share, toward, inside)
        }
    };
    Interval::new(end(EDGE, 0.0), end(1.0 - EDGE, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_holds_its_share_and_narrows() {
        let mut wide = 1.0;
        for users in [1, 10, 1000, 1_000_000, 1_000_000_000] {
            for converted in [0, users / 2, users] {
                let found = interval(users, converted, 0.05);
                let (low, high) = (found.low.unwrap(), found.high.unwrap());
                let share = converted as f64 / users as f64;
                assert!(0.0 <= low && low <= share && share <= high && high <= 1.0);
                if converted == users / 2 && users > 1 {
                    assert!(high - low < wide);
                    wide = high - low;
                }
            }
        }
        assert!((3e-5..2e-4).contains(&wide), "{wide}");
        assert_eq!(interval(0, 0, 0.05), Interval::UNKNOWN);
    }

    #[test]
    fn its_ends_are_where_the_evidence_is_enough() {
        let found = interval(1000, 100, 0.05);
        for end in [found.low.unwrap(), found.high.unwrap()] {
            let ln_e = ln_dirichlet_factor(&[(0.5, 100.0, end), (0.5, 900.0, 1.0 - end)]);
            assert!((ln_e - 20.0_f64.ln()).abs() < 1e-9, "{end}: {ln_e}");
        }
    }
}
