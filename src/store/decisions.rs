//! Decisions of people, or of `act_on` in the file, about experiments; and the audit log.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The latest decision about one experiment. The store keeps it, so that all replicas and every start
/// follow it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StandingDecision {
    /// The state of the experiment.
    pub state: DecidedState,
    /// The group whose version everybody gets, unless the experiment runs.
    pub group: Option<String>,
    /// The salt of the experiment. With another salt, the decision does not apply.
    pub salt: String,
    /// The time, in Unix milliseconds.
    pub at_ms: u64,
    /// Who decided.
    pub by: String,
    /// By group: its weight, where the file leaves weights to what is known of the groups. Empty for those
    /// of the file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<String, f64>,
}

/// The state of an experiment by decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecidedState {
    /// Users are split.
    Running,
    /// Everybody gets control until it is resumed.
    Paused,
    /// Everybody gets one group's version.
    Promoted,
    /// Everybody gets control for good.
    RolledBack,
}

/// The latest decisions by experiment.
pub type StandingDecisions = BTreeMap<String, StandingDecision>;

/// An entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// The experiment; empty for an action on all.
    pub experiment: String,
    /// The action: `pause`, `resume`, `promote`, `rollback`, `allocate`, `reload` or `forget`.
    pub action: String,
    /// The state before, such as `running` or `promoted experiment`.
    pub from: String,
    /// The state after.
    pub to: String,
    /// The time, in Unix milliseconds.
    pub at_ms: u64,
    /// Who decided.
    pub by: String,
    /// The reason, if one was given.
    pub reason: Option<String>,
}

/// The most entries of the audit log; older ones are deleted.
pub const AUDIT_LOG_MAX: usize = 10_000;
