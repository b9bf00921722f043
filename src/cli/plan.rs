//! `watershed plan OLD NEW`: shows how many users would move if one file replaced the other.

use super::known_users::KnownUsers;
use crate::config;
use crate::config::changes::{self, Moves, compare, of_group, place};
use crate::config::plan::Plan;
use crate::experiment::UserId;
use anyhow::Context;
use std::path::PathBuf;

/// The arguments of `plan`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The file that is served now
    old: PathBuf,
    /// The file that is to be served
    new: PathBuf,
    /// Do not ask the store of OLD how many of its users would move
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
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let old = config::load(&arguments.old)?;
    let new = config::load(&arguments.new)?;
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
    let names = changes::names(&old, &new);
    for name in &names {
        print!("{}", told(&old, &new, name, &ids));
        if let Some(known) = &known {
            print!("{}", of_known(known, &old, &new, name));
        }
    }
    if names.is_empty() {
        println!("neither file has an experiment");
    }
    print!("{}", of_routes(&old, &new));
    Ok(())
}

fn told(old: &Plan, new: &Plan, name: &str, ids: &[Vec<u8>]) -> String {
    let found = compare(old, new, name, ids.iter().map(Vec::as_slice));
    let mut text = format!("{name}: {}\n", found.meaning);
    for change in &found.changes {
        text.push_str(&format!("  {change}\n"));
    }
    text + &shown(&found.moves)
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

fn shown(moves: &Moves) -> String {
    let lines = moves.lines().into_iter();
    lines.map(|line| format!("  {line}\n")).collect()
}

/// What becomes of the users whom the store knows, each in the group of first exposure.
fn of_known(known: &KnownUsers, old: &Plan, new: &Plan, name: &str) -> String {
    let mut moves = Moves::default();
    let is_sticky = [old, new].iter().all(|plan| {
        let index = plan.experiment_named(name);
        index.is_some_and(|index| plan.experiment(index).is_sticky)
    });
    let (old_index, new_index) = (old.experiment_named(name), new.experiment_named(name));
    let scanned = known.of(old, name, |user, record| {
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
    });
    if let Err(error) = scanned {
        return format!("  the store cannot say which users it knows: {error}\n");
    }
    let all = moves.users();
    let cookie = match is_sticky {
        true => " (without the cookie of `sticky`, which keeps them where they were)",
        false => "",
    };
    match all {
        0 => "  the store knows no users of it\n".to_owned(),
        _ => format!("  of {all} known users{cookie}:\n{}", shown(&moves)),
    }
}
