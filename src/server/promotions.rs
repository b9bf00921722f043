//! Promotions that stay in effect although their experiments have left the file.

use crate::config::plan::Plan;
use crate::config::{self, Diagnostic, InvalidConfig};
use crate::experiment::admission::Admission;
use crate::experiment::lifecycle::Schedule;
use crate::experiment::units::UnitIndex;
use crate::experiment::{ActOn, Experiment, GroupIndex, Lifecycle, UpstreamIndex};
use crate::store::decisions::{BY_FILE, DecidedState, StandingDecision, StoredDefinition};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// A promotion that stays in effect although its experiment has left the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptPromotion {
    /// The experiment.
    pub experiment: String,
    /// The group whose version matching users get.
    pub group: String,
    /// The group's upstream, if it has one.
    pub upstream: Option<String>,
    /// Who decided.
    pub by: String,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// The upstream of requests that match no experiment.
    pub default: String,
    /// Which matching users may get something else: noun phrases.
    pub except: Vec<String>,
}

/// A promotion that cannot stay in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostPromotion {
    /// The promotion.
    pub promotion: KeptPromotion,
    /// Why not.
    pub why: LossReason,
}

/// Why a promotion cannot stay in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LossReason {
    /// The upstream of its group is not in the file.
    NoUpstream,
    /// Its group is not in the experiment any more, which is in the file.
    NoGroup,
    /// The definition of its experiment cannot be read, because of this.
    Unreadable(String),
}

/// Says whom it affects that an experiment leaves the file after a decision that has given all its users control, if they get
/// another version then.
pub(super) fn left_after_decision(
    plan: &Plan,
    name: &str,
    before: &StoredDefinition,
    decision: Option<&StandingDecision>,
) -> Option<String> {
    let old = config::restore_counted(&before.text).ok()?;
    let experiment = old.experiments.first()?;
    let decision = decision.filter(|it| it.salt == *experiment.salt)?;
    let did = match decision.state {
        DecidedState::Paused => "paused",
        DecidedState::RolledBack => "rolled back",
        DecidedState::Running | DecidedState::Promoted => return None,
    };
    let control = &experiment.groups[experiment.control.0];
    let upstream = &old.upstream(control.upstream?).name;
    let default = &plan.upstream(plan.default).name;
    (upstream != default).then(|| {
        format!(
            "{name} was {did} by {}, and leaves the file: its users got {} (upstream {upstream}), and get what the file says now (default: {default})",
            decision.by, control.name
        )
    })
}

/// The promotion of an experiment that is not in the file, with its definition as a plan, and the group; an error if
/// the definition cannot be read.
pub(super) fn promoted(
    plan: &Plan,
    name: &str,
    before: &StoredDefinition,
    decision: Option<&StandingDecision>,
) -> Option<Result<(KeptPromotion, Plan, GroupIndex), LostPromotion>> {
    let default = plan.upstream(plan.default).name.to_string();
    let lost = |promotion, error: InvalidConfig| {
        let first = error.diagnostics.first();
        let why = first.map_or(String::new(), |it| format!("{}: {}", it.key, it.found));
        Some(Err(LostPromotion {
            promotion,
            why: LossReason::Unreadable(why),
        }))
    };
    let counted = match config::restore_counted(&before.text) {
        Ok(counted) => counted,
        Err(error) => {
            // Of which salt it was is not known, so the decision may be of this experiment.
            let decision = decision.filter(|it| it.state == DecidedState::Promoted)?;
            let promotion = KeptPromotion {
                experiment: name.to_owned(),
                group: decision.group.clone()?,
                upstream: None,
                by: decision.by.clone(),
                at_ms: decision.at_ms,
                default,
                except: Vec::new(),
            };
            return lost(promotion, error);
        }
    };
    let experiment = counted.experiments.first()?;
    let decision = decision.filter(|it| it.salt == *experiment.salt);
    let later = decision.filter(|it| before.precedes(it));
    let by_file = experiment.winner.filter(|_| later.is_none());
    let (group, by, at_ms) = match (by_file, decision) {
        (Some(group), _) => (group, BY_FILE, before.at_ms),
        (None, Some(decision)) if decision.state == DecidedState::Promoted => {
            let group = experiment.group_named(decision.group.as_ref()?)?;
            (group, &*decision.by, decision.at_ms)
        }
        _ => return None,
    };
    let winner = &experiment.groups[group.0];
    let upstream = winner
        .upstream
        .map(|it| counted.upstream(it).name.to_string());
    let kept = KeptPromotion {
        experiment: name.to_owned(),
        group: winner.name.to_string(),
        upstream,
        by: by.to_owned(),
        at_ms,
        default,
        except: Vec::new(),
    };
    match config::restore(&before.text) {
        Ok(whole) => Some(Ok((kept, whole, group))),
        Err(error) => lost(kept, error),
    }
}

/// The promotion of a group that an experiment of the file does not have any more.
pub(super) fn without_group(
    plan: &Plan,
    experiment: &Experiment,
    decision: &StandingDecision,
) -> Option<LostPromotion> {
    let promoted = decision.group.as_ref();
    let group = promoted.filter(|_| decision.state == DecidedState::Promoted)?;
    let promotion = KeptPromotion {
        experiment: experiment.name.to_string(),
        group: group.clone(),
        upstream: None,
        by: decision.by.clone(),
        at_ms: decision.at_ms,
        default: plan.upstream(plan.default).name.to_string(),
        except: Vec::new(),
    };
    let is_gone = experiment.group_named(group).is_none();
    is_gone.then_some(LostPromotion {
        promotion,
        why: LossReason::NoGroup,
    })
}

/// An experiment of a definition, promoted, for this plan; `None` where the upstream of the group is gone.
pub(super) fn restored(plan: &mut Plan, before: &Plan, group: GroupIndex) -> Option<Experiment> {
    let mut experiment = before.experiments.first()?.clone();
    let named = |index: UpstreamIndex| {
        let name = &before.upstream(index).name;
        let place = plan.upstreams.iter().position(|it| it.name == *name);
        place.map(UpstreamIndex)
    };
    let winner = &experiment.groups[group.0];
    if winner.upstream.is_some_and(|index| named(index).is_none()) {
        return None;
    }
    for group in &mut experiment.groups {
        group.upstream = group.upstream.and_then(named);
    }
    let control = &experiment.groups[experiment.control.0];
    if control.upstream.is_none() && experiment.chooses_upstream() {
        // There is no version that users could be held back in.
        experiment.holdback = None;
    }
    if let Some(UnitIndex(unit)) = experiment.unit {
        experiment.unit = Some(unit_of(plan, before, unit));
    }
    (experiment.lifecycle, experiment.winner) = (Lifecycle::Promoted, Some(group));
    (experiment.has_left_file, experiment.ended_by_file) = (true, false);
    (experiment.metrics, experiment.guardrails) = (Box::default(), Box::default());
    (experiment.act_on, experiment.allocation) = (ActOn::default(), None);
    (experiment.schedule, experiment.ramp) = (Schedule::default(), None);
    experiment.admission = Admission {
        holdout: plan.holdout.clone(),
        ..Admission::default()
    };
    experiment.is_sticky = false;
    Some(experiment)
}

/// The plan's index of a unit of a definition.
fn unit_of(plan: &mut Plan, before: &Plan, unit: usize) -> UnitIndex {
    let unit = &before.units[unit];
    let known = plan.units.iter().position(|it| it == unit);
    UnitIndex(known.unwrap_or_else(|| {
        let mut units = std::mem::take(&mut plan.units).into_vec();
        units.push(unit.clone());
        plan.units = units.into();
        plan.units.len() - 1
    }))
}

/// Whether two definitions of an experiment mean the same versions for the same requests: the same
/// conditions, salt, groups and upstreams, however they are written.
pub(super) fn is_same_version(one: &str, other: &str) -> bool {
    let version = |text: &str| {
        let plan = config::restore_counted(text).ok()?;
        let own = plan.experiments.first()?;
        let groups = own.groups.iter().map(|group| {
            let upstream = group.upstream.map(|it| plan.upstream(it).name.to_string());
            (group.name.to_string(), upstream)
        });
        let groups: BTreeMap<_, _> = groups.collect();
        let control = &own.groups[own.control.0].name;
        let condition = own.matcher.condition();
        Some(format!("{condition:?} {} {control} {groups:?}", own.salt))
    };
    one == other || version(one).is_some_and(|one| version(other) == Some(one))
}

impl KeptPromotion {
    /// The group, and its upstream.
    pub fn version(&self) -> String {
        let upstream = self.upstream.as_ref();
        let upstream = upstream.map_or(String::new(), |it| format!(" (upstream {it})"));
        format!("{}{upstream}", self.group)
    }
}

impl fmt::Display for KeptPromotion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let except = match self.except.is_empty() {
            true => String::new(),
            false => format!(" (but not {})", self.except.join(", ")),
        };
        write!(
            f,
            "{}: not in the file; its promotion by {} stays in effect: matching users get {}{except}, until `retired: [{}]` gives them what the file says otherwise (default: {})",
            self.experiment,
            self.by,
            self.version(),
            self.experiment,
            self.default
        )
    }
}

impl LostPromotion {
    /// What is wrong with a file under which it cannot.
    pub fn diagnostic(&self, file: Option<&Path>) -> Diagnostic {
        let LostPromotion { promotion, why } = self;
        let (name, group) = (&promotion.experiment, &promotion.group);
        let (by, default) = (&promotion.by, &promotion.default);
        let then = format!(
            "or write `retired: [{name}]`: matching users then get what the file says otherwise (default: {default})"
        );
        let upstream = promotion.upstream.as_deref().unwrap_or_default();
        let (key, found, allowed) = match why {
            LossReason::NoUpstream => (
                "upstreams".to_owned(),
                format!(
                    "`{upstream}` is gone, and the promotion of `{name}` needs it: {by} promoted {group}, and the experiment has left the file, so all matching users get this upstream"
                ),
                format!("keep the upstream `{upstream}`, {then}"),
            ),
            LossReason::NoGroup => (
                format!("experiments.{name}.groups"),
                format!(
                    "`{group}` is gone, which {by} promoted: all matching users get its version, and would get control's"
                ),
                format!(
                    "keep the name `{group}`, or say who gets which version: with `winner`, with another `salt`, which begins a new phase, or with `watershed rollback {name}` first"
                ),
            ),
            LossReason::Unreadable(why) => (
                "experiments".to_owned(),
                format!(
                    "`{name}` has left the file after {by} promoted {group}, and what the store keeps of it cannot be read ({why})"
                ),
                format!("put back what it needs, or the experiment, {then}"),
            ),
        };
        Diagnostic {
            file: file.map_or("routes.yaml".to_owned(), |it| it.display().to_string()),
            place: None,
            key,
            found,
            allowed,
            near: None,
            snippet: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(experiment: &str) -> String {
        let text = format!(
            "upstreams: {{ a: \"http://127.0.0.1:1\", b: \"http://127.0.0.1:2\" }}\nexperiments:\n{experiment}\n"
        );
        let plan = config::parse(&text, Path::new("routes.yaml"), &|_| None).unwrap();
        plan.definitions["e"].clone()
    }

    #[test]
    fn version_is_conditions_salt_groups_and_upstreams() {
        let check = |one: &str, other: &str, expected: bool| {
            let found = is_same_version(&definition(one), &definition(other));
            assert_eq!(found, expected, "{one} | {other}");
        };
        let short = "  e: { control: a, experiment: b, percent: 50 }";
        check(
            short,
            "  e: { control: a, experiment: b, percent: 20, traffic: 10% }",
            true,
        );
        check(
            short,
            "  e: { control: b, experiment: a, percent: 50 }",
            false,
        );
        check(
            short,
            "  e: { control: a, experiment: b, percent: 50, match: /x }",
            false,
        );
        check(
            short,
            "  e: { control: a, experiment: b, percent: 50, salt: s }",
            false,
        );
        let long = |weight, upstream: &str| {
            format!(
                "  e: {{ groups: {{ control: {{ weight: 1, upstream: a }}, b: {{ weight: {weight}, upstream: {upstream} }} }} }}"
            )
        };
        check(&long(1, "b"), &long(2, "b"), true);
        let other_notation = "  e: { groups: { control: { weight: 1, upstream: a }, experiment: { weight: 1, upstream: b } } }";
        check(short, other_notation, true);
        let path = "  e: { control: a, experiment: b, percent: 50, match: /x/** }";
        check(path, &path.replace("/x/**", "{ path: /x/** }"), true);
        check(&long(1, "b"), &long(1, "a"), false);
        check(short, &long(1, "b"), false);
    }
}
