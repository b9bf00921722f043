//! Who is admitted to experiments, and how they share users: `sticky`, `enrolment`, `layer`, `holdout`,
//! `holdback`, `requires`, `include`, `bucket_by` and `crossover`.

use super::counting;
use super::identity;
use super::name::check_name;
use super::reader::Node;
use crate::experiment::admission::{LayerDivision, ListedIds, SLOTS};
use crate::experiment::assign::{Portion, Share};
use crate::experiment::kept_groups;
use crate::experiment::metric::{Metric, MetricKind};
use crate::experiment::units::{Unit, UnitIndex};
use crate::experiment::user_id::readable;
use crate::experiment::{Crossover, Experiment, ExperimentIndex, Group, GroupIndex, Thompson};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The keys of an experiment that are read here.
pub(super) const KEYS: &[(&str, &str)] = &[
    (
        "sticky",
        "whether a signed cookie keeps users in their groups: true or false",
    ),
    (
        "enrolment",
        "open, or closed: nobody new is admitted, and those inside stay (needs `sticky: true`)",
    ),
    (
        "layer",
        "the name of a layer: no user is in two experiments of it, and each has its `traffic` of it",
    ),
    (
        "requires",
        "other experiments, each with the group that a user must be in: { new-site: experiment }",
    ),
    (
        "include",
        "groups, each with user IDs that get it and are not counted: a list, or file:PATH",
    ),
    (
        "bucket_by",
        "what is divided in place of users: { header: X-Account }, { cookie: NAME } or { jwt: CLAIM }",
    ),
    (
        "crossover",
        "what becomes of a user who is seen in a second group: first (counts for the first), or exclude",
    ),
    (
        "allocation",
        "fixed, thompson (weights follow the chance of each group to be the best), or { least: 5%, every: 1h }",
    ),
    (
        "holdback",
        "the percentage of users who keep control's version after a promotion, such as 5%",
    ),
];
/// So many requirements are looked at for a request, those of required experiments included.
const STEPS_MAX: usize = 32;
const SHARE: &str = "a percentage above 0% and below 100%, with its sign, such as 5%";

/// Reads the keys of one experiment, whose salt and groups are known. `units` are those of the experiments
/// before it.
pub(super) fn read(
    node: &Node<'_>,
    experiment: &mut Experiment,
    primary: Option<&Metric>,
    (units, watched): (&mut Vec<Unit>, &mut Vec<PathBuf>),
) {
    let is_sticky = node.get("sticky").and_then(|node| node.boolean());
    experiment.is_sticky = is_sticky.unwrap_or(false);
    if let Some(enrolment) = node.get("enrolment") {
        let closed = enrolment.word(&[("open", false), ("closed", true)]);
        experiment.admission.is_closed = closed.unwrap_or(false);
        if experiment.admission.is_closed && !experiment.is_sticky {
            enrolment.problem(
                "closed enrolment without `sticky: true`: nobody could be known to be inside",
                "write `sticky: true` while enrolment is open, and close it later",
            );
        }
    }
    if let Some(unit) = node.get("bucket_by") {
        experiment.unit = bucket_by(&unit, units);
        if experiment.is_sticky {
            unit.problem(
                "`bucket_by` beside `sticky: true`: the cookie belongs to a browser, and what is divided has several",
                "leave one of them out",
            );
        }
    }
    let crossover = node.get("crossover");
    let words = [("first", Crossover::First), ("exclude", Crossover::Exclude)];
    let crossover = crossover.and_then(|node| node.word(&words));
    experiment.crossover = crossover.unwrap_or_default();
    let allocation = node.get("allocation");
    experiment.allocation =
        allocation.and_then(|node| self::allocation(&node, experiment, primary));
    let holdback = node.get("holdback").and_then(|node| share(&node));
    let prefix = format!("{}/holdback/", experiment.salt);
    experiment.holdback = holdback.map(|share| Portion::new(&prefix, share));
    if let Some(include) = node.get("include") {
        experiment.admission.include = included(&include, &experiment.groups, watched);
    }
}

/// Reads `allocation`.
fn allocation(
    node: &Node<'_>,
    experiment: &Experiment,
    primary: Option<&Metric>,
) -> Option<Thompson> {
    const FORMS: &str = "fixed, thompson, or { least: 5%, every: 1h }";
    let groups = &experiment.groups;
    let mut allocation = Thompson {
        least: 0.05,
        every_ms: 3_600_000,
        first: groups.iter().map(|group| group.weight).collect(),
    };
    if node.is_map() {
        node.keys(&[
            ("least", "the least share of a group, such as 5%"),
            (
                "every",
                "the time between two changes of weights, such as 1h",
            ),
        ]);
        let most = 100.0 / groups.len().max(1) as f64;
        let allowed = format!("a percentage from 1% to {most:.0}%, with its sign");
        let is_sound = |percent: f64| (1.0..=most).contains(&percent);
        let least = node.get("least");
        let least = least.and_then(|node| node.percent(&allowed, is_sound));
        allocation.least = least.unwrap_or(allocation.least);
        if let Some(every) = node.get("every")
            && let Some(time) = every.duration()
        {
            if time.as_secs() < 1 {
                every.problem("less than 1s", "1s or more, such as 1h");
            }
            allocation.every_ms = time.as_millis() as u64;
        }
    } else if !node.read(FORMS, |text| match text {
        "thompson" => Some(true),
        "fixed" => Some(false),
        _ => None,
    })? {
        return None;
    }
    if !experiment.is_sticky {
        node.problem(
            "weights that change without `sticky: true`: each change would move users to another version",
            "write `sticky: true`",
        );
    }
    if groups.iter().any(|group| group.weight.get() == 0.0) {
        node.problem(
            "a weight of 0 beside weights that follow the counts: its group would get no users to count",
            "positive weights, or leave `allocation` out",
        );
    }
    if primary.is_none_or(|metric| metric.kind != MetricKind::Conversion) {
        node.problem(
            "the primary metric is no conversion, and weights follow the share of users who convert",
            "name a metric of kind conversion first in `metrics`",
        );
    }
    Some(allocation)
}

fn share(node: &Node<'_>) -> Option<Share> {
    let percent = node.percent(SHARE, |percent| percent > 0.0 && percent < 100.0);
    percent.and_then(Share::new)
}

fn bucket_by(node: &Node<'_>, units: &mut Vec<Unit>) -> Option<UnitIndex> {
    let source = identity::source(node)?;
    let place = units.iter().position(|unit| unit.source == source);
    let place = place.unwrap_or_else(|| {
        units.push(Unit::new(source));
        units.len() - 1
    });
    Some(UnitIndex(place))
}

fn included(
    node: &Node<'_>,
    groups: &[Group],
    watched: &mut Vec<PathBuf>,
) -> Box<[(GroupIndex, ListedIds)]> {
    let mut all = Vec::new();
    for (name, ids) in node.named("group") {
        let Some(group) = group_named(&ids, &name, groups) else {
            continue;
        };
        if let Some(listed) = counting::ids(&ids, watched) {
            warn_of_listed_twice(&ids, (&listed, &name), (&all, groups));
            all.push((group, listed));
        }
    }
    all.into()
}

/// Warns of an ID that an earlier group has, too: this entry for it never counts.
fn warn_of_listed_twice(
    node: &Node<'_>,
    (ids, name): (&ListedIds, &str),
    (earlier, groups): (&[(GroupIndex, ListedIds)], &[Group]),
) {
    for (group, before) in earlier {
        let mut both = ids.intersection(before);
        let Some(id) = both.next() else {
            continue;
        };
        // The log is no place for the IDs of a file.
        let listed = match (both.count() + 1, node.is_list()) {
            (1, true) => format!("`{}`", readable(id)),
            (count, _) => format!("{count} of these IDs"),
        };
        let before = &groups[group.0].name;
        node.warn(
            format!("{listed} in {name} and in {before}: they get {before}, which is first"),
            "each ID in the list of one group",
        );
    }
}

fn group_named(node: &Node<'_>, name: &str, groups: &[Group]) -> Option<GroupIndex> {
    let place = groups.iter().position(|group| *group.name == *name);
    if place.is_none() {
        node.unknown("group", name, groups.iter().map(|group| &*group.name));
    }
    place.map(GroupIndex)
}

/// Reads what concerns several experiments: layers, requirements, the holdout. `nodes` are those of
/// `experiments`, in their order.
pub(super) fn connect(root: &Node<'_>, nodes: &[&Node<'_>], experiments: &mut [Experiment]) {
    layers(nodes, experiments);
    requirements(nodes, experiments);
    holdout(root, experiments);
    let sticky = experiments.iter().filter(|it| it.is_sticky);
    let bytes = kept_groups::bytes_max(sticky);
    if bytes > kept_groups::VALUE_BYTES_MAX {
        root.problem(
            format!("the cookie of all sticky experiments can have {bytes} bytes, and browsers keep no cookie of more than 4096"),
            "leave `sticky` out of some experiments, or give them shorter names",
        );
    }
}

fn layers(nodes: &[&Node<'_>], experiments: &mut [Experiment]) {
    let mut layers: BTreeMap<&str, LayerDivision> = BTreeMap::new();
    let mut units: BTreeMap<&str, Option<UnitIndex>> = BTreeMap::new();
    for (node, experiment) in nodes.iter().zip(experiments) {
        let Some(node) = node.get("layer") else {
            continue;
        };
        let Some(name) = node.text("the name of a layer") else {
            continue;
        };
        check_name(&node, name);
        let unit = experiment.unit;
        if *units.entry(name).or_insert(unit) != unit {
            node.problem(
                format!("experiments of layer {name:?} divide different things (`bucket_by`), so a user could be in two of them"),
                "the same `bucket_by` in all experiments of a layer, or another layer",
            );
        }
        // A ramp reserves the slots of its widest step, and admits some of them before.
        let ramp = experiment.ramp.as_ref();
        let steps = ramp.map_or(Vec::new(), |ramp| ramp.steps.iter().collect());
        let shares = steps.iter().map(|step| step.share);
        let shares: Vec<Share> = shares
            .chain(ramp.is_none().then_some(experiment.traffic))
            .collect();
        for share in &shares {
            let slots = share.get() * SLOTS as f64;
            if (slots - slots.round()).abs() > 1e-6 {
                node.problem(
                    format!("a share of {} % of a layer", 100.0 * share.get()),
                    "`traffic` or `ramp` in steps of 0.1%, such as 30% or 12.5%",
                );
            }
        }
        let widest = shares.last().copied().unwrap_or(experiment.traffic);
        let layer = layers
            .entry(name)
            .or_insert_with(|| LayerDivision::new(name));
        for step in experiment.ramp.iter_mut().flat_map(|ramp| &mut ramp.steps) {
            step.layer = layer.clone().take(&experiment.salt, step.share).ok();
        }
        match layer.take(&experiment.salt, widest) {
            Ok(share) => {
                let first = experiment
                    .ramp
                    .as_ref()
                    .and_then(|ramp| ramp.steps[0].layer.clone());
                experiment.admission.layer = first.or(Some(share));
            }
            Err(full) => {
                let percent = |share: f64| (share * 1000.0).round() / 10.0;
                let (free, wanted) = (full.free as f64 / SLOTS as f64, widest.get());
                node.problem(
                    format!(
                        "the experiments of layer {name:?} want more than 100 % of it: {} % are free, and this one wants {} %",
                        percent(free), percent(wanted)
                    ),
                    "give each of them its part, such as `traffic: 30%`",
                );
            }
        }
    }
}

fn requirements(nodes: &[&Node<'_>], experiments: &mut [Experiment]) {
    for (place, node) in nodes.iter().enumerate() {
        let Some(node) = node.get("requires") else {
            continue;
        };
        let mut requires = Vec::new();
        for (name, wanted) in node.named("experiment") {
            let Some(other) = experiments.iter().position(|it| *it.name == *name) else {
                wanted.unknown("experiment", &name, experiments.iter().map(|it| &*it.name));
                continue;
            };
            let Some(group) = wanted.text("the name of a group") else {
                continue;
            };
            let Some(group) = group_named(&wanted, group, &experiments[other].groups) else {
                continue;
            };
            if let Some(problem) = impossible(&experiments[place], &experiments[other], group) {
                wanted.problem(problem, "leave this requirement out");
                continue;
            }
            requires.push((ExperimentIndex(other), group));
        }
        experiments[place].admission.requires = requires.into();
        if requires_itself(experiments, ExperimentIndex(place)) {
            node.problem(
                "these experiments require each other: nobody could be in any of them",
                "leave one of the requirements out",
            );
            experiments[place].admission.requires = Box::default();
        } else if steps(experiments, ExperimentIndex(place)) > STEPS_MAX {
            node.problem(
                format!(
                    "more than {STEPS_MAX} requirements, those of required experiments included"
                ),
                "fewer of them: each is looked at for each request",
            );
        }
    }
}

/// Why nobody in `one` could be in this group of the other experiment.
fn impossible(one: &Experiment, other: &Experiment, group: GroupIndex) -> Option<String> {
    let layers = (&one.admission.layer, &other.admission.layer);
    if let (Some(own), Some(its)) = layers
        && own.name == its.name
    {
        let name = &own.name;
        return Some(format!(
            "nobody could be in this experiment: `{}` is in the same layer {name:?}",
            other.name
        ));
    }
    let winner = other.winner.filter(|winner| *winner != group)?;
    Some(format!(
        "nobody could be in this experiment: the winner of `{}` is {}",
        other.name, other.groups[winner.0].name
    ))
}

/// Whether an experiment requires itself, directly or through others.
fn requires_itself(experiments: &[Experiment], which: ExperimentIndex) -> bool {
    let mut reached: Vec<ExperimentIndex> = Vec::new();
    let mut next = vec![which];
    while let Some(one) = next.pop() {
        for &(other, _) in &experiments[one.0].admission.requires {
            if other == which {
                return true;
            }
            if !reached.contains(&other) {
                reached.push(other);
                next.push(other);
            }
        }
    }
    false
}

/// In how many steps all that an experiment requires, directly or through others, is looked at; more than
/// [`STEPS_MAX`] are not counted. It does not require itself.
fn steps(experiments: &[Experiment], which: ExperimentIndex) -> usize {
    let requires = &experiments[which.0].admission.requires;
    let mut all = 0;
    for &(other, _) in requires {
        all += 1 + steps(experiments, other);
        if all > STEPS_MAX {
            break;
        }
    }
    all
}

/// Returns the users whom the holdout keeps out of all experiments, also of one that has left the file after its promotion;
/// `None` if it lists experiments.
pub(super) fn whole_holdout(root: &Node<'_>) -> Option<Portion> {
    let node = root.get("holdout")?;
    match node.get("experiments") {
        None => holdout_portion(&node),
        Some(_) => None,
    }
}

fn holdout_portion(node: &Node<'_>) -> Option<Portion> {
    let share = self::share(&node.get("share")?)?;
    Some(Portion::new("holdout/", share))
}

fn holdout(root: &Node<'_>, experiments: &mut [Experiment]) {
    let Some(node) = root.get("holdout") else {
        return;
    };
    let known = [
        (
            "share",
            "the percentage of users who are held out, such as 5%",
        ),
        (
            "experiments",
            "the experiments that they are in no group of; all unless given",
        ),
    ];
    if !node.keys(&known) {
        return;
    }
    if node.get("share").is_none() {
        node.missing("share", SHARE);
        return;
    }
    let Some(portion) = holdout_portion(&node) else {
        return;
    };
    let Some(listed) = node.get("experiments") else {
        for experiment in experiments {
            experiment.admission.holdout = Some(portion.clone());
        }
        return;
    };
    for item in listed.items() {
        let Some(name) = item.text("the name of an experiment") else {
            continue;
        };
        match experiments.iter().position(|it| *it.name == *name) {
            Some(place) => experiments[place].admission.holdout = Some(portion.clone()),
            None => item.unknown("experiment", name, experiments.iter().map(|it| &*it.name)),
        }
    }
}
