//! `routes.yaml`: the file's shape, its checks, its messages; yields an immutable [`plan::Plan`].
//!
//! [`load`] reads the file ([`file`], the only place that knows the YAML parser), finds where its
//! keys stand ([`locate`]), and reads keys into the plan ([`check`]), noting everything that is
//! wrong with its place on the way ([`node`], [`problem`]).

mod admin;
mod check;
pub mod declaration;
mod diagnostic;
mod experiments;
mod file;
mod health;
mod identity;
mod key_recorder;
mod lifecycle;
mod limits;
mod logging;
mod metrics;
mod name;
pub mod plan;
mod privacy;
mod reader;
mod redact;
mod schema;
mod segments;
mod source_map;
mod store;
mod tls;
mod tracing;
mod upstreams;

pub use diagnostic::{Diagnostic, InvalidConfig};
pub use name::is_name;
pub use schema::schema;

use plan::Plan;
use std::cell::RefCell;
use std::path::Path;

/// The plan of a file, or all that is wrong with it.
pub fn load(path: &Path) -> Result<Plan, InvalidConfig> {
    let text = file::read(path)?;
    parse(&text, path, &|name| std::env::var(name).ok())
}

/// The plan of a text, as if it stood in the file at `path`.
pub fn parse(
    text: &str,
    path: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Plan, InvalidConfig> {
    // YAML knows line breaks that editors do not show as such, and may point past the end.
    let lines = text.lines().count().max(1);
    let within = |mut problem: Diagnostic| {
        problem.place = problem
            .place
            .map(|(line, column)| (line.clamp(1, lines), column.max(1)));
        problem
    };
    let parsed = file::parse(path, text);
    let (value, source_map) = parsed.map_err(|invalid| InvalidConfig {
        diagnostics: invalid.diagnostics.into_iter().map(within).collect(),
    })?;
    let reading = reader::ReadContext {
        path,
        source_map,
        environment,
        diagnostics: RefCell::default(),
        secrets: RefCell::default(),
        recorded: None,
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // The values without comments and layout: what two files that mean the same have in common.
    let mut meaning = std::io::Cursor::new(format!("{value:?}"));
    // ReadContext from memory cannot fail, and the crate adds no error of its own.
    let digest = murmur3::murmur3_x64_128(&mut meaning, 0).unwrap_or_default() as u64;
    let mut plan = check::plan(&check::root(&reading, &value), cores, digest);
    plan.redacted_file = redact::redacted(&value, &reading.secrets.take());
    let mut diagnostics: Vec<Diagnostic> = reading
        .diagnostics
        .into_inner()
        .into_iter()
        .map(within)
        .collect();
    diagnostics.sort_by_key(|problem| problem.place);
    if diagnostics.is_empty() {
        Ok(plan)
    } else {
        Err(InvalidConfig { diagnostics })
    }
}
