//! `watershed plan OLD NEW`: shows how many users would move if one file replaced the other.

use crate::config;
use crate::config::plan::Plan;
use crate::experiment::resolve::{AssignedBy, Membership, membership};
use crate::experiment::{Experiment, UserId};
use anyhow::Context;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The arguments of `plan`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The file that is served now
    old: PathBuf,
    /// The file that is to be served
    new: PathBuf,
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
    let names = old.experiments.iter().chain(&new.experiments);
    let mut said: Vec<&str> = Vec::new();
    for name in names.map(|experiment| &*experiment.name) {
        if said.contains(&name) {
            continue;
        }
        said.push(name);
        print!("{}", told(&old, &new, name, &ids));
    }
    if said.is_empty() {
        println!("neither file has an experiment");
    }
    Ok(())
}

fn told(old: &Plan, new: &Plan, name: &str, ids: &[Vec<u8>]) -> String {
    let of = |plan: &Plan| {
        plan.experiment_named(name)
            .map(|index| plan.experiment(index).clone())
    };
    let (before, after) = (of(old), of(new));
    let mut text = format!("{name}: {}\n", meaning(before.as_ref(), after.as_ref()));
    let mut moves = Moves::new();
    for user in ids.iter().filter_map(|id| UserId::new(id)) {
        let key = (
            place(old, before.as_ref(), user),
            place(new, after.as_ref(), user),
        );
        *moves.entry(key).or_default() += 1;
    }
    let all: u64 = moves.values().sum();
    let mut stay = 0;
    for ((from, to), count) in &moves {
        if from == to {
            stay += count;
        } else {
            text.push_str(&format!(
                "  {:>6} %  {from} -> {to}\n",
                percent(*count, all)
            ));
        }
    }
    text.push_str(&format!("  {:>6} %  stay\n", percent(stay, all)));
    text
}

/// Describes the effect of a change on the counts.
fn meaning(before: Option<&Experiment>, after: Option<&Experiment>) -> &'static str {
    match (before, after) {
        (None, _) => "new",
        (_, None) => "removed; its counts are kept",
        (Some(before), Some(after)) if before.salt != after.salt => {
            "another salt: all users are assigned anew, and the experiment restarts"
        }
        (Some(before), Some(after)) if before.epoch != after.epoch => {
            "other weights or traffic: a new epoch begins; exposed users who move become crossovers"
        }
        (Some(before), Some(after)) if before.winner != after.winner => match after.winner {
            Some(_) => "it ends: everybody gets one version, and nothing more is recorded",
            None => "it runs again",
        },
        _ => "unchanged assignment",
    }
}

/// Describes where a user is: the group, and its upstream.
fn place(plan: &Plan, experiment: Option<&Experiment>, user: UserId<'_>) -> String {
    let outside = || "outside".to_owned();
    let Some(experiment) = experiment else {
        return outside();
    };
    let Membership::Inside { group, by } = membership(experiment, user, None) else {
        return outside();
    };
    let group = &experiment.groups[group.0];
    let upstream = group.upstream.map(|upstream| &plan.upstream(upstream).name);
    let shown = upstream.map_or(String::new(), |name| format!(" ({name})"));
    match by {
        AssignedBy::Winner => format!("everybody in {}{shown}", group.name),
        AssignedBy::Hash | AssignedBy::Override => format!("{}{shown}", group.name),
    }
}

fn percent(count: u64, all: u64) -> String {
    format!("{:.2}", 100.0 * count as f64 / all.max(1) as f64)
}
