//! Decides by health checks whether an endpoint is healthy. PURE.

use crate::config::plan::Health;

/// The state of an endpoint's health checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Checks {
    /// `None` before the first check.
    well: Option<bool>,
    /// Checks in a row with the opposite result.
    against: u32,
}

impl Checks {
    /// Adds a check. Returns whether the endpoint is healthy now. The first check decides alone, so that an
    /// endpoint that is down at the start gets no requests.
    pub(super) fn add(&mut self, good: bool, health: &Health) -> bool {
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
    fn first_check_decides_alone() {
        check("+", "+");
        check("-", "-");
    }

    #[test]
    fn state_changes_after_several_checks_in_a_row() {
        check("+--+--+---", "+++++++++-");
        check("-+-++", "----+");
        check("+---++---", "+++--+++-");
    }
}
