//! How long to leave alone what does not answer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest wait between two attempts while the store is away.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How long to wait before the next attempt: doubling, with a random part so that replicas do
/// not come back all at once.
pub struct Backoff(Duration);

impl Backoff {
    /// Of a first attempt.
    pub fn new() -> Backoff {
        Backoff(Duration::from_millis(50))
    }

    /// The wait before the attempt that follows.
    pub fn next(&mut self) -> Duration {
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
