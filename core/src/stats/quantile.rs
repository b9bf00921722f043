//! Quantiles of one sample per user, always valid and without any assumption on the distribution.
//!
//! Samples are counted in buckets of equal width on the logarithmic scale. A user's sample is at
//! most x with chance F(x), so the number of samples up to x is a sum of independent coins. For the
//! p-quantile's bucket x, F(x) ≥ p and F(x − 1) ≤ p: both are tested by mixtures of likelihood
//! ratios, and the mean of two e-processes is one. The interval holds all x with E(x) < 1/α; the
//! true x is one fixed place, so nothing is paid for trying many. Sources: Howard and Ramdas,
//! Bernoulli 2022 (arXiv 1906.09712), theorem 1 and section 6; Robbins, Ann. Math. Statist. 1970.
//!
//! Two groups: were the quantiles k buckets apart, E_A(x)·E_B(x + k) would be an e-process at the
//! true x, whatever x is; so its minimum over x is evidence against k. At the least favourable x, one
//! group's quantile is above and the other's below, each by as much as the other group is large: most
//! of the mixture is over such pairs, which is tuned to one unknown in place of two. Over several
//! periods of constant weights x may differ while k is the same, and the evidence is the product.

use super::interval::Interval;
use super::special::ln_sum_exp;
use std::collections::BTreeMap;

/// Counts of samples by bucket.
pub type SampleCounts = BTreeMap<u16, u64>;

/// The alternatives of the mixtures, as distances of log odds: each twice the one before, so that
/// one is near the truth for a hundred users and for a hundred million.
const SHIFTS: [f64; 11] = [
    0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096,
];

/// How much of the mixture each alternative has. Most of it is where between a thousand and a million
/// users decide.
const WEIGHTS: [f64; 11] = [
    0.02, 0.03, 0.07, 0.12, 0.18, 0.2, 0.17, 0.1, 0.06, 0.03, 0.02,
];

/// How much of the evidence on two groups is each group's by itself; the rest is of pairs.
const ALONE: f64 = 0.25;

/// ln of the likelihood ratio of each alternative against p, for a sample that is at most x and for
/// one that is larger.
#[derive(Clone, Copy, Debug)]
struct Mixture {
    at_most: [f64; SHIFTS.len()],
    larger: [f64; SHIFTS.len()],
}

/// ln E of each alternative.
type Each = [f64; SHIFTS.len()];

impl Mixture {
    /// Alternatives on one side of p: above it for a positive `factor` of the shifts, or else below.
    fn new(p: f64, factor: f64) -> Mixture {
        let odds = p / (1.0 - p);
        let shares = SHIFTS.map(|shift| {
            let odds = odds * (factor * shift).exp();
            odds / (1.0 + odds)
        });
        Mixture {
            at_most: shares.map(|share| (share / p).ln()),
            larger: shares.map(|share| ((1.0 - share) / (1.0 - p)).ln()),
        }
    }

    /// ln E of "the chance to be at most x is p", against each alternative on this side.
    fn each(&self, at_most: u64, all: u64) -> Each {
        let (at_most, larger) = (at_most as f64, (all - at_most) as f64);
        let mut each = [0.0; SHIFTS.len()];
        for (place, ln_e) in each.iter_mut().enumerate() {
            *ln_e = at_most * self.at_most[place] + larger * self.larger[place];
        }
        each
    }

    /// The same against all of them.
    fn ln_e(&self, at_most: u64, all: u64) -> f64 {
        mixed(self.each(at_most, all))
    }
}

/// ln E of the mixture of all alternatives.
fn mixed(mut each: Each) -> f64 {
    let weighted = each.iter_mut().zip(WEIGHTS);
    weighted.for_each(|(ln_e, weight)| *ln_e += weight.ln());
    ln_sum_exp(&each)
}

/// ln of the mean of e-values.
fn mean(ln_e: &[f64]) -> f64 {
    ln_sum_exp(ln_e) - (ln_e.len() as f64).ln()
}

/// What both groups' evidence has in common with a difference between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Against {
    /// The group's quantile is elsewhere.
    Both,
    /// It is higher.
    Higher,
    /// It is lower.
    Lower,
}

/// The evidence against each bucket as the place of the quantile of one group.
#[derive(Clone, Debug)]
pub struct QuantileEvidence {
    /// The bucket that the first elements are of; below and above the lists the ends hold.
    first: i32,
    /// ln E of "the quantile is not below x": large where x is too high.
    too_high: Vec<f64>,
    /// ln E of "the quantile is not above x": large where x is too low.
    too_low: Vec<f64>,
    /// ln E of "the quantile lies in x": of the mean of both.
    ln_e: Vec<f64>,
    /// The same as `too_high` and `too_low` by alternative, of shifts that the other group's size
    /// decides.
    paired: Vec<(Each, Each)>,
}

impl QuantileEvidence {
    /// Of these samples, about the `p`-quantile, 0 < p < 1.
    pub fn new(samples: &SampleCounts, p: f64) -> QuantileEvidence {
        QuantileEvidence::beside(samples, p, 0.5)
    }

    /// The same, to be compared with another group that has this share of both groups' users.
    fn beside(samples: &SampleCounts, p: f64, share: f64) -> QuantileEvidence {
        let (above, below) = (Mixture::new(p, 1.0), Mixture::new(p, -1.0));
        let factor = 2.0 * share;
        let pair = (Mixture::new(p, factor), Mixture::new(p, -factor));
        let all: u64 = samples.values().sum();
        let ends = samples.keys().next().zip(samples.keys().next_back());
        let (low, high) = ends.map_or((0, 0), |(&low, &high)| (i32::from(low), i32::from(high)));
        let first = low - 1;
        let (mut too_high, mut too_low, mut paired) = (Vec::new(), Vec::new(), Vec::new());
        let mut smaller = 0;
        for x in first..=high + 1 {
            let here = u16::try_from(x).ok().and_then(|x| samples.get(&x));
            let at_most = smaller + here.copied().unwrap_or(0);
            too_high.push(above.ln_e(smaller, all));
            too_low.push(below.ln_e(at_most, all));
            paired.push((pair.0.each(smaller, all), pair.1.each(at_most, all)));
            smaller = at_most;
        }
        let both = too_high.iter().zip(&too_low);
        QuantileEvidence {
            first,
            ln_e: both.map(|(&high, &low)| mean(&[high, low])).collect(),
            too_high,
            too_low,
            paired,
        }
    }

    fn last(&self) -> i32 {
        self.first + self.too_high.len() as i32 - 1
    }

    fn of<T: Copy>(list: &[T], first: i32, x: i32) -> T {
        let place = (x - first).clamp(0, list.len() as i32 - 1);
        list[place as usize]
    }

    /// ln E of "the quantile lies below x, or in it".
    fn too_low(&self, x: i32) -> f64 {
        QuantileEvidence::of(&self.too_low, self.first, x)
    }

    /// ln E of "the quantile lies above x, or in it".
    fn too_high(&self, x: i32) -> f64 {
        QuantileEvidence::of(&self.too_high, self.first, x)
    }

    /// By alternative: ln E of "the quantile is not below x", and of "it is not above x".
    fn paired(&self, x: i32) -> (Each, Each) {
        QuantileEvidence::of(&self.paired, self.first, x)
    }

    /// ln E of "the quantile lies in x".
    fn ln_e(&self, x: i32) -> f64 {
        QuantileEvidence::of(&self.ln_e, self.first, x)
    }

    /// The lowest and the highest bucket where the quantile may lie, with error `alpha`. `None` for
    /// an end beyond all samples, which nothing bounds.
    pub fn interval(&self, alpha: f64) -> (Option<i32>, Option<i32>) {
        let is_inside = |x: &i32| self.ln_e(*x) < -alpha.ln();
        let low = (self.first..=self.last()).find(is_inside);
        let high = (self.first..=self.last()).rev().find(is_inside);
        (
            low.filter(|&low| low > self.first),
            high.filter(|&high| high < self.last()),
        )
    }
}

/// Two groups' quantiles compared, over periods of constant weights.
#[derive(Clone, Debug)]
pub struct QuantileComparison {
    /// Control's evidence and the group's, by period.
    periods: Vec<(QuantileEvidence, QuantileEvidence)>,
    /// The width of a bucket on the logarithmic scale.
    step: f64,
}

impl QuantileComparison {
    /// Of the group's share of both groups' users, control's samples and the group's, by period.
    /// Periods in which one of them has none say nothing.
    pub fn new(
        periods: &[(f64, SampleCounts, SampleCounts)],
        p: f64,
        step: f64,
    ) -> QuantileComparison {
        let periods = periods.iter();
        let both = periods.filter(|(_, control, own)| !control.is_empty() && !own.is_empty());
        let evidence = both.map(|(share, control, own)| {
            (
                QuantileEvidence::beside(control, p, *share),
                QuantileEvidence::beside(own, p, 1.0 - share),
            )
        });
        QuantileComparison {
            periods: evidence.collect(),
            step,
        }
    }

    /// ln E of "the group's quantile is `apart` buckets above control's"; against higher alone, of "at
    /// most"; against lower alone, of "at least". The least evidence over all places, summed over
    /// periods.
    fn ln_e_apart(&self, apart: i32, against: Against) -> f64 {
        let periods = self.periods.iter().map(|(control, own)| {
            let mut least = f64::INFINITY;
            for x in places(control, own, apart) {
                let alone = alone((control, x), (own, x + apart), against);
                // Both together are at least one of them.
                if alone + ALONE.ln() < least {
                    let pairs = paired(control.paired(x), own.paired(x + apart), against);
                    least = least.min(both(alone, pairs));
                }
            }
            least
        });
        periods.sum()
    }

    /// Whether that is at least `bound`, without a search for the least.
    fn rejects(&self, apart: i32, against: Against, bound: f64) -> bool {
        let [(control, own)] = self.periods.as_slice() else {
            return self.ln_e_apart(apart, against) >= bound;
        };
        places(control, own, apart).all(|x| {
            let alone = alone((control, x), (own, x + apart), against);
            let pairs = || paired(control.paired(x), own.paired(x + apart), against);
            alone + ALONE.ln() >= bound || both(alone, pairs()) >= bound
        })
    }

    /// ln E of no effect. Quantiles that are equal lie in one bucket; those of neighbouring buckets
    /// may be as good as equal, so they are no evidence either.
    pub fn ln_e(&self) -> f64 {
        let near = [-1, 0, 1].map(|apart| self.ln_e_apart(apart, Against::Both));
        near.into_iter().fold(f64::INFINITY, f64::min)
    }

    /// ln E of a log ratio of at most `log_ratio`.
    pub fn ln_e_above(&self, log_ratio: f64) -> f64 {
        self.ln_e_apart((log_ratio / self.step).floor() as i32 + 1, Against::Higher)
    }

    /// ln E of a log ratio of at least `log_ratio`.
    pub fn ln_e_below(&self, log_ratio: f64) -> f64 {
        self.ln_e_apart((log_ratio / self.step).ceil() as i32 - 1, Against::Lower)
    }

    /// Where the true log ratio of the quantiles lies, with error `alpha`.
    pub fn interval(&self, alpha: f64) -> Interval {
        let bound = -alpha.ln();
        let (first, last) = self.reach();
        let is_inside = |apart: &i32| !self.rejects(*apart, Against::Both, bound);
        let low = (first..=last).find(is_inside).filter(|&low| low > first);
        let high = (first..=last).rev().find(is_inside);
        let high = high.filter(|&high| high < last);
        // Quantiles that are k buckets apart differ by more than k − 1 widths and less than k + 1.
        Interval {
            low: low.map(|low| f64::from(low - 1) * self.step),
            high: high.map(|high| f64::from(high + 1) * self.step),
        }
    }

    /// The largest log ratio that the group's quantile surely exceeds, with error `alpha`, one-sided.
    pub fn at_least(&self, alpha: f64) -> Option<f64> {
        let (first, last) = self.reach();
        let mut rejected =
            (first..=last).take_while(|&apart| self.rejects(apart, Against::Higher, -alpha.ln()));
        let first = rejected.next()?;
        Some(f64::from(rejected.last().unwrap_or(first)) * self.step)
    }

    /// Distances beyond which all samples of both lie: there is no evidence to be had.
    fn reach(&self) -> (i32, i32) {
        let periods = self.periods.iter();
        let ends = periods.map(|(control, own)| {
            (
                own.first - control.last() - 1,
                own.last() - control.first + 1,
            )
        });
        ends.reduce(|all, one| (all.0.min(one.0), all.1.max(one.1)))
            .unwrap_or((0, 0))
    }
}

/// Control's places that may hold its quantile where the group's is so many buckets above.
fn places(
    control: &QuantileEvidence,
    own: &QuantileEvidence,
    apart: i32,
) -> std::ops::RangeInclusive<i32> {
    control.first.min(own.first - apart)..=control.last().max(own.last() - apart)
}

/// ln E of control's place and the group's, each by itself.
fn alone(
    (control, x): (&QuantileEvidence, i32),
    (own, y): (&QuantileEvidence, i32),
    against: Against,
) -> f64 {
    match against {
        Against::Both => control.ln_e(x) + own.ln_e(y),
        Against::Higher => control.too_high(x) + own.too_low(y),
        Against::Lower => control.too_low(x) + own.too_high(y),
    }
}

/// ln E of both kinds of evidence on two groups.
fn both(alone: f64, pairs: f64) -> f64 {
    ln_sum_exp(&[alone + ALONE.ln(), pairs + (1.0 - ALONE).ln()])
}

/// ln E by alternatives in which one group's quantile is above its place and the other's below.
fn paired(control: (Each, Each), own: (Each, Each), against: Against) -> f64 {
    let sum = |one: &Each, other: &Each| {
        let mut sum = *one;
        sum.iter_mut()
            .zip(other)
            .for_each(|(sum, other)| *sum += other);
        mixed(sum)
    };
    // Where control's place is too high and the group's too low, the group's quantile is higher.
    let higher = || sum(&control.0, &own.1);
    let lower = || sum(&control.1, &own.0);
    match against {
        Against::Both => mean(&[higher(), lower()]),
        Against::Higher => higher(),
        Against::Lower => lower(),
    }
}

/// The samples of several histograms as one.
pub fn together<'a>(each: impl Iterator<Item = &'a SampleCounts>) -> SampleCounts {
    let mut all = SampleCounts::new();
    for (&bucket, &count) in each.flatten() {
        *all.entry(bucket).or_default() += count;
    }
    all
}

/// The bucket of the `p`-quantile of samples that are weighted by period, so that weights may change:
/// the lowest at which the weighted share of samples up to it is at least p.
pub fn quantile(periods: &[(f64, &SampleCounts)], p: f64) -> Option<u16> {
    let mut shares: BTreeMap<u16, f64> = BTreeMap::new();
    let mut all = 0.0;
    for (weight, samples) in periods {
        let users: u64 = samples.values().sum();
        if users == 0 {
            continue;
        }
        all += weight;
        for (&bucket, &count) in *samples {
            *shares.entry(bucket).or_default() += weight * count as f64 / users as f64;
        }
    }
    let mut share = 0.0;
    let mut found = None;
    for (bucket, more) in shares {
        share += more;
        found = Some(bucket);
        // What rounding takes from a sum of shares must not move a quantile by a bucket.
        if share >= p * all * (1.0 - 1e-12) {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(counts: &[(u16, u64)]) -> SampleCounts {
        counts.iter().copied().collect()
    }

    /// `n` samples spread evenly over buckets from `first` on.
    fn even(first: u16, buckets: u16, n: u64) -> SampleCounts {
        (first..first + buckets)
            .map(|bucket| (bucket, n / u64::from(buckets)))
            .collect()
    }

    #[test]
    fn mixtures_are_e_values() {
        assert!((WEIGHTS.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        // The mean of E over all outcomes of ten samples, each at most x with chance p, is 1.
        for (p, factor) in [(0.5, 1.0), (0.95, -0.4), (0.99, 2.0)] {
            let mixture = Mixture::new(p, factor);
            let (mut chance, mut mean) = ((1.0_f64 - p).powi(10), 0.0);
            for at_most in 0..=10u64 {
                mean += chance * mixture.ln_e(at_most, 10).exp();
                chance *= (10 - at_most) as f64 / (at_most + 1) as f64 * p / (1.0 - p);
            }
            assert!((mean - 1.0).abs() < 1e-9, "{p} {factor}: {mean}");
        }
    }

    #[test]
    fn quantile_is_the_lowest_bucket_with_enough_samples() {
        let counts = samples(&[(3, 50), (5, 45), (9, 5)]);
        assert_eq!(quantile(&[(1.0, &counts)], 0.5), Some(3));
        assert_eq!(quantile(&[(1.0, &counts)], 0.95), Some(5));
        assert_eq!(quantile(&[(1.0, &counts)], 0.99), Some(9));
        assert_eq!(quantile(&[(1.0, &SampleCounts::new())], 0.5), None);
        // Weights are of periods, whatever their numbers of samples.
        let (one, other) = (samples(&[(1, 1000)]), samples(&[(7, 10)]));
        assert_eq!(quantile(&[(0.4, &one), (0.6, &other)], 0.5), Some(7));
    }

    #[test]
    fn interval_of_one_group_holds_its_quantile_and_shrinks() {
        let width = |n: u64| {
            let evidence = QuantileEvidence::new(&even(100, 100, n), 0.5);
            let (low, high) = evidence.interval(0.05);
            let (low, high) = (low.unwrap(), high.unwrap());
            assert!(low <= 149 && 149 <= high, "{low} {high}");
            high - low
        };
        assert!(width(1_000) > 2 * width(10_000));
        // Ten samples do not bound the p99 above.
        let (_, high) = QuantileEvidence::new(&even(100, 10, 10), 0.99).interval(0.05);
        assert_eq!(high, None);
    }

    #[test]
    fn equal_groups_are_no_evidence_and_slower_ones_are() {
        let control = even(100, 100, 10_000);
        let compare = |own: &SampleCounts| {
            let periods = [(0.5, control.clone(), own.clone())];
            QuantileComparison::new(&periods, 0.95, 0.02)
        };
        let same = compare(&control);
        assert!(same.ln_e() < 0.0);
        let interval = same.interval(0.05);
        assert!(interval.low.unwrap() < 0.0 && interval.high.unwrap() > 0.0);
        assert!(same.at_least(0.01).unwrap_or(-1.0) < 0.0);
        let slower = compare(&even(110, 100, 10_000));
        assert!(slower.ln_e() > 20.0_f64.ln(), "{}", slower.ln_e());
        let interval = slower.interval(0.05);
        assert!(interval.low.unwrap() > 0.0, "{interval:?}");
        assert!(interval.low.unwrap() < 0.2 && interval.high.unwrap() > 0.2);
        assert!(slower.ln_e_above(0.0) > 100.0_f64.ln());
        assert!(slower.ln_e_above(0.2) < 0.0);
        assert!(slower.ln_e_below(0.0) < 0.0);
        let least = slower.at_least(0.01).unwrap();
        assert!(least > 0.0 && least < 0.2, "{least}");
        let faster = compare(&even(90, 100, 10_000));
        assert!(faster.ln_e_below(0.0) > 100.0_f64.ln());
        assert!(faster.ln_e_above(0.0) < 0.0);
        assert!(faster.interval(0.05).high.unwrap() < 0.0);
    }

    #[test]
    fn test_and_interval_agree() {
        for shift in 100..112 {
            let periods = [(0.5, even(100, 60, 6_000), even(shift, 60, 6_000))];
            let compared = QuantileComparison::new(&periods, 0.5, 0.02);
            let is_shown = compared.ln_e() >= 20.0_f64.ln();
            assert_eq!(is_shown, compared.interval(0.05).excludes_zero(), "{shift}");
        }
    }

    #[test]
    fn drift_between_periods_is_no_effect() {
        // A ramp while everything gets slower: 99/1 at first, half and half later.
        let periods = [
            (0.01, even(100, 50, 99_000), even(100, 50, 1_000)),
            (0.5, even(140, 50, 50_000), even(140, 50, 50_000)),
        ];
        assert!(QuantileComparison::new(&periods, 0.5, 0.02).ln_e() < 0.0);
        let control = together(periods.iter().map(|(_, control, _)| control));
        let own = together(periods.iter().map(|(_, _, own)| own));
        let pooled = [(0.5, control, own)];
        assert!(QuantileComparison::new(&pooled, 0.5, 0.02).ln_e() > 20.0_f64.ln());
    }
}
