//! The time of records. It never goes back, neither when the system's clock is set back nor after a
//! restart, because this time decides which exposure or event came first.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The time of an earlier process is followed only if it is less than this ahead: a clock that was far
/// wrong once must not be followed forever.
const AHEAD_MAX_MS: u64 = 24 * 3_600_000;

/// The time of one worker's records, in Unix milliseconds. While the system's clock is behind an earlier
/// time, it runs at half speed until the system's clock has caught up.
#[derive(Debug)]
pub struct MonotonicClock {
    last_ms: Cell<u64>,
    at: Cell<Instant>,
}

impl MonotonicClock {
    /// Makes a clock that starts at `floor_ms`, unless that is a day ahead or more.
    pub fn new(floor_ms: u64, now: Instant, system_ms: u64) -> MonotonicClock {
        let ahead_ms = floor_ms.saturating_sub(system_ms);
        let floor_ms = if ahead_ms < AHEAD_MAX_MS { floor_ms } else { 0 };
        MonotonicClock {
            last_ms: Cell::new(system_ms.max(floor_ms)),
            at: Cell::new(now),
        }
    }

    /// Returns the time at `now`, while the system's clock shows `system_ms`. It never decreases.
    pub fn read(&self, now: Instant, system_ms: u64) -> u64 {
        let since = now.saturating_duration_since(self.at.get());
        let least_ms = self.last_ms.get() + half(since);
        if system_ms < least_ms {
            return least_ms;
        }
        self.last_ms.set(system_ms);
        self.at.set(now);
        system_ms
    }

    /// Returns the time now.
    pub fn now_ms(&self) -> u64 {
        self.read(Instant::now(), system_ms())
    }
}

fn half(since: Duration) -> u64 {
    since.as_millis() as u64 / 2
}

/// Returns the time of the system's clock, in Unix milliseconds.
pub fn system_ms() -> u64 {
    // A clock before 1970 counts as 0.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_go_back_and_catches_up() {
        let start = Instant::now();
        let later = |ms| start + Duration::from_millis(ms);
        let clock = MonotonicClock::new(0, start, 10_000);
        assert_eq!(clock.read(later(100), 10_100), 10_100);
        // Set back by five seconds: half speed for ten seconds.
        assert_eq!(clock.read(later(200), 5_200), 10_150);
        assert_eq!(clock.read(later(4_100), 9_100), 12_100);
        assert_eq!(clock.read(later(10_200), 15_200), 15_200);
        assert_eq!(clock.read(later(10_300), 15_300), 15_300);
        // Set forward: the time follows at once.
        assert_eq!(clock.read(later(10_400), 99_000), 99_000);
    }

    #[test]
    fn time_of_an_earlier_process_is_followed_unless_it_was_far_wrong() {
        let start = Instant::now();
        assert_eq!(
            MonotonicClock::new(10_000, start, 4_000).read(start, 4_000),
            10_000
        );
        let wrong = 4_000 + AHEAD_MAX_MS;
        assert_eq!(
            MonotonicClock::new(wrong, start, 4_000).read(start, 4_000),
            4_000
        );
    }
}
