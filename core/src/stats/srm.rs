//! Whether the groups have the sizes that their weights ask for. If not, something between the
//! visitor and the count treats the groups differently, and no other number can be believed.

use super::input::Epoch;
use super::interval::finite;
use super::special::{chi_squared_upper, ln_dirichlet_factor};

/// What the sizes of the groups say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SampleRatioTest {
    /// The smallest chance, over all looks, of such sizes, were the weights obeyed; holds however
    /// often one looks. `None` without users.
    pub p_value: Option<f64>,
    /// Whether it is below [`ALARM`].
    pub mismatch: bool,
    /// Whether only an earlier look found that, and the sizes of this one are sound.
    pub mismatch_was_earlier: bool,
    /// The χ² test's chance, over all epochs: right only if this is the only look. `None` without
    /// users.
    pub single_look_p: Option<f64>,
}

/// Below this the sizes are not believed.
pub const ALARM: f64 = 0.001;
/// How many users the designed shares weigh: more finds smaller faults, and finds them later.
const CONCENTRATION: f64 = 1000.0;

/// The sequential multinomial test over all epochs, and the smallest p-value of earlier looks.
/// Source: Lindon and Malek, NeurIPS 2022 (arXiv 2011.03567), section 2.
pub fn sample_ratio(epochs: &[Epoch], previous: Option<f64>) -> SampleRatioTest {
    let epochs = merged(epochs);
    if epochs
        .iter()
        .all(|epoch| epoch.users.iter().all(|&users| users == 0))
    {
        return SampleRatioTest::default();
    }
    let ln_factor: f64 = epochs
        .iter()
        .map(|epoch| ln_bayes_factor(&epoch.shares, &epoch.users, CONCENTRATION))
        .sum();
    let now = (-ln_factor).exp().min(1.0);
    let p_value = previous.map_or(now, |previous| previous.min(now));
    let chi = |epoch: &Epoch| chi_squared(&epoch.shares, &epoch.users);
    let (statistic, df) = epochs
        .iter()
        .map(chi)
        .fold((0.0, 0.0), |sum, (statistic, df)| {
            (sum.0 + statistic, sum.1 + df)
        });
    SampleRatioTest {
        p_value: Some(p_value),
        mismatch: p_value < ALARM,
        mismatch_was_earlier: p_value < ALARM && now >= ALARM,
        single_look_p: Some(if df > 0.0 {
            chi_squared_upper(statistic, df)
        } else {
            1.0
        }),
    }
}

/// ln of the Bayes factor against the designed shares, after these users: the larger, the less
/// the shares were obeyed. Shares at least 0, of any sum above 0; infinite where a group without
/// a share has users. `concentration` is the Dirichlet prior's, above 0.
pub fn ln_bayes_factor(shares: &[f64], users: &[u64], concentration: f64) -> f64 {
    let all: f64 = shares.iter().sum();
    let prior = |share: f64| concentration * share;
    ln_bayes_factor_of(
        shares
            .iter()
            .zip(users)
            .map(|(share, &users)| (prior(share / all), users, share / all)),
    )
}

/// The same with a Dirichlet prior of its own: (α_i, users, share) of each group.
pub fn ln_bayes_factor_of(groups: impl Iterator<Item = (f64, u64, f64)>) -> f64 {
    let mut cells = Vec::new();
    for (prior, users, share) in groups {
        if share > 0.0 {
            cells.push((prior, users as f64, share));
        } else if users > 0 {
            return f64::INFINITY;
        }
    }
    ln_dirichlet_factor(&cells)
}

/// Pearson's statistic and its degrees of freedom. Shares of any sum above 0. Without users the
/// statistic is 0; with users where there is no share it is infinite.
pub fn chi_squared(shares: &[f64], users: &[u64]) -> (f64, f64) {
    let all_shares: f64 = shares.iter().sum();
    let all: f64 = users.iter().map(|&users| users as f64).sum();
    let mut statistic = 0.0;
    let mut cells = 0.0;
    for (share, &users) in shares.iter().zip(users) {
        let expected = all * (share / all_shares);
        if expected > 0.0 {
            statistic += (users as f64 - expected).powi(2) / expected;
        } else if users > 0 {
            statistic = f64::INFINITY;
        }
        cells += if *share > 0.0 { 1.0 } else { 0.0 };
    }
    (statistic, f64::max(cells - 1.0, 0.0))
}

/// Epochs of the same shares as one: the same design is tested once.
fn merged(epochs: &[Epoch]) -> Vec<Epoch> {
    let mut merged: Vec<Epoch> = Vec::new();
    for epoch in epochs.iter().filter(|epoch| {
        epoch
            .shares
            .iter()
            .any(|&share| finite(share).is_some_and(|share| share > 0.0))
    }) {
        match merged.iter_mut().find(|other| other.shares == epoch.shares) {
            Some(other) => {
                for (sum, users) in other.users.iter_mut().zip(&epoch.users) {
                    *sum += users;
                }
            }
            None => merged.push(epoch.clone()),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(shares: [f64; 2], users: [u64; 2]) -> Epoch {
        Epoch {
            shares: shares.to_vec(),
            users: users.to_vec(),
        }
    }

    #[track_caller]
    fn check(shares: [f64; 2], users: [u64; 2], mismatch: bool) {
        let found = sample_ratio(&[epoch(shares, users)], None);
        assert_eq!(found.mismatch, mismatch, "{users:?}: {found:?}");
    }

    #[test]
    fn sizes_by_weight_are_sound_and_others_are_not() {
        check([0.5, 0.5], [0, 0], false);
        check([0.5, 0.5], [50_200, 49_800], false);
        check([0.5, 0.5], [51_000, 49_000], true);
        check([0.9, 0.1], [90_000, 10_000], false);
        check([0.9, 0.1], [50_000, 50_000], true);
        check([1.0, 0.0], [100, 0], false);
        check([1.0, 0.0], [100, 1], true);
    }

    #[test]
    fn epochs_are_judged_by_their_own_weights() {
        let ramp = [
            epoch([0.99, 0.01], [9900, 100]),
            epoch([0.5, 0.5], [5000, 5000]),
        ];
        assert!(!sample_ratio(&ramp, None).mismatch);
        let cut = [
            epoch([0.5, 0.5], [25_500, 24_500]),
            epoch([0.5, 0.5], [25_500, 24_500]),
        ];
        let whole = [epoch([0.5, 0.5], [51_000, 49_000])];
        assert_eq!(sample_ratio(&cut, None), sample_ratio(&whole, None));
    }

    #[test]
    fn what_was_once_found_stays_found() {
        let sound = [epoch([0.5, 0.5], [500, 500])];
        let found = sample_ratio(&sound, Some(1e-5));
        assert_eq!((found.p_value, found.mismatch), (Some(1e-5), true));
        assert!(found.mismatch_was_earlier);
        assert_eq!(sample_ratio(&[], None), SampleRatioTest::default());
    }
}
