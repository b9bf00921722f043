//! Special functions that keep their digits where counts are large.
//!
//! `libm` gives the error function and lnΓ to the last digit (those of `statrs` lose five), and
//! `statrs` the normal quantile and the incomplete gamma function. The incomplete beta function
//! of `statrs` (and with it Student's t) stops after 140 terms, multiplies by a difference of lnΓ
//! and subtracts from 1: at a million users nothing of it is right. So that one is written here,
//! and differences of lnΓ, of which at a billion users only six digits would be left.

use libm::{erfc, lgamma as ln_gamma};
use statrs::function::erf::erfc_inv;
use statrs::function::gamma::checked_gamma_ur;

/// ½·ln 2π.
const HALF_LN_TAU: f64 = 0.918_938_533_204_672_8;

/// x·ln(x/m) + m − x: how far the count `x` is from its expectation `m`, never negative. 0 ≤ x,
/// m > 0. Source: Loader, "Fast and accurate computation of binomial probabilities", 2000 (bd0).
pub fn deviance(x: f64, m: f64) -> f64 {
    let off = x - m;
    if off.abs() >= 0.1 * (x + m) {
        return if x == 0.0 { m } else { x * (x / m).ln() - off };
    }
    // ln(x/m) = 2·artanh(v): the first term of its series cancels −off, the others are small.
    let v = off / (x + m);
    let mut sum = off * v;
    let mut power = 2.0 * x * v;
    for odd in (3..1000).step_by(2) {
        power *= v * v;
        let next = sum + power / f64::from(odd);
        if next == sum {
            break;
        }
        sum = next;
    }
    sum
}

/// lnΓ(x) − [(x − ½)·ln x − x + ½·ln 2π], for x > 0: what Stirling's formula leaves.
/// Source: NIST DLMF 5.11.1.
pub fn stirling_rest(x: f64) -> f64 {
    if x < 15.0 {
        return ln_gamma(x) - ((x - 0.5) * x.ln() - x + HALF_LN_TAU);
    }
    const TERMS: [f64; 6] = [
        1.0 / 12.0,
        -1.0 / 360.0,
        1.0 / 1260.0,
        -1.0 / 1680.0,
        1.0 / 1188.0,
        -691.0 / 360_360.0,
    ];
    let square = 1.0 / (x * x);
    let series = TERMS
        .iter()
        .rev()
        .fold(0.0, |sum, term| sum * square + term);
    series / x
}

/// ln of the Bayes factor of a Dirichlet mixture against fixed probabilities, after counts of K
/// kinds: ln ∫ Π (q_i/π_i)^{c_i} dDirichlet(q; α). With κ = Σα and N = Σc it is
///
/// lnΓ(κ) − lnΓ(κ+N) + Σ [lnΓ(α_i + c_i) − lnΓ(α_i) − c_i·ln π_i],
///
/// computed as the posterior's divergence from π minus the prior's, so that nothing cancels.
/// `cells` are (α_i, c_i, π_i), α_i > 0, π_i > 0, Σπ = 1. For two kinds it is the Beta–binomial
/// factor. Source: Lindon and Malek, NeurIPS 2022 (arXiv 2011.03567).
pub fn ln_dirichlet_factor(cells: &[(f64, f64, f64)]) -> f64 {
    let prior: f64 = cells.iter().map(|cell| cell.0).sum();
    let all = prior + cells.iter().map(|cell| cell.1).sum::<f64>();
    let each = cells.iter().map(|&(alpha, count, share)| {
        let after = alpha + count;
        deviance(after, all * share) - deviance(alpha, prior * share) - 0.5 * (after / alpha).ln()
            + (stirling_rest(after) - stirling_rest(alpha))
    });
    each.sum::<f64>() + 0.5 * (all / prior).ln() - (stirling_rest(all) - stirling_rest(prior))
}

/// ln(x^a · y^b / B(a, b)), for y = 1 − x.
fn ln_beta_weight(a: f64, b: f64, x: f64, y: f64) -> f64 {
    let s = a + b;
    0.5 * (a * (b / s)).ln()
        - HALF_LN_TAU
        - deviance(a, s * x)
        - deviance(b, s * y)
        - stirling_rest(a)
        - stirling_rest(b)
        + stirling_rest(s)
}

/// ln of the regularized incomplete beta function I_x(a, b) and of its complement, with y = 1 − x
/// given apart because near 1 the difference would have lost it. a, b > 0. The smaller of the two
/// is exact in relative terms. Source: DiDonato and Morris, ACM TOMS 1992 (algorithm 708), equation
/// 9, by Lentz's method.
pub fn ln_incomplete_beta(a: f64, b: f64, x: f64, y: f64) -> (f64, f64) {
    if x <= 0.0 {
        return (f64::NEG_INFINITY, 0.0);
    }
    if y <= 0.0 {
        return (0.0, f64::NEG_INFINITY);
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        let (upper, lower) = ln_incomplete_beta_fraction(b, a, y, x);
        return (lower, upper);
    }
    ln_incomplete_beta_fraction(a, b, x, y)
}

fn ln_incomplete_beta_fraction(a: f64, b: f64, x: f64, y: f64) -> (f64, f64) {
    // It converges in about √max(a, b) steps where it is used; the bound is for a billion.
    const STEPS_MAX: u32 = 2_000_000;
    const TINY: f64 = 1e-300;
    let kept = |value: f64| if value.abs() < TINY { TINY } else { value };
    // a − (a+b)·x, from the side that does not cancel.
    let lambda = if a > b {
        (a + b) * y - b
    } else {
        a - (a + b) * x
    };
    let beta = |n: f64| {
        let step = if n > 0.0 {
            n + n * (b - n) * x / (a + 2.0 * n - 1.0)
        } else {
            0.0
        };
        step + (a + n) / (a + 2.0 * n + 1.0) * (lambda + 1.0 + n * (1.0 + y))
    };
    let mut c = kept(beta(0.0));
    let mut d = 0.0;
    let mut fraction = c;
    for step in 1..STEPS_MAX {
        let n = f64::from(step);
        let middle = a + 2.0 * n - 1.0;
        let alpha = (a + n - 1.0) / middle * ((a + b + n - 1.0) / middle) * (n * (b - n)) * (x * x);
        let beta = beta(n);
        d = 1.0 / kept(beta + alpha * d);
        c = kept(beta + alpha / c);
        fraction *= c * d;
        if (c * d - 1.0).abs() < 1e-15 {
            break;
        }
    }
    let lower = (ln_beta_weight(a, b, x, y) - fraction.ln()).min(0.0);
    (lower, ln_one_minus_exp(lower))
}

/// ln(1 − e^x) for x ≤ 0. Source: Mächler, "Accurately computing log(1 − exp(−|a|))", 2012.
pub fn ln_one_minus_exp(x: f64) -> f64 {
    if x > -std::f64::consts::LN_2 {
        (-x.exp_m1()).ln()
    } else {
        (-x.exp()).ln_1p()
    }
}

/// Φ(x), the normal distribution function.
pub fn normal_cdf(x: f64) -> f64 {
    0.5 * erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

/// φ(x), the normal density.
pub fn normal_density(x: f64) -> f64 {
    (-0.5 * x * x - HALF_LN_TAU).exp()
}

/// ln Φ(x), also far in the lower tail, where Φ itself is no number.
pub fn ln_normal_cdf(x: f64) -> f64 {
    if x > -30.0 {
        return normal_cdf(x).ln();
    }
    // NIST DLMF 7.12.1: Φ(x) ~ φ(x)/|x| · (1 − 1/x² + 3/x⁴ − 15/x⁶).
    let square = 1.0 / (x * x);
    let series = 1.0 - square * (1.0 - square * (3.0 - 15.0 * square));
    -0.5 * x * x - HALF_LN_TAU - (-x).ln() + series.ln()
}

/// The normal quantile of `p`, 0 < p < 1.
pub fn normal_quantile(p: f64) -> f64 {
    -std::f64::consts::SQRT_2 * erfc_inv(2.0 * p)
}

/// The two-sided tail 2·(1 − Φ(|z|)).
pub fn normal_two_sided(z: f64) -> f64 {
    erfc(z.abs() * std::f64::consts::FRAC_1_SQRT_2)
}

/// The two-sided tail P(|T| > |t|) of Student's t with `df` > 0 degrees of freedom.
pub fn student_two_sided(t: f64, df: f64) -> f64 {
    let square = t * t;
    let (x, y) = (df / (df + square), square / (df + square));
    ln_incomplete_beta(0.5 * df, 0.5, x, y).0.exp()
}

/// The t with P(|T| > t) = `alpha`, for `df` > 0 and 0 < alpha < 1.
pub fn student_two_sided_quantile(alpha: f64, df: f64) -> f64 {
    let miss = |t: f64| student_two_sided(t, df) - alpha;
    let mut high = normal_quantile(1.0 - 0.5 * alpha).max(0.1);
    let mut low = 0.0;
    while miss(high) > 0.0 && high < 1e300 {
        low = high;
        high *= 2.0;
    }
    bisect(low, high, |t| miss(t) > 0.0)
}

/// The upper tail P(X > x) of χ² with `df` > 0 degrees of freedom.
pub fn chi_squared_upper(x: f64, df: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    // Fails only where an argument is not positive and finite.
    checked_gamma_ur(0.5 * df, 0.5 * x).unwrap_or(0.0)
}

/// Where, from `low` to `high`, `still` stops holding: halved until two neighbours are left.
pub fn bisect(mut low: f64, mut high: f64, still: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if middle == low || middle == high {
            break;
        }
        if still(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// ln Σ e^term. −∞ for no terms.
pub fn ln_sum_exp(terms: &[f64]) -> f64 {
    let top = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if top == f64::NEG_INFINITY {
        return top;
    }
    top + terms
        .iter()
        .map(|term| (term - top).exp())
        .sum::<f64>()
        .ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(found: f64, expected: f64, relative: f64) {
        assert!(
            (found - expected).abs() <= relative * expected.abs(),
            "{found:e} is not {expected:e}"
        );
    }

    // The expected figures were computed with 40 digits.

    #[test]
    fn a_deviance_keeps_its_digits_next_to_its_minimum() {
        close(deviance(1e9 + 1.0, 1e9), 4.999999998333333e-10, 1e-14);
        close(deviance(3.0, 2.0), 0.216_395_324_324_493_15, 1e-14);
        assert_eq!(deviance(0.0, 2.5), 2.5);
        assert_eq!(deviance(7.0, 7.0), 0.0);
    }

    #[test]
    fn factors_of_a_billion_keep_their_digits() {
        let half = |count: f64| (500.0, count, 0.5);
        close(
            ln_dirichlet_factor(&[half(500_120_000.0), half(499_880_000.0)]),
            21.891_965_726_617_7,
            1e-11,
        );
        let one_sided = [(0.5, 0.0, 0.5), (0.5, 3.0, 0.5)];
        close(
            ln_dirichlet_factor(&one_sided),
            0.916_290_731_874_155,
            1e-14,
        );
        assert_eq!(ln_dirichlet_factor(&[half(0.0), half(0.0)]), 0.0);
    }

    #[test]
    fn stirling_leaves_little() {
        close(stirling_rest(0.1), 0.512_740_081_331_915, 1e-14);
        close(stirling_rest(3.0), 0.027_677_925_684_998_34, 1e-12);
        close(stirling_rest(20.0), 0.004_166_319_691_996_922, 1e-15);
        close(stirling_rest(1e9), 8.333_333_333_333_333e-11, 1e-15);
    }

    #[test]
    fn both_sides_of_the_incomplete_beta_are_exact() {
        let (lower, _) = ln_incomplete_beta(0.5, 30.0, 0.01, 0.99);
        close(lower, -0.578_630_574_155_773_6, 1e-13);
        let (lower, upper) = ln_incomplete_beta(200.0, 300.0, 0.37, 0.63);
        close(lower, -2.471_005_283_469_657, 1e-12);
        let (mirrored, _) = ln_incomplete_beta(300.0, 200.0, 0.63, 0.37);
        close(mirrored, upper, 1e-12);
        let (lower, _) = ln_incomplete_beta(200.0, 300.0, 0.55, 0.45);
        close(lower, -8.611_159_912_144_543e-12, 1e-10);
    }

    #[test]
    fn tails_reach_far() {
        close(student_two_sided(2.0, 3.0), 0.139_325_968_558_843_2, 1e-13);
        close(
            student_two_sided(-5.0, 10.0),
            5.373_336_027_564_526e-4,
            1e-12,
        );
        close(
            student_two_sided(1.96, 1e4),
            0.050_023_520_231_833_05,
            1e-11,
        );
        // Φ's tail and the first term of its expansion in 1/df.
        let expected =
            normal_two_sided(1.96) + normal_density(1.96) * 1.96 * (1.96 * 1.96 + 1.0) / 2.0 / 2e9;
        close(student_two_sided(1.96, 2e9), expected, 1e-11);
        close(
            student_two_sided_quantile(0.05, 10.0),
            2.228_138_851_986_275,
            1e-12,
        );
        close(
            student_two_sided_quantile(1e-4, 1.0),
            6_366.197_671_306_157,
            1e-10,
        );
        for (z, expected) in [
            (-5.0, -15.064_998_393_988_726),
            (-35.0, -616.975_101_261_922_5),
            (-200.0, -20_006.217_280_898_19),
        ] {
            close(ln_normal_cdf(z), expected, 1e-12);
        }
        close(normal_quantile(0.975), 1.959_963_984_540_054, 1e-14);
        close(
            chi_squared_upper(14.0, 1.0),
            1.828_106_329_818_351_5e-4,
            1e-12,
        );
    }
}
