//! The facts that are journaled: what was answered to whom, under which plan.
//!
//! A [`Record`] names experiments, groups and metrics by their place in a [`Declaration`], and
//! the journal keeps each declaration before the first record that refers to it. So a journal
//! can be folded long after the file that it was written under has changed.

use super::assign::{Share, Weight};
use super::metric::{MetricGoal, MetricKind, Observation};
use super::{EpochDigest, ExperimentIndex, GroupIndex, UserId};

/// Everything a store must know to fold the records of one plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Declaration {
    /// Names this declaration in its journal: equal declarations have equal digests.
    pub digest: u64,
    /// In the order of the plan, promoted experiments included (they have no records).
    pub experiments: Vec<DeclaredExperiment>,
    /// In the order of the plan.
    pub metrics: Vec<DeclaredMetric>,
}

/// One experiment as the store keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredExperiment {
    /// Its name: with the group's and metric's names, the key of all its counts.
    pub name: String,
    /// The epoch that its records belong to.
    pub epoch: EpochDigest,
    /// The share of eligible users that takes part.
    pub traffic: Share,
    /// In file order.
    pub groups: Vec<DeclaredGroup>,
    /// Indexes into the declaration's metrics: those that judge this experiment.
    pub metrics: Vec<usize>,
    /// Whether it is running; a promoted experiment takes no more events.
    pub running: bool,
}

/// One group as the store keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredGroup {
    /// Its name.
    pub name: String,
    /// Its weight in this epoch.
    pub weight: Weight,
}

/// One metric as the store keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredMetric {
    /// Its name.
    pub name: String,
    /// How users become a rate.
    pub kind: MetricKind,
    /// Which direction is better.
    pub goal: MetricGoal,
    /// Decimal places of its sums.
    pub scale: u8,
    /// The attribution window, in milliseconds after first exposure.
    pub within_ms: Option<u64>,
}

/// One answered request.
#[derive(Clone, Debug, PartialEq)]
pub struct Record<'a> {
    /// When the answer's head was ready, in Unix milliseconds.
    pub at_ms: u64,
    /// Who asked.
    pub user: UserId<'a>,
    /// The digest of the declaration that the indexes below refer to.
    pub declaration: u64,
    /// The answer's status.
    pub status: u16,
    /// From the request's head to the answer's, in microseconds.
    pub latency_us: u64,
    /// The experiments that the user was inside of on this request. Empty when the request
    /// matched none and is recorded for its events alone.
    pub exposures: &'a [Exposure],
    /// Which segments the user is in: see [`super::segment::describe`]. Empty without exposures.
    pub segments: &'a str,
    /// What the answer counted for.
    pub observations: &'a [Observation],
    /// The minted ID that came with `user`, which is a known one: evidence that both are one
    /// person's. Never an ID that a client can choose.
    pub minted: Option<UserId<'a>>,
}

/// That a user was in a group of an experiment on one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// Which experiment of the declaration.
    pub experiment: ExperimentIndex,
    /// Which group of that experiment.
    pub group: GroupIndex,
    /// Whose answer it was.
    pub served: Served,
}

/// Whose answer a user in a group was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Served {
    /// The group's own: it counts.
    Own,
    /// Control's, because the group's upstream could not serve: it says nothing about the group
    /// and is counted apart.
    Fallback,
    /// The group's, because a QA override asked for it: neither it nor its events count.
    Override,
    /// The group's own, which was recorded when its head came, and which did not reach its end: the
    /// upstream broke off, or the client left. Counted apart.
    Unfinished,
}
