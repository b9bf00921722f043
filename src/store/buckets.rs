//! Latencies by buckets. PURE.

use std::collections::BTreeMap;

/// Latency buckets: the lowest value of the range that a value shares with its neighbours.
#[derive(Debug)]
pub struct Buckets(hdrhistogram::Histogram<u64>);

impl Buckets {
    /// The longest latency told apart, in microseconds: an hour.
    pub const MAX_US: u64 = 3_600_000_000;

    /// Buckets of two significant digits: at most 1 % wide.
    pub fn new() -> Buckets {
        // The bounds are constants within the crate's documented limits.
        Buckets(hdrhistogram::Histogram::new_with_bounds(1, Self::MAX_US, 2).expect("sound bounds"))
    }

    /// The bucket of a latency, in microseconds.
    pub fn of(&self, latency_us: u64) -> u64 {
        self.0.lowest_equivalent(latency_us.clamp(1, Self::MAX_US))
    }

    /// The latency below which this share of requests lies, in microseconds; `None` without
    /// requests.
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
