//! Whether the groups have the sizes that their weights ask for. If not, something between the
//! visitor and the count treats the groups differently, and no other number can be believed.

use super::Epoch;
use statrs::function::gamma::ln_gamma;

/// What the sizes of the groups say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Balance {
    /// The chance of such sizes at any look, were the weights obeyed; `None` without users.
    pub p_value: Option<f64>,
    /// Whether something is wrong.
    pub mismatch: bool,
}

/// Below this the sizes are not believed.
const ALARM: f64 = 0.001;
/// How many users' worth the designed shares count for; more finds smaller faults, later.
const CONCENTRATION: f64 = 1000.0;

/// The sequential multinomial test over all epochs:
/// ln BF = lnΓ(κ) − lnΓ(κ+N) + Σ[lnΓ(κw_i + c_i) − lnΓ(κw_i)] − Σ c_i·ln w_i; p = min(1, 1/BF).
/// Source: Lindon and Malek, NeurIPS 2022 (arXiv 2011.03567), section 2.
pub fn balance(epochs: &[Epoch]) -> Balance {
    if epochs
        .iter()
        .all(|epoch| epoch.users.iter().sum::<u64>() == 0)
    {
        return Balance {
            p_value: None,
            mismatch: false,
        };
    }
    let ln_factor: f64 = epochs.iter().map(ln_bayes_factor).sum();
    let p_value = (-ln_factor).exp().min(1.0);
    Balance {
        p_value: Some(p_value),
        mismatch: p_value < ALARM,
    }
}

fn ln_bayes_factor(epoch: &Epoch) -> f64 {
    let all: f64 = epoch.users.iter().map(|&users| users as f64).sum();
    let each = epoch
        .shares
        .iter()
        .zip(&epoch.users)
        .filter(|&(&share, _)| share > 0.0)
        .map(|(&share, &users)| {
            let (prior, users) = (CONCENTRATION * share, users as f64);
            ln_gamma(prior + users) - ln_gamma(prior) - users * share.ln()
        });
    ln_gamma(CONCENTRATION) - ln_gamma(CONCENTRATION + all) + each.sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(shares: [f64; 2], users: [u64; 2], mismatch: bool) {
        let found = balance(&[Epoch {
            shares: shares.to_vec(),
            users: users.to_vec(),
        }]);
        assert_eq!(found.mismatch, mismatch, "{users:?}: {found:?}");
    }

    #[test]
    fn sizes_by_weight_are_sound_and_others_are_not() {
        check([0.5, 0.5], [0, 0], false);
        check([0.5, 0.5], [50_200, 49_800], false);
        check([0.5, 0.5], [51_000, 49_000], true);
        check([0.9, 0.1], [90_000, 10_000], false);
        check([0.9, 0.1], [50_000, 50_000], true);
    }

    #[test]
    fn epochs_are_judged_by_their_own_weights() {
        let ramp = [
            Epoch {
                shares: vec![0.99, 0.01],
                users: vec![9900, 100],
            },
            Epoch {
                shares: vec![0.5, 0.5],
                users: vec![5000, 5000],
            },
        ];
        assert!(!balance(&ramp).mismatch);
    }
}
