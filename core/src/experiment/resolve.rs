//! Resolves a request: the user's group in every experiment, and the upstream.

use super::http_view::RequestView;
use super::kept_groups::KeptGroups;
use super::match_index::Experiments;
use super::matcher::Matcher;
use super::override_token::Override;
use super::units::Units;
use super::{
    EpochDigest, Experiment, ExperimentIndex, GroupIndex, Lifecycle, UpstreamIndex, UserId,
};
use smallvec::SmallVec;

/// Who is assigned, and what decides it besides the experiments.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The ID that is hashed.
    pub user: UserId<'a>,
    /// A signed QA override.
    pub forced: Option<&'a Override>,
    /// The groups that the user was in before.
    pub kept: Option<&'a KeptGroups>,
    /// The units of experiments that divide something else than users.
    pub units: Option<&'a Units<'a>>,
}

impl<'a> Subject<'a> {
    /// A user of whom only the ID is known.
    pub fn of(user: UserId<'a>) -> Subject<'a> {
        Subject {
            user,
            forced: None,
            kept: None,
            units: None,
        }
    }

    /// The ID that an experiment hashes; `None` where it divides something that the request does not name.
    fn hashed_by(&self, experiment: &Experiment) -> Option<UserId<'a>> {
        match experiment.unit {
            None => Some(self.user),
            Some(unit) => self.units?.id(unit),
        }
    }
}

/// The membership of a user in one experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// The user is in this group.
    Inside {
        /// The group.
        group: GroupIndex,
        /// The reason.
        by: AssignedBy,
    },
    /// The user takes no part.
    Outside(OutsideReason),
}

/// Why a user is in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssignedBy {
    /// The hash of the user ID.
    Hash,
    /// The user was in this group before, in this epoch.
    Sticky(EpochDigest),
    /// A signed QA override.
    Override,
    /// The file names the user.
    Include,
    /// The experiment is over, and everybody gets this group's version.
    Winner,
    /// The experiment is over, and this user still gets control's version.
    Holdback,
    /// The page that the request belongs to came from this version. The user may be in another group.
    Pinned,
}

impl AssignedBy {
    /// As logs, spans and results write it.
    pub fn word(self) -> &'static str {
        match self {
            AssignedBy::Hash => "hash",
            AssignedBy::Sticky(_) => "sticky",
            AssignedBy::Override => "override",
            AssignedBy::Include => "include",
            AssignedBy::Winner => "winner",
            AssignedBy::Holdback => "holdback",
            AssignedBy::Pinned => "pinned",
        }
    }

    /// Whether chance has chosen the group, so that it can be compared with others.
    pub fn is_random(self) -> bool {
        matches!(self, AssignedBy::Hash | AssignedBy::Sticky(_))
    }

    /// Whether the experiment is over.
    pub fn is_over(self) -> bool {
        matches!(self, AssignedBy::Winner | AssignedBy::Holdback)
    }
}

/// Why a user takes no part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutsideReason {
    /// The request does not match the experiment's conditions.
    NotMatched,
    /// The user is not in the experiment's traffic share.
    OutsideTraffic,
    /// The user is not in the share of the ramp's step.
    Ramp,
    /// The experiment admits nobody now: it is a draft, scheduled, or has ended.
    NotRunning(Lifecycle),
    /// An earlier experiment of the file, or one that the user was in before, has chosen the upstream of
    /// this request.
    AnotherChose(ExperimentIndex),
    /// The user is in the holdout.
    Holdout,
    /// Another experiment of the layer, or none, has the user's slot.
    Layer,
    /// The user is not in the group of this experiment that is required.
    Requires(ExperimentIndex),
    /// Enrolment is closed, and the user was not in a group before.
    Closed,
    /// The request does not name what the experiment divides.
    NoUnit,
}

impl OutsideReason {
    /// Whether the user may be admitted later, and gets control's version until then.
    fn is_for_now(self) -> bool {
        matches!(self, OutsideReason::Ramp | OutsideReason::NotRunning(_))
    }

    /// As `plan` writes it.
    pub fn word(self) -> &'static str {
        match self {
            OutsideReason::NotMatched => "not matched",
            OutsideReason::OutsideTraffic => "traffic",
            OutsideReason::Ramp => "ramp",
            OutsideReason::NotRunning(lifecycle) => lifecycle.name(),
            OutsideReason::AnotherChose(_) => "another experiment",
            OutsideReason::Holdout => "holdout",
            OutsideReason::Layer => "layer",
            OutsideReason::Requires(_) => "requires",
            OutsideReason::Closed => "enrolment closed",
            OutsideReason::NoUnit => "bucket_by",
        }
    }
}

/// A user's group in an experiment, on one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    /// The experiment.
    pub experiment: ExperimentIndex,
    /// The group.
    pub group: GroupIndex,
    /// The reason.
    pub by: AssignedBy,
    /// Whether the request exposes the user. If not, it is only served by the group's version.
    pub exposes: bool,
}

/// The groups of a request, and its upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// The user's groups by experiment, in file order.
    pub inside: SmallVec<[Inside; 2]>,
    /// The experiment and group that chose the upstream, and the upstream.
    pub chosen: Option<(ExperimentIndex, GroupIndex, UpstreamIndex)>,
    /// The groups that change the request or its response, in file order.
    pub acting: SmallVec<[(ExperimentIndex, GroupIndex); 1]>,
    /// What the response depends on beyond the target.
    pub varies_by: VariesBy,
}

impl Assignment {
    /// Adds a group, if it changes requests or responses.
    fn act(&mut self, index: ExperimentIndex, experiment: &Experiment, group: GroupIndex) {
        if experiment.groups[group.0].action.is_some() {
            self.acting.push((index, group));
        }
    }

    /// Follows the page that the request belongs to, in the experiment that chose the page's upstream. The
    /// request itself exposes nobody.
    pub fn follow(&mut self, experiments: &Experiments, page: Assignment) {
        let Some((index, ..)) = page.chosen else {
            return;
        };
        if !experiments[index.0].versions.follows_assets {
            return;
        }
        self.chosen = page.chosen;
        let inside = page.inside.iter().filter(|it| it.experiment == index);
        self.inside.extend(inside.map(|it| Inside {
            exposes: false,
            ..*it
        }));
        self.inside.sort_by_key(|it| it.experiment);
        self.varies_by.page = true;
        self.varies_by.user_for_upstream |= page.varies_by.user_for_upstream;
        self.varies_by.marked_validators |= page.varies_by.marked_validators;
    }

    /// Serves the request by the version of this group, whatever group the user is in, and counts the user
    /// for neither. `by` says why.
    pub fn pin(
        &mut self,
        experiments: &Experiments,
        (index, group): (ExperimentIndex, GroupIndex),
        by: AssignedBy,
    ) {
        let experiment = &experiments[index.0];
        let Some(upstream) = experiment.groups[group.0].upstream else {
            return;
        };
        self.chosen = Some((index, group, upstream));
        self.inside.retain(|it| it.experiment != index);
        self.inside.push(Inside {
            experiment: index,
            group,
            by,
            exposes: false,
        });
        self.inside.sort_by_key(|it| it.experiment);
        self.acting.retain(|(acting, _)| *acting != index);
        self.act(index, experiment, group);
        self.acting.sort_by_key(|(acting, _)| *acting);
        self.varies_by.page = true;
        self.varies_by.marked_validators |= experiment.versions.marks_validators;
    }

    /// Returns what it would be if the user were in this group of an experiment.
    pub fn in_group(
        &self,
        experiments: &Experiments,
        index: ExperimentIndex,
        group: GroupIndex,
    ) -> Assignment {
        let mut other = self.clone();
        for inside in &mut other.inside {
            if inside.experiment == index {
                inside.group = group;
            }
        }
        let experiment = &experiments[index.0];
        if let Some(upstream) = experiment.groups[group.0].upstream {
            other.chosen = Some((index, group, upstream));
        }
        other.acting.retain(|(acting, _)| *acting != index);
        other.act(index, experiment, group);
        other.acting.sort_by_key(|(acting, _)| *acting);
        other
    }

    /// Returns the group in the experiment that chose the upstream, or the first one.
    pub fn deciding(&self) -> Option<Inside> {
        let chosen = self.chosen.map(|(experiment, _, _)| experiment);
        let mut inside = self.inside.iter();
        let choosing = inside.find(|it| Some(it.experiment) == chosen);
        choosing.or_else(|| self.inside.first()).copied()
    }
}

/// What a response depends on beyond the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VariesBy {
    /// Whether the upstream, or what a group changes, depends on the user. It does also for a user outside the traffic share, because
    /// another user may get another upstream.
    pub user_for_upstream: bool,
    /// Whether headers to the upstream depend on the user.
    pub user_for_headers: bool,
    /// Experiments whose conditions on header fields decided.
    pub headers: SmallVec<[ExperimentIndex; 1]>,
    /// The places of routes whose conditions on header fields decided.
    pub routes: SmallVec<[usize; 1]>,
    /// Whether conditions on the client's address decided, which no header names to caches.
    pub address: bool,
    /// Whether the page that the request belongs to decided, which caches cannot tell.
    pub page: bool,
    /// Whether ETags name the version that issued them.
    pub marked_validators: bool,
}

impl VariesBy {
    /// Adds the dependence on the conditions of the route at this place. Returns whether they hold.
    pub fn add_route<'a>(
        &mut self,
        place: usize,
        matcher: &Matcher,
        request: impl RequestView<'a>,
    ) -> bool {
        let eligible = matcher.judge(request);
        if eligible.by_client {
            self.routes.push(place);
            self.address |= matcher.reads_address();
        }
        eligible.is_met
    }

    /// Adds the dependence on an experiment. Returns whether the request is eligible.
    fn add<'a>(
        &mut self,
        index: ExperimentIndex,
        experiment: &Experiment,
        request: impl RequestView<'a>,
    ) -> bool {
        let eligible = experiment.matcher.judge(request);
        if eligible.by_client {
            self.headers.push(index);
            self.address |= experiment.matcher.reads_address();
        }
        self.marked_validators |= eligible.is_met && experiment.versions.marks_validators;
        if eligible.is_met && experiment.divides_users() {
            match experiment.chooses_upstream() || experiment.acts() {
                true => self.user_for_upstream = true,
                false => self.user_for_headers = true,
            }
        }
        eligible.is_met
    }
}

/// Resolves a request of a user. At most one experiment, the first in file order whose group has an
/// upstream, chooses the upstream; where the user was in some of them before, the one of these that came
/// first. All experiments without upstreams apply. A user whom no experiment chooses an upstream for gets
/// control's version of the first experiment that may admit the user later.
pub fn resolve<'a>(
    experiments: &Experiments,
    request: impl RequestView<'a>,
    subject: &Subject<'_>,
) -> Assignment {
    let mut assignment = Assignment::default();
    let mut for_now = None;
    let anchor = subject
        .kept
        .and_then(|kept| anchor(experiments, request, kept));
    for (index, experiment) in experiments.candidates(request) {
        let is_behind = || assignment.chosen.is_some() || !may_choose(experiment, index, anchor);
        if experiment.chooses_upstream() && is_behind() {
            continue;
        }
        if !assignment.varies_by.add(index, experiment, request) {
            continue;
        }
        match membership(experiments, index, subject) {
            Membership::Inside { group, by } => {
                assignment.inside.push(Inside {
                    experiment: index,
                    group,
                    by,
                    exposes: experiment.exposes(request),
                });
                assignment.act(index, experiment, group);
                if let Some(upstream) = experiment.groups[group.0].upstream {
                    assignment.chosen = Some((index, group, upstream));
                }
            }
            Membership::Outside(reason) if reason.is_for_now() => {
                for_now = for_now.or(control_of(experiment, index));
            }
            Membership::Outside(_) => {}
        }
    }
    assignment.chosen = assignment.chosen.or(for_now);
    assignment
}

/// Control's version of an experiment, if it chooses upstreams.
fn control_of(
    experiment: &Experiment,
    index: ExperimentIndex,
) -> Option<(ExperimentIndex, GroupIndex, UpstreamIndex)> {
    let control = experiment.control;
    let upstream = experiment.groups[control.0].upstream?;
    Some((index, control, upstream))
}

/// The experiment that the user was in first, of those that would choose the upstream of this request.
fn anchor<'a>(
    experiments: &Experiments,
    request: impl RequestView<'a>,
    kept: &KeptGroups,
) -> Option<ExperimentIndex> {
    let matching = kept.entries.iter().filter(|entry| {
        let experiment = &experiments[entry.experiment.0];
        let chooses = experiment.chooses_upstream() && experiment.is_running();
        chooses && experiment.matcher.matches(request)
    });
    let first = matching.min_by_key(|entry| (entry.since_s, entry.experiment));
    first.map(|entry| entry.experiment)
}

/// Whether an experiment may choose the upstream of a user who was in `anchor` before. One that is over
/// has its place in the file.
fn may_choose(
    experiment: &Experiment,
    index: ExperimentIndex,
    anchor: Option<ExperimentIndex>,
) -> bool {
    anchor.is_none_or(|anchor| anchor == index || experiment.winner.is_some())
}

/// Resolves a request that belongs to no user who is counted: it gets control, or the group of a signed
/// override.
pub fn unrecorded<'a>(
    experiments: &Experiments,
    request: impl RequestView<'a>,
    forced: Option<&Override>,
) -> Assignment {
    let mut assignment = Assignment::default();
    let mut for_now = None;
    for (index, experiment) in experiments.candidates(request) {
        let forced = forced.and_then(|forced| forced.group_in(experiment));
        let chooses = assignment.chosen.is_none() && experiment.chooses_upstream();
        let acts = !experiment.chooses_upstream() && (forced.is_some() || experiment.acts());
        if !chooses && !acts {
            continue;
        }
        if !assignment.varies_by.add(index, experiment, request) {
            continue;
        }
        if let Some(group) = forced {
            assignment.inside.push(Inside {
                experiment: index,
                group,
                by: AssignedBy::Override,
                exposes: experiment.exposes(request),
            });
        }
        let admits_nobody = forced.is_none() && experiment.lifecycle.admits_nobody();
        let group = forced.unwrap_or(experiment.winner.unwrap_or(experiment.control));
        if !admits_nobody {
            assignment.act(index, experiment, group);
        }
        if chooses && admits_nobody {
            for_now = for_now.or(control_of(experiment, index));
        } else if chooses {
            let upstream = experiment.groups[group.0].upstream;
            assignment.chosen = upstream.map(|upstream| (index, group, upstream));
        }
    }
    assignment.chosen = assignment.chosen.or(for_now);
    assignment
}

/// Returns the running experiments that a request would be an exposure to, whoever sends it.
pub fn eligible<'a>(
    experiments: &Experiments,
    request: impl RequestView<'a>,
) -> impl Iterator<Item = ExperimentIndex> {
    let running = experiments
        .candidates(request)
        .filter(|(_, experiment)| experiment.is_running());
    let eligible = running.filter(move |(_, experiment)| {
        experiment.matcher.matches(request) && experiment.may_expose(request)
    });
    eligible.map(|(index, _)| index)
}

/// Returns the membership of a user in an experiment whose conditions the request meets.
pub fn membership(
    experiments: &Experiments,
    index: ExperimentIndex,
    subject: &Subject<'_>,
) -> Membership {
    let experiment = &experiments[index.0];
    let inside = |group, by| Membership::Inside { group, by };
    if let Some(group) = subject
        .forced
        .and_then(|forced| forced.group_in(experiment))
    {
        return inside(group, AssignedBy::Override);
    }
    let Some(user) = subject.hashed_by(experiment) else {
        return Membership::Outside(OutsideReason::NoUnit);
    };
    let admission = &experiment.admission;
    if admission
        .holdout
        .as_ref()
        .is_some_and(|holdout| holdout.has(user))
    {
        return Membership::Outside(OutsideReason::Holdout);
    }
    if let Some(group) = experiment.winner {
        return match experiment.holds_back(user) {
            true => inside(experiment.control, AssignedBy::Holdback),
            false => inside(group, AssignedBy::Winner),
        };
    }
    if experiment.lifecycle.admits_nobody() {
        return Membership::Outside(OutsideReason::NotRunning(experiment.lifecycle));
    }
    if let Some(group) = admission.included(user) {
        return inside(group, AssignedBy::Include);
    }
    if let Some(kept) = subject.kept.and_then(|kept| kept.of(index)) {
        let first = first_of_layer(experiments, index, subject);
        return match first.is_none_or(|first| first == index) {
            true => inside(kept.group, AssignedBy::Sticky(kept.epoch)),
            false => Membership::Outside(OutsideReason::Layer),
        };
    }
    match refused(experiments, index, subject) {
        Some(reason) => Membership::Outside(reason),
        None => assigned(experiment, user),
    }
}

/// Why a user who was in no group before is not admitted, whatever the hash says.
#[inline]
fn refused(
    experiments: &Experiments,
    index: ExperimentIndex,
    subject: &Subject<'_>,
) -> Option<OutsideReason> {
    let admission = &experiments[index.0].admission;
    let missing = admission.requires.iter().find(|(other, group)| {
        let found = membership(experiments, *other, subject);
        !matches!(found, Membership::Inside { group: has, .. } if has == *group)
    });
    if let Some((other, _)) = missing {
        return Some(OutsideReason::Requires(*other));
    }
    if admission.is_closed {
        return Some(OutsideReason::Closed);
    }
    admission.layer.as_ref()?;
    // Who was in another experiment of the layer stays there, and there alone.
    first_of_layer(experiments, index, subject).map(|_| OutsideReason::Layer)
}

/// The running experiment of this one's layer that the user was in first.
fn first_of_layer(
    experiments: &Experiments,
    index: ExperimentIndex,
    subject: &Subject<'_>,
) -> Option<ExperimentIndex> {
    let layer = experiments[index.0].admission.layer.as_ref()?;
    let shares = |other: ExperimentIndex| {
        let other = &experiments[other.0];
        let its = other.admission.layer.as_ref();
        other.is_running() && its.is_some_and(|its| its.name == layer.name)
    };
    let kept = subject.kept.iter().flat_map(|kept| &kept.entries);
    let kept = kept.filter(|entry| shares(entry.experiment));
    let first = kept.min_by_key(|entry| (entry.since_s, entry.experiment))?;
    Some(first.experiment)
}

/// The group of a user who may be admitted, by hash.
#[inline]
fn assigned(experiment: &Experiment, user: UserId<'_>) -> Membership {
    let (group, reason) = match &experiment.admission.layer {
        // The layer's slots are the traffic share.
        Some(layer) if !layer.has(user) => (None, OutsideReason::Layer),
        Some(_) => (experiment.split.group(user), OutsideReason::Layer),
        None => (experiment.split.assign(user), OutsideReason::OutsideTraffic),
    };
    let reason = match experiment.ramp {
        Some(_) => OutsideReason::Ramp,
        None => reason,
    };
    group.map_or(Membership::Outside(reason), |group| Membership::Inside {
        group,
        by: AssignedBy::Hash,
    })
}
