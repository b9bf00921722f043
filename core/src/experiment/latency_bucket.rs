//! Buckets of latencies of equal width on the logarithmic scale, so that a ratio of two latencies is
//! a number of buckets, whatever they are.

/// Where bucket 0 begins, in microseconds.
pub const FIRST_US: f64 = 1.0;

/// The longest latency that has a bucket of its own, in microseconds: an hour.
const MAX_US: u64 = 3_600_000_000;

/// The width of a bucket on the logarithmic scale: its upper end is 1 % above its lower one.
pub fn step() -> f64 {
    libm::log1p(0.01)
}

/// The bucket of a latency in microseconds: 0 to 2,211. Every platform finds the same one.
pub fn of(latency_us: u64) -> u16 {
    (libm::log(latency_us.clamp(1, MAX_US) as f64) / step()) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_one_percent_wide() {
        let found = [0, 1, 2, 1_000, 1_020, 1_041, MAX_US, u64::MAX].map(of);
        assert_eq!(found, [0, 0, 69, 694, 696, 698, 2211, 2211]);
        for us in (1..200_000_u64).step_by(37) {
            let lower = f64::from(of(us)) * step();
            let log = (us as f64 / FIRST_US).ln();
            assert!(lower <= log + 1e-9 && log <= lower + step() + 1e-9, "{us}");
        }
    }
}
