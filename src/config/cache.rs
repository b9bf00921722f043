//! `cache:`, how shared caches keep groups apart.

use super::conditions;
use super::plan::{CacheConfig, CacheRoute, CacheRule, CacheRules};
use super::reader::Node;
use crate::experiment::implication;
use crate::experiment::matcher::Matcher;

const UPSTREAM: (&str, &str) = (
    "upstream",
    "vary, private or off, where an experiment chose the upstream",
);
const HEADER: (&str, &str) = (
    "header",
    "vary, private or off, where the upstream got the group in a header",
);

/// Reads `cache`.
pub(super) fn read(root: &Node<'_>) -> CacheConfig {
    let mut cache = CacheConfig {
        rules: CacheRules {
            upstream: CacheRule::Vary,
            told: CacheRule::Off,
            is_shared: false,
        },
        routes: Vec::new(),
    };
    let Some(node) = root.get("cache") else {
        return cache;
    };
    if !node.is_map() {
        cache.rules.upstream = rule(&node).unwrap_or(cache.rules.upstream);
        return cache;
    }
    node.keys(&[
        UPSTREAM,
        HEADER,
        (
            "routes",
            "rules for parts of the site: a list of { match, upstream, header }, of which the first that matches decides",
        ),
    ]);
    cache.rules = rules(&node, cache.rules);
    if let Some(node) = node.get("routes") {
        for node in node.items() {
            let route = route(&node, &cache);
            cache.routes.extend(route);
        }
    }
    cache
}

fn rule(node: &Node<'_>) -> Option<CacheRule> {
    // YAML 1.1 reads `off` as false.
    match node.true_or_false() {
        Some(false) => Some(CacheRule::Off),
        _ => node.word(&[
            ("vary", CacheRule::Vary),
            ("private", CacheRule::Private),
            ("off", CacheRule::Off),
        ]),
    }
}

/// Reads the rules of an entry; those that it does not give are as before.
fn rules(node: &Node<'_>, before: CacheRules) -> CacheRules {
    let read = |key: &str| node.get(key).and_then(|node| rule(&node));
    CacheRules {
        upstream: read("upstream").unwrap_or(before.upstream),
        told: read("header").unwrap_or(before.told),
        is_shared: false,
    }
}

fn route(node: &Node<'_>, cache: &CacheConfig) -> Option<CacheRoute> {
    let matches = (
        "match",
        "which requests: a path, or { path, host, method, query }, or a list of them",
    );
    if !node.keys(&[matches, UPSTREAM, HEADER]) {
        return None;
    }
    let Some(conditions) = node.get("match") else {
        node.missing("match", matches.1);
        return None;
    };
    if node.get("upstream").is_none() && node.get("header").is_none() {
        node.problem("a rule that changes nothing", "write upstream or header");
    }
    let matcher = conditions::read(&conditions);
    check(&conditions, &matcher, cache);
    let rules = rules(node, cache.rules);
    // Whoever writes that a part of the site needs nothing, where pages do, knows that versions do not differ
    // in it.
    let is_shared = rules.upstream == CacheRule::Off && rules.told == CacheRule::Off;
    Some(CacheRoute {
        matcher,
        rules: CacheRules { is_shared, ..rules },
    })
}

fn check(node: &Node<'_>, matcher: &Matcher, cache: &CacheConfig) {
    if !matcher.fields().is_empty() || matcher.reads_address() {
        node.problem(
            "conditions on who asks (header, cookie, network, language or device)",
            "a shared cache tells responses apart by their address: use path, host, method or query",
        );
    }
    let before = cache.routes.iter().map(|it| it.matcher.condition());
    let before = implication::covered_by(matcher.condition(), &before.collect::<Vec<_>>());
    if let Some(before) = before {
        let names = before.iter().map(|place| format!("`cache.routes.{place}`"));
        let names: Vec<String> = names.collect();
        let take = match &names[..] {
            [name] => format!("{name} takes"),
            _ => format!("{} together take", names.join(" and ")),
        };
        node.warn(
            format!("no request can reach this rule: {take} all of them before"),
            format!("move it before {0}, or narrow the `match` of {0}", names[0]),
        );
    }
}
