//! The exact test for conversions: for shares of users, at any size and any look.
//!
//! Where a group's designed share of users is w against control's, each *converted user* of the
//! two groups is in that group with probability w·r/(w·r + 1 − w) when its rate is r times
//! control's, whatever the rate is and however it drifts. A fixed mixture over log ratios gives
//!
//! E(r) = Σ_k π_k Π_e [θ_e(δ_k)/θ_e(r)]^{x_Be} · [(1−θ_e(δ_k))/(1−θ_e(r))]^{x_Ae}
//!
//! over epochs e of constant weights: exact under ramps too. "No effect" is rejected when
//! E(1) ≥ 1/α, and the interval is {r : E(r) < 1/α}. Source: Lindon and Malek, NeurIPS 2022
//! (arXiv 2011.03567), with a grid in place of the Beta mixture.

/// How results name this method.
pub const METHOD: &str = "exact conversions-only mixture (always valid)";

/// One epoch's converted users of a group and of control.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// ln(w / (1 − w)).
    log_odds: f64,
    control: f64,
    own: f64,
}

impl Pair {
    /// From the designed shares of both groups and their converted users. `None` where one of
    /// the groups was not there.
    pub fn new(control_share: f64, own_share: f64, control: u64, own: u64) -> Option<Pair> {
        let there = control_share > 0.0 && own_share > 0.0;
        there.then(|| Pair {
            log_odds: (own_share / control_share).ln(),
            control: control as f64,
            own: own as f64,
        })
    }

    /// ln of the likelihood that each converted user is where it is, at this log rate ratio.
    fn ln_likelihood(&self, log_ratio: f64) -> f64 {
        let z = self.log_odds + log_ratio;
        // ln θ = −ln(1 + e^−z), ln(1 − θ) = −ln(1 + e^z).
        -self.own * softplus(-z) - self.control * softplus(z)
    }
}

/// A group compared with control.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared {
    /// The likeliest relative difference; `None` while either group has no conversion.
    pub relative: Option<f64>,
    /// Where the true one lies; `None` for an end that nothing bounds.
    pub relative_interval: (Option<f64>, Option<f64>),
    /// At most 1.
    pub p_value: f64,
}

/// Compares over all epochs. `None` while nobody has converted.
pub fn compare(pairs: &[Pair], alpha: f64) -> Option<Compared> {
    let own: f64 = pairs.iter().map(|pair| pair.own).sum();
    let control: f64 = pairs.iter().map(|pair| pair.control).sum();
    if own + control == 0.0 {
        return None;
    }
    let mixture = ln_mixture(pairs);
    let ln_e = |log_ratio: f64| mixture - ln_likelihood(pairs, log_ratio);
    let bound = -alpha.ln();
    let peak = likeliest(pairs, own, control);
    let end = |toward: f64| {
        (ln_e(toward) >= bound)
            .then(|| root(peak, toward, |log_ratio| ln_e(log_ratio) >= bound).exp_m1())
    };
    Some(Compared {
        relative: (own > 0.0 && control > 0.0).then(|| peak.exp_m1()),
        relative_interval: (end(-FAR), end(FAR)),
        p_value: (-ln_e(0.0)).exp().min(1.0),
    })
}

/// The farthest log ratio looked at: a rate five hundred million times another's.
const FAR: f64 = 20.0;

fn ln_likelihood(pairs: &[Pair], log_ratio: f64) -> f64 {
    pairs.iter().map(|pair| pair.ln_likelihood(log_ratio)).sum()
}

/// ln Σ_k π_k Π_e likelihood_e(δ_k), over 97 log ratios from −1.2 to 1.2 with normal weights of
/// standard deviation 0.2: wide enough for what changes to a site do, dense enough to be smooth.
fn ln_mixture(pairs: &[Pair]) -> f64 {
    const POINTS: i32 = 97;
    const REACH: f64 = 1.2;
    const SPREAD: f64 = 0.2;
    let delta = |k: i32| REACH * (2.0 * f64::from(k) / f64::from(POINTS - 1) - 1.0);
    let prior = |delta: f64| -delta * delta / (2.0 * SPREAD * SPREAD);
    let priors = ln_sum_exp((0..POINTS).map(|k| prior(delta(k))));
    ln_sum_exp((0..POINTS).map(|k| prior(delta(k)) + ln_likelihood(pairs, delta(k)))) - priors
}

/// Where the likelihood is greatest: its slope falls, so it is found by halving.
fn likeliest(pairs: &[Pair], own: f64, control: f64) -> f64 {
    if own == 0.0 || control == 0.0 {
        return if own == 0.0 { -FAR } else { FAR };
    }
    let slope = |log_ratio: f64| {
        let each = |pair: &Pair| {
            pair.own - (pair.own + pair.control) / (1.0 + (-(pair.log_odds + log_ratio)).exp())
        };
        pairs.iter().map(each).sum::<f64>()
    };
    let (mut low, mut high) = (-FAR, FAR);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if slope(middle) > 0.0 {
            low = middle
        } else {
            high = middle
        }
    }
    0.5 * (low + high)
}

/// Where, between `inside` and `outside`, `is_outside` begins to hold.
fn root(mut inside: f64, mut outside: f64, is_outside: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..100 {
        let middle = 0.5 * (inside + outside);
        if is_outside(middle) {
            outside = middle
        } else {
            inside = middle
        }
    }
    0.5 * (inside + outside)
}

fn softplus(z: f64) -> f64 {
    z.max(0.0) + (-z.abs()).exp().ln_1p()
}

fn ln_sum_exp(terms: impl Iterator<Item = f64> + Clone) -> f64 {
    let top = terms.clone().fold(f64::NEG_INFINITY, f64::max);
    top + terms.map(|term| (term - top).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(share: f64, control: u64, own: u64) -> Compared {
        compare(
            &[Pair::new(1.0 - share, share, control, own).unwrap()],
            0.05,
        )
        .unwrap()
    }

    #[test]
    fn test_and_interval_agree_on_every_look() {
        for own in 0..400 {
            let found = compared(0.5, 200, own);
            let (low, high) = found.relative_interval;
            let excluded = low.is_some_and(|low| low > 0.0) || high.is_some_and(|high| high < 0.0);
            assert_eq!(found.p_value <= 0.05, excluded, "{own}: {found:?}");
        }
    }

    #[test]
    fn swapping_the_groups_swaps_the_answer() {
        let (there, back) = (compared(0.3, 100, 80), compared(0.7, 80, 100));
        assert!((there.p_value - back.p_value).abs() < 1e-12);
        let (ratio, inverse) = (1.0 + there.relative.unwrap(), 1.0 + back.relative.unwrap());
        assert!((ratio * inverse - 1.0).abs() < 1e-9);
    }

    #[test]
    fn an_end_that_nothing_bounds_is_none() {
        assert_eq!(compare(&[], 0.05), None);
        let none_in_control = compared(0.5, 0, 40);
        assert_eq!(
            (
                none_in_control.relative,
                none_in_control.relative_interval.1
            ),
            (None, None)
        );
        assert!(none_in_control.relative_interval.0.unwrap() > 0.0);
    }

    #[test]
    fn a_ramp_with_a_drifting_rate_is_no_effect() {
        // 1 % share at a rate of 2 %, then 50 % at 10 %: pooled, the group looks three times
        // better; by epoch there is nothing.
        let ramp = [
            Pair::new(0.99, 0.01, 1980, 20).unwrap(),
            Pair::new(0.5, 0.5, 5000, 5000).unwrap(),
        ];
        let found = compare(&ramp, 0.05).unwrap();
        assert!(found.relative.unwrap().abs() < 1e-3, "{found:?}");
        assert_eq!(found.p_value, 1.0);
    }
}
