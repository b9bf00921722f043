//! One experiment of the plan: its groups, metrics and lifecycle.

use super::assign::{Share, Split, Weight};
use super::epoch::EpochDigest;
use super::guardrail::Guardrail;
use super::index::{GroupIndex, MetricIndex, UpstreamIndex};
use super::matcher::Matcher;
use super::metric_definition::duration;

/// Which verdicts watershed acts on by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActOn {
    /// Promotes a group that has won.
    pub winner: bool,
    /// Rolls back when every other group is worse than control or does harm.
    pub loser: bool,
}

/// What an experiment does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// Users are split between its groups.
    Running,
    /// Everybody gets control until it is resumed.
    Paused,
    /// Everybody gets one group's version.
    Promoted,
    /// Everybody gets control for good.
    RolledBack,
}

impl Lifecycle {
    /// Returns the name that results use.
    pub fn name(self) -> &'static str {
        match self {
            Lifecycle::Running => "running",
            Lifecycle::Paused => "paused",
            Lifecycle::Promoted => "promoted",
            Lifecycle::RolledBack => "rolled_back",
        }
    }
}

/// A planned end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Horizon {
    /// So many users of all groups.
    Users(u64),
    /// So many milliseconds after the first exposure.
    Time(u64),
}

impl Horizon {
    /// As the file writes it.
    pub fn text(self) -> String {
        match self {
            Horizon::Users(users) => users.to_string(),
            Horizon::Time(ms) => duration(ms),
        }
    }
}

/// One experiment of the plan.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// Its name in the file; unique.
    pub name: Box<str>,
    /// What is hashed with the user's ID; the name unless given.
    pub salt: Box<str>,
    /// Who is eligible.
    pub matcher: Matcher,
    /// The share of eligible users who take part.
    pub traffic: Share,
    /// At least two, in file order, names unique.
    pub groups: Box<[Group]>,
    /// The control group: the others are compared with it.
    pub control: GroupIndex,
    /// The metrics of its verdict, the primary metric first.
    pub metrics: Box<[MetricIndex]>,
    /// Limits on harm. The metric of a guardrail need not be in `metrics`.
    pub guardrails: Box<[Guardrail]>,
    /// The group whose version everybody gets. The experiment is over and records nothing.
    pub winner: Option<GroupIndex>,
    /// What it does now. Every state but `Running` has a `winner`.
    pub lifecycle: Lifecycle,
    /// Whether the file ended it, and not a later decision.
    pub ended_by_file: bool,
    /// Verdicts that watershed acts on by itself.
    pub act_on: ActOn,
    /// Whether visits with a QA override are recorded.
    pub count_overrides: bool,
    /// The time from the first exposure to the earliest verdict, in milliseconds.
    pub min_duration_ms: u64,
    /// The planned end; `None` goes on until there is a verdict.
    pub horizon: Option<Horizon>,
    /// Salt, traffic share and weights, prepared for hashing.
    pub split: Split,
    /// The digest of salt, traffic, groups and weights: names the epoch.
    pub epoch: EpochDigest,
}

impl Experiment {
    /// Whether its groups have upstreams of their own. Otherwise the upstream reads the group from
    /// request headers.
    pub fn chooses_upstream(&self) -> bool {
        self.groups.iter().any(|group| group.upstream.is_some())
    }

    /// Whether every user of a matching request gets the version of one of its groups.
    pub fn admits_all(&self) -> bool {
        self.winner.is_some() || self.traffic == Share::ALL
    }

    /// Finds a group by its name.
    pub fn group_named(&self, name: &str) -> Option<GroupIndex> {
        let place = self.groups.iter().position(|group| &*group.name == name)?;
        Some(GroupIndex(place))
    }
}

/// One group of an experiment.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name in the file; unique in the experiment.
    pub name: Box<str>,
    /// Its share of users, relative to the other groups.
    pub weight: Weight,
    /// The upstream that serves its users; `None` when the upstream reads the group from request
    /// headers.
    pub upstream: Option<UpstreamIndex>,
    /// What people read in place of its name.
    pub label: Option<Box<str>>,
}

impl Group {
    /// What people read.
    pub fn shown(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.name)
    }
}
