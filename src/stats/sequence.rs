//! The log-lift sequence on the information clock: for means, counts and ratios.
//!
//! With Δ the log of the ratio of two means and V its variance, a normal mixture over lifts of
//! standard deviation τ gives evidence that may be looked at at any time:
//!
//! g = τ²/V;  ln E = ½·(Δ²/V)·g/(1+g) − ½·ln(1+g);  Δ ± √V·c(g), c² = (1+g)/g·[ln(1+g) + 2·ln(1/α)]
//!
//! Sources: Robbins 1970; Johari, Koomen, Pekelis, Walsh, KDD 2017; validity for asymptotically
//! normal estimates: Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, Ann. Statist. 2024 (arXiv
//! 2103.06476).

use super::moments::Moments;

/// How results name this method.
pub const METHOD: &str = "log-lift normal mixture (always valid, asymptotic)";

/// What is fixed before the first user.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// The planned relative lift, above 0.
    pub detect: f64,
    /// The error allowed to this comparison.
    pub alpha: f64,
}

/// A group's mean compared with control's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared {
    /// The relative difference.
    pub relative: f64,
    /// Where the true one lies.
    pub relative_interval: (f64, f64),
    /// At most 1.
    pub p_value: f64,
}

/// Users with an event that each group needs before the asymptotic forms are trusted.
const ENOUGH: u64 = 25;

/// Compares two means. `None` until both are above zero with enough users behind them.
pub fn compare(control: &Moments, own: &Moments, plan: &Plan) -> Option<Compared> {
    let (delta, variance) = log_ratio(control, own)?;
    let g = plan.information(variance);
    let ln_e = 0.5 * (delta * delta / variance) * g / (1.0 + g) - 0.5 * g.ln_1p();
    let half = variance.sqrt() * plan.width(g);
    Some(Compared {
        relative: delta.exp_m1(),
        relative_interval: ((delta - half).exp_m1(), (delta + half).exp_m1()),
        p_value: (-ln_e).exp().min(1.0),
    })
}

/// Where the true difference of two means lies, by the same clock as [`compare`].
pub fn interval_of_difference(control: &Moments, own: &Moments, plan: &Plan) -> Option<(f64, f64)> {
    let (_, variance) = log_ratio(control, own)?;
    let width = plan.width(plan.information(variance));
    let half = (control.variance_of_mean? + own.variance_of_mean?).sqrt() * width;
    let difference = own.mean? - control.mean?;
    Some((difference - half, difference + half))
}

/// Where one group's true mean lies, at any look. The mixture is tuned to be tightest at 5,000
/// users. Source: Waudby-Smith and others, as above, equation 6. `None` until enough users are
/// behind it.
pub fn interval_of_mean(own: &Moments, alpha: f64) -> Option<(f64, f64)> {
    const TIGHTEST_AT: f64 = 5_000.0;
    let (mean, variance) = (
        own.mean?,
        own.variance_of_mean.filter(|&variance| variance > 0.0)?,
    );
    if own.converted < ENOUGH {
        return None;
    }
    let log = -2.0 * alpha.ln();
    let rho_sq = (log + log.ln_1p()) / TIGHTEST_AT;
    let n = own.users as f64;
    let t = n * rho_sq + 1.0;
    // The variance of one user is n times that of the mean.
    let half = (variance * n * 2.0 * t / (n * n * rho_sq) * (t.sqrt() / alpha).ln()).sqrt();
    Some((mean - half, mean + half))
}

impl Plan {
    fn information(&self, variance: f64) -> f64 {
        self.detect.ln_1p().powi(2) / variance
    }

    /// c(g): how many standard errors the interval is wide on each side.
    fn width(&self, g: f64) -> f64 {
        ((1.0 + g) / g * (g.ln_1p() - 2.0 * self.alpha.ln())).sqrt()
    }
}

/// Δ and V. `None` until both groups have enough users with an event and a mean above zero.
fn log_ratio(control: &Moments, own: &Moments) -> Option<(f64, f64)> {
    let enough = |moments: &Moments| moments.converted >= ENOUGH;
    let relative = |moments: &Moments| {
        let mean = moments.mean.filter(|&mean| mean > 0.0)?;
        Some(moments.variance_of_mean? / (mean * mean))
    };
    let variance = relative(control)? + relative(own)?;
    let sound = enough(control) && enough(own) && variance > 0.0;
    sound.then_some(((own.mean? / control.mean?).ln(), variance))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(users: u64, converted: u64) -> Moments {
        let share = converted as f64 / users as f64;
        Moments {
            users,
            converted,
            mean: Some(share),
            variance_of_mean: Some(share * (1.0 - share) / users as f64),
        }
    }

    const PLAN: Plan = Plan {
        detect: 0.1,
        alpha: 0.05,
    };

    #[test]
    fn the_width_is_what_the_table_in_the_literature_says() {
        // c(g) at the optimum g = 7.94 and at a hundredth and a hundred times the information.
        for (g, expected) in [(7.94, 3.04), (0.0794, 9.08), (794.0, 3.56)] {
            assert!(
                (PLAN.width(g) - expected).abs() < 0.005,
                "c({g}) = {}",
                PLAN.width(g)
            );
        }
    }

    #[test]
    fn test_and_interval_agree_on_every_look() {
        for own in (1000..2000).step_by(7) {
            let found = compare(&moments(20_000, 1500), &moments(20_000, own), &PLAN).unwrap();
            let (low, high) = found.relative_interval;
            assert_eq!(
                found.p_value <= 0.05,
                low > 0.0 || high < 0.0,
                "{own}: {found:?}"
            );
        }
    }

    #[test]
    fn nothing_is_said_before_enough_is_known() {
        assert_eq!(compare(&moments(100, 24), &moments(100, 50), &PLAN), None);
        assert_eq!(interval_of_mean(&moments(100, 100), 0.05), None);
    }
}
