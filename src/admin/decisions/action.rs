//! The actions that a person can take on an experiment. PURE.

use crate::store::decisions::DecidedState;
use utoipa::ToSchema;

/// An action on an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Action {
    /// Control for everybody, for now.
    Pause,
    /// Split again.
    Resume,
    /// One group's version for everybody.
    Promote,
    /// Control for everybody, for good.
    Rollback,
}

impl Action {
    /// As paths and acts name it.
    pub fn name(self) -> &'static str {
        match self {
            Action::Pause => "pause",
            Action::Resume => "resume",
            Action::Promote => "promote",
            Action::Rollback => "rollback",
        }
    }

    /// The action of this name.
    pub fn named(name: &str) -> Option<Action> {
        let all = [
            Action::Pause,
            Action::Resume,
            Action::Promote,
            Action::Rollback,
        ];
        all.into_iter().find(|action| action.name() == name)
    }

    /// The lifecycle that an experiment has after it.
    pub fn state(self) -> DecidedState {
        match self {
            Action::Pause => DecidedState::Paused,
            Action::Resume => DecidedState::Running,
            Action::Promote => DecidedState::Promoted,
            Action::Rollback => DecidedState::RolledBack,
        }
    }
}
