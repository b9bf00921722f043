//! The life of an experiment: drafted, scheduled, widened in steps, ended.

use super::admission::LayerShare;
use super::assign::Share;
use super::metric_definition::duration;

/// What an experiment does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// The file marks it as a draft: nobody is in a group.
    Draft,
    /// Nobody is in a group before the planned start.
    Scheduled,
    /// Users are split between its groups.
    Running,
    /// Everybody gets control until it is resumed.
    Paused,
    /// Everybody gets one group's version.
    Promoted,
    /// Everybody gets control for good.
    RolledBack,
    /// Nobody is in a group after the planned end.
    Ended,
}

impl Lifecycle {
    /// All of them.
    pub const ALL: [Lifecycle; 7] = [
        Lifecycle::Draft,
        Lifecycle::Scheduled,
        Lifecycle::Running,
        Lifecycle::Paused,
        Lifecycle::Promoted,
        Lifecycle::RolledBack,
        Lifecycle::Ended,
    ];

    /// Returns the name that results use.
    pub fn name(self) -> &'static str {
        match self {
            Lifecycle::Draft => "draft",
            Lifecycle::Scheduled => "scheduled",
            Lifecycle::Running => "running",
            Lifecycle::Paused => "paused",
            Lifecycle::Promoted => "promoted",
            Lifecycle::RolledBack => "rolled_back",
            Lifecycle::Ended => "ended",
        }
    }

    /// Whether the file admits nobody now: all matching users get control's version unless another experiment
    /// chooses for them.
    pub fn admits_nobody(self) -> bool {
        match self {
            Lifecycle::Draft | Lifecycle::Scheduled | Lifecycle::Ended => true,
            Lifecycle::Running
            | Lifecycle::Paused
            | Lifecycle::Promoted
            | Lifecycle::RolledBack => false,
        }
    }
}

/// When the file lets an experiment run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Whether it is a draft, whatever the time is.
    pub is_draft: bool,
    /// Its start, in Unix milliseconds; `None` starts at once.
    pub start_ms: Option<u64>,
    /// Its end, in Unix milliseconds, later than its start.
    pub end_ms: Option<u64>,
}

impl Schedule {
    /// Returns what the experiment does at this time unless a decision says something else.
    pub fn at(&self, now_ms: u64) -> Lifecycle {
        if self.is_draft {
            Lifecycle::Draft
        } else if self.end_ms.is_some_and(|end_ms| end_ms <= now_ms) {
            Lifecycle::Ended
        } else if self.start_ms.is_some_and(|start_ms| now_ms < start_ms) {
            Lifecycle::Scheduled
        } else {
            Lifecycle::Running
        }
    }

    /// Returns the next time at which that changes, in Unix milliseconds.
    pub fn next_change_ms(&self, now_ms: u64) -> Option<u64> {
        let mut changes = [self.start_ms, self.end_ms].into_iter().flatten();
        changes.find(|change_ms| *change_ms > now_ms && !self.is_draft)
    }
}

/// What people should know of an experiment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// What is tried.
    pub description: Option<Box<str>>,
    /// Who answers for it.
    pub owner: Option<Box<str>>,
    /// What is expected, and why.
    pub hypothesis: Option<Box<str>>,
    /// The address of a page about it.
    pub link: Option<Box<str>>,
}

/// Steps in which an experiment admits more and more users.
#[derive(Clone, Debug)]
pub struct Ramp {
    /// At least one; each admits more users than the one before.
    pub steps: Box<[RampStep]>,
    /// What an alarm does.
    pub on_alarm: OnAlarm,
}

/// One step of a ramp.
#[derive(Clone, Debug)]
pub struct RampStep {
    /// The share of matching users who are admitted.
    pub share: Share,
    /// How long it lasts, in milliseconds; `None` for the last step, which stays.
    pub for_ms: Option<u64>,
    /// In a layer: the slots of this share.
    pub layer: Option<LayerShare>,
}

/// What becomes of a ramp when a guardrail, the sample ratio or the data gives an alarm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnAlarm {
    /// It stays at its step.
    #[default]
    Hold,
    /// The experiment is rolled back.
    Rollback,
}

impl OnAlarm {
    /// As the file and results write it.
    pub fn word(self) -> &'static str {
        match self {
            OnAlarm::Hold => "hold",
            OnAlarm::Rollback => "rollback",
        }
    }
}

impl Ramp {
    /// Returns the place of the step that admits this share: the same one or, if the file has changed since, the
    /// narrowest one that keeps everybody inside, or the widest.
    pub fn step_of(&self, share: f64) -> usize {
        let reaches = |step: &RampStep| step.share.get() + 1e-9 >= share;
        let place = self.steps.iter().position(reaches);
        place.unwrap_or(self.steps.len().saturating_sub(1))
    }

    /// As the file writes it, such as `1% for 1h, 50%`.
    pub fn text(&self) -> String {
        let steps: Vec<String> = self.steps.iter().map(RampStep::text).collect();
        steps.join(", ")
    }
}

impl RampStep {
    /// As the file writes it, such as `1% for 1h`.
    pub fn text(&self) -> String {
        let percent = (self.share.get() * 1e8).round() / 1e6;
        match self.for_ms {
            Some(ms) => format!("{percent}% for {}", duration(ms)),
            None => format!("{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedule_says_what_runs_and_when_that_changes() {
        let schedule = Schedule {
            is_draft: false,
            start_ms: Some(10),
            end_ms: Some(20),
        };
        for (now_ms, does, next) in [
            (9, Lifecycle::Scheduled, Some(10)),
            (10, Lifecycle::Running, Some(20)),
            (19, Lifecycle::Running, Some(20)),
            (20, Lifecycle::Ended, None),
        ] {
            assert_eq!(schedule.at(now_ms), does, "{now_ms}");
            assert_eq!(schedule.next_change_ms(now_ms), next, "{now_ms}");
        }
        let draft = Schedule {
            is_draft: true,
            ..schedule
        };
        assert_eq!(draft.at(15), Lifecycle::Draft);
        assert_eq!(draft.next_change_ms(5), None);
    }

    #[test]
    fn changed_ramp_keeps_everybody_inside() {
        let step = |percent: f64| RampStep {
            share: Share::new(percent / 100.0).unwrap(),
            for_ms: (percent < 50.0).then_some(3_600_000),
            layer: None,
        };
        let ramp = Ramp {
            steps: [1.0, 10.0, 50.0].map(step).into(),
            on_alarm: OnAlarm::Hold,
        };
        assert_eq!(ramp.text(), "1% for 1h, 10% for 1h, 50%");
        for (share, place) in [(0.0, 0), (0.01, 0), (0.02, 1), (0.1, 1), (0.5, 2), (0.9, 2)] {
            assert_eq!(ramp.step_of(share), place, "{share}");
        }
    }
}
