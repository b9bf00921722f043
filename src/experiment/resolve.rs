//! Resolves a request: the user's group in every experiment, and the upstream.

use super::assign::Split;
use super::http_view::RequestView;
use super::match_index::Experiments;
use super::override_token::Override;
use super::{Experiment, ExperimentIndex, GroupIndex, UpstreamIndex, UserId};
use smallvec::SmallVec;

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
    /// A signed QA override.
    Override,
    /// The experiment is over, and everybody gets this group's version.
    Winner,
}

impl AssignedBy {
    /// As logs and spans write it.
    pub fn word(self) -> &'static str {
        match self {
            AssignedBy::Hash => "hash",
            AssignedBy::Override => "override",
            AssignedBy::Winner => "winner",
        }
    }
}

/// Why a user takes no part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutsideReason {
    /// The request does not match the experiment's conditions.
    NotMatched,
    /// The user is not in the experiment's traffic share.
    OutsideTraffic,
    /// An earlier experiment of the file has chosen the upstream of this request.
    AnotherChose(ExperimentIndex),
}

/// The groups of a request, and its upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// The user's groups by experiment, in file order.
    pub inside: SmallVec<[(ExperimentIndex, GroupIndex, AssignedBy); 2]>,
    /// The experiment and group that chose the upstream, and the upstream.
    pub chosen: Option<(ExperimentIndex, GroupIndex, UpstreamIndex)>,
    /// What the response depends on beyond the target.
    pub varies_by: VariesBy,
}

impl Assignment {
    /// Returns the experiment and group that chose the upstream, or the first ones, and the reason.
    pub fn deciding(&self) -> Option<(ExperimentIndex, GroupIndex, AssignedBy)> {
        let chosen = self.chosen.map(|(experiment, _, _)| experiment);
        let mut inside = self.inside.iter().copied();
        inside.find(|(experiment, _, _)| chosen.is_none_or(|it| it == *experiment))
    }
}

/// What a response depends on beyond the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VariesBy {
    /// Whether the upstream depends on the user. It does also for a user outside the traffic share, because
    /// another user may get another upstream.
    pub user_for_upstream: bool,
    /// Whether headers to the upstream depend on the user.
    pub user_for_headers: bool,
    /// Experiments whose conditions on header fields decided.
    pub headers: SmallVec<[ExperimentIndex; 1]>,
    /// Whether conditions on the client's address decided, which no header names to caches.
    pub address: bool,
}

impl VariesBy {
    /// Adds the dependence on an experiment. Returns whether the request is eligible.
    fn add<'a>(
        &mut self,
        index: ExperimentIndex,
        experiment: &Experiment,
        request: impl RequestView<'a>,
    ) -> bool {
        let eligible = experiment.matcher.judge(request);
        let splits = experiment.winner.is_none();
        if eligible.by_client {
            self.headers.push(index);
            self.address |= experiment.matcher.reads_address();
        }
        if eligible.is_met && splits {
            match experiment.chooses_upstream() {
                true => self.user_for_upstream = true,
                false => self.user_for_headers = true,
            }
        }
        eligible.is_met
    }
}

/// Resolves a request of a user. At most one experiment, the first in file order whose group has an
/// upstream, chooses the upstream. All experiments without upstreams apply.
pub fn resolve<'a>(
    experiments: &Experiments,
    request: impl RequestView<'a>,
    user: UserId<'_>,
    forced: Option<&Override>,
) -> Assignment {
    let mut assignment = Assignment::default();
    for (index, experiment) in experiments.candidates(request) {
        let chosen = assignment.chosen.map(|(by, _, _)| by);
        if chosen.is_some() && experiment.chooses_upstream() {
            continue;
        }
        if !assignment.varies_by.add(index, experiment, request) {
            continue;
        }
        if let Membership::Inside { group, by } = membership(experiment, user, forced) {
            assignment.inside.push((index, group, by));
            if let Some(upstream) = experiment.groups[group.0].upstream {
                assignment.chosen = Some((index, group, upstream));
            }
        }
    }
    assignment
}

/// Resolves a request that belongs to no user who is counted: it gets control, or the group of a signed
/// override.
pub fn unrecorded<'a>(
    experiments: &Experiments,
    request: impl RequestView<'a>,
    forced: Option<&Override>,
) -> Assignment {
    let mut assignment = Assignment::default();
    for (index, experiment) in experiments.candidates(request) {
        let forced = forced.and_then(|forced| forced.group_in(experiment));
        let chooses = assignment.chosen.is_none() && experiment.chooses_upstream();
        if !chooses && (forced.is_none() || experiment.chooses_upstream()) {
            continue;
        }
        if !assignment.varies_by.add(index, experiment, request) {
            continue;
        }
        if let Some(group) = forced {
            let by = AssignedBy::Override;
            assignment.inside.push((index, group, by));
        }
        if chooses {
            let group = forced.unwrap_or(experiment.winner.unwrap_or(experiment.control));
            let upstream = experiment.groups[group.0].upstream;
            assignment.chosen = upstream.map(|upstream| (index, group, upstream));
        }
    }
    assignment
}

/// Returns the running experiments whose conditions a request meets, whoever sends it.
pub fn eligible<'a>(
    experiments: &Experiments,
    request: impl RequestView<'a>,
) -> SmallVec<[ExperimentIndex; 2]> {
    let running = experiments
        .candidates(request)
        .filter(|(_, experiment)| experiment.winner.is_none());
    let eligible = running.filter(|(_, experiment)| experiment.matcher.matches(request));
    eligible.map(|(index, _)| index).collect()
}

/// Returns the membership of a user in an experiment whose conditions the request meets.
pub fn membership(
    experiment: &Experiment,
    user: UserId<'_>,
    forced: Option<&Override>,
) -> Membership {
    if let Some(group) = forced.and_then(|forced| forced.group_in(experiment)) {
        return Membership::Inside {
            group,
            by: AssignedBy::Override,
        };
    }
    if let Some(group) = experiment.winner {
        return Membership::Inside {
            group,
            by: AssignedBy::Winner,
        };
    }
    assigned(&experiment.split, user)
}

fn assigned(split: &Split, user: UserId<'_>) -> Membership {
    match split.assign(user) {
        Some(group) => Membership::Inside {
            group,
            by: AssignedBy::Hash,
        },
        None => Membership::Outside(OutsideReason::OutsideTraffic),
    }
}
