//! The exact test for conversions with its mixture on a fixed grid of log rate ratios.
//!
//! E(r) = Σ_k π_k Π_e [θ_e(δ_k)/θ_e(r)]^{x_Be} · [(1−θ_e(δ_k))/(1−θ_e(r))]^{x_Ae}. It is valid
//! as [`super::exact_conversion`] is, and cheaper over many periods, but past some hundred thousand
//! converted users the likelihood is narrower than the grid's steps; so verdicts use the other.
//! Source: Lindon and Malek, NeurIPS 2022 (arXiv 2011.03567), with a grid as the mixture.

use crate::stats::interval::Interval;
use crate::stats::logistic::{Term, likeliest, ln_likelihood};
use crate::stats::special::{bisect, ln_sum_exp};

/// A grid of log rate ratios with normal weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// The lowest and the highest log ratio.
    pub ends: (f64, f64),
    /// How many, at least 2.
    pub points: u32,
    /// The standard deviation of the weights around 0, above 0.
    pub spread: f64,
}

/// 97 log ratios from −1.2 to 1.2, spread by 0.2.
impl Default for Grid {
    fn default() -> Grid {
        Grid {
            ends: (-1.2, 1.2),
            points: 97,
            spread: 0.2,
        }
    }
}

impl Grid {
    /// ln E of no effect.
    pub fn ln_e(&self, terms: &[Term]) -> f64 {
        let (low, high) = self.ends;
        let step = (high - low) / f64::from(self.points - 1);
        let deltas: Vec<f64> = (0..self.points)
            .map(|k| low + step * f64::from(k))
            .collect();
        let priors: Vec<f64> = deltas
            .iter()
            .map(|delta| -0.5 * (delta / self.spread).powi(2))
            .collect();
        let terms: Vec<f64> = deltas
            .iter()
            .zip(&priors)
            .map(|(delta, prior)| prior + ln_likelihood(terms, *delta))
            .collect();
        ln_sum_exp(&terms) - ln_sum_exp(&priors)
    }

    /// Where the true log ratio lies, with error `alpha`, as far as `reach` (above 0) on each
    /// side: an end farther away is `None`.
    pub fn interval_of_log(&self, terms: &[Term], alpha: f64, reach: f64) -> Interval {
        let at_zero = self.ln_e(terms);
        let inside = |log_ratio: f64| at_zero - ln_likelihood(terms, log_ratio) < -alpha.ln();
        let peak = likeliest(terms).clamp(-reach, reach);
        let end = |toward: f64| (!inside(toward)).then(|| bisect(peak, toward, inside));
        Interval {
            low: end(-reach),
            high: end(reach),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::exact_conversion::Evidence;

    #[test]
    fn it_is_close_to_the_mixture_of_the_verdict() {
        let ramp = [
            (0.01, 99.0, 2.0),
            (0.1, 900.0, 130.0),
            (0.5, 1000.0, 1190.0),
        ];
        let ramp = ramp.map(|(share, control, own)| Term {
            share,
            control,
            own,
        });
        let grid = Grid::default();
        // κ·w(1−w) = 1/0.2².
        let mixture = Evidence::new(&ramp, 25.0 / (0.01 * 0.99));
        assert!((grid.ln_e(&ramp) - mixture.ln_e()).abs() < 0.5);
        let (grid, mixture) = (
            grid.interval_of_log(&ramp, 0.05, 1.5),
            mixture.interval_of_log(0.05),
        );
        assert!((grid.low.unwrap() - mixture.low.unwrap()).abs() < 0.02);
        assert_eq!(Grid::default().ln_e(&[]), 0.0);
    }
}
