//! When an endpoint that is checked is well. PURE.

use crate::config::plan::Health;

/// What checks have said so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    /// `None` before the first check.
    well: Option<bool>,
    /// Checks in a row that said otherwise.
    against: u32,
}

impl Checks {
    /// One more check; whether the endpoint is well now. The first one decides alone: who is down
    /// at the start shall not be asked for three checks.
    pub fn add(&mut self, good: bool, health: &Health) -> bool {
        let well = *self.well.get_or_insert(good);
        if good == well {
            self.against = 0;
            return well;
        }
        self.against += 1;
        let needed = if well {
            health.failures
        } else {
            health.successes
        };
        if self.against >= needed {
            (self.well, self.against) = (Some(good), 0);
        }
        self.well == Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::uri::PathAndQuery;
    use std::time::Duration;

    #[track_caller]
    fn check(checks: &str, expected: &str) {
        let health = Health {
            path: PathAndQuery::from_static("/"),
            host: None,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            status: (200, 299),
            failures: 3,
            successes: 2,
        };
        let mut all = Checks::default();
        let said = |check| {
            if all.add(check == '+', &health) {
                '+'
            } else {
                '-'
            }
        };
        assert_eq!(checks.chars().map(said).collect::<String>(), expected);
    }

    #[test]
    fn the_first_check_decides_alone() {
        check("+", "+");
        check("-", "-");
    }

    #[test]
    fn it_takes_some_in_a_row_to_turn() {
        check("+--+--+---", "+++++++++-");
        check("-+-++", "----+");
        check("+---++---", "+++--+++-");
    }
}
