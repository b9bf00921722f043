//! What people (or a rule of the file) decided about experiments, and who decided it when.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What was decided about one experiment. The latest decision is kept in the store, so that all
/// replicas and every start go by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingDecision {
    /// What it is to do.
    pub state: DecidedState,
    /// The group whose version everybody gets, unless it runs.
    pub group: Option<String>,
    /// The experiment's salt. Another salt is another experiment, which nothing was decided about.
    pub salt: String,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// Who.
    pub by: String,
}

/// What an experiment is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecidedState {
    /// Split.
    Running,
    /// Show control to everybody, for now.
    Paused,
    /// Show one group's version to everybody.
    Promoted,
    /// Show control to everybody: the other versions were not good.
    RolledBack,
}

/// By experiment's name.
pub type StandingDecisions = BTreeMap<String, StandingDecision>;

/// One decision, as it is kept for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Which experiment; empty where it is about all.
    pub experiment: String,
    /// What was done: `pause`, `resume`, `promote` or `rollback`; or else `reload` or `forget`.
    pub action: String,
    /// What it did before, such as `running` or `promoted experiment`.
    pub from: String,
    /// What it does since.
    pub to: String,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// Who.
    pub by: String,
    /// Why, if that was said.
    pub reason: Option<String>,
}

/// As many acts are kept, the newest ones.
pub const AUDIT_LOG_MAX: usize = 10_000;
