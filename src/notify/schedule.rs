//! When a failed message is sent again. PURE.

use std::time::Duration;

/// The delay after each failed attempt, in seconds; the last one repeats.
const DELAYS_S: [u64; 9] = [2, 10, 30, 120, 600, 1800, 3600, 7200, 14_400];
/// The age at which a message is given up, in milliseconds: three days.
pub(super) const GIVE_UP_MS: u64 = 3 * 24 * 3_600_000;
/// The longest delay that a receiver can ask for with `Retry-After`.
const ASKED_MAX: Duration = Duration::from_secs(3600);

/// Returns the delay after so many failed attempts, at least one. `random` is from 0 to 1 and spreads the
/// delay by a fifth to both sides, so that many messages do not come at once. `asked` is what the receiver
/// asked for.
pub(super) fn delay(failed: u32, random: f64, asked: Option<Duration>) -> Duration {
    let place = (failed.max(1) as usize - 1).min(DELAYS_S.len() - 1);
    let delay = Duration::from_secs(DELAYS_S[place]).mul_f64(0.8 + 0.4 * random.clamp(0.0, 1.0));
    let asked = asked.unwrap_or_default().min(ASKED_MAX);
    delay.max(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_the_first_is_below_five_seconds() {
        assert!(delay(1, 1.0, None) < Duration::from_secs(3));
        let mut before = Duration::ZERO;
        for failed in 1..=9 {
            let lowest = delay(failed, 0.0, None);
            assert!(lowest > before, "{failed}");
            before = delay(failed, 1.0, None);
        }
        assert_eq!(delay(10, 0.5, None), delay(9, 0.5, None));
        assert_eq!(delay(u32::MAX, 0.5, None), Duration::from_secs(14_400));
        // Some twenty attempts are made before a message is given up.
        let mut age = Duration::ZERO;
        let attempts = (1..).take_while(|failed| {
            age += delay(*failed, 0.5, None);
            age.as_millis() < u128::from(GIVE_UP_MS)
        });
        assert_eq!(attempts.count(), 25);
    }

    #[test]
    fn receiver_may_ask_for_at_most_an_hour() {
        let asked = |seconds| delay(1, 0.5, Some(Duration::from_secs(seconds)));
        assert_eq!(asked(1), Duration::from_secs(2));
        assert_eq!(asked(60), Duration::from_secs(60));
        assert_eq!(asked(u64::MAX), Duration::from_secs(3600));
    }
}
