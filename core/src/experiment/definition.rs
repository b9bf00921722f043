//! One experiment of the plan: its groups, metrics and lifecycle.

use super::UserId;
use super::admission::Admission;
use super::assign::{Portion, Share, Split, Weight};
use super::epoch::EpochDigest;
use super::guardrail::Guardrail;
use super::http_view::RequestView;
use super::index::{GroupIndex, MetricIndex, UpstreamIndex};
use super::lifecycle::{About, Lifecycle, Ramp, RampStep, Schedule};
use super::matcher::Matcher;
use super::message_edits::GroupAction;
use super::metric_definition::duration;
use super::mirror::{CopyTarget, ExposeRule, Mirror};
use super::units::UnitIndex;
use super::version_rules::{GroupVersions, VersionRules};

/// Which verdicts watershed acts on by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActOn {
    /// Promotes a group that has won.
    pub winner: bool,
    /// Rolls back when every other group is worse than control or does harm.
    pub loser: bool,
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

/// Thompson allocation: weights follow the chance of each group to be the best.
#[derive(Clone, Debug, PartialEq)]
pub struct Thompson {
    /// The least share of a group, 0 to 1.
    pub least: f64,
    /// The time between two changes of weights, in milliseconds.
    pub every_ms: u64,
    /// The weights of the file: those of the start.
    pub first: Box<[Weight]>,
}

/// Who confirms that a winner may be promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmer {
    /// A person, who promotes it.
    Person,
    /// The receiver of a webhook, by its response to the message.
    Webhook,
}

impl Confirmer {
    /// As the file and results write it.
    pub fn word(self) -> &'static str {
        match self {
            Confirmer::Person => "person",
            Confirmer::Webhook => "webhook",
        }
    }
}

/// What becomes of a user who is seen in a second group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Crossover {
    /// The user counts for the group of first exposure.
    #[default]
    First,
    /// The user counts no longer.
    Exclude,
}

impl Crossover {
    /// As the file and results write it.
    pub fn word(self) -> &'static str {
        match self {
            Crossover::First => "first",
            Crossover::Exclude => "exclude",
        }
    }
}

/// One experiment of the plan.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// Its name in the file; unique.
    pub name: Box<str>,
    /// What people should know of it.
    pub about: About,
    /// What names a run and is hashed with the user's ID; the name unless given. Where another vendor's
    /// algorithm splits users, with the algorithm's name before it.
    pub salt: Box<str>,
    /// Whose requests are served by the user's group.
    pub matcher: Matcher,
    /// Which of these requests expose the user.
    pub expose: ExposeRule,
    /// Which of these requests are copied to another version.
    pub mirror: Option<Mirror>,
    /// Who is admitted, besides the traffic share.
    pub admission: Admission,
    /// Whether a cookie keeps users in their groups.
    pub is_sticky: bool,
    /// What is divided; `None` for users.
    pub unit: Option<UnitIndex>,
    /// What becomes of a user who is seen in a second group.
    pub crossover: Crossover,
    /// Users who keep control's version after a promotion.
    pub holdback: Option<Portion>,
    /// How weights follow the counts; `None` where they are fixed.
    pub allocation: Option<Thompson>,
    /// The share of eligible users who take part; with a ramp, that of its step.
    pub traffic: Share,
    /// The steps in which `traffic` grows.
    pub ramp: Option<Ramp>,
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
    /// What it does now. Decided states besides `Running` have a `winner`.
    pub lifecycle: Lifecycle,
    /// When the file lets it run.
    pub schedule: Schedule,
    /// Whether the file ended it, and not a later decision.
    pub ended_by_file: bool,
    /// Whether the file has it no longer, and only its promotion stays in effect.
    pub has_left_file: bool,
    /// How its versions are kept apart.
    pub versions: VersionRules,
    /// Verdicts that watershed acts on by itself.
    pub act_on: ActOn,
    /// Who must agree before a winner is promoted by `act_on`; `None` for nobody.
    pub confirm: Option<Confirmer>,
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

    /// Whether its groups change requests or responses, or redirect.
    pub fn acts(&self) -> bool {
        self.groups.iter().any(|group| group.action.is_some())
    }

    /// Whether a request that matches exposes the user, as far as is known when it comes.
    pub fn exposes<'a>(&self, request: impl RequestView<'a>) -> bool {
        !self.exposes_by_difference() && self.may_expose(request)
    }

    /// Whether a request that matches exposes the user, or may turn out to do so.
    pub fn may_expose<'a>(&self, request: impl RequestView<'a>) -> bool {
        match &self.expose {
            ExposeRule::Every | ExposeRule::Differing => true,
            ExposeRule::Matching(expose) => expose.matches(request),
        }
    }

    /// Whether users are exposed once a copy of a request of theirs was answered differently.
    pub fn exposes_by_difference(&self) -> bool {
        matches!(self.expose, ExposeRule::Differing)
    }

    /// Returns which requests are copied, while the experiment has not ended and is not paused.
    pub fn mirrors(&self) -> Option<&Mirror> {
        let is_on = match self.lifecycle {
            Lifecycle::Draft | Lifecycle::Scheduled | Lifecycle::Running => true,
            Lifecycle::Paused | Lifecycle::Promoted | Lifecycle::RolledBack | Lifecycle::Ended => {
                false
            }
        };
        self.mirror.as_ref().filter(|_| is_on)
    }

    /// Returns where the copy of a request goes that the version of this group has served.
    pub fn copy_target(&self, served: GroupIndex) -> Option<CopyTarget> {
        let mirror = self.mirrors()?;
        if self.groups[served.0].upstream == Some(mirror.to) {
            let other = self.other_version(served).filter(|_| mirror.is_both_ways)?;
            let upstream = self.groups[other.0].upstream?;
            let group = Some(other);
            return Some(CopyTarget { upstream, group });
        }
        let mut groups = self.groups.iter();
        let place = groups.position(|group| group.upstream == Some(mirror.to));
        Some(CopyTarget {
            upstream: mirror.to,
            group: place.map(GroupIndex),
        })
    }

    /// Whether a user keeps control's version although another group has won.
    pub fn holds_back(&self, user: UserId<'_>) -> bool {
        let is_promoted = self.winner.is_some_and(|winner| winner != self.control);
        is_promoted && self.holdback.as_ref().is_some_and(|it| it.has(user))
    }

    /// Whether users are split between its groups now, and counted.
    pub fn is_running(&self) -> bool {
        self.lifecycle == Lifecycle::Running
    }

    /// Whether users get different versions.
    pub fn divides_users(&self) -> bool {
        let admission = &self.admission;
        self.is_running()
            || self.holdback.is_some()
            || admission.holdout.is_some()
            || self.unit.is_some()
    }

    /// Gives the groups these weights, in their order: another epoch.
    pub fn reweigh(&mut self, weights: &[Weight]) {
        for (group, weight) in self.groups.iter_mut().zip(weights) {
            group.weight = *weight;
        }
        self.divide();
    }

    /// Admits the users of one step of its ramp: another epoch.
    pub fn admit(&mut self, step: &RampStep) {
        self.traffic = step.share;
        if step.layer.is_some() {
            self.admission.layer.clone_from(&step.layer);
        }
        self.divide();
    }

    /// Prepares its split for hashing.
    fn divide(&mut self) {
        let parts = || self.groups.iter().map(|group| (&*group.name, group.weight));
        self.split = self.split.changed(&self.salt, self.traffic, parts());
        self.epoch = EpochDigest::of(&self.split.seed(&self.salt), self.traffic, parts());
    }

    /// Whether every user of a matching request gets the version of one of its groups.
    pub fn admits_all(&self) -> bool {
        let admission = &self.admission;
        let is_open = admission.layer.is_none()
            && admission.requires.is_empty()
            && !admission.is_closed
            && self.traffic == Share::ALL
            && self.schedule == Schedule::default();
        let is_for_all = admission.holdout.is_none() && self.unit.is_none();
        is_for_all && (self.winner.is_some() || is_open)
    }

    /// Returns the group whose version stands in for that of another group, which fails.
    pub fn stand_in(&self, failed: GroupIndex) -> Option<GroupIndex> {
        let when_down = &self.versions.when_down;
        self.with_versions(|versions| when_down.stand_in(versions, failed))
    }

    /// Returns the group in whose version is looked for what that of another group does not have.
    pub fn other_version(&self, asked: GroupIndex) -> Option<GroupIndex> {
        self.with_versions(|versions| versions.other(asked))
    }

    /// Whether users get the version of a group now, as those of control always do: a draft, a version that waits for
    /// its start, and one that was rolled back are for nobody without an override.
    fn is_released(&self, group: GroupIndex) -> bool {
        let has_users = || self.traffic.get() > 0.0 && self.groups[group.0].weight.get() > 0.0;
        group == self.control
            || match self.lifecycle {
                Lifecycle::Running => has_users(),
                Lifecycle::Promoted => self.winner == Some(group),
                _ => false,
            }
    }

    fn with_versions<T>(&self, use_them: impl FnOnce(&GroupVersions<'_>) -> T) -> T {
        use_them(&GroupVersions {
            upstream: &|group| self.groups[group.0].upstream,
            is_released: &|group| self.is_released(group),
            groups: self.groups.len(),
            control: self.control,
        })
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
    /// What is different for its users besides the upstream.
    pub action: Option<Box<GroupAction>>,
    /// What people read in place of its name.
    pub label: Option<Box<str>>,
    /// What flag SDKs get; `None` for its name.
    pub value: Option<serde_json::Value>,
}

impl Group {
    /// What people read.
    pub fn shown(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.name)
    }
}
