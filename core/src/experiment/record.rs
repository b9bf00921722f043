//! The records that are journaled: the response to a user, under one plan.
//!
//! A [`Record`] refers to experiments, groups and metrics by their index in a [`Declaration`], and the
//! journal has each declaration before the first record that refers to it. So a journal can be ingested
//! long after its plan has changed.

use super::assign::{Share, Weight};
use super::metric::{MetricGoal, MetricKind, Observation};
use super::not_counted::NotCounted;
use super::{EpochDigest, ExperimentIndex, GroupIndex, UserId};

/// What ingestion must know to aggregate the records of one plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Declaration {
    /// Identifies this declaration in its journal: equal declarations have equal digests.
    pub digest: u64,
    /// In the order of the plan, promoted experiments included (they have no records).
    pub experiments: Vec<DeclaredExperiment>,
    /// In the order of the plan.
    pub metrics: Vec<DeclaredMetric>,
}

/// One experiment of a declaration.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredExperiment {
    /// Its name. With the names of groups and metrics, it is the key of all its counts.
    pub name: String,
    /// The epoch of its records.
    pub epoch: EpochDigest,
    /// The share of eligible users who take part.
    pub traffic: Share,
    /// In file order.
    pub groups: Vec<DeclaredGroup>,
    /// The indices of its metrics in the declaration.
    pub metrics: Vec<usize>,
    /// Whether it is running. A promoted experiment accepts no more events.
    pub running: bool,
    /// What is hashed with users' IDs; `None` in journals of version 0.1.
    pub salt: Option<String>,
    /// The name of what is divided; `None` for users.
    pub unit: Option<String>,
}

/// One group of a declaration.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredGroup {
    /// Its name.
    pub name: String,
    /// Its weight in this epoch.
    pub weight: Weight,
    /// The name of its upstream, empty for none; `None` in journals of version 0.1.
    pub upstream: Option<String>,
}

/// One metric of a declaration.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredMetric {
    /// Its name.
    pub name: String,
    /// How users become a rate.
    pub kind: MetricKind,
    /// Which direction is better.
    pub goal: MetricGoal,
    /// The decimal places of its sums.
    pub scale: u8,
    /// The conversion window, in milliseconds after the first exposure.
    pub within_ms: Option<u64>,
    /// How much of one user's sum counts, in units of 10^-scale.
    pub cap: Option<i64>,
    /// For how long before the first exposure events are kept as a covariate, in milliseconds.
    pub covariate_ms: Option<u64>,
    /// What it counts, in one line: with another definition another series begins. `None` for harm
    /// that the proxy sees, and in journals of version 0.1.
    pub definition: Option<String>,
}

/// The record of one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Record<'a> {
    /// When the head of the response was ready, in Unix milliseconds.
    pub at_ms: u64,
    /// The user.
    pub user: UserId<'a>,
    /// The digest of the declaration that the indices below refer to.
    pub declaration: u64,
    /// The status of the response.
    pub status: u16,
    /// The time from the head of the request to the head of the response, in microseconds.
    pub latency_us: u64,
    /// The exposures of this request. Empty if the request matched no experiment and is recorded only for
    /// its events.
    pub exposures: &'a [Exposure],
    /// The user's segments: see [`super::segment::describe`]. Empty without exposures.
    pub segments: &'a str,
    /// The observations of metrics.
    pub observations: &'a [Observation],
    /// The minted ID that came with `user`, which is a known ID: both belong to one person. It is never an
    /// ID that a client can choose.
    pub minted: Option<UserId<'a>>,
    /// Whether the response gives the client this ID for the first time. Whether the client keeps it is not
    /// known, so it counts once it comes back.
    pub is_new: bool,
    /// The name of what `user` is the ID of, and only experiments that divide it are concerned; empty for
    /// a user.
    pub unit: &'a str,
}

impl<'a> Record<'a> {
    /// A record of nothing but its user and time; the rest is added.
    pub fn new(at_ms: u64, user: UserId<'a>, declaration: u64) -> Record<'a> {
        Record {
            at_ms,
            user,
            declaration,
            status: 0,
            latency_us: 0,
            exposures: &[],
            segments: "",
            observations: &[],
            minted: None,
            is_new: false,
            unit: "",
        }
    }
}

/// The exposure of a user to a group on one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// The experiment, by its index in the declaration.
    pub experiment: ExperimentIndex,
    /// The group, by its index in the experiment.
    pub group: GroupIndex,
    /// Which version served it.
    pub served: Served,
    /// The epoch that put the user into the group, where it is another one than the declaration's.
    pub epoch: Option<EpochDigest>,
}

/// Which version served a user in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Served {
    /// The group's version: the exposure counts.
    Own,
    /// Control's version, because the group's upstream was unavailable. It is counted separately.
    Fallback,
    /// The group's version by a QA override: neither the exposure nor its events count.
    Override,
    /// The group's version, recorded when its head came, but aborted by the upstream or the client. It is
    /// counted separately.
    Unfinished,
    /// A request that is served but belongs to no user who is counted. It is counted separately; the group
    /// is control, and the record's user means nothing.
    NotCounted(NotCounted),
}
