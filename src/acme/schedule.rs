//! When a certificate is renewed, and when a failed attempt is repeated. PURE.

use super::entries::{FailedAttempt, Renewal};

const MINUTE_MS: u64 = 60_000;

/// The delays after attempts that the authority has counted. Let's Encrypt permits five failures of a
/// name in an hour.
const COUNTED_MS: [u64; 5] = [
    MINUTE_MS,
    5 * MINUTE_MS,
    15 * MINUTE_MS,
    30 * MINUTE_MS,
    60 * MINUTE_MS,
];
/// The first delay after an attempt that it has not counted, because it cannot be reached. It doubles.
const UNCOUNTED_MS: u64 = 2_000;
/// The longest of these delays.
const UNCOUNTED_MAX_MS: u64 = 5 * MINUTE_MS;

/// A certificate is not renewed so soon after it was obtained, or before a third of its lifetime is over.
const SOON_MS: u64 = 12 * 60 * MINUTE_MS;

/// When a certificate is valid, in Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    /// From when.
    pub from_ms: u64,
    /// Until when.
    pub until_ms: u64,
    /// When it was obtained, by the clock of the replica that has ordered it.
    pub obtained_ms: u64,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A certificate is ordered.
    Order,
    /// The authority is asked when the certificate is to be renewed.
    AskRenewal,
    /// Nothing yet.
    Wait,
}

/// Decides what is to be done at `now_ms`.
pub(super) fn step(
    now_ms: u64,
    validity: Option<Validity>,
    renewal: Option<Renewal>,
    failed: Option<&FailedAttempt>,
) -> Step {
    if failed.is_some_and(|failed| now_ms < failed.next_ms) {
        return Step::Wait;
    }
    match validity {
        None => Step::Order,
        Some(validity) if now_ms >= due_ms(validity, renewal) => Step::Order,
        Some(_) if renewal.is_none_or(|renewal| now_ms >= renewal.ask_ms) => Step::AskRenewal,
        Some(_) => Step::Wait,
    }
}

/// Returns when a certificate is renewed: when the authority says, or else when a third of its lifetime is
/// left. At a tenth it is renewed whatever the authority says. It is never renewed soon after it was obtained: a
/// clock that is wrong would order one certificate after the other.
pub(super) fn due_ms(validity: Validity, renewal: Option<Renewal>) -> u64 {
    let Validity {
        from_ms,
        until_ms,
        obtained_ms,
    } = validity;
    let lifetime_ms = until_ms.saturating_sub(from_ms);
    let usual_ms = until_ms.saturating_sub(lifetime_ms / 3);
    let last_ms = until_ms.saturating_sub(lifetime_ms / 10);
    let said_ms = renewal.and_then(|renewal| renewal.at_ms);
    let wanted_ms = said_ms.map_or(usual_ms, |said_ms| said_ms.min(last_ms));
    wanted_ms.max(obtained_ms.saturating_add(SOON_MS.min(lifetime_ms / 3)))
}

/// Returns the failure of an attempt after an earlier one. `is_counted` tells whether the authority has
/// counted it.
pub(super) fn after_failure(
    now_ms: u64,
    before: Option<&FailedAttempt>,
    is_counted: bool,
    why: String,
) -> FailedAttempt {
    let earlier = before.map_or(0, |before| before.failures);
    let place = (earlier as usize).min(COUNTED_MS.len() - 1);
    let delay_ms = match is_counted {
        true => COUNTED_MS[place],
        false => (UNCOUNTED_MS << earlier.min(16)).min(UNCOUNTED_MAX_MS),
    };
    FailedAttempt {
        failures: earlier.saturating_add(1),
        next_ms: now_ms + delay_ms,
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;
    const VALID: Validity = Validity {
        from_ms: 0,
        until_ms: 90 * DAY_MS,
        obtained_ms: 0,
    };

    fn renewal(at_ms: Option<u64>) -> Option<Renewal> {
        let ask_ms = 1_000 * DAY_MS;
        Some(Renewal { at_ms, ask_ms })
    }

    #[test]
    fn certificate_is_renewed_in_time() {
        let day = |day: u64, said: Option<u64>| {
            let said = renewal(said.map(|day| day * DAY_MS));
            step(day * DAY_MS, Some(VALID), said, None)
        };
        assert_eq!(step(0, None, None, None), Step::Order);
        assert_eq!(day(0, None), Step::Wait);
        assert_eq!(day(59, None), Step::Wait);
        assert_eq!(day(60, None), Step::Order);
        assert_eq!(day(100, None), Step::Order, "it has expired");
        // The authority may want it earlier, as after an incident, or somewhat later.
        assert_eq!(day(3, Some(2)), Step::Order);
        assert_eq!(day(0, Some(0)), Step::Wait);
        assert_eq!(day(70, Some(75)), Step::Wait);
        assert_eq!(day(75, Some(75)), Step::Order);
        assert_eq!(day(81, Some(89)), Step::Order);
        assert_eq!(day(80, Some(89)), Step::Wait);
    }

    #[test]
    fn clock_that_is_wrong_orders_two_certificates_a_day() {
        // By this clock the certificate expired before it was obtained.
        let validity = Validity {
            obtained_ms: 400 * DAY_MS,
            ..VALID
        };
        let at = |ms: u64| step(400 * DAY_MS + ms, Some(validity), renewal(None), None);
        assert_eq!(at(0), Step::Wait);
        assert_eq!(at(SOON_MS - 1), Step::Wait);
        assert_eq!(at(SOON_MS), Step::Order);
        // Those that live for less are renewed sooner.
        let validity = Validity {
            until_ms: 60_000,
            ..VALID
        };
        assert_eq!(due_ms(validity, None), 40_000);
        assert_eq!(due_ms(validity, renewal(Some(1_000))), 20_000);
    }

    #[test]
    fn authority_is_asked_when_it_wants_to_be() {
        let asked = |ask_ms| {
            Some(Renewal {
                at_ms: None,
                ask_ms,
            })
        };
        assert_eq!(step(5, Some(VALID), None, None), Step::AskRenewal);
        assert_eq!(step(5, Some(VALID), asked(5), None), Step::AskRenewal);
        assert_eq!(step(5, Some(VALID), asked(6), None), Step::Wait);
    }

    #[test]
    fn failures_are_repeated_less_and_less_often() {
        let mut failed: Option<FailedAttempt> = None;
        let mut now_ms = 0;
        let mut counted = Vec::new();
        for _ in 0..7 {
            let next = after_failure(now_ms, failed.as_ref(), true, String::new());
            assert_eq!(step(next.next_ms - 1, None, None, Some(&next)), Step::Wait);
            assert_eq!(step(next.next_ms, None, None, Some(&next)), Step::Order);
            now_ms = next.next_ms;
            counted.push(now_ms);
            failed = Some(next);
        }
        let in_an_hour = counted.iter().filter(|&&at_ms| at_ms < 60 * MINUTE_MS);
        assert_eq!(1 + in_an_hour.count(), 5, "{counted:?}");
        assert_eq!(counted[6] - counted[5], 60 * MINUTE_MS);
        let late = |failures| {
            let before = FailedAttempt {
                failures,
                next_ms: 0,
                why: String::new(),
            };
            after_failure(0, Some(&before), false, String::new()).next_ms
        };
        assert_eq!([late(0), late(1), late(2)], [2_000, 4_000, 8_000]);
        assert_eq!([late(20), late(u32::MAX)], [300_000, 300_000]);
    }
}
