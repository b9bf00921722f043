//! `watershed plan OLD NEW`: shows how many users would move if one file replaced the other.

use super::known_users::{self, KnownUsers};
use super::output::Output;
use crate::admin::clock::now_ms;
use crate::config;
use crate::config::plan::Plan;
use crate::experiment::implication;
use crate::experiment::lifecycle::Ramp;
use crate::experiment::metric::{Metric, MetricGoal};
use crate::experiment::metric_definition::duration;
use crate::experiment::not_counted::Exclusion;
use crate::experiment::resolve::{AssignedBy, Membership, Subject, membership};
use crate::experiment::units::Units;
use crate::experiment::{
    Experiment, ExperimentIndex, Group, GroupIndex, Horizon, Lifecycle, UserId,
};
use anyhow::Context;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The arguments of `plan`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The file that is served now
    old: PathBuf,
    /// The file that is to be served
    new: PathBuf,
    /// Do not ask the store of OLD what was decided, and how many of its users would move
    #[arg(long)]
    no_store: bool,
    /// The number of simulated users
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    users: u32,
    /// Use real users: a file with an ID on each line
    #[arg(long, value_name = "FILE", conflicts_with = "users")]
    ids: Option<PathBuf>,
}

/// The number of users by their group in the old and the new file.
type Moves = BTreeMap<(String, String), u64>;

/// Prints the changes for users, by experiment.
pub fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let (mut old, mut new) = (config::load(&arguments.old)?, config::load(&arguments.new)?);
    let ids: Vec<Vec<u8>> = match &arguments.ids {
        Some(file) => {
            let text = std::fs::read(file)
                .with_context(|| format!("{} cannot be read", file.display()))?;
            let lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
            lines
                .filter(|line| !line.is_empty())
                .map(<[u8]>::to_vec)
                .collect()
        }
        None => (0..arguments.users)
            .map(|number| format!("user-{number}").into_bytes())
            .collect(),
    };
    anyhow::ensure!(!ids.is_empty(), "there are no user IDs");
    let known = match arguments.no_store {
        true => None,
        false => KnownUsers::open(&old)
            .inspect_err(|why| eprintln!("the store was not asked about known users: {why}"))
            .unwrap_or(None),
    };
    if !arguments.no_store {
        let decided = known_users::decisions(&old)
            .inspect_err(|why| eprintln!("the store was not asked about decisions: {why}"))
            .unwrap_or_default();
        old = decided.apply(&old, now_ms()).plan;
        new = decided.apply(&new, now_ms()).sound(Some(&arguments.new))?;
    }
    let mut effects: Vec<PlanEffect> = Vec::new();
    for experiment in old.experiments.iter().chain(&new.experiments) {
        let name = &*experiment.name;
        if effects.iter().all(|effect| effect.name != name) {
            effects.push(PlanEffect::of(&old, &new, name, &ids, known.as_ref()));
        }
    }
    let routes = of_routes(&old, &new);
    let text = || {
        let effects: String = match effects.is_empty() {
            true => "neither file has an experiment\n".to_owned(),
            false => effects.iter().map(PlanEffect::text).collect(),
        };
        effects + &routes
    };
    let document = || {
        let experiments: Vec<Value> = effects.iter().map(PlanEffect::document).collect();
        let routes: Vec<&str> = routes.lines().map(str::trim).collect();
        json!({ "experiments": experiments, "routes": routes })
    };
    Ok(output.print(text, document)?)
}

/// The effect on one experiment.
struct PlanEffect<'a> {
    name: &'a str,
    meaning: &'static str,
    changes: Vec<String>,
    moves: Moves,
    /// What becomes of the users whom the store knows; `None` if it was not asked.
    known: Option<Result<Moves, String>>,
    /// Whether a cookie keeps users in their groups.
    is_sticky: bool,
}

impl<'a> PlanEffect<'a> {
    fn of(
        old: &Plan,
        new: &Plan,
        name: &'a str,
        ids: &[Vec<u8>],
        known: Option<&KnownUsers>,
    ) -> PlanEffect<'a> {
        let of = |plan: &Plan| {
            plan.experiment_named(name)
                .map(|index| plan.experiment(index).clone())
        };
        let (before, after) = (of(old), of(new));
        let changes = match (&before, &after) {
            (Some(before), Some(after)) => changes((old, before), (new, after)),
            _ => Vec::new(),
        };
        let mut moves = Moves::new();
        for user in ids.iter().filter_map(|id| UserId::new(id)) {
            let key = (
                place(old, old.experiment_named(name), user),
                place(new, new.experiment_named(name), user),
            );
            *moves.entry(key).or_default() += 1;
        }
        let is_sticky = |it: &Option<Experiment>| it.as_ref().is_some_and(|it| it.is_sticky);
        PlanEffect {
            name,
            meaning: meaning((old, before.as_ref()), (new, after.as_ref())),
            changes,
            moves,
            known: known.map(|known| of_known(known, old, new, name)),
            is_sticky: is_sticky(&before) && is_sticky(&after),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{}: {}\n", self.name, self.meaning);
        for change in &self.changes {
            text.push_str(&format!("  {change}\n"));
        }
        text.push_str(&shown(&self.moves));
        match &self.known {
            None => {}
            Some(Err(error)) => text.push_str(&format!(
                "  the store cannot say which users it knows: {error}\n"
            )),
            Some(Ok(moves)) if moves.is_empty() => {
                text.push_str("  the store knows no users of it\n");
            }
            Some(Ok(moves)) => {
                let all: u64 = moves.values().sum();
                let cookie = match self.is_sticky {
                    true => " (without the cookie of `sticky`, which keeps them where they were)",
                    false => "",
                };
                let moves = shown(moves);
                text.push_str(&format!("  of {all} known users{cookie}:\n{moves}"));
            }
        }
        text
    }

    fn document(&self) -> Value {
        let known = self.known.as_ref().map(|known| match known {
            Ok(moves) => json!({ "moves": documents(moves) }),
            Err(error) => json!({ "error": error }),
        });
        json!({
            "name": self.name,
            "meaning": self.meaning,
            "changes": self.changes,
            "moves": documents(&self.moves),
            "known_users": known,
            "sticky": self.is_sticky,
        })
    }
}

fn documents(moves: &Moves) -> Vec<Value> {
    let all: u64 = moves.values().sum();
    let document = |((from, to), users): (&(String, String), &u64)| {
        let share = *users as f64 / all.max(1) as f64;
        json!({ "from": from, "to": to, "users": users, "share": share })
    };
    moves.iter().map(document).collect()
}

/// What changes for requests that no experiment claims.
fn of_routes(old: &Plan, new: &Plan) -> String {
    let describe = |plan: &Plan| -> Vec<String> {
        let routes = plan.routes.iter();
        routes
            .map(|route| route.described(&plan.upstreams))
            .collect()
    };
    let (before, after) = (describe(old), describe(new));
    let mut text = String::new();
    for (word, these, others) in [("gone", &before, &after), ("new", &after, &before)] {
        for route in these.iter().filter(|it| !others.contains(it)) {
            text += &format!("routes: {word}: {route}\n");
        }
    }
    if text.is_empty() && before != after {
        text += "routes: another order\n";
    }
    let default = |plan: &Plan| plan.upstream(plan.default).name.clone();
    let (was, becomes) = (default(old), default(new));
    if was != becomes {
        text += &format!("everything else: {was} -> {becomes}\n");
    }
    text
}

/// One line for each move, one for each reason to stay outside, and one for those who stay.
fn shown(moves: &Moves) -> String {
    let all: u64 = moves.values().sum();
    let (mut stay, mut text) = (0, String::new());
    let mut outside: BTreeMap<&str, u64> = BTreeMap::new();
    let is_outside = |place: &str| place.starts_with("outside");
    for ((from, to), count) in moves {
        if is_outside(from) && is_outside(to) {
            *outside.entry(to).or_default() += count;
        } else if from == to {
            stay += count;
        } else {
            text.push_str(&format!(
                "  {:>6} %  {from} -> {to}\n",
                percent(*count, all)
            ));
        }
    }
    let stay = [("stay".to_owned(), stay)];
    let outside = outside.into_iter();
    let outside = outside.map(|(place, count)| (format!("stay {place}"), count));
    for (what, count) in outside.chain(stay) {
        text.push_str(&format!("  {:>6} %  {what}\n", percent(count, all)));
    }
    text
}

/// What becomes of the users whom the store knows, each in the group of first exposure.
fn of_known(known: &KnownUsers, old: &Plan, new: &Plan, name: &str) -> Result<Moves, String> {
    let mut moves = Moves::new();
    let (old_index, new_index) = (old.experiment_named(name), new.experiment_named(name));
    known.of(old, name, |user, record| {
        let Some(user) = UserId::new(user) else {
            return;
        };
        let from = old_index.and_then(|index| {
            let group = old.experiment(index).group_named(&record.group)?;
            Some(of_group(old, index, group))
        });
        let from = from.unwrap_or_else(|| record.group.clone());
        let to = place(new, new_index, user);
        *moves.entry((from, to)).or_default() += 1;
    })?;
    Ok(moves)
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
        _ => "unchanged assignment",
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
    if before.salt != after.salt || moved((old, before), (new, after)) {
        return Vec::new();
    }
    let stays = |key: &str, was: String, becomes: String| {
        (was != becomes)
            .then(|| format!("{key}: {was} -> {becomes}: {was} decides until a new phase begins"))
    };
    let mut found = Vec::new();
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

fn primary(plan: &Plan, experiment: &Experiment) -> String {
    let primary = experiment
        .metrics
        .first()
        .map(|&index| &plan.metric(index).name);
    primary.map_or("none".to_owned(), ToString::to_string)
}

/// Describes where a user is: the group, and its upstream.
fn place(plan: &Plan, experiment: Option<ExperimentIndex>, user: UserId<'_>) -> String {
    let outside = || "outside".to_owned();
    let Some(index) = experiment else {
        return outside();
    };
    let units = Units::all(plan.units.len(), user.as_bytes());
    let subject = Subject {
        units: Some(&units),
        ..Subject::of(user)
    };
    let mut exclusions = plan.counting.exclusions.iter();
    if exclusions.any(|it| matches!(it, Exclusion::Ids(ids) if ids.contains(user.as_bytes()))) {
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
                AssignedBy::Hash | AssignedBy::Sticky(_) | AssignedBy::Override => group,
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

/// A group, and its upstream.
fn of_group(plan: &Plan, index: ExperimentIndex, group: GroupIndex) -> String {
    let group = &plan.experiment(index).groups[group.0];
    let upstream = group.upstream.map(|upstream| &plan.upstream(upstream).name);
    let shown = upstream.map_or(String::new(), |name| format!(" ({name})"));
    format!("{}{shown}", group.name)
}

fn percent(count: u64, all: u64) -> String {
    format!("{:.2}", 100.0 * count as f64 / all.max(1) as f64)
}
