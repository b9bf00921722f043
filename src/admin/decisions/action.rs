//! The actions on an experiment. PURE.

use crate::store::decisions::DecidedState;
use utoipa::ToSchema;

/// An action on an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "lowercase")]
pub(crate) enum Action {
    /// All matching users get control, for now.
    Pause,
    /// The experiment splits again.
    Resume,
    /// All matching users get one group's version.
    Promote,
    /// All matching users get control because the other versions were not good.
    Rollback,
}

impl Action {
    /// Returns the name in paths and in the audit log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Action::Pause => "pause",
            Action::Resume => "resume",
            Action::Promote => "promote",
            Action::Rollback => "rollback",
        }
    }

    /// Returns the action of this name, if there is one.
    pub(crate) fn named(name: &str) -> Option<Action> {
        let all = [
            Action::Pause,
            Action::Resume,
            Action::Promote,
            Action::Rollback,
        ];
        all.into_iter().find(|action| action.name() == name)
    }

    /// Returns the state of an experiment after this action.
    pub(crate) fn state(self) -> DecidedState {
        match self {
            Action::Pause => DecidedState::Paused,
            Action::Resume => DecidedState::Running,
            Action::Promote => DecidedState::Promoted,
            Action::Rollback => DecidedState::RolledBack,
        }
    }
}
