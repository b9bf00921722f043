//! Load balancing: chooses the endpoint of a request. PURE: turns and random numbers are arguments.

use crate::config::plan::Balance;
use crate::experiment::UserId;
use smallvec::SmallVec;
use std::cell::Cell;
use std::cmp::Reverse;
use std::time::Duration;

/// How long an endpoint that refused a connection is ejected, unless all others are ejected, too.
pub const PAUSE: Duration = Duration::from_secs(1);

/// The number of failures in a row that eject an endpoint, and the longest ejection.
const FAILURES_MIN: u32 = 3;
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Returns how long an endpoint is ejected after a number of failures in a row. The time doubles with each.
pub fn pause(failures: u32) -> Option<Duration> {
    let more = failures.checked_sub(FAILURES_MIN)?;
    Some(PAUSE.saturating_mul(1 << more.min(16)).min(PAUSE_MAX))
}

/// Returns how long an endpoint is ejected after a number of responses with 5xx in a row, if that is at
/// least `errors_max`. The time doubles with each.
pub fn pause_of_errors(errors: u32, errors_max: u32) -> Option<Duration> {
    pause(errors.checked_sub(errors_max)?.saturating_add(FAILURES_MIN))
}

/// The budget of retries: one for five requests, and a few at any time. If every endpoint fails, a retry
/// of each request would only double the load.
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
    /// Adds a request.
    pub fn deposit(&self) {
        self.0.set((self.0.get() + BUDGET_SHARE).min(BUDGET_MAX));
    }

    /// Takes one retry. Returns whether there was one.
    pub fn withdraw(&self) -> bool {
        let may = self.0.get() >= 1.0;
        if may {
            self.0.set(self.0.get() - 1.0);
        }
        may
    }
}

/// Whether an endpoint gets requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// It gets requests.
    Ready,
    /// It is tried after the others: it is ejected, or has no free connection.
    Last,
    /// It gets no requests: its health checks fail.
    Down,
}

/// The properties of an endpoint that decide the choice.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Whether it gets requests.
    pub state: EndpointState,
    /// Its requests in flight.
    pub load: u32,
    /// See [`seed`].
    pub seed: u32,
}

/// The order in which endpoints are tried.
pub type Order = SmallVec<[usize; 8]>;

/// Returns the order in which endpoints are tried: from `turn` on, ready ones first.
///
/// `LeastLoaded` compares the loads of the first ready endpoint and another one by `chance` (the power of
/// two choices: Mitzenmacher, IEEE TPDS 12(10), 2001); with equal loads it takes turns. `User` ranks
/// endpoints by hashes of each with the `user` (rendezvous hashing: Thaler and Ravishankar, 1998), so that
/// only the users of a removed endpoint move; without a user it takes turns.
pub fn order(
    balance: Balance,
    candidates: &[Candidate],
    turn: usize,
    chance: usize,
    user: Option<UserId<'_>>,
) -> Order {
    let n = candidates.len();
    let mut order: Order = (0..n).map(|step| (turn + step) % n).collect();
    if let (Balance::User, Some(user)) = (balance, user) {
        let rank = |&place: &usize| Reverse(hash(user.as_bytes(), candidates[place].seed));
        order.sort_by_cached_key(rank);
    }
    order.retain(|place| candidates[*place].state != EndpointState::Down);
    order.sort_by_key(|&place| candidates[place].state == EndpointState::Last);
    let ready = order
        .iter()
        .take_while(|&&place| candidates[place].state == EndpointState::Ready)
        .count();
    if balance == Balance::LeastLoaded && ready > 1 {
        let other = 1 + chance % (ready - 1);
        if candidates[order[other]].load < candidates[order[0]].load {
            order.swap(0, other);
        }
    }
    order
}

/// Hashes an endpoint for `User`. The result is the same on every replica and after every start.
pub fn seed(address: &str) -> u32 {
    hash(address.as_bytes(), 0)
}

fn hash(mut text: &[u8], seed: u32) -> u32 {
    // Reading from a slice cannot fail.
    murmur3::murmur3_32(&mut text, seed).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: Candidate = Candidate {
        state: EndpointState::Ready,
        load: 0,
        seed: 0,
    };

    fn with(states: &str) -> Vec<Candidate> {
        let state = |letter| match letter {
            'r' => EndpointState::Ready,
            'l' => EndpointState::Last,
            _ => EndpointState::Down,
        };
        let candidate = |letter| Candidate {
            state: state(letter),
            ..READY
        };
        states.chars().map(candidate).collect()
    }

    #[track_caller]
    fn check(states: &str, turn: usize, expected: &[usize]) {
        let order = order(Balance::RoundRobin, &with(states), turn, 0, None);
        assert_eq!(order.as_slice(), expected);
    }

    #[test]
    fn ejections_double_up_to_the_longest() {
        let seconds = |failures| pause(failures).map(|pause| pause.as_secs());
        assert_eq!(seconds(2), None);
        assert_eq!(
            (3..10).map(seconds).collect::<Option<Vec<_>>>(),
            Some(vec![1, 2, 4, 8, 16, 30, 30])
        );
        assert_eq!(seconds(u32::MAX), Some(30));
    }

    #[test]
    fn errors_eject_from_their_limit_on() {
        let seconds = |errors, max| pause_of_errors(errors, max).map(|pause| pause.as_secs());
        let found: Vec<_> = [4, 5, 6, 7, 50].map(|errors| seconds(errors, 5)).into();
        assert_eq!(found, [None, Some(1), Some(2), Some(4), Some(30)]);
        assert_eq!(seconds(1, 1), Some(1));
        assert_eq!(seconds(u32::MAX, 1), Some(30));
    }

    #[test]
    fn retry_budget_is_a_share_of_requests() {
        let budget = Budget::default();
        let spend = || (0..100).filter(|_| budget.withdraw()).count();
        assert_eq!(spend(), 10);
        (0..14).for_each(|_| budget.deposit());
        assert_eq!(spend(), 2);
        (0..1000).for_each(|_| budget.deposit());
        assert_eq!(spend(), 10);
    }

    #[test]
    fn ready_endpoints_come_first_in_turn() {
        check("r", 7, &[0]);
        check("rrr", 1, &[1, 2, 0]);
        check("rlr", 1, &[2, 0, 1]);
        check("ll", 1, &[1, 0]);
        check("rdl", 1, &[0, 2]);
        check("dd", 0, &[]);
    }

    #[test]
    fn less_busy_of_two_is_chosen() {
        let loads = |loads: &[u32]| -> Vec<Candidate> {
            let candidate = |&load| Candidate { load, ..READY };
            loads.iter().map(candidate).collect()
        };
        let first = |all: &[Candidate], turn, chance| {
            order(Balance::LeastLoaded, all, turn, chance, None)[0]
        };
        assert_eq!(first(&loads(&[1, 1, 1]), 1, 5), 1);
        assert_eq!(first(&loads(&[9, 1, 0]), 0, 0), 1);
        assert_eq!(first(&loads(&[9, 1, 0]), 0, 1), 2);
        assert_eq!(first(&loads(&[0, 1, 0]), 0, 0), 0);
        let mut all = loads(&[9, 1, 0]);
        all[2].state = EndpointState::Last;
        assert_eq!(first(&all, 0, 1), 1);
    }

    #[test]
    fn only_users_of_a_removed_endpoint_move() {
        let seeds = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"].map(seed);
        let mut all: Vec<_> = seeds.map(|seed| Candidate { seed, ..READY }).into();
        let users: Vec<_> = (0..3000).map(|number| format!("user-{number}")).collect();
        let homes = |all: &[Candidate]| -> Vec<usize> {
            let home =
                |user: &String| order(Balance::User, all, 0, 0, UserId::new(user.as_bytes()))[0];
            users.iter().map(home).collect()
        };
        let before = homes(&all);
        for place in 0..3 {
            let here = before.iter().filter(|home| **home == place).count();
            assert!((900..1100).contains(&here), "{here} at {place}");
        }
        all[1].state = EndpointState::Down;
        for (before, after) in before.iter().zip(homes(&all)) {
            assert_ne!(after, 1);
            assert!(*before == 1 || *before == after);
        }
    }
}
