//! Reads `routes.yaml` into an immutable [`plan::Plan`].
//!
//! [`load`] parses the file ([`file`], the only user of the YAML parser) and those that it includes
//! ([`document`]), finds the positions of their keys ([`source_map`]), fills in environment variables
//! ([`environment`]), and reads the keys into the plan ([`check`]). On the way it collects all errors with
//! their positions ([`reader`], [`diagnostic`]).

mod acme;
mod admin;
mod admission;
mod algorithm;
mod archive;
mod cache;
pub mod changes;
mod check;
mod conditions;
mod cookie_domain;
mod counting;
pub mod declaration;
pub mod definition;
mod diagnostic;
pub mod difference;
mod document;
mod environment;
mod error_pages;
mod experiments;
mod file;
mod flag_value;
mod forward;
mod health;
mod hidden_values;
mod http_target;
mod identity;
mod key_recorder;
mod lifecycle;
mod limits;
mod logging;
mod message_edits;
mod metrics;
mod mirror;
mod name;
pub mod plan;
mod privacy;
mod ramp;
mod reader;
mod redact;
mod routes;
mod schema;
mod secret_text;
mod segments;
mod server_tls;
mod snippet;
mod source_map;
mod store;
mod tls;
mod tracing;
mod upstreams;
mod version_rules;
mod webhooks;

pub use admin::AdminAccess;
pub use archive::parse as archive_target;
pub use diagnostic::{ConfigWarning, Diagnostic, InvalidConfig};
pub use document::matching;
pub use name::is_name;
pub use schema::schema;
use snippet::ShownAs;
pub use snippet::Snippet;

use crate::features::Feature;
use document::{RoutesDocument, SourceFile};
use environment::Environment;
use plan::{IdLists, Plan};
use reader::ReadContext;
use source_map::{Position, ScalarToken};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Reads the plan of a file, or returns all its errors.
pub fn load(path: &Path) -> Result<Plan, InvalidConfig> {
    scheduled(&read(path)?, path, &IdLists::new())
}

/// The same where a plan is in use already: its lists of IDs stay in use where their file cannot be read. A pipe,
/// which would make the server wait, is refused.
pub fn load_again(path: &Path, known_ids: &IdLists) -> Result<Plan, InvalidConfig> {
    let text = file::read_regular(path);
    let text = text.map_err(|problem| InvalidConfig::of(*problem, path))?;
    scheduled(&text, path, known_ids)
}

/// Returns what a file has, as it is written: without the environment and the files that it names. `None` where it has a
/// number that JSON does not have, or no keys.
pub fn written(path: &Path) -> Result<Option<serde_json::Value>, InvalidConfig> {
    let (value, _) =
        file::parse(path, &read(path)?, 0).map_err(|problem| InvalidConfig::of(*problem, path))?;
    Ok(value.to_json().filter(serde_json::Value::is_object))
}

fn scheduled(text: &str, path: &Path, known_ids: &IdLists) -> Result<Plan, InvalidConfig> {
    let mut plan = parse_for(text, path, &of_process, Feature::is_built, known_ids)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    plan.keep_schedules(now.map_or(0, |now| now.as_millis() as u64));
    Ok(plan)
}

/// Reads where the admin API of a file is, although other parts of the file may be invalid.
pub fn admin_access(path: &Path) -> Result<AdminAccess, InvalidConfig> {
    let text = read(path)?;
    let document = RoutesDocument::read(path, &text, &of_process);
    let document = document.map_err(|problem| InvalidConfig::of(*problem, path))?;
    let (value, substituted) = environment::substitute(&document.value, &of_process);
    let ids = IdLists::new();
    let mut reading = ReadContext::of(&document, &of_process, &ids);
    reading.substituted = substituted.paths;
    let access = AdminAccess::read(&check::root(&reading, &value));
    access.ok_or_else(|| invalid(&document, &reading, Vec::new()))
}

/// Reads the plan of a text, as if it were the file at `path`.
pub fn parse(
    text: &str,
    path: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Plan, InvalidConfig> {
    parse_for(text, path, environment, Feature::is_built, &IdLists::new())
}

/// Reads the plan of a text that somebody else wrote, as if it were the file at `path`: without the environment, and
/// without the files that `files` names, which errors would show.
#[cfg(feature = "mcp")]
pub fn parse_alone(text: &str, path: &Path) -> Result<Plan, InvalidConfig> {
    let invalid = |problem| InvalidConfig::of(problem, path);
    let (value, _) = file::parse(path, text, 0).map_err(|problem| invalid(*problem))?;
    if let file::Value::Map(map) = &value
        && map.iter().any(|(key, _)| key == "files")
    {
        let found = "`files` names other files, which are not read here".to_owned();
        let allowed = "write what they have into one text, and leave `files` out".to_owned();
        let problem = Diagnostic {
            key: "files".to_owned(),
            ..Diagnostic::of_file(path, found, allowed)
        };
        return Err(invalid(problem));
    }
    parse(text, path, &|_| None)
}

fn of_process(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn read(path: &Path) -> Result<String, InvalidConfig> {
    file::read(path).map_err(|problem| InvalidConfig::of(*problem, path))
}

/// What errors call a definition.
const STORED: &str = "the store's definition";

/// Reads what the store keeps of an experiment ([`definition`]), as a plan that has this experiment alone.
pub fn restore(definition: &str) -> Result<Plan, InvalidConfig> {
    parse(definition, Path::new(STORED), &of_process)
}

/// Reads the same without the headers of groups, whose secrets may be gone: as far as it says who is in which group, and
/// what is counted.
pub fn restore_counted(definition: &str) -> Result<Plan, InvalidConfig> {
    let definition = definition::without_headers(definition);
    parse(&definition, Path::new(STORED), &|_| None)
}

/// The same for a program with other features than this one.
fn parse_for(
    text: &str,
    path: &Path,
    environment: &Environment<'_>,
    is_built: fn(Feature) -> bool,
    known_ids: &IdLists,
) -> Result<Plan, InvalidConfig> {
    let document = RoutesDocument::read(path, text, environment);
    let document = document.map_err(|problem| InvalidConfig::of(*problem, path))?;
    let (value, substituted) = environment::substitute(&document.value, environment);
    let mut reading = ReadContext::of(&document, environment, known_ids);
    reading.is_built = is_built;
    reading.substituted = substituted.paths;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // The values without comments and layout: two files with the same meaning have the same digest.
    let mut meaning = std::io::Cursor::new(format!("{value:?}"));
    // Reading from memory cannot fail, and the crate adds no error of its own.
    let digest = murmur3::murmur3_x64_128(&mut meaning, 0).unwrap_or_default() as u64;
    let root = check::root(&reading, &value);
    let mut plan = check::plan(&root, cores, digest);
    version_rules::warn_of_isolated(&root);
    let has_problems = !(reading.diagnostics.borrow().is_empty()
        && document.diagnostics.is_empty()
        && substituted.problems.is_empty());
    if has_problems {
        return Err(invalid(&document, &reading, substituted.problems));
    }
    let folder = |path: &[String]| {
        let file = &document.files[document.source_map.find(path).key.file].path;
        file.parent().unwrap_or(Path::new("")).to_owned()
    };
    plan.definitions = definition::texts(&value, &document.value, &folder);
    plan.cookies_read = reading.cookies_read.take().into();
    let included = document.files.iter().skip(1).map(|file| file.path.clone());
    plan.watched = plan.watched.into_iter().chain(included).collect();
    plan.watched_patterns = document.patterns.clone().into();
    let mut warnings = document.warnings.clone();
    warnings.extend(reading.warnings.take());
    let warnings = with_lines(&document, &reading, warnings);
    plan.warnings = warnings.into_iter().map(ConfigWarning).collect();
    let secrets = reading.secrets.take();
    plan.redacted_file = redact::redacted(&document.value, &secrets);
    plan.content = redact::text(&document.value, &secrets).into();
    plan.secrets = redact::digest(&document.value, &secrets);
    Ok(plan)
}

/// Returns all problems of a document, in the order of its files. What follows from a missing environment
/// variable is left out.
fn invalid(
    document: &RoutesDocument,
    reading: &ReadContext<'_>,
    missing: Vec<(Vec<String>, String, String)>,
) -> InvalidConfig {
    let mut problems = document.diagnostics.clone();
    let is_missing = |key: &str| {
        missing.iter().any(|(path, ..)| {
            let rest = key.strip_prefix(&*path.join("."));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    };
    let found = reading.diagnostics.take();
    problems.extend(found.into_iter().filter(|(_, it)| !is_missing(&it.key)));
    problems.extend(missing.into_iter().map(|(path, found, allowed)| {
        let at = document.source_map.find(&path).value;
        let problem = Diagnostic {
            place: Some((at.line, at.column)),
            key: path.join("."),
            ..Diagnostic::of_file(&document.files[at.file].path, found, allowed)
        };
        (at, problem)
    }));
    problems.sort_by_key(|(at, _)| *at);
    problems.dedup();
    InvalidConfig {
        diagnostics: with_lines(document, reading, problems),
        files: document
            .files
            .iter()
            .map(|file| file.path.clone())
            .collect(),
    }
}

/// Adds the lines of the files to problems. Only values that were read as no secrets are shown.
fn with_lines(
    document: &RoutesDocument,
    reading: &ReadContext<'_>,
    problems: Vec<(Position, Diagnostic)>,
) -> Vec<Diagnostic> {
    let (public, secrets) = (reading.public.borrow(), reading.secrets.borrow());
    let shown_as = |token: &ScalarToken| match token {
        token if secrets.contains(&token.path) => ShownAs::Secret,
        token if token.is_text && !public.contains(&token.path) => ShownAs::Unread,
        _ => ShownAs::Written,
    };
    let with_line = |(at, problem): (Position, Diagnostic)| {
        let SourceFile { text, .. } = &document.files[at.file];
        let (line, column) = problem.place.unwrap_or((at.line, at.column));
        let at = Position { line, column, ..at };
        // Without positions it is not known where secrets stand.
        let is_known = document.source_map.stopped().is_none();
        let snippet = || Snippet::of(text, at, &document.source_map, shown_as);
        let snippet = || is_known.then(snippet).flatten();
        Diagnostic {
            snippet: problem.snippet.clone().or_else(snippet),
            ..problem
        }
    };
    problems.into_iter().map(with_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_show_words_that_are_named_and_no_secrets() {
        let shown = |line: &str| {
            let text = format!("upstreams: {{ a: \"http://127.0.0.1:1\" }}\n{line}\n");
            let invalid = parse(&text, Path::new("routes.yaml"), &|_| None).unwrap_err();
            let snippets = invalid.diagnostics.iter();
            let snippets = snippets.filter_map(|it| it.snippet.as_ref());
            snippets.map(Snippet::to_string).collect::<String>()
        };
        assert!(shown("access_log: yes").contains("| access_log: yes\n"));
        let secret = shown("overrides: { secret: yes }");
        assert!(!secret.is_empty() && !secret.contains("yes"), "{secret}");
    }

    #[test]
    fn keys_whose_feature_is_missing_are_errors_that_name_it() {
        let text = "
upstreams: { a: \"http://127.0.0.1:1\" }
store: redis://127.0.0.1:6379
trace: { otlp: \"http://127.0.0.1:4318\" }
archive: { to: out }
dns: { servers: 10.0.0.2 }
tls: { listen: 127.0.0.1:8443, acme: { names: shop.example, agree_terms: true } }
";
        let path = Path::new("routes.yaml");
        let invalid = parse_for(text, path, &|_| None, |_| false, &IdLists::new()).unwrap_err();
        let diagnostics = invalid.diagnostics.iter();
        let found: Vec<_> = diagnostics.map(|it| (&*it.key, it.found.clone())).collect();
        let missing = |name| format!("this program was built without its feature `{name}`");
        assert_eq!(
            found,
            [
                ("store", "redis"),
                ("trace.otlp", "otlp"),
                ("archive", "archive"),
                ("dns", "dns"),
                ("tls.acme", "acme"),
            ]
            .map(|(key, feature)| (key, missing(feature)))
        );
        let hint = &invalid.diagnostics[0].allowed;
        assert!(hint.contains("--features redis"), "{hint}");
        assert!(parse_for(text, path, &|_| None, |_| true, &IdLists::new()).is_ok());
    }
}
