//! `watershed plan OLD NEW`: shows how many users would move if one file replaced the other.

use super::known_users::{self, KnownUsers};
use super::output::Output;
use crate::admin::clock::now_ms;
use crate::config;
use crate::config::changes::{self, ExperimentChange, Moves, compare, of_group, place};
use crate::config::plan::Plan;
use crate::experiment::UserId;
use anyhow::Context;
use serde_json::{Value, json};
use std::path::PathBuf;

/// The arguments of `plan`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
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

/// Prints the changes for users, by experiment.
pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
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
    let names = changes::names(&old, &new).into_iter();
    let effects: Vec<PlanEffect> = names
        .map(|name| PlanEffect::of(&old, &new, name, &ids, known.as_ref()))
        .collect();
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

/// Describes the changes for simulated users, without asking a store.
#[cfg(feature = "mcp")]
pub(super) fn described(old: &Plan, new: &Plan, users: u32) -> String {
    let ids = (0..users).map(|number| format!("user-{number}").into_bytes());
    let ids: Vec<Vec<u8>> = ids.collect();
    let names = changes::names(old, new).into_iter();
    let effects = names.map(|name| PlanEffect::of(old, new, name, &ids, None).text());
    let text = effects.collect::<String>() + &of_routes(old, new);
    match text.is_empty() {
        true => "nothing changes for users: neither file has an experiment\n".to_owned(),
        false => text,
    }
}

/// The effect on one experiment.
struct PlanEffect<'a> {
    name: &'a str,
    change: ExperimentChange,
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
        let is_sticky = [old, new].iter().all(|plan| {
            let index = plan.experiment_named(name);
            index.is_some_and(|index| plan.experiment(index).is_sticky)
        });
        PlanEffect {
            name,
            change: compare(old, new, name, ids.iter().map(Vec::as_slice)),
            known: known.map(|known| of_known(known, old, new, name)),
            is_sticky,
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{}: {}\n", self.name, self.change.meaning);
        for change in &self.change.changes {
            text.push_str(&format!("  {change}\n"));
        }
        text.push_str(&shown(&self.change.moves));
        match &self.known {
            None => {}
            Some(Err(error)) => text.push_str(&format!(
                "  the store cannot say which users it knows: {error}\n"
            )),
            Some(Ok(moves)) if moves.users() == 0 => {
                text.push_str("  the store knows no users of it\n");
            }
            Some(Ok(moves)) => {
                let all = moves.users();
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
            "meaning": self.change.meaning,
            "changes": self.change.changes,
            "moves": documents(&self.change.moves),
            "known_users": known,
            "sticky": self.is_sticky,
        })
    }
}

fn documents(moves: &Moves) -> Vec<Value> {
    let all = moves.users();
    let document = |(from, to, users): (&str, &str, u64)| {
        let share = users as f64 / all.max(1) as f64;
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
    let lines = moves.lines().into_iter();
    lines.map(|line| format!("  {line}\n")).collect()
}

/// What becomes of the users whom the store knows, each in the group of first exposure.
fn of_known(known: &KnownUsers, old: &Plan, new: &Plan, name: &str) -> Result<Moves, String> {
    let mut moves = Moves::default();
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
        moves.add(from, to);
    })?;
    Ok(moves)
}
