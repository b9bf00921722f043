//! What becomes of one rule. PURE.

use super::http_route::{
    BackendRef, HeaderModifier, HttpRoute, PathModifier, RequestRedirect, RouteFilter, RouteRule,
};
use super::matches::MatchedPath;
use super::problem::{ProblemReason, RouteProblem};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// What a rule becomes, without its conditions.
pub(super) enum RuleAnswer {
    /// An experiment, without its conditions.
    Experiment(Map<String, Value>),
    /// A route, without its conditions.
    Route(Map<String, Value>),
}

/// A rule that is translated.
pub(super) struct RuleTranslation<'a> {
    route: &'a HttpRoute,
    rule: &'a RouteRule,
    cluster_domain: &'a str,
    /// The upstreams that it needs, by name.
    pub upstreams: Map<String, Value>,
}

/// The longest name of an experiment or upstream.
const NAME_MAX: usize = 64;

impl<'a> RuleTranslation<'a> {
    /// Begins with a rule.
    pub(super) fn new(
        route: &'a HttpRoute,
        rule: &'a RouteRule,
        cluster_domain: &'a str,
    ) -> RuleTranslation<'a> {
        RuleTranslation {
            route,
            rule,
            cluster_domain,
            upstreams: Map::new(),
        }
    }

    /// Returns the name of the rule's experiment. It keeps its users and counts as long as it keeps its name.
    pub(super) fn name(&self, number: usize) -> Result<String, String> {
        let route = &self.route.metadata;
        let rule = self.rule.name.clone().unwrap_or_else(|| number.to_string());
        named(&[&route.namespace, &route.name, &rule])
    }

    /// Returns what the rule becomes for requests with one of these paths.
    pub(super) fn answer(&mut self, paths: &[MatchedPath<'_>]) -> Result<RuleAnswer, RouteProblem> {
        let rule = self.rule;
        for (key, has) in [
            ("retry", rule.retry.is_some()),
            ("timeouts", rule.timeouts.is_some()),
            ("sessionPersistence", rule.session_persistence.is_some()),
        ] {
            if has {
                return Err(unsupported(
                    key,
                    "is not supported: the routes file says it for all",
                ));
            }
        }
        let mut edits = edits(&rule.filters, paths).map_err(|why| unsupported("filters", &why))?;
        if edits.contains_key("redirect") {
            return Ok(RuleAnswer::Route(edits));
        }
        let weight = |backend: &BackendRef| backend.weight.unwrap_or(1);
        if rule.backend_refs.iter().all(|backend| weight(backend) == 0) {
            return Ok(RuleAnswer::Route(Map::from_iter([respond(500)])));
        }
        if let [backend] = &rule.backend_refs[..] {
            let upstream = self.upstream(0, backend)?;
            edits.extend(self.own_edits(0, backend, paths)?);
            edits.insert("upstream".to_owned(), json!(upstream));
            return Ok(RuleAnswer::Route(edits));
        }
        let mut groups = Map::new();
        for (place, backend) in rule.backend_refs.iter().enumerate() {
            let mut group = edits.clone();
            group.extend(self.own_edits(place, backend, paths)?);
            group.insert("weight".to_owned(), json!(weight(backend)));
            group.insert("upstream".to_owned(), json!(self.upstream(place, backend)?));
            // Services of one name differ in their ports.
            let name = match groups.contains_key(&backend.name) {
                true => format!("{}-{}", backend.name, backend.port.unwrap_or_default()),
                false => backend.name.clone(),
            };
            if groups.insert(name, Value::Object(group)).is_some() {
                return Err(unsupported(&format!("backendRefs.{place}"), "stands twice"));
            }
        }
        let groups = ("groups".to_owned(), Value::Object(groups));
        Ok(RuleAnswer::Experiment(Map::from_iter([groups])))
    }

    /// What is changed in messages of one service. It takes the place of what the rule changes.
    fn own_edits(
        &self,
        place: usize,
        backend: &BackendRef,
        paths: &[MatchedPath<'_>],
    ) -> Result<Map<String, Value>, RouteProblem> {
        let key = format!("backendRefs.{place}.filters");
        let both = !backend.filters.is_empty() && !self.rule.filters.is_empty();
        if both {
            return Err(unsupported(&key, "beside `filters` of the rule"));
        }
        let edits = edits(&backend.filters, paths).map_err(|why| unsupported(&key, &why))?;
        match edits.contains_key("redirect") {
            true => Err(unsupported(&key, "RequestRedirect of one service")),
            false => Ok(edits),
        }
    }

    /// Returns the name of a service's upstream.
    fn upstream(&mut self, place: usize, backend: &BackendRef) -> Result<String, RouteProblem> {
        let key = format!("backendRefs.{place}");
        let own = &self.route.metadata.namespace;
        let is_service = backend.group.as_deref().unwrap_or_default().is_empty()
            && backend.kind.as_deref().is_none_or(|kind| kind == "Service");
        if !is_service {
            let kind = backend.kind.as_deref().unwrap_or_default();
            return Err(RouteProblem {
                reason: ProblemReason::InvalidKind,
                message: format!("{key}: {kind} is no Service"),
            });
        }
        if let Some(other) = backend.namespace.as_ref().filter(|it| *it != own) {
            return Err(RouteProblem {
                reason: ProblemReason::RefNotPermitted,
                message: format!(
                    "{key}: a service of the namespace {other}; ReferenceGrant is not read"
                ),
            });
        }
        let Some(port) = backend.port else {
            return Err(unsupported(&key, "a Service needs its port"));
        };
        let name = named(&[own, &backend.name, &port.to_string()]);
        let name = name.map_err(|why| unsupported(&key, &why))?;
        let address = format!(
            "http://{}.{own}.svc.{}:{port}",
            backend.name, self.cluster_domain
        );
        self.upstreams.insert(name.clone(), json!(address));
        Ok(name)
    }
}

fn unsupported(key: &str, why: &str) -> RouteProblem {
    RouteProblem {
        reason: ProblemReason::UnsupportedValue,
        message: format!("{key}: {why}"),
    }
}

/// The answer with a status and nothing else.
pub(super) fn respond(status: u16) -> (String, Value) {
    ("respond".to_owned(), json!(status))
}

/// Two lists of parts have different names: a part of a Kubernetes name has no `_`.
fn named(parts: &[&str]) -> Result<String, String> {
    let name = parts.join("_");
    match name.len() > NAME_MAX {
        true => Err(format!("{name} is longer than {NAME_MAX} characters")),
        false => Ok(name),
    }
}

/// What filters change, as the routes file has it.
fn edits(filters: &[RouteFilter], paths: &[MatchedPath<'_>]) -> Result<Map<String, Value>, String> {
    let mut edits = Map::new();
    let mut headers = Map::new();
    let mut seen = BTreeSet::new();
    for filter in filters {
        if !seen.insert(&*filter.kind) {
            return Err(format!("{} stands twice", filter.kind));
        }
        match filter {
            RouteFilter {
                request_header_modifier: Some(of),
                ..
            } => drop(headers.insert("request".to_owned(), changes(of)?)),
            RouteFilter {
                response_header_modifier: Some(of),
                ..
            } => drop(headers.insert("response".to_owned(), changes(of)?)),
            RouteFilter {
                request_redirect: Some(of),
                ..
            } => drop(edits.insert("redirect".to_owned(), redirect(of, paths)?)),
            RouteFilter {
                url_rewrite: Some(of),
                ..
            } if of.hostname.is_none() => {
                let path = of.path.as_ref().ok_or("URLRewrite without a path")?;
                let path = format!("{}{}", replaced(path)?, rest(path, paths)?);
                edits.insert("rewrite".to_owned(), json!(path));
            }
            other => return Err(format!("{} is not supported", other.kind)),
        }
    }
    if !headers.is_empty() {
        edits.insert("headers".to_owned(), Value::Object(headers));
    }
    Ok(edits)
}

fn changes(of: &HeaderModifier) -> Result<Value, String> {
    let mut changes = Map::new();
    for (key, fields) in [("set", &of.set), ("add", &of.add)] {
        let mut named = Map::new();
        for field in fields {
            if named
                .insert(field.name.clone(), json!(field.value))
                .is_some()
            {
                return Err(format!("{} is in `{key}` twice", field.name));
            }
        }
        if !named.is_empty() {
            changes.insert(key.to_owned(), Value::Object(named));
        }
    }
    if !of.remove.is_empty() {
        changes.insert("remove".to_owned(), json!(of.remove));
    }
    Ok(Value::Object(changes))
}

fn redirect(of: &RequestRedirect, paths: &[MatchedPath<'_>]) -> Result<Value, String> {
    let path = match &of.path {
        Some(path) => format!("{}{}", replaced(path)?, rest(path, paths)?),
        None => kept(paths)?,
    };
    let to = match (&of.hostname, &of.scheme, of.port) {
        (None, None, None) => path,
        (Some(host), scheme, port) => {
            let scheme = scheme.as_deref().unwrap_or("http");
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            format!("{scheme}://{host}{port}{path}")
        }
        (None, ..) => {
            return Err("RequestRedirect with a scheme or port, and no hostname".to_owned());
        }
    };
    Ok(json!({ "to": to, "status": of.status_code.unwrap_or(302) }))
}

/// The new path, or the beginning of it.
fn replaced(path: &PathModifier) -> Result<&str, String> {
    let of = match &*path.kind {
        "ReplaceFullPath" => path.replace_full_path.as_deref(),
        "ReplacePrefixMatch" => path
            .replace_prefix_match
            .as_deref()
            .map(|it| it.trim_end_matches('/')),
        _ => None,
    };
    let of = of.ok_or_else(|| format!("{} without its path", path.kind))?;
    match of.contains(['*', '?', '#']) {
        true => Err(format!("a path with *, ? or #: {of}")),
        false => Ok(of),
    }
}

/// What follows the beginning of a new path: for a prefix, the rest of the old one.
fn rest(path: &PathModifier, paths: &[MatchedPath<'_>]) -> Result<&'static str, String> {
    let are_prefixes = paths.iter().all(|it| matches!(it, MatchedPath::Prefix(_)));
    match &*path.kind {
        "ReplaceFullPath" => Ok(""),
        _ if are_prefixes && same(paths) => Ok("/**"),
        _ => Err("ReplacePrefixMatch of other matches than one PathPrefix".to_owned()),
    }
}

/// The old path.
fn kept(paths: &[MatchedPath<'_>]) -> Result<String, String> {
    match paths {
        [MatchedPath::Prefix(base), ..] if same(paths) => Ok(format!("{base}/**")),
        [MatchedPath::Exact(path), ..] if same(paths) => Ok((*path).to_owned()),
        _ => Err("RequestRedirect without a path, of several matched paths".to_owned()),
    }
}

fn same(paths: &[MatchedPath<'_>]) -> bool {
    paths.windows(2).all(|pair| pair[0] == pair[1])
}
