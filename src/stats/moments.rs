//! From exact integer sums to means and variances, without losing digits on the way.

use super::Kind;

/// Exact sums over the users of one group. Values are in units of 10^-scale.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Users exposed.
    pub users: u64,
    /// Users with at least one event.
    pub converted: u64,
    /// Σ y.
    pub sum: i128,
    /// Σ y².
    pub sum_sq: i128,
    /// Σ d, the base of a ratio.
    pub base: i128,
    /// Σ d².
    pub base_sq: i128,
    /// Σ y d.
    pub cross: i128,
    /// What one unit of y is worth: 0.01 for a scale of 2.
    pub unit: f64,
}

impl Sums {
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
            unit: if self.users == 0 {
                other.unit
            } else {
                self.unit
            },
        }
    }
}

/// What one group's sums say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// Users exposed.
    pub users: u64,
    /// Users with at least one event.
    pub converted: u64,
    /// The rate: share, mean or ratio. `None` without users (or without a base).
    pub mean: Option<f64>,
    /// The variance of the rate's estimate. `None` where it cannot be known.
    pub variance_of_mean: Option<f64>,
}

impl Moments {
    /// The moments of a metric of this kind.
    pub fn of(kind: Kind, sums: &Sums) -> Moments {
        let n = sums.users as f64;
        let (mean, variance) = match kind {
            _ if sums.users == 0 => (None, None),
            Kind::Conversion => {
                let share = sums.converted as f64 / n;
                (Some(share), Some(share * (1.0 - share) / n))
            }
            Kind::Mean => {
                let unit = sums.unit;
                let spread = covariance(sums.users, sums.sum, sums.sum, sums.sum_sq);
                (
                    Some(sums.sum as f64 * unit / n),
                    spread.map(|spread| spread * unit * unit / n),
                )
            }
            Kind::Ratio if sums.base == 0 => (None, None),
            Kind::Ratio => ratio(sums),
        };
        Moments {
            users: sums.users,
            converted: sums.converted,
            mean,
            variance_of_mean: variance,
        }
    }
}

/// The ratio of two means and its variance by the delta method, the user being the unit.
/// Source: Deng, Knoblich, Lu, KDD 2018 (arXiv 1803.06336), section 3.
fn ratio(sums: &Sums) -> (Option<f64>, Option<f64>) {
    let n = sums.users as f64;
    let raw = sums.sum as f64 / sums.base as f64;
    let base_mean = sums.base as f64 / n;
    let variance = || {
        let of_sum = covariance(sums.users, sums.sum, sums.sum, sums.sum_sq)?;
        let of_base = covariance(sums.users, sums.base, sums.base, sums.base_sq)?;
        let both = covariance(sums.users, sums.sum, sums.base, sums.cross)?;
        let spread = of_sum - 2.0 * raw * both + raw * raw * of_base;
        Some(spread.max(0.0) / (base_mean * base_mean * n) * sums.unit * sums.unit)
    };
    (Some(raw * sums.unit), variance())
}

/// (Σxy − ΣxΣy/n) / (n − 1), computed as (nΣxy − ΣxΣy) / (n(n − 1)) in integers, so that nothing
/// cancels. `None` below two users.
fn covariance(users: u64, x: i128, y: i128, xy: i128) -> Option<f64> {
    if users < 2 {
        return None;
    }
    let n = i128::from(users);
    let exact = n
        .checked_mul(xy)
        .zip(x.checked_mul(y))
        .and_then(|(left, right)| left.checked_sub(right));
    let top = exact.map_or_else(
        || n as f64 * xy as f64 - x as f64 * y as f64,
        |top| top as f64,
    );
    Some(top / (users as f64 * (users as f64 - 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean_of(values: &[i128]) -> Moments {
        let sums = Sums {
            users: values.len() as u64,
            sum: values.iter().sum(),
            sum_sq: values.iter().map(|y| y * y).sum(),
            unit: 1.0,
            ..Sums::default()
        };
        Moments::of(Kind::Mean, &sums)
    }

    #[test]
    fn nothing_cancels_when_the_mean_is_far_larger_than_the_spread() {
        let far = mean_of(&[1_000_000_000_000, 1_000_000_000_001, 1_000_000_000_002]);
        let near = mean_of(&[0, 1, 2]);
        assert_eq!(far.variance_of_mean, near.variance_of_mean);
        assert_eq!(near.variance_of_mean, Some(1.0 / 3.0));
    }

    #[test]
    fn what_is_unknown_is_none() {
        assert_eq!(Moments::of(Kind::Mean, &Sums::default()).mean, None);
        assert_eq!(mean_of(&[5]).variance_of_mean, None);
        assert_eq!(
            Moments::of(
                Kind::Ratio,
                &Sums {
                    users: 3,
                    ..Sums::default()
                }
            )
            .mean,
            None
        );
    }

    #[test]
    fn a_ratio_over_a_constant_base_is_a_mean() {
        let sums = Sums {
            users: 4,
            sum: 10,
            sum_sq: 30,
            base: 4,
            base_sq: 4,
            cross: 10,
            unit: 1.0,
            converted: 4,
        };
        let ratio = Moments::of(Kind::Ratio, &sums);
        let mean = Moments::of(Kind::Mean, &sums);
        assert_eq!(ratio.mean, mean.mean);
        assert!((ratio.variance_of_mean.unwrap() - mean.variance_of_mean.unwrap()).abs() < 1e-12);
    }
}
