//! What another file changes for the users of an experiment: what `watershed plan` shows, and what the history
//! keeps.

use super::plan::Plan;
use crate::experiment::implication;
use crate::experiment::lifecycle::Ramp;
use crate::experiment::metric::{Metric, MetricGoal};
use crate::experiment::metric_definition::duration;
use crate::experiment::resolve::{AssignedBy, Membership, Subject, membership};
use crate::experiment::units::Units;
use crate::experiment::{
    Experiment, ExperimentIndex, Group, GroupIndex, Horizon, Lifecycle, UserId,
};
use http::Method;
use std::collections::BTreeMap;

/// A change that moves nobody and counts alike.
pub const UNCHANGED: &str = "unchanged assignment";

/// What a file changes for one experiment, beside another file.
#[derive(Debug)]
pub struct ExperimentChange {
    /// What it means for the counts.
    pub meaning: &'static str,
    /// What changes for metrics and verdicts.
    pub changes: Vec<String>,
    /// How many users are where before and after.
    pub moves: Moves,
}

/// The number of users by their group in the old and the new file.
#[derive(Debug, Default)]
pub struct Moves(BTreeMap<(String, String), u64>);

/// Returns the names of the experiments of both files, each once.
pub fn names<'a>(old: &'a Plan, new: &'a Plan) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for experiment in old.experiments.iter().chain(&new.experiments) {
        if !names.contains(&&*experiment.name) {
            names.push(&experiment.name);
        }
    }
    names
}

/// Compares an experiment in two files, for users with these IDs.
pub fn compare<'a>(
    old: &Plan,
    new: &Plan,
    name: &str,
    ids: impl Iterator<Item = &'a [u8]>,
) -> ExperimentChange {
    let (old_index, new_index) = (old.experiment_named(name), new.experiment_named(name));
    let before = old_index.map(|index| old.experiment(index));
    let after = new_index.map(|index| new.experiment(index));
    let mut moves = Moves::default();
    for user in ids.filter_map(UserId::new) {
        moves.add(place(old, old_index, user), place(new, new_index, user));
    }
    ExperimentChange {
        meaning: meaning((old, before), (new, after)),
        changes: match (before, after) {
            (Some(before), Some(after)) => changes((old, before), (new, after)),
            _ => Vec::new(),
        },
        moves,
    }
}

impl Moves {
    /// Counts one user.
    pub fn add(&mut self, from: String, to: String) {
        *self.0.entry((from, to)).or_default() += 1;
    }

    /// Returns users by where they were and where they are.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        let moves = self.0.iter();
        moves.map(|((from, to), users)| (&**from, &**to, *users))
    }

    /// Returns the number of users.
    pub fn users(&self) -> u64 {
        self.0.values().sum()
    }

    /// Whether anybody moves.
    pub fn is_any(&self) -> bool {
        let is_outside = |place: &str| place.starts_with("outside");
        let mut places = self.0.keys();
        places.any(|(from, to)| from != to && !(is_outside(from) && is_outside(to)))
    }

    /// Returns one line for each move, one for each reason to stay outside, and one for those who stay.
    pub fn lines(&self) -> Vec<String> {
        let all = self.users();
        let (mut stay, mut lines) = (0, Vec::new());
        let mut outside: BTreeMap<&str, u64> = BTreeMap::new();
        let is_outside = |place: &str| place.starts_with("outside");
        for ((from, to), count) in &self.0 {
            if is_outside(from) && is_outside(to) {
                *outside.entry(to).or_default() += count;
            } else if from == to {
                stay += count;
            } else {
                let share = percent(*count, all);
                lines.push(format!("{share:>6} %  {from} -> {to}"));
            }
        }
        let stay = Some(("stay".to_owned(), stay))
            .filter(|_| stay > 0 || lines.is_empty() && outside.is_empty());
        let outside = outside.into_iter();
        let outside = outside.map(|(place, count)| (format!("stay {place}"), count));
        for (what, count) in outside.chain(stay) {
            lines.push(format!("{:>6} %  {what}", percent(count, all)));
        }
        lines
    }
}

/// Describes the effect of a change on the counts.
fn meaning(
    (old, before): (&Plan, Option<&Experiment>),
    (new, after): (&Plan, Option<&Experiment>),
) -> &'static str {
    match (before, after) {
        (Some(before), Some(after)) if after.has_left_file => match before.has_left_file {
            true => "not in the file; its promotion stays in effect",
            false => "removed; its promotion stays in effect, and its counts are kept",
        },
        (Some(before), None) if before.has_left_file => {
            "its promotion ends; users get what the file says otherwise"
        }
        (Some(before), Some(_)) if before.has_left_file => "in the file again",
        (None, _) => "new",
        (_, None) => "removed; its counts are kept",
        (Some(before), Some(after)) if before.salt != after.salt => {
            "another salt or algorithm: a new phase begins, in which all users are assigned anew and counted afresh"
        }
        (Some(before), Some(after)) if divided(old, before) != divided(new, after) => {
            "another bucket_by: a new phase begins, in which everything is counted afresh"
        }
        (Some(before), Some(after)) if moved((old, before), (new, after)) => {
            "another upstream: a new phase begins, in which all users are counted afresh"
        }
        (Some(before), Some(after)) if before.lifecycle != after.lifecycle => {
            match after.lifecycle {
                Lifecycle::Draft => "a draft: everybody gets control, and nothing is counted",
                Lifecycle::Scheduled => "it starts later: until then everybody gets control",
                Lifecycle::Ended => "its planned end has come: everybody gets control",
                Lifecycle::Promoted => {
                    "it ends: everybody gets one version, and nothing more is recorded"
                }
                _ => "it runs",
            }
        }
        (Some(before), Some(after)) if steps(before) != steps(after) => {
            "another ramp: it goes on from the share that is admitted now"
        }
        (Some(before), Some(after)) if before.epoch != after.epoch => {
            "other weights or traffic: a new epoch begins; exposed users who move become crossovers"
        }
        (Some(before), Some(after)) if before.winner != after.winner => match after.winner {
            Some(_) => "it ends: everybody gets one version, and nothing more is recorded",
            None => "it runs again",
        },
        (Some(before), Some(after)) if admission(before) != admission(after) => {
            "other users are admitted; those who were counted stay counted"
        }
        (Some(before), Some(after))
            if before.exposes_by_difference() != after.exposes_by_difference() =>
        {
            match after.exposes_by_difference() {
                true => {
                    "users are exposed only by a difference from now on; those who were counted stay counted, so give another `salt`"
                }
                false => {
                    "users are exposed without a difference from now on; those who were counted stay counted, so give another `salt`"
                }
            }
        }
        _ => UNCHANGED,
    }
}

/// The steps of an experiment's ramp.
fn steps(experiment: &Experiment) -> Option<String> {
    experiment.ramp.as_ref().map(Ramp::text)
}

/// All that decides who is admitted, besides weights and traffic.
fn admission(experiment: &Experiment) -> String {
    format!("{:?} {:?}", experiment.admission, experiment.holdback)
}

/// What an experiment divides; `None` for users.
fn divided<'a>(plan: &'a Plan, experiment: &Experiment) -> Option<&'a str> {
    experiment.unit.map(|unit| &*plan.units[unit.0].name)
}

/// Whether a group is served by another upstream.
fn moved((old, before): (&Plan, &Experiment), (new, after): (&Plan, &Experiment)) -> bool {
    let upstream = |plan: &Plan, group: &Group| {
        let upstream = group.upstream.map(|upstream| plan.upstream(upstream));
        upstream.map(|upstream| upstream.name.to_string())
    };
    let mut groups = after.groups.iter();
    groups.any(|group| {
        let began = before.group_named(&group.name);
        began.is_some_and(|began| upstream(old, &before.groups[began.0]) != upstream(new, group))
    })
}

/// What changes for metrics and verdicts of an experiment that has begun, and from when on.
fn changes((old, before): (&Plan, &Experiment), (new, after): (&Plan, &Experiment)) -> Vec<String> {
    let mut found = Vec::new();
    let [was, becomes] = [before, after].map(|it| it.matcher.condition().to_string());
    if was != becomes {
        found.push(format!("match: {was} -> {becomes}"));
    }
    if before.salt != after.salt || moved((old, before), (new, after)) {
        return found;
    }
    let stays = |key: &str, was: String, becomes: String| {
        (was != becomes)
            .then(|| format!("{key}: {was} -> {becomes}: {was} decides until a new phase begins"))
    };
    let (was, becomes) = (mirror(old, before), mirror(new, after));
    found.extend((was != becomes).then(|| format!("mirror: {was} -> {becomes}")));
    let (was, becomes) = (primary(old, before), primary(new, after));
    found.extend(stays("the metric that decides", was, becomes));
    let [was, becomes] = [before, after].map(|it| duration(it.min_duration_ms));
    found.extend(stays("min_duration", was, becomes));
    let horizon = |it: &Experiment| it.horizon.map_or("none".to_owned(), Horizon::text);
    found.extend(stays("horizon", horizon(before), horizon(after)));
    let of = |plan: &Plan, experiment: &Experiment| -> BTreeMap<String, Metric> {
        let metrics = experiment.metrics.iter().map(|&index| plan.metric(index));
        metrics
            .map(|it| (it.name.to_string(), it.clone()))
            .collect()
    };
    let (earlier, later) = (of(old, before), of(new, after));
    for (name, metric) in &later {
        let Some(was) = earlier.get(name) else {
            found.push(format!(
                "metrics.{name}: new; it counts users who come from then on"
            ));
            continue;
        };
        let [from, to] = [was, metric].map(Metric::definition);
        if from != to {
            found.push(format!(
                "metrics.{name}: ({from}) -> ({to}): a new series counts users who come from then on"
            ));
        }
        let share = |share: f64| format!("{} %", (share * 1e8).round() / 1e6);
        let goal = |metric: &Metric| match metric.goal {
            MetricGoal::Increase => "increase".to_owned(),
            MetricGoal::Decrease => "decrease".to_owned(),
        };
        for (key, was, becomes) in [
            ("detect", share(was.detect), share(metric.detect)),
            ("margin", share(was.margin), share(metric.margin)),
            ("goal", goal(was), goal(metric)),
        ] {
            found.extend(stays(&format!("metrics.{name}.{key}"), was, becomes));
        }
    }
    let gone = earlier.keys().filter(|name| !later.contains_key(*name));
    found
        .extend(gone.map(|name| format!("metrics.{name}: counted no longer; its counts are kept")));
    found
}

/// Which requests are copied, and where to.
fn mirror(plan: &Plan, experiment: &Experiment) -> String {
    let Some(mirror) = &experiment.mirror else {
        return "none".to_owned();
    };
    let to = &plan.upstream(mirror.to).name;
    let methods: Vec<&str> = mirror.methods.iter().map(Method::as_str).collect();
    let both = if mirror.is_both_ways {
        ", both ways"
    } else {
        ""
    };
    let share = 100.0 * mirror.share.get();
    format!("{share} % of {} to {to}{both}", methods.join(" and "))
}

fn primary(plan: &Plan, experiment: &Experiment) -> String {
    let primary = experiment
        .metrics
        .first()
        .map(|&index| &plan.metric(index).name);
    primary.map_or("none".to_owned(), ToString::to_string)
}

/// Describes where a user is: the group, and its upstream.
pub fn place(plan: &Plan, experiment: Option<ExperimentIndex>, user: UserId<'_>) -> String {
    let outside = || "outside".to_owned();
    let Some(index) = experiment else {
        return outside();
    };
    let units = Units::all(plan.units.len(), user.as_bytes());
    let subject = Subject {
        units: Some(&units),
        ..Subject::of(user)
    };
    if plan.counting.excludes_id(user) {
        return "outside (excluded)".to_owned();
    }
    if is_behind(plan, index, &subject) {
        return "outside (another experiment)".to_owned();
    }
    match membership(&plan.experiments, index, &subject) {
        Membership::Outside(reason) => format!("outside ({})", reason.word()),
        Membership::Inside { group, by } => {
            let group = of_group(plan, index, group);
            match by {
                AssignedBy::Winner => format!("everybody in {group}"),
                AssignedBy::Holdback | AssignedBy::Include => format!("{group}, by {}", by.word()),
                AssignedBy::Hash
                | AssignedBy::Sticky(_)
                | AssignedBy::Override
                | AssignedBy::Pinned => group,
            }
        }
    }
}

/// Whether an experiment in front certainly chooses the upstream for this user: one that has the requests of
/// this one, too.
fn is_behind(plan: &Plan, index: ExperimentIndex, subject: &Subject<'_>) -> bool {
    let this = plan.experiment(index);
    let mut in_front = plan.experiments.iter().enumerate().take(index.0);
    this.chooses_upstream()
        && in_front.any(|(place, other)| {
            let chooses = other.chooses_upstream()
                && implication::implies(this.matcher.condition(), other.matcher.condition());
            let membership = || membership(&plan.experiments, ExperimentIndex(place), subject);
            chooses && matches!(membership(), Membership::Inside { .. })
        })
}

/// Describes a group: its name, and its upstream.
pub fn of_group(plan: &Plan, index: ExperimentIndex, group: GroupIndex) -> String {
    let group = &plan.experiment(index).groups[group.0];
    let upstream = group.upstream.map(|upstream| &plan.upstream(upstream).name);
    let shown = upstream.map_or(String::new(), |name| format!(" ({name})"));
    format!("{}{shown}", group.name)
}

fn percent(count: u64, all: u64) -> String {
    format!("{:.2}", 100.0 * count as f64 / all.max(1) as f64)
}
