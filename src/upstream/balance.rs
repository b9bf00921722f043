//! Which endpoint is asked next. PURE: the clock is an argument.

use std::time::{Duration, Instant};

/// How long an endpoint that refused a connection is passed over, unless all others did too.
pub const PAUSE: Duration = Duration::from_secs(1);

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
    fn those_that_are_up_come_first_in_turn() {
        check(&[false], 7, &[0]);
        check(&[false, false, false], 1, &[1, 2, 0]);
        check(&[false, true, false], 1, &[2, 0, 1]);
        check(&[true, true], 1, &[1, 0]);
    }
}
