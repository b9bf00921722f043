//! Which rule of which route a request belongs to, where several match. PURE.
//! Source: Gateway API 1.4, `HTTPRouteSpec.hostnames` and `HTTPRouteRule.matches`.

use super::http_route::{HttpRoute, PathMatch, RouteMatch, ValueMatch};
use serde_json::{Map, Value, json};
use std::cmp::Reverse;

/// One way to match a rule.
#[derive(Clone, Debug)]
pub(super) struct RuleMatch<'a> {
    /// The place of its route, and that of its rule in the route.
    pub rule: (usize, usize),
    host: Option<&'a str>,
    conditions: &'a RouteMatch,
}

/// A path of a candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum MatchedPath<'a> {
    /// This path.
    Exact(&'a str),
    /// What is below this path, and the path; empty for every path, and without a `/` at its end.
    Prefix(&'a str),
    /// What this regular expression matches.
    Regex(&'a str),
}

static EVERY_REQUEST: RouteMatch = RouteMatch {
    path: None,
    headers: Vec::new(),
    query_params: Vec::new(),
    method: None,
};

/// Returns the candidates of all routes, the first of which wins where several match: that with the most specific
/// host, then path, method, number of headers and of parameters; then that of the oldest route, and the first by name.
pub(super) fn candidates(routes: &[HttpRoute]) -> Vec<RuleMatch<'_>> {
    let mut all = Vec::new();
    for (route, of) in routes.iter().enumerate() {
        let hosts: Vec<Option<&str>> = match of.spec.hostnames.is_empty() {
            true => vec![None],
            false => of.spec.hostnames.iter().map(|host| Some(&**host)).collect(),
        };
        for (rule, of) in of.spec.rules.iter().enumerate() {
            let matches = match of.matches.is_empty() {
                true => std::slice::from_ref(&EVERY_REQUEST),
                false => &of.matches[..],
            };
            for conditions in matches {
                all.extend(hosts.iter().map(|host| RuleMatch {
                    rule: (route, rule),
                    host: *host,
                    conditions,
                }));
            }
        }
    }
    // Candidates that are equal in all of this stay in the order of rules and matches.
    all.sort_by_cached_key(|candidate| {
        let metadata = &routes[candidate.rule.0].metadata;
        let age = metadata.creation_timestamp.clone();
        (candidate.specificity(), age, routes[candidate.rule.0].id())
    });
    all
}

impl<'a> RuleMatch<'a> {
    fn specificity(&self) -> impl Ord + use<> {
        let host = self.host.unwrap_or_default();
        let is_exact = !host.is_empty() && !host.starts_with('*');
        let path = match self.path() {
            MatchedPath::Exact(path) => (0, Reverse(path.len())),
            MatchedPath::Prefix(path) => (1, Reverse(path.len())),
            // The standard leaves their place open.
            MatchedPath::Regex(regex) => (2, Reverse(regex.len())),
        };
        let RouteMatch {
            headers,
            query_params,
            method,
            ..
        } = self.conditions;
        let others = (method.is_none(), Reverse(headers.len()));
        (
            (!is_exact, Reverse(host.len())),
            path,
            (others, Reverse(query_params.len())),
        )
    }

    /// Returns the path.
    pub(super) fn path(&self) -> MatchedPath<'a> {
        let Some(PathMatch { kind, value }) = &self.conditions.path else {
            return MatchedPath::Prefix("");
        };
        let value = value.as_deref().unwrap_or("/");
        match kind.as_deref() {
            Some("Exact") => MatchedPath::Exact(value),
            Some("RegularExpression") => MatchedPath::Regex(value),
            _ => MatchedPath::Prefix(value.trim_end_matches('/')),
        }
    }

    /// Whether both have the same conditions: then only the first of them ever wins.
    pub(super) fn equals(&self, other: &RuleMatch<'_>) -> bool {
        let (one, two) = (self.conditions, other.conditions);
        self.host == other.host
            && self.path() == other.path()
            && one.headers == two.headers
            && one.query_params == two.query_params
            && one.method == two.method
    }

    /// Whether a request may match both, as far as host and path tell.
    pub(super) fn may_overlap(&self, other: &RuleMatch<'_>) -> bool {
        let hosts = match (self.host, other.host) {
            (Some(one), Some(other)) => hosts_overlap(one, other),
            _ => true,
        };
        hosts && paths_overlap(self.path(), other.path())
    }

    /// Returns its conditions as the routes file has them. The error names one that watershed does not have.
    pub(super) fn condition(&self) -> Result<Map<String, Value>, String> {
        let mut all = Map::new();
        let path = match self.path() {
            MatchedPath::Exact(path) => json!(escaped(path)),
            MatchedPath::Prefix(path) => json!(format!("{}/**", escaped(path))),
            MatchedPath::Regex(regex) => json!({ "regex": format!("^(?:{regex})$") }),
        };
        all.insert("path".to_owned(), path);
        all.extend(self.host.map(|host| ("host".to_owned(), json!(host))));
        let method = self.conditions.method.as_ref();
        all.extend(method.map(|method| ("method".to_owned(), json!(method))));
        for (key, list) in [
            ("headers", &self.conditions.headers),
            ("query", &self.conditions.query_params),
        ] {
            if !list.is_empty() {
                all.insert(key.to_owned(), Value::Object(values(key, list)?));
            }
        }
        Ok(all)
    }
}

/// Of conditions on one name, the first counts.
fn values(key: &str, list: &[ValueMatch]) -> Result<Map<String, Value>, String> {
    let mut all = Map::new();
    for ValueMatch { kind, name, value } in list {
        if kind.as_deref().is_some_and(|kind| kind != "Exact") {
            return Err(format!("matches: {key} {name} has a regular expression"));
        }
        if value.contains('*') {
            return Err(format!("matches: {key} {name} has a value with `*`"));
        }
        // Names of headers mean the same in any case.
        let name = match key {
            "headers" => name.to_ascii_lowercase(),
            _ => name.clone(),
        };
        all.entry(name).or_insert_with(|| json!(value));
    }
    Ok(all)
}

/// A path as a pattern that means only itself.
fn escaped(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    for character in path.chars() {
        if matches!(character, '*' | '[' | '{' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

fn hosts_overlap(one: &str, other: &str) -> bool {
    match (one.strip_prefix('*'), other.strip_prefix('*')) {
        (None, None) => one.eq_ignore_ascii_case(other),
        (Some(end), None) => other.ends_with(end),
        (None, Some(end)) => one.ends_with(end),
        (Some(end), Some(other)) => end.ends_with(other) || other.ends_with(end),
    }
}

fn paths_overlap(one: MatchedPath<'_>, other: MatchedPath<'_>) -> bool {
    use MatchedPath::{Exact, Prefix, Regex};
    let is_below = |path: &str, base: &str| {
        let rest = path.strip_prefix(base);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match (one, other) {
        (Exact(one), Exact(other)) => one == other,
        (Exact(path), Prefix(base)) | (Prefix(base), Exact(path)) => is_below(path, base),
        (Prefix(one), Prefix(other)) => is_below(one, other) || is_below(other, one),
        (Regex(_), _) | (_, Regex(_)) => true,
    }
}
