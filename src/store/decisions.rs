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
    /// The step of the file's ramp, once the first one has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<RampPosition>,
    /// The latest planned start or end that is recorded as passed, in Unix milliseconds; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub planned_ms: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl StandingDecision {
    /// Makes the decision that an experiment of this salt runs, after `before`, whatever the clock says: its
    /// weights, its step and its planned times stay. Times are in Unix milliseconds.
    pub fn running(
        salt: &str,
        before: Option<&StandingDecision>,
        now_ms: u64,
        by: &str,
    ) -> StandingDecision {
        let own = before.filter(|before| before.salt == salt);
        StandingDecision {
            state: DecidedState::Running,
            group: None,
            salt: salt.to_owned(),
            at_ms: now_ms.max(before.map_or(0, |before| before.at_ms + 1)),
            by: by.to_owned(),
            weights: own.map_or_else(BTreeMap::new, |own| own.weights.clone()),
            ramp: own.and_then(|own| own.ramp.clone()),
            planned_ms: own.map_or(0, |own| own.planned_ms),
        }
    }
}

/// Where an experiment is on its ramp. It names no step, so that a file with other steps can go on from here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RampPosition {
    /// The share of matching users who are admitted, 0 to 1.
    pub share: f64,
    /// When the step began, in Unix milliseconds.
    pub began_ms: u64,
    /// When it would have begun had the experiment run ever since, in Unix milliseconds.
    pub since_ms: u64,
    /// While the experiment does not run: for how long the step has lasted, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran_ms: Option<u64>,
}

impl RampPosition {
    /// Begins a step.
    pub fn begin(share: f64, now_ms: u64) -> RampPosition {
        RampPosition {
            share,
            began_ms: now_ms,
            since_ms: now_ms,
            ran_ms: None,
        }
    }

    /// The share as the file writes it, such as `12.5%`.
    pub fn percent(&self) -> String {
        format!("{}%", (self.share * 1e8).round() / 1e6)
    }

    /// Stops the time of the step, or lets it go on.
    pub fn when(&self, runs: bool, now_ms: u64) -> RampPosition {
        let ran_ms = self.ran_ms.unwrap_or(now_ms.saturating_sub(self.since_ms));
        RampPosition {
            since_ms: match runs {
                true => now_ms.saturating_sub(ran_ms),
                false => self.since_ms,
            },
            ran_ms: (!runs).then_some(ran_ms),
            ..*self
        }
    }
}

/// What decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecidedBy {
    /// A person or a program of theirs, through the admin API.
    Person,
    /// A rule of the file, such as `act_on` or `ramp`.
    Rule,
    /// The file itself.
    File,
}

impl DecidedBy {
    /// As results write it.
    pub fn word(self) -> &'static str {
        match self {
            DecidedBy::Person => "person",
            DecidedBy::Rule => "rule",
            DecidedBy::File => "file",
        }
    }
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

/// What a routes file said last of one experiment. The store keeps it, so that a promotion stays in effect,
/// and results stay complete, when the experiment leaves the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredDefinition {
    /// The part of the file that the experiment needs, as JSON.
    pub text: String,
    /// When a file said this first, in Unix milliseconds.
    pub at_ms: u64,
    /// When it was missing in the file first, in Unix milliseconds; `None` while it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
    /// Whether `retired` has ended its promotion.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retired: bool,
    /// Whether it had a ramp; `None` where an earlier version of this program stored it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_ramp: Option<bool>,
}

impl StoredDefinition {
    /// Whether a decision was made after the experiment had left the file: while it was there, its `winner` had
    /// precedence.
    pub fn precedes(&self, decision: &StandingDecision) -> bool {
        self.left_ms
            .is_some_and(|left_ms| decision.at_ms >= left_ms)
    }
}

/// Who decides what follows from the routes file.
pub const BY_FILE: &str = "the routes file";

/// Definitions by experiment.
pub type StoredDefinitions = BTreeMap<String, StoredDefinition>;

/// An entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// The experiment; empty for an action on all.
    pub experiment: String,
    /// The action: `start`, `end`, `pause`, `resume`, `promote`, `rollback`, `allocate`, `ramp`,
    /// `reload` or `forget`.
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
    /// What decided; `None` in entries of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<DecidedBy>,
}

impl AuditEntry {
    /// Whether it is a reload that loaded a file, which the history has by itself.
    pub fn is_of_loaded_file(&self) -> bool {
        self.action == "reload" && self.to != "refused"
    }

    /// Returns what decided. Earlier versions named rules in `by` alone.
    pub fn decided_by(&self) -> DecidedBy {
        self.source
            .unwrap_or(match self.by.starts_with("watershed (") {
                true => DecidedBy::Rule,
                false => DecidedBy::Person,
            })
    }
}

/// The most entries of the audit log; older ones are deleted.
pub const AUDIT_LOG_MAX: usize = 10_000;
