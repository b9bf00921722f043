//! The delays between attempts to reach a store that is unavailable.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest delay between two attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The delay before the next attempt. It doubles, with a random part so that replicas do not all return
/// at once.
pub struct Backoff(Duration);

impl Backoff {
    /// Starts before the first attempt.
    pub fn new() -> Backoff {
        Backoff(Duration::from_millis(50))
    }

    /// Returns the delay before the next attempt.
    pub fn delay(&mut self) -> Duration {
        self.0 = (self.0 * 2).min(BACKOFF_MAX);
        let nanos = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.subsec_nanos());
        self.0.mul_f64(0.5 + f64::from(nanos % 1000) / 2000.0)
    }
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff::new()
    }
}
