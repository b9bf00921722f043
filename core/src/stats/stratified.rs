//! Two groups over periods of constant weights, made comparable.
//!
//! When weights change while rates drift, pooled rates compare different mixtures of days: a
//! ramp of 1 % to 50 % finds an effect where there is none, always. So both groups' rates are
//! averaged over the periods with the *same* weights ω_e = n_A·n_B/(n_A + n_B), which depend on
//! numbers of users only, never on what they did. Source: Mantel and Haenszel, JNCI 1959;
//! Greenland and Robins, Biometrics 1985. With one period these are the plain rates.

use super::covariate::{Adjustment, Slopes};
use super::input::{Kind, MetricInput, Question, Samples};
use super::interval::finite;
use super::logistic::Term;
use super::moments::{Sums, unit};
use super::quantile::{self, SampleCounts};

/// A period of constant weights, or several that give the two groups the same proportion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Period {
    /// The group's designed share of the two groups' users, above 0 and below 1.
    pub share: f64,
    /// Control's users.
    pub control: Sums,
    /// The group's users.
    pub own: Sums,
    /// How both means are adjusted by what users did before.
    pub adjustment: Option<Adjustment>,
}

impl Period {
    /// Its converted users.
    pub fn term(&self) -> Term {
        Term {
            share: self.share,
            control: self.control.converted as f64,
            own: self.own.converted as f64,
        }
    }
}

/// One group's rate, comparable with the other's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// The rate: a share, a mean or a ratio, in the metric's own unit.
    pub mean: f64,
    /// The variance of its estimate; at least 0.
    pub variance: f64,
    /// Users behind it.
    pub users: u64,
    /// Of those, users with at least one event.
    pub converted: u64,
}

/// Two groups' rates, made comparable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Control's.
    pub control: Rate,
    /// The group's.
    pub own: Rate,
    /// That of both together. Its variance is that of the *difference* of the two, were both
    /// groups' users alike.
    pub pooled: Rate,
}

/// The periods in which both groups took part. Periods in which the group has the same share
/// against control are one: what changed (traffic, or a third group's weight) concerns neither.
pub fn periods(
    question: &Question,
    metric: &MetricInput,
    control: usize,
    own: usize,
) -> Vec<Period> {
    let slopes = Slopes::of(metric);
    let same = same_shares(question, control, own).into_iter();
    let periods = same.map(|(share, epochs)| {
        let all = || epochs.iter().filter_map(|&epoch| metric.totals.get(epoch));
        let sums = |group: usize| {
            let totals = epochs
                .iter()
                .filter_map(|&epoch| metric.totals.get(epoch)?.get(group));
            totals.fold(Sums::default(), |sum, totals| {
                sum.plus(Sums::of(metric.kind, totals))
            })
        };
        Period {
            share,
            control: sums(control),
            own: sums(own),
            adjustment: slopes.map(|slopes| slopes.around(all().flatten())),
        }
    });
    periods.collect()
}

/// In the same periods: the group's share, control's samples and the group's.
pub fn samples(
    question: &Question,
    samples: &Samples,
    control: usize,
    own: usize,
) -> Vec<(f64, SampleCounts, SampleCounts)> {
    let same = same_shares(question, control, own).into_iter();
    let periods = same.map(|(share, epochs)| {
        let of = |group: usize| {
            let counts = epochs
                .iter()
                .filter_map(|&epoch| samples.counts.get(epoch)?.get(group));
            quantile::together(counts)
        };
        (share, of(control), of(own))
    });
    periods.collect()
}

/// The group's share of both groups' users, with the epochs in which it had it.
fn same_shares(question: &Question, control: usize, own: usize) -> Vec<(f64, Vec<usize>)> {
    let mut same: Vec<(f64, Vec<usize>)> = Vec::new();
    for (place, epoch) in question.epochs.iter().enumerate() {
        let share = |group: usize| epoch.shares.get(group).copied().unwrap_or(0.0);
        if !(share(control) > 0.0 && share(own) > 0.0) {
            continue;
        }
        let share = share(own) / (share(own) + share(control));
        match same
            .iter_mut()
            .find(|(other, _)| (other - share).abs() < 1e-12)
        {
            Some((_, epochs)) => epochs.push(place),
            None => same.push((share, vec![place])),
        }
    }
    same
}

/// Both rates, averaged over the periods by the same weights. `None` where a rate or its variance
/// cannot be known.
pub fn comparable(metric: &MetricInput, periods: &[Period]) -> Option<Rates> {
    // A variance needs two users.
    let usable: Vec<&Period> = periods
        .iter()
        .filter(|period| period.control.users >= 2 && period.own.users >= 2)
        .collect();
    let weight = |period: &Period| {
        let (a, b) = (period.control.users as f64, period.own.users as f64);
        a * (b / (a + b))
    };
    let all: f64 = usable.iter().map(|period| weight(period)).sum();
    let rate = |of: &dyn Fn(&Period) -> (Sums, f64)| {
        let strata = usable.iter().map(|period| {
            let (sums, users) = of(period);
            Stratum {
                weight: weight(period) / all,
                sums,
                users,
                adjustment: period.adjustment,
            }
        });
        average(metric, &strata.collect::<Vec<_>>())
    };
    Some(Rates {
        control: rate(&|period| (period.control, period.control.users as f64))?,
        own: rate(&|period| (period.own, period.own.users as f64))?,
        pooled: rate(&|period| (period.control.plus(period.own), weight(period)))?,
    })
}

/// One period's part of an average.
struct Stratum {
    weight: f64,
    sums: Sums,
    /// By how many users the variance of one becomes that of the mean.
    users: f64,
    adjustment: Option<Adjustment>,
}

impl Stratum {
    fn mean(&self) -> Option<f64> {
        let shift = self.adjustment.map_or(0.0, |it| it.shift(&self.sums));
        Some(self.sums.mean()? - shift)
    }

    /// The variance of one user's value.
    fn variance(&self) -> Option<f64> {
        match &self.adjustment {
            Some(adjustment) => adjustment.variance(&self.sums),
            None => self.sums.variance(),
        }
    }
}

/// How a metric's means over all epochs are adjusted.
pub fn overall(metric: &MetricInput) -> Option<Adjustment> {
    let slopes = Slopes::of(metric)?;
    Some(slopes.around(metric.totals.iter().flatten()))
}

/// One group's plain rate over all of its users.
pub fn plain(metric: &MetricInput, sums: &Sums) -> Option<Rate> {
    let stratum = Stratum {
        weight: 1.0,
        sums: *sums,
        users: sums.users as f64,
        adjustment: overall(metric),
    };
    average(metric, &[stratum])
}

fn average(metric: &MetricInput, strata: &[Stratum]) -> Option<Rate> {
    let over = |value: fn(&Stratum) -> Option<f64>| -> Option<f64> {
        strata
            .iter()
            .map(|stratum| Some(stratum.weight * value(stratum)?))
            .sum()
    };
    let raw = over(Stratum::mean)?;
    let (raw, scale) = match metric.kind {
        Kind::Ratio => {
            let base = over(|stratum| stratum.sums.base_mean())?;
            (raw / base, 1.0 / (base * base))
        }
        Kind::Conversion | Kind::Count | Kind::Mean | Kind::Quantile => (raw, 1.0),
    };
    let one = strata.len() == 1;
    let of_user = |stratum: &Stratum| match metric.kind {
        // One period: p(1 − p), as everywhere; of several small ones that would be too little.
        Kind::Conversion if one => Some(raw * (1.0 - raw)),
        Kind::Conversion | Kind::Count | Kind::Mean | Kind::Quantile => stratum.variance(),
        Kind::Ratio => stratum.sums.variance_off(raw),
    };
    let variance: Option<f64> = strata
        .iter()
        .map(|stratum| {
            let of_user = of_user(stratum)?;
            Some(stratum.weight * stratum.weight * of_user / stratum.users)
        })
        .sum();
    let unit = unit(metric);
    Some(Rate {
        mean: finite(raw * unit).filter(|_| !strata.is_empty())?,
        variance: finite(variance? * scale * unit * unit)?,
        users: strata.iter().map(|stratum| stratum.sums.users).sum(),
        converted: strata.iter().map(|stratum| stratum.sums.converted).sum(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::input::{Epoch, Goal, Role, Totals};

    fn metric(kind: Kind, totals: Vec<Vec<Totals>>) -> MetricInput {
        MetricInput {
            name: "m".to_owned(),
            kind,
            goal: Goal::Increase,
            role: Role::Primary,
            baseline: None,
            detect: 0.1,
            margin: 0.01,
            scale: 2,
            totals,
            samples: None,
            history: Vec::new(),
        }
    }

    fn converted(users: u64, converted: u64) -> Totals {
        Totals {
            users,
            converted,
            ..Totals::default()
        }
    }

    fn epoch(own: f64) -> Epoch {
        Epoch {
            shares: vec![1.0 - own, own],
            users: Vec::new(),
        }
    }

    #[test]
    fn a_ramp_with_drifting_rates_is_no_effect() {
        let ramp = vec![
            vec![converted(99_000, 1980), converted(1000, 20)],
            vec![converted(50_000, 5000), converted(50_000, 5000)],
        ];
        let metric = metric(Kind::Conversion, ramp);
        let question = Question {
            epochs: vec![epoch(0.01), epoch(0.5)],
            ..Question::default()
        };
        let periods = periods(&question, &metric, 0, 1);
        assert_eq!(periods.len(), 2);
        let Rates { control, own, .. } = comparable(&metric, &periods).unwrap();
        assert!((control.mean - own.mean).abs() < 1e-12);
    }

    #[test]
    fn periods_of_the_same_proportion_are_one() {
        let totals = vec![vec![converted(100, 10), converted(100, 12)]; 2];
        let metric = metric(Kind::Conversion, totals);
        let question = Question {
            epochs: vec![epoch(0.5), epoch(0.5)],
            ..Question::default()
        };
        let periods = periods(&question, &metric, 0, 1);
        assert_eq!(periods.len(), 1);
        let Rates {
            control,
            own,
            pooled,
        } = comparable(&metric, &periods).unwrap();
        assert!((pooled.variance - 0.11 * 0.89 / 100.0).abs() < 1e-16);
        assert_eq!((control.mean, own.mean), (0.1, 0.12));
        assert!((own.variance - 0.12 * 0.88 / 200.0).abs() < 1e-16);
        assert_eq!((control.users, own.converted), (200, 24));
    }

    #[test]
    fn a_mean_comes_back_in_its_own_unit() {
        let sums = Sums {
            users: 4,
            converted: 4,
            sum: 1000,
            sum_sq: 300_000,
            ..Sums::default()
        };
        let rate = plain(&metric(Kind::Mean, Vec::new()), &sums).unwrap();
        assert_eq!(rate.mean, 2.5);
        assert!((rate.variance - 50_000.0 / 3.0 / 4.0 / 1e4).abs() < 1e-12);
    }

    #[test]
    fn what_cannot_be_known_is_none() {
        let metric = metric(Kind::Ratio, Vec::new());
        assert_eq!(plain(&metric, &Sums::default()), None);
        assert_eq!(comparable(&metric, &[]), None);
        let no_base = Sums {
            users: 3,
            ..Sums::default()
        };
        assert_eq!(plain(&metric, &no_base), None);
    }
}
