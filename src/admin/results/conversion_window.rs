//! Users whose attribution window is over. A version that only makes people convert sooner has more
//! converted users at any time, and no more in the end: so metrics with a window are judged on these
//! users. PURE.

use crate::admin::results::hours::{HOUR_MS, add};
use crate::store::{ExperimentTotals, HourTotals};

/// What was counted of users who came so long ago that their window is over. Users stand in the hour
/// in which they came, and so does all that they did.
pub(crate) fn over(
    totals: &ExperimentTotals,
    hours: &[HourTotals],
    within_ms: u64,
    now_ms: u64,
) -> ExperimentTotals {
    let mut over = totals.clone();
    for epoch in &mut over.epochs {
        epoch.groups.clear();
    }
    let end_ms = |hour: &HourTotals| (hour.hour + 1).saturating_mul(HOUR_MS);
    let is_over = |hour: &&HourTotals| end_ms(hour).saturating_add(within_ms) <= now_ms;
    for hour in hours.iter().filter(is_over) {
        add(&mut over, hour);
    }
    over
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::EpochDigest;
    use crate::store::{EpochDefinition, EpochTotals, GroupTotals};

    #[test]
    fn users_count_once_their_window_is_over() {
        let users = |users: u64| GroupTotals {
            users,
            ..GroupTotals::default()
        };
        let totals = ExperimentTotals {
            epochs: vec![EpochTotals {
                definition: EpochDefinition {
                    digest: EpochDigest(1),
                    traffic: 1.0,
                    groups: vec![("control".to_owned(), 1.0)],
                    first_ms: 0,
                    series: Vec::new(),
                },
                number: 1,
                groups: [("control".to_owned(), users(111))].into(),
            }],
            ..ExperimentTotals::default()
        };
        let hour = |hour: u64, count: u64| HourTotals {
            hour,
            epoch: EpochDigest(1),
            group: "control".to_owned(),
            totals: users(count),
        };
        let hours = [hour(0, 1), hour(1, 10), hour(5, 100)];
        let at = |now_ms: u64| {
            let over = over(&totals, &hours, 2 * HOUR_MS, now_ms);
            over.epochs[0]
                .groups
                .get("control")
                .map_or(0, |it| it.users)
        };
        let found = [0, 3 * HOUR_MS - 1, 3 * HOUR_MS, 4 * HOUR_MS, 8 * HOUR_MS].map(at);
        assert_eq!(found, [0, 0, 1, 11, 111]);
    }
}
