//! Weights of groups, and shares of users.

/// The share of a group relative to the other groups. Finite and at least 0; nobody new gets a group of
/// weight 0.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Weight(f64);

impl Weight {
    /// Returns `None` unless `value` is finite and at least 0.
    pub fn new(value: f64) -> Option<Weight> {
        (value.is_finite() && value >= 0.0).then_some(Weight(value))
    }

    /// Returns the weight as it is written in the file.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// A share of all users, from 0 to 1 inclusive.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Share(f64);

impl Share {
    /// All users.
    pub const ALL: Share = Share(1.0);

    /// Returns `None` unless `value` is in 0..=1.
    pub fn new(value: f64) -> Option<Share> {
        (0.0..=1.0).contains(&value).then_some(Share(value))
    }

    /// Returns the share as a fraction, 0 to 1.
    pub fn get(self) -> f64 {
        self.0
    }
}
