//! What happened lately: whether an upstream is dead, and how much traffic there is. PURE.

use crate::admin::results::hours::HOUR_MS;
use crate::store::HourTotals;

/// The last hours of an experiment. Vectors are in the order of its groups.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recent {
    /// Answers of this hour and the one before.
    pub groups: Vec<Answers>,
    /// Users who came for the first time within the last day, or since the start if that is less.
    pub users: u64,
    /// How long that is, in milliseconds; above 0.
    pub span_ms: u64,
}

/// A group's answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// All, those that control's upstream gave in its place among them.
    pub answers: u64,
    /// Of those, with a status of 5xx, or given by control's upstream because the group's was
    /// away.
    pub failed: u64,
}

const DAY_HOURS: u64 = 24;
/// The hard stop: this many answers, and this share of them failed.
const DEAD_ANSWERS: u64 = 50;
/// With fewer answers nothing is said of failures.
const FEW_ANSWERS: u64 = 5;
const DEAD_SHARE: f64 = 0.5;
/// No more of control's answers failed: where half of both fail, chance alone makes more than half of one.
const DEAD_SHARE_OF_CONTROL: f64 = 0.25;

impl Recent {
    /// The last hours of these groups. `started_at_ms` is the first exposure, if there was one.
    pub fn of<'a>(
        hours: impl IntoIterator<Item = &'a HourTotals>,
        groups: &[&str],
        started_at_ms: Option<u64>,
        now_ms: u64,
    ) -> Recent {
        let now = now_ms / HOUR_MS;
        let mut recent = Recent {
            groups: vec![Answers::default(); groups.len()],
            users: 0,
            span_ms: 1,
        };
        // Whole hours and the part of this one that is over.
        let day_began = (now.saturating_sub(DAY_HOURS - 1)) * HOUR_MS;
        let began = started_at_ms.map_or(now_ms, |start| start.max(day_began));
        recent.span_ms = now_ms.saturating_sub(began).max(1);
        for hour in hours {
            if hour.hour + DAY_HOURS > now {
                recent.users += hour.totals.users;
            }
            let place = groups.iter().position(|group| *group == hour.group);
            if let Some(place) = place.filter(|_| hour.hour + 1 >= now) {
                let answers = &mut recent.groups[place];
                let fallbacks = hour.totals.fallbacks;
                answers.answers += hour.totals.requests + fallbacks;
                answers.failed += hour.totals.classes[4] + fallbacks;
            }
        }
        recent
    }

    /// Whether most of a group's answers failed, and at most a quarter of control's. No test: a dead
    /// upstream should not wait for statistics.
    pub fn is_dead(&self, group: usize, control: usize) -> bool {
        let of = |group: usize| self.groups.get(group).copied().unwrap_or_default();
        let (own, control_answers) = (of(group), of(control));
        let is_sound = |of: Answers| of.failed as f64 <= DEAD_SHARE_OF_CONTROL * of.answers as f64;
        let mostly = own.answers >= DEAD_ANSWERS && mostly_failed(own.answers, own.failed);
        mostly && (group == control || is_sound(control_answers))
    }

    /// Whether most of a group's answers failed, although they may be few.
    pub fn mostly_fails(&self, group: usize) -> bool {
        let of = self.groups.get(group).copied().unwrap_or_default();
        mostly_failed(of.answers, of.failed)
    }

    /// New users per day at this pace; `None` while nobody came.
    pub fn users_per_day(&self) -> Option<f64> {
        let day_ms = (DAY_HOURS * HOUR_MS) as f64;
        (self.users > 0).then(|| self.users as f64 * day_ms / self.span_ms as f64)
    }
}

/// Whether most of at least a few answers failed.
pub(crate) fn mostly_failed(answers: u64, failed: u64) -> bool {
    answers >= FEW_ANSWERS && failed as f64 > DEAD_SHARE * answers as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::EpochDigest;
    use crate::store::GroupTotals;

    fn hour(hour: u64, group: &str, users: u64, requests: u64, failed: (u64, u64)) -> HourTotals {
        HourTotals {
            hour,
            epoch: EpochDigest(1),
            group: group.to_owned(),
            totals: GroupTotals {
                users,
                requests,
                classes: [0, requests - failed.0, 0, 0, failed.0],
                fallbacks: failed.1,
                ..GroupTotals::default()
            },
        }
    }

    fn recent(hours: &[HourTotals]) -> Recent {
        Recent::of(hours, &["control", "experiment"], Some(0), 100 * HOUR_MS)
    }

    #[test]
    fn a_dead_upstream_is_seen_by_errors_or_by_fallbacks_of_late() {
        let well = hour(100, "control", 9, 60, (1, 0));
        for (own, dead) in [
            (hour(100, "experiment", 9, 60, (31, 0)), true),
            (hour(99, "experiment", 9, 0, (0, 60)), true),
            (hour(98, "experiment", 9, 60, (60, 0)), false),
            (hour(100, "experiment", 9, 60, (30, 0)), false),
            (hour(100, "experiment", 9, 49, (49, 0)), false),
        ] {
            let recent = recent(&[well.clone(), own.clone()]);
            assert_eq!(recent.is_dead(1, 0), dead, "{own:?}");
            let fails = dead || own.totals.requests == 49;
            assert_eq!(recent.mostly_fails(1), fails, "{own:?}");
            assert!(!recent.is_dead(0, 0));
        }
        let both = recent(&[
            hour(100, "control", 9, 60, (60, 0)),
            hour(100, "experiment", 9, 60, (60, 0)),
        ]);
        assert!(both.is_dead(0, 0), "control is dead");
        assert!(!both.is_dead(1, 0), "the experiment cannot be told apart");
        for (failed, dead) in [(29, false), (16, false), (15, true)] {
            let recent = recent(&[
                hour(100, "control", 9, 60, (failed, 0)),
                hour(100, "experiment", 9, 60, (31, 0)),
            ]);
            assert_eq!(recent.is_dead(1, 0), dead, "{failed} of control's 60");
        }
    }

    #[test]
    fn the_pace_is_that_of_the_last_day() {
        let hours = [
            hour(50, "control", 1000, 0, (0, 0)),
            hour(77, "control", 230, 0, (0, 0)),
            hour(99, "experiment", 230, 0, (0, 0)),
        ];
        // 23 whole hours, as this one has just begun.
        assert_eq!(recent(&hours).users_per_day(), Some(480.0));
        assert_eq!(recent(&[]).users_per_day(), None);
        let young = Recent::of(&hours[2..], &[], Some(99 * HOUR_MS), 100 * HOUR_MS);
        assert_eq!(young.users_per_day(), Some(5520.0));
    }
}
