//! The digest that names an epoch.

use super::assign::{Share, Weight};

/// Names an epoch: a period in which groups, weights and traffic share stay the same. Replicas
/// with the same definition compute the same digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EpochDigest(pub u64);

impl EpochDigest {
    /// Computes the digest of a definition. Weights count relative to their sum, so 50/50 and
    /// 1/1 are the same epoch.
    pub fn of<'a>(
        salt: &str,
        traffic: Share,
        groups: impl IntoIterator<Item = (&'a str, Weight)> + Clone,
    ) -> EpochDigest {
        use std::fmt::Write;
        let sum: f64 = groups
            .clone()
            .into_iter()
            .map(|(_, weight)| weight.get())
            .sum();
        // Each text follows its length, so that two definitions never produce the same text. Nine
        // digits hold every weight that a person writes, and hide how the sum was rounded.
        let mut text = format!("{}:{salt} {:.9}", salt.len(), traffic.get());
        for (name, weight) in groups {
            // Writing to a String cannot fail.
            let _ = write!(text, " {}:{name} {:.9}", name.len(), weight.get() / sum);
        }
        let mut bytes = text.as_bytes();
        // Reading from a slice cannot fail, and the crate adds no error of its own.
        let wide = murmur3::murmur3_x64_128(&mut bytes, 0).unwrap_or_default();
        EpochDigest(wide as u64)
    }
}

impl std::fmt::Display for EpochDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
