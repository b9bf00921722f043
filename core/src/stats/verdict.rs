//! A verdict as plain data: the word, the group, and the finding it rests on. The sentences are
//! written where results are shown.

/// The word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not known yet.
    Collecting,
    /// A group is better than control.
    Winner,
    /// Every other group is worse than control, or does harm.
    Loser,
    /// No group differs from control by more than the margin.
    NoDifference,
    /// No group has the planned lift, or a larger one: an end without an effect.
    NoPlannedLift,
    /// The planned end has come, and no group is shown to differ from control.
    Inconclusive,
    /// The data cannot be believed.
    Invalid,
}

/// A verdict that was given: its word, and the group it is about.
pub type Given = (State, Option<usize>);

/// The word and what it rests on. Groups and metrics are named by their place in the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The word.
    pub state: State,
    /// The group it is about.
    pub group: Option<usize>,
    /// Why it is given.
    pub finding: Finding,
    /// Of a winner: other metrics on which it is shown to be worse than control.
    pub harms: Vec<usize>,
}

/// Why a verdict is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A batch of reported events is only partly counted.
    PartialBatch,
    /// The sizes of the groups do not match their weights.
    SampleRatioMismatch,
    /// No user was exposed yet.
    NoUsers,
    /// No metric decides.
    NoMetric,
    /// The group breaches this guardrail.
    Breach {
        /// The guardrail.
        metric: usize,
    },
    /// The group differs from control on the primary metric.
    Effect {
        /// Other groups from which the group cannot be told.
        tied: Vec<usize>,
    },
    /// No group differs by more than the margin.
    WithinMargin,
    /// No group has the planned lift.
    BelowPlannedLift,
    /// Nothing is shown at the planned end.
    PlannedEnd,
    /// The metric that decides is no longer among the metrics.
    PrimaryGone {
        /// Its name.
        metric: String,
    },
    /// Nothing is shown yet.
    Open,
    /// This verdict would be given, were it not too early.
    NotDue(Box<Verdict>),
}

impl Verdict {
    /// No verdict yet.
    pub fn collecting(finding: Finding) -> Verdict {
        Verdict {
            state: State::Collecting,
            group: None,
            finding,
            harms: Vec::new(),
        }
    }
}
