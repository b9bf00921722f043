//! The base file with the entries of routes.

use crate::config::{self, InvalidConfig};
use crate::gateway::http_route::HttpRoute;
use crate::gateway::problem::RouteProblem;
use crate::gateway::translate::translate;
use anyhow::Context;
use serde_json::{Map, Value};
use std::path::Path;

/// A routes file, and what became of each route in it.
pub(super) struct MergedFile {
    /// The text.
    pub text: String,
    /// By the place of a route: what cannot be done of it.
    pub problems: Vec<(usize, RouteProblem)>,
    /// By the place of a route: why the file is invalid with it. It has no entries.
    pub refused: Vec<(usize, String)>,
}

/// Merges routes, the oldest first, into what the base has. One that makes the file invalid is left out. The error is that
/// of an invalid base.
pub(super) fn merge(
    base: &Path,
    routes: &[HttpRoute],
    cluster_domain: &str,
    file: &Path,
) -> anyhow::Result<MergedFile> {
    let base = config::written(base)?
        .context("the base file has no keys, or a number that JSON does not have")?;
    let with = |routes: &[HttpRoute]| {
        let translated = translate(routes, cluster_domain);
        let text = merged(
            &base,
            &translated.upstreams,
            &translated.experiments,
            &translated.routes,
        );
        let parsed = config::parse(&text, file, &|name| std::env::var(name).ok());
        (text, translated.problems, parsed.map(drop))
    };
    let (text, problems, parsed) = with(routes);
    if parsed.is_ok() {
        return Ok(MergedFile {
            text,
            problems,
            refused: Vec::new(),
        });
    }
    with(&[]).2?;
    // One after the other, so that one route is to blame.
    let (mut accepted, mut places, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for (place, route) in routes.iter().enumerate() {
        accepted.push(route.clone());
        match with(&accepted).2 {
            Ok(()) => places.push(place),
            Err(error) => {
                accepted.pop();
                refused.push((place, in_one_line(&error)));
            }
        }
    }
    let (text, problems, _) = with(&accepted);
    let problems = problems
        .into_iter()
        .map(|(place, problem)| (places[place], problem));
    Ok(MergedFile {
        text,
        problems: problems.collect(),
        refused,
    })
}

/// Entries of the base stand first.
fn merged(
    base: &Value,
    upstreams: &Map<String, Value>,
    experiments: &Map<String, Value>,
    routes: &[Value],
) -> String {
    let mut whole = base.clone();
    for (key, more) in [("upstreams", upstreams), ("experiments", experiments)] {
        if more.is_empty() {
            continue;
        }
        if whole[key].is_null() {
            whole[key] = Value::Object(Map::new());
        }
        // Anything else is an error of the base.
        if let Some(known) = whole[key].as_object_mut() {
            for (name, value) in more {
                known.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
    }
    if !routes.is_empty() {
        if whole["routes"].is_null() {
            whole["routes"] = Value::Array(Vec::new());
        }
        if let Some(known) = whole["routes"].as_array_mut() {
            known.extend(routes.iter().cloned());
        }
    }
    // JSON is YAML.
    format!("# Written by `watershed kubernetes`: what is changed here is lost.\n{whole:#}\n")
}

/// The first error, without its hint.
fn in_one_line(error: &InvalidConfig) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    first.trim_start_matches("error: ").to_owned()
}
