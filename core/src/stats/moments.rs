//! From exact integer sums to means and variances, without losing digits on the way.

use super::input::{Kind, MetricInput, Totals};

/// Sums over the users of one group, in whole units of the stored integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Users exposed.
    pub users: u64,
    /// Users with at least one event; never more than `users`.
    pub converted: u64,
    /// Σ y.
    pub sum: i128,
    /// Σ y².
    pub sum_sq: i128,
    /// Σ d, the base of a ratio.
    pub base: i128,
    /// Σ d².
    pub base_sq: i128,
    /// Σ y·d.
    pub cross: i128,
    /// Users whose x, the sum from before their first exposure, is known.
    pub known: u64,
    /// Σ y over these users.
    pub known_sum: i128,
    /// Σ x.
    pub before: i128,
    /// Σ x².
    pub before_sq: i128,
    /// Σ x·y.
    pub before_cross: i128,
}

impl Sums {
    /// What a metric of this kind adds up: 0 and 1 for conversions, events for counts, values
    /// for means, values and their base for ratios.
    pub fn of(kind: Kind, totals: &Totals) -> Sums {
        let converted = totals.converted.min(totals.users);
        let (sum, sum_sq) = match kind {
            Kind::Conversion => (i128::from(converted), i128::from(converted)),
            Kind::Count => (i128::from(totals.count), totals.count_sq),
            Kind::Mean | Kind::Ratio => (totals.sum, totals.sum_sq),
            // Its samples are counted apart.
            Kind::Quantile => (0, 0),
        };
        let (base, base_sq, cross) = match kind {
            Kind::Ratio => (totals.base, totals.base_sq, totals.cross),
            Kind::Conversion | Kind::Count | Kind::Mean | Kind::Quantile => (0, 0, 0),
        };
        Sums {
            users: totals.users,
            converted,
            sum,
            sum_sq,
            base,
            base_sq,
            cross,
            known: totals.known,
            known_sum: totals.known_sum,
            before: totals.before,
            before_sq: totals.before_sq,
            before_cross: totals.before_cross,
        }
    }

    /// The sums over both.
    pub fn plus(self, other: Sums) -> Sums {
        Sums {
            users: self.users + other.users,
            converted: self.converted + other.converted,
            sum: self.sum + other.sum,
            sum_sq: self.sum_sq + other.sum_sq,
            base: self.base + other.base,
            base_sq: self.base_sq + other.base_sq,
            cross: self.cross + other.cross,
            known: self.known + other.known,
            known_sum: self.known_sum + other.known_sum,
            before: self.before + other.before,
            before_sq: self.before_sq + other.before_sq,
            before_cross: self.before_cross + other.before_cross,
        }
    }

    /// Σ y / n. `None` without users.
    pub fn mean(&self) -> Option<f64> {
        (self.users > 0).then(|| self.sum as f64 / self.users as f64)
    }

    /// The mean, and what the exact mean is above that: together they have twice the digits.
    /// `None` without users.
    pub fn mean_and_rest(&self) -> Option<(f64, f64)> {
        let n = i128::from(self.users);
        let near = (n > 0).then(|| nearest(self.sum, n))?;
        let left = self.sum.wrapping_sub(n.wrapping_mul(near)) as f64 / self.users as f64;
        let mean = near as f64 + left;
        Some((mean, left - (mean - near as f64)))
    }

    /// Σ d / n. `None` without users.
    pub fn base_mean(&self) -> Option<f64> {
        (self.users > 0).then(|| self.base as f64 / self.users as f64)
    }

    /// The sample variance of y, divisor n − 1. `None` below two users.
    pub fn variance(&self) -> Option<f64> {
        covariance(self.users, self.sum, self.sum, self.sum_sq).map(|variance| variance.max(0.0))
    }

    /// The sample variance of y − r·d, divisor n − 1. `None` below two users. Source: Deng,
    /// Knoblich and Lu, KDD 2018 (arXiv 1803.06336), section 3.
    pub fn variance_off(&self, r: f64) -> Option<f64> {
        let of_base = covariance(self.users, self.base, self.base, self.base_sq)?;
        let both = covariance(self.users, self.sum, self.base, self.cross)?;
        Some((self.variance()? - 2.0 * r * both + r * r * of_base).max(0.0))
    }
}

/// What one stored unit of a metric's rate is worth: 0.01 for a mean kept with two decimals.
pub fn unit(metric: &MetricInput) -> f64 {
    match metric.kind {
        Kind::Conversion | Kind::Count | Kind::Quantile => 1.0,
        Kind::Mean | Kind::Ratio => 10f64.powi(-i32::from(metric.scale)),
    }
}

/// The sample covariance (Σxy − ΣxΣy/n) / (n − 1). `None` below two users.
///
/// The sums are first moved, in integers, to the whole numbers nearest the means. What is then
/// subtracted in f64 is at most as large as what is left, so no digits are lost, however far the
/// means are from zero.
pub fn covariance(users: u64, x: i128, y: i128, xy: i128) -> Option<f64> {
    if users < 2 {
        return None;
    }
    let n = i128::from(users);
    let (x_near, y_near) = (nearest(x, n), nearest(y, n));
    // Modulo 2^128 these are right whenever the moved sums fit, even where a product does not.
    let x_left = x.wrapping_sub(n.wrapping_mul(x_near));
    let y_left = y.wrapping_sub(n.wrapping_mul(y_near));
    let moved = xy
        .wrapping_sub(x_near.wrapping_mul(y))
        .wrapping_sub(y_near.wrapping_mul(x))
        .wrapping_add(n.wrapping_mul(x_near).wrapping_mul(y_near));
    let product = x_left as f64 * (y_left as f64 / users as f64);
    Some((moved as f64 - product) / (users as f64 - 1.0))
}

/// The whole number nearest to x/n, for n > 0.
fn nearest(x: i128, n: i128) -> i128 {
    let down = x.div_euclid(n);
    if 2 * x.rem_euclid(n) > n {
        down + 1
    } else {
        down
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[i128]) -> Sums {
        Sums {
            users: values.len() as u64,
            sum: values.iter().sum(),
            sum_sq: values.iter().map(|y| y * y).sum(),
            ..Sums::default()
        }
    }

    #[test]
    fn nothing_cancels_when_the_mean_is_far_larger_than_the_spread() {
        let trillion = 1_000_000_000_000;
        let far = of(&[trillion, trillion + 1, trillion + 2]);
        assert_eq!(far.variance(), Some(1.0));
        assert_eq!(of(&[-3 * trillion; 5]).variance(), Some(0.0));
    }

    #[test]
    fn a_large_mean_keeps_its_rest() {
        let (mean, rest) = of(&[1_000_000_000, 1_000_000_000, 1_000_000_001])
            .mean_and_rest()
            .unwrap();
        assert_eq!(mean, 1e9 + 1.0 / 3.0);
        assert!(rest != 0.0 && (mean - 1e9 + rest - 1.0 / 3.0).abs() < 1e-16);
    }

    #[test]
    fn a_billion_users_of_the_largest_value_fit() {
        let (n, value) = (1_000_000_000_i128, 1_000_000_000_000_i128);
        let sums = Sums {
            users: 1_000_000_000,
            sum: n * value + n / 2,
            sum_sq: n * value * value + n * value + n / 2,
            ..Sums::default()
        };
        // Half of them have one more: the variance is a quarter.
        assert!((sums.variance().unwrap() - 0.25).abs() < 1e-9);
    }

    #[test]
    fn what_is_unknown_is_none() {
        assert_eq!(Sums::default().mean(), None);
        assert_eq!(of(&[5]).variance(), None);
        assert_eq!(of(&[5]).variance_off(1.0), None);
    }

    #[test]
    fn over_a_base_of_one_a_ratio_is_a_mean() {
        let sums = Sums {
            base: 4,
            base_sq: 4,
            cross: 10,
            ..of(&[1, 2, 3, 4])
        };
        assert_eq!(sums.variance_off(2.5), sums.variance());
    }
}
