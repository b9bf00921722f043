//! How far the axis of a drawing of lifts reaches. PURE.

/// At most so much, unless an estimate is larger; what is farther away is cut, with an arrow.
const MOST: f64 = 1.0;
/// An estimate that is larger still is cut, too.
const LARGEST: f64 = 10.0;

/// Returns how far an axis reaches to either side of zero: at least `least`, beyond all that is `shown` where there is
/// room, and beyond every one of the `estimates`.
pub(super) fn reach(
    least: f64,
    shown: impl Iterator<Item = f64>,
    estimates: impl Iterator<Item = f64>,
) -> f64 {
    let far = shown.map(f64::abs).fold(least, f64::max);
    let most = estimates.fold(MOST, |most, at| most.max(1.25 * at.abs()));
    (1.1 * far).min(most.min(LARGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_within_reach_and_wide_intervals_are_cut() {
        let reach = |shown: &[f64], estimates: &[f64]| {
            reach(0.05, shown.iter().copied(), estimates.iter().copied())
        };
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found}");
        near(reach(&[], &[]), 0.055);
        near(reach(&[-0.2, 0.4], &[0.1]), 0.44);
        near(reach(&[-0.9, 3.0], &[0.5]), 1.0);
        near(reach(&[0.5, 4.0], &[1.8]), 2.25);
        near(reach(&[30.0], &[30.0]), 10.0);
    }
}
