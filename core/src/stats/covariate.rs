//! Adjusts means by what the same users did before their first exposure (CUPED).
//!
//! y' = y − a·(k − k̄) − b·(x − x̄), where x is a user's sum from before and k is 1 for a user with such a
//! sum. Users without one have k = 0 and x = 0: they are a stratum of their own. a and b are the least
//! squares within groups and epochs, over all groups, and k̄ and x̄ are means over all groups. k and x were
//! known before the exposure, so no version moves them, and the adjustment changes no difference but by
//! chance. Sources: Deng, Xu, Kohavi and Walker, WSDM 2013; Lin, Annals of Applied Statistics 2013.

use super::input::{Kind, MetricInput, Totals};
use super::moments::{Sums, covariance};

/// From how many users with a known sum on means are adjusted: fewer do not tell the slopes.
const KNOWN_MIN: u64 = 100;

/// How much a user's value goes along with what is known from before.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Slopes {
    /// Of being known.
    known: f64,
    /// Of the sum from before.
    before: f64,
    /// Users with a known sum.
    users: u64,
    /// The share of the variance within groups that the adjustment takes away, 0 to 1.
    reduction: f64,
}

/// Sums of products of deviations from the means of groups, over all groups and epochs.
#[derive(Default)]
struct Products {
    known: f64,
    known_before: f64,
    before: f64,
    known_value: f64,
    before_value: f64,
    value: f64,
}

impl Products {
    fn of(totals: &[Vec<Totals>]) -> Products {
        let mut all = Products::default();
        for totals in totals.iter().flatten() {
            let sums = Sums::of(Kind::Mean, totals);
            let known = i128::from(sums.known);
            let deviation = |x: i128, y: i128, xy: i128| {
                let degrees = sums.users.saturating_sub(1) as f64;
                covariance(sums.users, x, y, xy).map_or(0.0, |it| it * degrees)
            };
            all.known += deviation(known, known, known);
            all.known_before += deviation(known, sums.before, sums.before);
            all.before += deviation(sums.before, sums.before, sums.before_sq);
            all.known_value += deviation(known, sums.sum, sums.known_sum);
            all.before_value += deviation(sums.before, sums.sum, sums.before_cross);
            all.value += deviation(sums.sum, sums.sum, sums.sum_sq);
        }
        all
    }

    /// The least squares. Where one of them says nothing beside the other, its slope is 0.
    fn slopes(&self) -> (f64, f64) {
        let of_known = match self.known > 0.0 {
            true => self.known_before / self.known,
            false => 0.0,
        };
        // What is left of x when k has explained its part.
        let left = self.before - of_known * self.known_before;
        let before = match left > 1e-9 * self.before {
            true => (self.before_value - of_known * self.known_value) / left,
            false => 0.0,
        };
        let known = match self.known > 0.0 {
            true => (self.known_value - before * self.known_before) / self.known,
            false => 0.0,
        };
        (known, before)
    }
}

impl Slopes {
    /// Returns the slopes of a metric; `None` while too few users have a sum from before.
    pub fn of(metric: &MetricInput) -> Option<Slopes> {
        let users: u64 = metric.totals.iter().flatten().map(|it| it.known).sum();
        if metric.kind != Kind::Mean || users < KNOWN_MIN {
            return None;
        }
        let products = Products::of(&metric.totals);
        let (known, before) = products.slopes();
        let explained = known * products.known_value + before * products.before_value;
        let reduction = explained / products.value;
        (reduction > 0.0).then(|| Slopes {
            known,
            before,
            users,
            reduction: reduction.min(1.0),
        })
    }

    /// What the adjustment gains.
    pub fn gain(&self) -> Gain {
        Gain {
            users_known: self.users,
            reduction: self.reduction,
        }
    }

    /// The adjustment to the mean of these users.
    pub fn around<'a>(self, all: impl Iterator<Item = &'a Totals>) -> Adjustment {
        let (mut users, mut known, mut before) = (0, 0, 0);
        for totals in all {
            users += totals.users;
            known += totals.known;
            before += totals.before;
        }
        let users = users.max(1) as f64;
        Adjustment {
            slopes: self,
            known: known as f64 / users,
            before: before as f64 / users,
        }
    }
}

/// What a covariate gains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gain {
    /// Users with a known sum from before.
    pub users_known: u64,
    /// The share of the variance within groups that it takes away, 0 to 1.
    pub reduction: f64,
}

/// How the means of groups are adjusted that are compared with each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adjustment {
    slopes: Slopes,
    /// k̄ of all groups.
    known: f64,
    /// x̄ of all groups.
    before: f64,
}

impl Adjustment {
    /// What is taken from a group's mean.
    pub fn shift(&self, sums: &Sums) -> f64 {
        if sums.users == 0 {
            return 0.0;
        }
        let users = sums.users as f64;
        let (known, before) = (sums.known as f64 / users, sums.before as f64 / users);
        self.slopes.known * (known - self.known) + self.slopes.before * (before - self.before)
    }

    /// The sample variance of the adjusted values. `None` below two users.
    pub fn variance(&self, sums: &Sums) -> Option<f64> {
        let (a, b) = (self.slopes.known, self.slopes.before);
        let known = i128::from(sums.known);
        let of = |x: i128, y: i128, xy: i128| covariance(sums.users, x, y, xy);
        let own = of(sums.sum, sums.sum, sums.sum_sq)?;
        let along = a * of(known, sums.sum, sums.known_sum)?
            + b * of(sums.before, sums.sum, sums.before_cross)?;
        let taken = a * a * of(known, known, known)?
            + 2.0 * a * b * of(known, sums.before, sums.before)?
            + b * b * of(sums.before, sums.before, sums.before_sq)?;
        Some((own - 2.0 * along + taken).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::input::{Goal, Role};

    /// Users as (sum from before where known, sum).
    fn totals(users: &[(Option<i128>, i128)]) -> Totals {
        let mut totals = Totals {
            users: users.len() as u64,
            ..Totals::default()
        };
        for &(before, sum) in users {
            totals.sum += sum;
            totals.sum_sq += sum * sum;
            if let Some(before) = before {
                totals.known += 1;
                totals.known_sum += sum;
                totals.before += before;
                totals.before_sq += before * before;
                totals.before_cross += before * sum;
            }
        }
        totals
    }

    fn metric(groups: &[&[(Option<i128>, i128)]]) -> MetricInput {
        MetricInput {
            name: "m".to_owned(),
            kind: Kind::Mean,
            goal: Goal::Increase,
            role: Role::Primary,
            baseline: None,
            detect: 0.1,
            margin: 0.01,
            scale: 0,
            totals: vec![groups.iter().map(|users| totals(users)).collect()],
            samples: None,
            history: Vec::new(),
        }
    }

    /// Half of the users are known, with y = 3 + 2·x and noise; the others have y = 1 and noise.
    fn users(count: i128, lift: i128) -> Vec<(Option<i128>, i128)> {
        let noise = |number: i128| (number * 7919) % 5 - 2;
        let user = |number: i128| match number % 2 {
            0 => {
                let x = (number * 104_729) % 11;
                (Some(x), 300 + 200 * x + noise(number) + lift)
            }
            _ => (None, 100 + noise(number) + lift),
        };
        (0..count).map(user).collect()
    }

    #[test]
    fn adjusted_variance_is_that_of_the_adjusted_values() {
        let (control, own) = (users(301, 0), users(200, 40));
        let metric = metric(&[&control, &own]);
        let slopes = Slopes::of(&metric).unwrap();
        assert!((slopes.before - 200.0).abs() < 1.0, "{slopes:?}");
        assert!((slopes.known - 200.0).abs() < 5.0, "{slopes:?}");
        assert!(slopes.reduction > 0.99, "{slopes:?}");
        let adjustment = slopes.around(metric.totals[0].iter());
        for users in [&control, &own] {
            let sums = Sums::of(Kind::Mean, &totals(users));
            let adjusted: Vec<f64> = users
                .iter()
                .map(|&(x, y)| {
                    let known = f64::from(u8::from(x.is_some())) - adjustment.known;
                    let before = x.unwrap_or(0) as f64 - adjustment.before;
                    y as f64 - slopes.known * known - slopes.before * before
                })
                .collect();
            let mean = adjusted.iter().sum::<f64>() / adjusted.len() as f64;
            let squares = adjusted
                .iter()
                .map(|y| (y - mean) * (y - mean))
                .sum::<f64>();
            let variance = squares / (adjusted.len() - 1) as f64;
            assert!((sums.mean().unwrap() - adjustment.shift(&sums) - mean).abs() < 1e-9);
            let found = adjustment.variance(&sums).unwrap();
            assert!(
                (found - variance).abs() < 1e-6 * variance,
                "{found} {variance}"
            );
        }
    }

    #[test]
    fn too_few_known_users_adjust_nothing() {
        let (control, own) = (users(98, 0), users(98, 0));
        assert_eq!(totals(&control).known + totals(&own).known, 98);
        assert_eq!(Slopes::of(&metric(&[&control, &own])), None);
        let nobody: Vec<_> = users(500, 0).into_iter().map(|(_, y)| (None, y)).collect();
        assert_eq!(Slopes::of(&metric(&[&nobody, &nobody])), None);
    }

    #[test]
    fn where_all_are_known_alike_the_slope_is_of_the_other() {
        // All users are known: k says nothing.
        let all: Vec<_> = (0..200).map(|x| (Some(x % 10), 5 * (x % 10))).collect();
        let slopes = Slopes::of(&metric(&[&all, &all])).unwrap();
        assert_eq!(slopes.known, 0.0);
        assert!((slopes.before - 5.0).abs() < 1e-9 && slopes.reduction > 0.999);
        // All that is known is the same: x says nothing beside k.
        let same: Vec<_> = (0..400)
            .map(|number| match number % 2 {
                0 => (Some(7), 30),
                _ => (None, 10),
            })
            .collect();
        let slopes = Slopes::of(&metric(&[&same, &same])).unwrap();
        assert_eq!(slopes.before, 0.0);
        assert!((slopes.known - 20.0).abs() < 1e-9);
    }
}
