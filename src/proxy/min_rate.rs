//! How slowly a client may send a body. PURE.

use std::time::{Duration, Instant};

/// The rate that a client must keep. Time in which the client is waited for uses up its credit, and
/// bytes earn it again, up to what it began with: an upstream that takes its time costs a client
/// nothing, and a fast beginning allows no longer pause later.
#[derive(Debug)]
pub(super) struct MinRate {
    bytes_per_s: f64,
    credit: Duration,
    credit_max: Duration,
    since: Option<Instant>,
}

impl MinRate {
    /// Asks for so many bytes in a second, with this credit.
    pub(super) fn new(bytes_per_s: u64, credit: Duration) -> MinRate {
        MinRate {
            bytes_per_s: bytes_per_s.max(1) as f64,
            credit,
            credit_max: credit,
            since: None,
        }
    }

    /// The client is waited for: for how long it may be, from the beginning of this wait.
    pub(super) fn wait(&mut self, now: Instant) -> Duration {
        self.since.get_or_insert(now);
        self.credit
    }

    /// So many bytes have come.
    pub(super) fn came(&mut self, now: Instant, bytes: u64) {
        let waited = self
            .since
            .take()
            .map(|since| now.saturating_duration_since(since));
        let left = self.credit.saturating_sub(waited.unwrap_or_default());
        // More than the most makes no difference.
        let earned = (bytes as f64 / self.bytes_per_s).min(self.credit_max.as_secs_f64());
        self.credit = (left + Duration::from_secs_f64(earned)).min(self.credit_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_bytes_use_up_the_credit() {
        let begun = Instant::now();
        let at = |s: f64| begun + Duration::from_secs_f64(s);
        let mut trickle = MinRate::new(10, Duration::from_secs(30));
        assert_eq!(trickle.wait(at(0.0)), Duration::from_secs(30));
        trickle.came(at(29.0), 1);
        assert_eq!(trickle.wait(at(29.0)), Duration::from_millis(1100));
        // Asked again, it is the same wait.
        assert_eq!(trickle.wait(at(29.5)), Duration::from_millis(1100));
        trickle.came(at(30.0), 50);
        assert_eq!(trickle.wait(at(30.0)), Duration::from_millis(5100));
        // Time in which nobody waits for the client costs nothing; nor does it help to be fast.
        trickle.came(at(30.0), 1_000_000);
        trickle.came(at(3000.0), u64::MAX);
        assert_eq!(trickle.wait(at(3000.0)), Duration::from_secs(30));
        trickle.came(at(9000.0), 0);
        assert_eq!(trickle.wait(at(9000.0)), Duration::ZERO);
    }
}
