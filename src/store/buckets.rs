//! Latency buckets. PURE.

use std::collections::BTreeMap;

/// Latency buckets. A bucket is named by its lowest value.
#[derive(Debug)]
pub struct Buckets(hdrhistogram::Histogram<u64>);

impl Buckets {
    /// The longest latency with a bucket of its own, in microseconds: an hour.
    pub const MAX_US: u64 = 3_600_000_000;

    /// Makes buckets of two significant digits, which are at most 1 % wide.
    pub fn new() -> Buckets {
        // The bounds are constants within the crate's documented limits.
        Buckets(hdrhistogram::Histogram::new_with_bounds(1, Self::MAX_US, 2).expect("sound bounds"))
    }

    /// Returns the bucket of a latency, in microseconds.
    pub fn of(&self, latency_us: u64) -> u64 {
        self.0.lowest_equivalent(latency_us.clamp(1, Self::MAX_US))
    }

    /// Returns a quantile of latencies, in microseconds; `None` without requests.
    pub fn quantile(latency: &BTreeMap<u64, u64>, share: f64) -> Option<u64> {
        let mut all = Buckets::new().0;
        for (&bucket, &count) in latency {
            all.saturating_record_n(bucket, count);
        }
        (!all.is_empty()).then(|| all.value_at_quantile(share))
    }
}

impl Default for Buckets {
    fn default() -> Self {
        Buckets::new()
    }
}
