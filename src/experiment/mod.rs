//! The pure core: who the visitor is ([`identity`]), which group ([`assign`]), who is eligible
//! ([`matcher`]), what a response counts as ([`metric`]), what harm it does ([`guardrail`]), what a
//! person may force ([`override_token`]), and the facts that are journaled ([`record`]).
//!
//! Nothing here reads a clock, a file, a socket or a random number: those are arguments.
//! Start with [`resolve::resolve`], the one question that the proxy asks.

pub mod assign;
pub mod client_event;
pub mod consent;
pub mod decimal;
pub mod event;
pub mod guardrail;
pub mod http_view;
pub mod identity;
pub mod key_ring;
pub mod match_index;
pub mod matcher;
pub mod metric;
pub mod minted;
pub mod override_token;
pub mod record;
pub mod resolve;

use assign::{Share, Split, Weight};
use guardrail::Guardrail;
use matcher::Matcher;

/// The place of an experiment in the plan's list, in file order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExperimentIndex(pub usize);

/// The place of a group in its experiment's list, in file order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupIndex(pub usize);

/// The place of an upstream in the plan's list, in file order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamIndex(pub usize);

/// The place of a metric in the plan's list, in file order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MetricIndex(pub usize);

/// A user's ID as it came: any bytes, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UserId<'a>(&'a [u8]);

impl<'a> UserId<'a> {
    /// `None` for an empty ID: hashing it would put all visitors without one in one group.
    pub fn new(bytes: &'a [u8]) -> Option<UserId<'a>> {
        (!bytes.is_empty()).then_some(UserId(bytes))
    }

    /// An ID without the spaces and tabs around it. `Watershed-User` cannot carry those, so they
    /// are part of no ID, wherever it is read.
    pub fn trim(bytes: &[u8]) -> &[u8] {
        let is_kept = |byte: &u8| !matches!(byte, b' ' | b'\t');
        let Some(first) = bytes.iter().position(is_kept) else {
            return &[];
        };
        let last = bytes.iter().rposition(is_kept).unwrap_or(first);
        &bytes[first..=last]
    }

    /// The ID's bytes, as they came.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

/// Which verdicts are acted on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActOn {
    /// A group has won: it is promoted.
    pub winner: bool,
    /// Every other group is worse than control, or does harm: rolled back.
    pub loser: bool,
}

/// What an experiment does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// It splits.
    Running,
    /// Control for everybody, for now.
    Paused,
    /// One group's version for everybody.
    Promoted,
    /// Control for everybody: the other versions were not good.
    RolledBack,
}

impl Lifecycle {
    /// As results say it.
    pub fn name(self) -> &'static str {
        match self {
            Lifecycle::Running => "running",
            Lifecycle::Paused => "paused",
            Lifecycle::Promoted => "promoted",
            Lifecycle::RolledBack => "rolled_back",
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
    /// The share of eligible users that takes part.
    pub traffic: Share,
    /// At least two, in file order, names unique.
    pub groups: Box<[Group]>,
    /// The group that the others are compared with.
    pub control: GroupIndex,
    /// The metrics that judge it; its primary one first.
    pub metrics: Box<[MetricIndex]>,
    /// Bounds on harm. A metric that is bounded need not judge too.
    pub guardrails: Box<[Guardrail]>,
    /// The group whose version everybody gets: the experiment is over, recording has stopped.
    pub winner: Option<GroupIndex>,
    /// What it does: anything but `Running` comes with a `winner`.
    pub lifecycle: Lifecycle,
    /// Whether the file says so, and not a decision made since.
    pub ended_by_file: bool,
    /// Verdicts that are acted on without asking.
    pub act_on: ActOn,
    /// Whether visits forced by a QA override are recorded.
    pub count_overrides: bool,
    /// The earliest verdict, in milliseconds after the first exposure.
    pub min_duration_ms: u64,
    /// Salt, traffic and weights made ready to hash.
    pub split: Split,
    /// The digest of salt, traffic, groups and weights: names the epoch.
    pub epoch: EpochDigest,
}

impl Experiment {
    /// Whether its groups have upstreams of their own; otherwise it acts through request headers.
    pub fn chooses_upstream(&self) -> bool {
        self.groups.iter().any(|group| group.upstream.is_some())
    }

    /// The group with this name.
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
    /// Its share relative to its siblings.
    pub weight: Weight,
    /// The version of the site that its users see; `None` when the experiment acts through
    /// request headers only.
    pub upstream: Option<UpstreamIndex>,
}

/// The name of an epoch: a period in which groups, weights and traffic share stay the same.
/// Replicas with the same definition compute the same digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EpochDigest(pub u64);

impl EpochDigest {
    /// The digest of a definition. Weights count relative to their sum, so 50/50 and 1/1 are
    /// the same epoch.
    pub fn of<'a>(
        salt: &str,
        traffic: Share,
        groups: impl IntoIterator<Item = (&'a str, Weight)> + Clone,
    ) -> EpochDigest {
        use std::fmt::Write;
        let sum: f64 = groups
            .clone()
            .into_iter()
            .map(|(_, weight)| weight.get())
            .sum();
        // Lengths stand before texts, so that no two definitions write the same text. Nine
        // digits hold every weight that a person writes and none of the rounding of the sum.
        let mut text = format!("{}:{salt} {:.9}", salt.len(), traffic.get());
        for (name, weight) in groups {
            // Writing to a String cannot fail.
            let _ = write!(text, " {}:{name} {:.9}", name.len(), weight.get() / sum);
        }
        let mut bytes = text.as_bytes();
        // Reading from a slice cannot fail, and the crate adds no error of its own.
        let wide = murmur3::murmur3_x64_128(&mut bytes, 0).unwrap_or_default();
        EpochDigest(wide as u64)
    }
}

impl std::fmt::Display for EpochDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
