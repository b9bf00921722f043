//! Reads `routes.yaml` into an immutable [`plan::Plan`].
//!
//! [`load`] parses the file ([`file`], the only user of the YAML parser), finds the positions of its
//! keys ([`source_map`]), and reads the keys into the plan ([`check`]). On the way it collects all
//! errors with their positions ([`reader`], [`diagnostic`]).

mod admin;
mod admission;
pub mod changes;
mod check;
mod conditions;
mod cookie_domain;
mod counting;
pub mod declaration;
mod diagnostic;
pub mod difference;
mod experiments;
mod file;
mod health;
mod identity;
mod key_recorder;
mod lifecycle;
mod limits;
mod logging;
mod message_edits;
mod metrics;
mod name;
pub mod plan;
mod privacy;
mod ramp;
mod reader;
mod redact;
mod routes;
mod schema;
mod segments;
mod source_map;
mod store;
mod tls;
mod tracing;
mod upstreams;

pub use diagnostic::{ConfigWarning, Diagnostic, InvalidConfig};
pub use name::is_name;
pub use schema::schema;

use crate::features::Feature;
use plan::{IdLists, Plan};
use std::cell::RefCell;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Reads the plan of a file, or returns all its errors.
pub fn load(path: &Path) -> Result<Plan, InvalidConfig> {
    load_again(path, &IdLists::new())
}

/// The same where a plan is in use already: its lists of IDs stay in use where their file cannot be read.
pub fn load_again(path: &Path, known_ids: &IdLists) -> Result<Plan, InvalidConfig> {
    let text = file::read(path)?;
    let environment = |name: &str| std::env::var(name).ok();
    let mut plan = parse_for(&text, path, &environment, Feature::is_built, known_ids)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    plan.keep_schedules(now.map_or(0, |now| now.as_millis() as u64));
    Ok(plan)
}

/// Reads the plan of a text, as if it were the file at `path`.
pub fn parse(
    text: &str,
    path: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Plan, InvalidConfig> {
    parse_for(text, path, environment, Feature::is_built, &IdLists::new())
}

/// The same for a program with other features than this one.
fn parse_for(
    text: &str,
    path: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
    is_built: fn(Feature) -> bool,
    known_ids: &IdLists,
) -> Result<Plan, InvalidConfig> {
    // YAML has line breaks that editors do not show, and the parser may point past the end.
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
        is_built,
        diagnostics: RefCell::default(),
        warnings: RefCell::default(),
        secrets: RefCell::default(),
        known_ids,
        id_lists: RefCell::default(),
        recorded: None,
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // The values without comments and layout: two files with the same meaning have the same digest.
    let mut meaning = std::io::Cursor::new(format!("{value:?}"));
    // Reading from memory cannot fail, and the crate adds no error of its own.
    let digest = murmur3::murmur3_x64_128(&mut meaning, 0).unwrap_or_default() as u64;
    let mut plan = check::plan(&check::root(&reading, &value), cores, digest);
    let secrets = reading.secrets.take();
    plan.redacted_file = redact::redacted(&value, &secrets);
    plan.content = redact::text(&value, &secrets).into();
    let warnings = reading.warnings.take().into_iter().map(within);
    plan.warnings = warnings.map(ConfigWarning).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_whose_feature_is_missing_are_errors_that_name_it() {
        let text = "
upstreams: { a: \"http://127.0.0.1:1\" }
store: redis://127.0.0.1:6379
trace: { otlp: \"http://127.0.0.1:4318\" }
";
        let path = Path::new("routes.yaml");
        let invalid = parse_for(text, path, &|_| None, |_| false, &IdLists::new()).unwrap_err();
        let diagnostics = invalid.diagnostics.iter();
        let found: Vec<_> = diagnostics.map(|it| (&*it.key, &*it.found)).collect();
        assert_eq!(
            found,
            [
                (
                    "store",
                    "this program was built without its feature `redis`"
                ),
                (
                    "trace.otlp",
                    "this program was built without its feature `otlp`"
                ),
            ]
        );
        let hint = &invalid.diagnostics[0].allowed;
        assert!(hint.contains("--features redis"), "{hint}");
        assert!(parse_for(text, path, &|_| None, |_| true, &IdLists::new()).is_ok());
    }
}
