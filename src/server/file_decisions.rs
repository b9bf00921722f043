//! Decisions that follow from the routes file: a promotion or a ramp that it ends, and planned times that pass.
//! The store keeps each once, whatever the number of replicas.

use crate::admin::record_decision;
use crate::config::plan::Plan;
use crate::experiment::{Experiment, Lifecycle};
use crate::store::decisions::{
    AuditEntry, BY_FILE, DecidedBy, DecidedState, RampPosition, StandingDecision,
    StandingDecisions, StoredDefinitions,
};
use crate::store::{Store, StoreError};

/// A decision of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct FileDecision {
    /// The time of the decision that stood before, in Unix milliseconds; 0 for none.
    before_ms: u64,
    next: StandingDecision,
    entry: AuditEntry,
}

impl FileDecision {
    /// A promotion ends, because the file has another experiment of its name again.
    pub fn end_of_promotion(name: &str, before: &StandingDecision, now_ms: u64) -> FileDecision {
        let next = StandingDecision {
            state: DecidedState::Running,
            group: None,
            ramp: None,
            ..before.clone()
        };
        let from = format!("promoted {}", before.group.as_deref().unwrap_or_default());
        let reason = "the file has another experiment of this name";
        FileDecision::new((name, "resume"), before.at_ms, next, now_ms).with_states(
            from,
            "running",
            Some(reason),
        )
    }

    /// A ramp ends, because it is no longer in the file.
    pub fn end_of_ramp(
        name: &str,
        before: &StandingDecision,
        position: &RampPosition,
        now_ms: u64,
    ) -> FileDecision {
        let next = StandingDecision {
            ramp: None,
            ..before.clone()
        };
        let reason = "the ramp is no longer in the file; a new one begins with its first step";
        FileDecision::new((name, "ramp"), before.at_ms, next, now_ms).with_states(
            position.percent(),
            "no ramp",
            Some(reason),
        )
    }

    /// A decision that the store has lost is stored again.
    pub fn restored(
        name: &str,
        before: Option<&StandingDecision>,
        lost: &StandingDecision,
    ) -> FileDecision {
        let word = |it: &StandingDecision| match (it.state, it.group.as_deref()) {
            (DecidedState::Running, _) => "running".to_owned(),
            (DecidedState::Paused, _) => "paused".to_owned(),
            (DecidedState::Promoted, group) => format!("promoted {}", group.unwrap_or_default()),
            (DecidedState::RolledBack, _) => "rolled_back".to_owned(),
        };
        let from = before.map_or("unknown".to_owned(), word);
        let why = format!("the store had lost the decision by {}", lost.by);
        let before_ms = before.map_or(0, |before| before.at_ms);
        let decision = FileDecision::new((name, "restore"), before_ms, lost.clone(), lost.at_ms)
            .with_states(from, &word(lost), Some(&why));
        FileDecision {
            next: lost.clone(),
            entry: AuditEntry {
                by: "watershed".to_owned(),
                source: Some(DecidedBy::Rule),
                ..decision.entry
            },
            ..decision
        }
    }

    fn new(
        (experiment, action): (&str, &str),
        before_ms: u64,
        next: StandingDecision,
        now_ms: u64,
    ) -> FileDecision {
        let at_ms = now_ms.max(before_ms + 1);
        FileDecision {
            before_ms,
            next: StandingDecision {
                at_ms,
                by: BY_FILE.to_owned(),
                ..next
            },
            entry: AuditEntry {
                source: Some(DecidedBy::File),
                experiment: experiment.to_owned(),
                action: action.to_owned(),
                from: String::new(),
                to: String::new(),
                at_ms,
                by: BY_FILE.to_owned(),
                reason: None,
            },
        }
    }

    fn with_states(mut self, from: String, to: &str, reason: Option<&str>) -> FileDecision {
        self.entry.from = from;
        self.entry.to = to.to_owned();
        self.entry.reason = reason.map(str::to_owned);
        self
    }

    /// The experiment, and what stands for it then.
    pub fn into_standing(self) -> (String, StandingDecision) {
        (self.entry.experiment, self.next)
    }

    /// Stores it, and returns whether it is stored: if somebody else has decided meanwhile, that stands.
    pub async fn record(&self, store: &dyn Store) -> Result<bool, StoreError> {
        record_decision(store, self.before_ms, &self.next, &self.entry).await
    }
}

/// Planned starts and ends that have passed since the file said so, and that the store does not know of.
pub(super) fn passed_times(
    plan: &Plan,
    known: (&StandingDecisions, &StoredDefinitions),
    now_ms: u64,
) -> Vec<FileDecision> {
    let experiments = plan.experiments.iter();
    let passed = experiments.filter_map(|experiment| passed_time(experiment, known, now_ms));
    passed.collect()
}

fn passed_time(
    experiment: &Experiment,
    (decisions, definitions): (&StandingDecisions, &StoredDefinitions),
    now_ms: u64,
) -> Option<FileDecision> {
    let name = &*experiment.name;
    let defined_ms = definitions.get(name)?.at_ms;
    let standing = decisions.get(name);
    let own = standing.filter(|it| it.salt == *experiment.salt);
    if experiment.ended_by_file || own.is_some_and(|it| it.state != DecidedState::Running) {
        return None;
    }
    let schedule = experiment.schedule;
    let does = schedule.at(now_ms);
    let (at_ms, action, from) = match does {
        Lifecycle::Running => (schedule.start_ms?, "start", Lifecycle::Scheduled),
        Lifecycle::Ended => (schedule.end_ms?, "end", Lifecycle::Running),
        _ => return None,
    };
    let is_known = own.is_some_and(|it| it.planned_ms >= at_ms);
    if at_ms <= defined_ms || is_known {
        return None;
    }
    let before_ms = standing.map_or(0, |it| it.at_ms);
    let next = StandingDecision {
        planned_ms: at_ms,
        ..StandingDecision::running(&experiment.salt, standing, at_ms, BY_FILE)
    };
    let decision = FileDecision::new((name, action), before_ms, next, at_ms);
    Some(decision.with_states(from.name().to_owned(), does.name(), None))
}
