//! Which endpoint is asked next. PURE: the clock is an argument.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How long an endpoint that refused a connection is passed over, unless all others did too.
pub const PAUSE: Duration = Duration::from_secs(1);

/// Failures in a row from which on an endpoint is passed over, and for how long at most.
const FAILURES_MIN: u32 = 3;
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How long an endpoint is passed over after so many failures in a row: twice as long each time.
pub fn pause(failures: u32) -> Option<Duration> {
    let more = failures.checked_sub(FAILURES_MIN)?;
    Some(PAUSE.saturating_mul(1 << more.min(16)).min(PAUSE_MAX))
}

/// How many requests may be given to a second endpoint: one in five, and a few at any time. When
/// every endpoint fails, a second attempt for each request would only double the load.
#[derive(Debug)]
pub struct Budget(Cell<f64>);

const BUDGET_MAX: f64 = 10.0;
const BUDGET_SHARE: f64 = 0.2;

impl Default for Budget {
    fn default() -> Budget {
        Budget(Cell::new(BUDGET_MAX))
    }
}

impl Budget {
    /// A request came.
    pub fn deposit(&self) {
        self.0.set((self.0.get() + BUDGET_SHARE).min(BUDGET_MAX));
    }

    /// Whether one more may be tried again.
    pub fn withdraw(&self) -> bool {
        let may = self.0.get() >= 1.0;
        if may {
            self.0.set(self.0.get() - 1.0);
        }
        may
    }
}

/// The order in which endpoints are tried: round robin from `turn`, those that are up first.
/// `paused_until[i]` is when endpoint `i` may be asked again.
pub fn order(
    paused_until: &[Option<Instant>],
    turn: usize,
    now: Instant,
) -> impl Iterator<Item = usize> + '_ {
    let n = paused_until.len();
    let up = move |&place: &usize| paused_until[place].is_none_or(|until| until <= now);
    let round = move || (0..n).map(move |step| (turn + step) % n);
    round()
        .filter(move |place| up(place))
        .chain(round().filter(move |place| !up(place)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(paused: &[bool], turn: usize, expected: &[usize]) {
        let now = Instant::now();
        let until: Vec<_> = paused
            .iter()
            .map(|&paused| paused.then_some(now + PAUSE))
            .collect();
        assert_eq!(order(&until, turn, now).collect::<Vec<_>>(), expected);
        let later: Vec<_> = order(&until, turn, now + PAUSE).collect();
        assert_eq!(
            later,
            (0..paused.len())
                .map(|step| (turn + step) % paused.len())
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn pauses_grow_and_end() {
        let seconds = |failures| pause(failures).map(|pause| pause.as_secs());
        assert_eq!(seconds(2), None);
        assert_eq!(
            (3..10).map(seconds).collect::<Option<Vec<_>>>(),
            Some(vec![1, 2, 4, 8, 16, 30, 30])
        );
        assert_eq!(seconds(u32::MAX), Some(30));
    }

    #[test]
    fn a_budget_is_a_share_of_what_comes() {
        let budget = Budget::default();
        let spend = || (0..100).filter(|_| budget.withdraw()).count();
        assert_eq!(spend(), 10);
        (0..14).for_each(|_| budget.deposit());
        assert_eq!(spend(), 2);
        (0..1000).for_each(|_| budget.deposit());
        assert_eq!(spend(), 10);
    }

    #[test]
    fn those_that_are_up_come_first_in_turn() {
        check(&[false], 7, &[0]);
        check(&[false, false, false], 1, &[1, 2, 0]);
        check(&[false, true, false], 1, &[2, 0, 1]);
        check(&[true, true], 1, &[1, 0]);
    }
}
