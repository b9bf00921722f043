//! `routes.yaml`: the file's shape, its checks, its messages; yields an immutable [`plan::Plan`].
//!
//! [`load`] reads the file ([`file`], the only place that knows the YAML parser), finds where its
//! keys stand ([`locate`]), and reads keys into the plan ([`check`]), noting everything that is
//! wrong with its place on the way ([`node`], [`problem`]).

mod admin;
mod check;
mod deciding;
pub mod declare;
mod experiments;
mod file;
mod health;
mod identity;
mod limits;
mod locate;
mod logging;
mod metrics;
mod name;
mod node;
pub mod plan;
mod privacy;
mod problem;
mod schema;
mod seen;
mod shown;
mod store;
mod tls;
mod tracing;
mod upstreams;

pub use name::is_name;
pub use problem::{Problem, Unsound};
pub use schema::schema;

use plan::Plan;
use std::cell::RefCell;
use std::path::Path;

/// The plan of a file, or all that is wrong with it.
pub fn load(path: &Path) -> Result<Plan, Unsound> {
    let text = file::read(path)?;
    parse(&text, path, &|name| std::env::var(name).ok())
}

/// The plan of a text, as if it stood in the file at `path`.
pub fn parse(
    text: &str,
    path: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Plan, Unsound> {
    // YAML knows line breaks that editors do not show as such, and may point past the end.
    let lines = text.lines().count().max(1);
    let within = |mut problem: Problem| {
        problem.place = problem
            .place
            .map(|(line, column)| (line.clamp(1, lines), column.max(1)));
        problem
    };
    let parsed = file::parse(path, text);
    let (value, places) = parsed.map_err(|unsound| Unsound {
        problems: unsound.problems.into_iter().map(within).collect(),
    })?;
    let reading = node::Reading {
        path,
        places,
        environment,
        problems: RefCell::default(),
        secrets: RefCell::default(),
        seen: None,
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // The values without comments and layout: what two files that mean the same have in common.
    let mut meaning = std::io::Cursor::new(format!("{value:?}"));
    // Reading from memory cannot fail, and the crate adds no error of its own.
    let digest = murmur3::murmur3_x64_128(&mut meaning, 0).unwrap_or_default() as u64;
    let mut plan = check::plan(&check::root(&reading, &value), cores, digest);
    plan.shown = shown::shown(&value, &reading.secrets.take());
    let mut problems: Vec<Problem> = reading
        .problems
        .into_inner()
        .into_iter()
        .map(within)
        .collect();
    problems.sort_by_key(|problem| problem.place);
    if problems.is_empty() {
        Ok(plan)
    } else {
        Err(Unsound { problems })
    }
}
