//! Where a true value lies.

/// From `low` to `high`; `None` is an end that nothing bounds, or that is not known yet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub low: Option<f64>,
    /// The upper end.
    pub high: Option<f64>,
}

impl Interval {
    /// Nothing is known.
    pub const UNKNOWN: Interval = Interval {
        low: None,
        high: None,
    };

    /// Both ends known. An end that is no finite number is taken as unbounded.
    pub fn new(low: f64, high: f64) -> Interval {
        Interval {
            low: finite(low),
            high: finite(high),
        }
    }

    /// `center` and `half` on each side.
    pub fn around(center: f64, half: f64) -> Interval {
        Interval::new(center - half, center + half)
    }

    /// With a function that only rises applied to both ends.
    pub fn map(self, rising: impl Fn(f64) -> f64) -> Interval {
        Interval {
            low: self.low.map(&rising).and_then(finite),
            high: self.high.map(&rising).and_then(finite),
        }
    }

    /// Whether it lies wholly above or wholly below 0.
    pub fn excludes_zero(&self) -> bool {
        self.low.is_some_and(|low| low > 0.0) || self.high.is_some_and(|high| high < 0.0)
    }

    /// Whether it lies wholly between −margin and margin, both included.
    pub fn within(&self, margin: f64) -> bool {
        matches!((self.low, self.high), (Some(low), Some(high)) if -margin <= low && high <= margin)
    }
}

/// `None` for what is no number or infinite: results never say NaN.
pub fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_unbounded() {
        assert_eq!(Interval::new(f64::NAN, f64::INFINITY), Interval::UNKNOWN);
        let raised = Interval::new(0.0, 800.0).map(f64::exp_m1);
        assert_eq!(
            raised,
            Interval {
                low: Some(0.0),
                high: None
            }
        );
        assert!(!Interval::UNKNOWN.excludes_zero() && !Interval::UNKNOWN.within(1.0));
    }
}
