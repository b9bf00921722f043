//! When a verdict may be given: after whole weeks, because days of the week differ.

use super::input::Question;

const DAY_MS: u64 = 24 * 3_600_000;
const WEEK_MS: u64 = 7 * DAY_MS;

/// Whether a verdict may be given now that was not given before. With a shortest duration of a
/// week or more that is so within a day after whole weeks, and at any time after a shorter one.
pub fn is_due(question: &Question) -> bool {
    due_ms(question).is_some_and(|due_ms| due_ms <= question.now_ms)
}

/// From when on a verdict may be given that is not given yet, in Unix milliseconds; in the past
/// while it may be. `None` before the first user.
pub fn due_ms(question: &Question) -> Option<u64> {
    let start_ms = question.started_at_ms?;
    let shortest_ms = question.min_duration_ms;
    if shortest_ms < WEEK_MS {
        return Some(start_ms.saturating_add(shortest_ms));
    }
    let first = shortest_ms.div_ceil(WEEK_MS);
    let elapsed_ms = question.now_ms.saturating_sub(start_ms);
    let over = elapsed_ms / WEEK_MS;
    let is_just_over = elapsed_ms - over * WEEK_MS <= DAY_MS;
    let weeks = first.max(if is_just_over { over } else { over + 1 });
    Some(start_ms.saturating_add(weeks.saturating_mul(WEEK_MS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(shortest_days: u64, now_hours: u64, due_days: u64) {
        let question = Question {
            started_at_ms: Some(5),
            now_ms: 5 + now_hours * 3_600_000,
            min_duration_ms: shortest_days * DAY_MS,
            ..Question::default()
        };
        assert_eq!(due_ms(&question), Some(5 + due_days * DAY_MS));
        assert_eq!(is_due(&question), due_days * 24 <= now_hours);
    }

    #[test]
    fn verdicts_come_after_whole_weeks() {
        check(7, 0, 7);
        check(7, 7 * 24 - 1, 7);
        check(7, 7 * 24, 7);
        check(7, 8 * 24, 7);
        check(7, 8 * 24 + 1, 14);
        check(7, 14 * 24 + 3, 14);
        check(10, 9 * 24, 14);
        check(10, 14 * 24, 14);
        check(14, 8 * 24, 14);
    }

    #[test]
    fn shorter_durations_know_no_weeks() {
        check(0, 0, 0);
        check(2, 24, 2);
        check(2, 10 * 24, 2);
    }
}
