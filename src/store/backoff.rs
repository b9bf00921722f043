//! The delays between attempts to reach a store that is unavailable.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest delay between two attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The delay before the next attempt. It doubles, with a random part so that replicas do not all return
/// at once.
pub struct Backoff {
    delay: Duration,
    max: Duration,
}

impl Backoff {
    /// Starts before the first attempt.
    pub fn new() -> Backoff {
        Backoff::up_to(BACKOFF_MAX)
    }

    /// Starts before the first attempt, with another longest delay.
    pub fn up_to(max: Duration) -> Backoff {
        Backoff {
            delay: Duration::from_millis(50),
            max,
        }
    }

    /// Returns the delay before the next attempt.
    pub fn delay(&mut self) -> Duration {
        self.delay = (self.delay * 2).min(self.max);
        let nanos = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.subsec_nanos());
        self.delay.mul_f64(0.5 + f64::from(nanos % 1000) / 2000.0)
    }
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff::new()
    }
}
