//! What becomes of the routes of a cluster: entries of a routes file. PURE.
//!
//! A rule with several services becomes an experiment whose groups are the services with their weights: so users stay
//! with a service, and are counted. Other rules become routes. Experiments claim requests before routes do, so each
//! is told which requests a more specific rule has.

use super::http_route::{HttpRoute, RouteRule};
use super::matches::{RuleMatch, candidates};
use super::problem::{ProblemReason, RouteProblem};
use super::rule::{RuleAnswer, RuleTranslation};
use serde_json::{Map, Value, json};

/// The routes of a cluster as entries of a routes file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Translated {
    /// Upstreams, by name.
    pub upstreams: Map<String, Value>,
    /// Experiments, by name.
    pub experiments: Map<String, Value>,
    /// Routes, the first of which wins.
    pub routes: Vec<Value>,
    /// What cannot be done, each with the place of its route.
    pub problems: Vec<(usize, RouteProblem)>,
}

/// Translates routes. Services have names below `cluster_domain`, such as `cluster.local`. The requests of a rule that
/// cannot be done get status 500, as the API demands.
pub fn translate(routes: &[HttpRoute], cluster_domain: &str) -> Translated {
    let mut translated = Translated::default();
    let all = candidates(routes);
    // By the place of their candidate.
    let mut answers: Vec<(usize, Map<String, Value>)> = Vec::new();
    for (place, route) in routes.iter().enumerate() {
        for (number, rule) in route.spec.rules.iter().enumerate() {
            let own: Vec<usize> = (0..all.len())
                .filter(|&at| all[at].rule == (place, number))
                .filter(|&at| !all[..at].iter().any(|earlier| earlier.equals(&all[at])))
                .collect();
            // No request is left to it.
            if own.is_empty() {
                continue;
            }
            let done = add(
                &mut translated,
                (route, rule, number),
                (&all, &own),
                cluster_domain,
            );
            let route = done.unwrap_or_else(|problem| {
                let message = format!("rules.{number}.{}", problem.message);
                let problem = RouteProblem { message, ..problem };
                translated.problems.push((place, problem));
                Some(Map::from_iter([("respond".to_owned(), json!(500))]))
            });
            let route = route.into_iter();
            answers.extend(route.flat_map(|route| own.iter().map(move |&at| (at, route.clone()))));
        }
    }
    answers.sort_by_key(|(at, _)| *at);
    for (at, mut answer) in answers {
        // What cannot be written matches nothing.
        if let Ok(condition) = all[at].condition() {
            answer.insert("match".to_owned(), Value::Object(condition));
            translated.routes.push(Value::Object(answer));
        }
    }
    translated
}

/// Adds what a rule becomes. Returns its route, unless it is an experiment.
fn add(
    translated: &mut Translated,
    (route, rule, number): (&HttpRoute, &RouteRule, usize),
    (all, own): (&[RuleMatch<'_>], &[usize]),
    cluster_domain: &str,
) -> Result<Option<Map<String, Value>>, RouteProblem> {
    let unsupported = |message| RouteProblem {
        reason: ProblemReason::UnsupportedValue,
        message,
    };
    let mut writing = RuleTranslation::new(route, rule, cluster_domain);
    let paths: Vec<_> = own.iter().map(|&at| all[at].path()).collect();
    let answer = writing.answer(&paths)?;
    for &at in own {
        all[at].condition().map_err(unsupported)?;
    }
    let route = match answer {
        RuleAnswer::Route(answer) => Some(answer),
        RuleAnswer::Experiment(mut experiment) => {
            let conditions = own.iter().map(|&at| alone(all, at));
            let conditions: Result<Vec<Value>, String> = conditions.collect();
            let conditions = conditions.map_err(unsupported)?;
            experiment.insert("match".to_owned(), Value::Array(conditions));
            let name = writing.name(number).map_err(unsupported)?;
            translated
                .experiments
                .insert(name, Value::Object(experiment));
            None
        }
    };
    translated.upstreams.append(&mut writing.upstreams);
    Ok(route)
}

/// The conditions of a candidate without the requests that a more specific one of another rule has.
fn alone(all: &[RuleMatch<'_>], at: usize) -> Result<Value, String> {
    let own = &all[at];
    let mut condition = own.condition()?;
    let earlier = all[..at].iter();
    let earlier = earlier.filter(|it| it.rule != own.rule && it.may_overlap(own));
    // One that cannot be written matches nothing.
    let earlier: Vec<Value> = earlier
        .filter_map(|it| it.condition().ok().map(Value::Object))
        .collect();
    if !earlier.is_empty() {
        condition.insert("not".to_owned(), Value::Array(earlier));
    }
    Ok(Value::Object(condition))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::path::Path;

    fn route(name: &str, created: &str, spec: Value) -> HttpRoute {
        let metadata = json!({ "namespace": "shop", "name": name, "creationTimestamp": created });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
    }

    fn prefix(path: &str) -> Value {
        json!({ "path": { "type": "PathPrefix", "value": path } })
    }

    fn service(name: &str, weight: u32) -> Value {
        json!({ "name": name, "port": 80, "weight": weight })
    }

    fn in_file(translated: &Translated) -> String {
        json!({
            "listen": "127.0.0.1:1",
            "user": { "cookie": "uid" },
            "upstreams": translated.upstreams,
            "experiments": translated.experiments,
            "routes": translated.routes,
        })
        .to_string()
    }

    #[test]
    fn services_with_weights_are_groups_and_others_routes() {
        let routes = [route(
            "site",
            "2026-01-01T00:00:00Z",
            json!({
                "hostnames": ["a.example"],
                "rules": [
                    { "name": "pages", "matches": [prefix("/")], "backendRefs": [service("v1", 90), service("v2", 10)] },
                    { "matches": [prefix("/api"), { "path": { "type": "Exact", "value": "/{x}" } }], "backendRefs": [service("api", 1)] },
                ],
            }),
        )];
        let found = translate(&routes, "cluster.local");
        assert_eq!(found.problems, []);
        let experiment = &found.experiments["shop_site_pages"];
        assert_eq!(
            experiment["groups"],
            json!({
                "v1": { "weight": 90, "upstream": "shop_v1_80" },
                "v2": { "weight": 10, "upstream": "shop_v2_80" },
            })
        );
        assert_eq!(
            found.upstreams["shop_v2_80"],
            "http://v2.shop.svc.cluster.local:80"
        );
        let api = json!({ "path": "/api/**", "host": "a.example" });
        let exact = json!({ "path": "/\\{x}", "host": "a.example" });
        let pages = json!([{ "path": "/**", "host": "a.example", "not": [exact, api] }]);
        assert_eq!(experiment["match"], pages);
        assert_eq!(
            found.routes,
            [
                json!({ "match": exact, "upstream": "shop_api_80" }),
                json!({ "match": api, "upstream": "shop_api_80" }),
            ]
        );
        let plan = config::parse(&in_file(&found), Path::new("f"), &|_| None).unwrap();
        assert_eq!(plan.warnings.len(), 0, "{:?}", plan.warnings);
    }

    /// Gateway API 1.4: the most specific match wins, then the oldest route, then the first by name.
    #[test]
    fn precedence_is_that_of_the_standard() {
        let rule = |conditions: Value, name: &str| json!({ "matches": [conditions], "backendRefs": [service(name, 1)] });
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
        let header = json!({ "headers": [{ "name": "X-A", "value": "1" }] });
        let get = json!({ "method": "GET" });
        let query = json!({ "queryParams": [{ "name": "q", "value": "1" }] });
        let routes = [
            route("b", new, json!({ "rules": [rule(prefix("/x"), "b")] })),
            route(
                "a",
                new,
                json!({ "rules": [rule(prefix("/x/"), "a"), rule(prefix("/x/y"), "longer")] }),
            ),
            route(
                "z",
                old,
                json!({ "rules": [rule(json!({ "path": { "value": "/y" } }), "old")] }),
            ),
            route("y", new, json!({ "rules": [rule(prefix("/y"), "young")] })),
            route(
                "c",
                old,
                json!({ "rules": [rule(header, "header"), rule(query, "query"), rule(get, "get"), rule(json!({ "path": { "type": "Exact", "value": "/x" } }), "exact")] }),
            ),
            route(
                "h",
                new,
                json!({ "hostnames": ["*.example", "b.example"], "rules": [rule(prefix("/"), "host")] }),
            ),
        ];
        let found = translate(&routes, "cluster.local");
        assert_eq!(found.problems, []);
        let upstreams = found
            .routes
            .iter()
            .map(|it| it["upstream"].as_str().unwrap());
        let order: Vec<&str> = upstreams.collect();
        let expected = [
            "host", "host", "exact", "longer", "old", "a", "get", "header", "query",
        ];
        assert_eq!(order, expected.map(|name| format!("shop_{name}_80")));
        let hosts = found.routes.iter().map(|it| it["match"]["host"].clone());
        assert_eq!(
            hosts.take(2).collect::<Vec<_>>(),
            ["b.example", "*.example"]
        );
    }

    #[test]
    fn what_is_not_supported_is_refused_with_its_place() {
        let check = |rule: Value, reason: ProblemReason, message: &str| {
            let routes = [route("r", "", json!({ "rules": [rule] }))];
            let found = translate(&routes, "cluster.local");
            let (_, problem) = &found.problems[0];
            assert_eq!(problem.reason, reason, "{problem:?}");
            assert_eq!(problem.message, message);
            assert_eq!(found.experiments.len() + found.upstreams.len(), 0);
            found.routes
        };
        use ProblemReason::{InvalidKind, RefNotPermitted, UnsupportedValue};
        let two = || json!([service("a", 1), service("b", 1)]);
        let refused = check(
            json!({ "filters": [{ "type": "RequestMirror" }], "backendRefs": two() }),
            UnsupportedValue,
            "rules.0.filters: RequestMirror is not supported",
        );
        let expected = json!({ "match": { "path": "/**" }, "respond": 500 });
        assert_eq!(refused, [expected]);
        check(
            json!({ "backendRefs": [service("a", 1), { "name": "b", "namespace": "other", "port": 80 }] }),
            RefNotPermitted,
            "rules.0.backendRefs.1: a service of the namespace other; ReferenceGrant is not read",
        );
        check(
            json!({ "backendRefs": [{ "kind": "Bucket", "group": "x", "name": "b" }] }),
            InvalidKind,
            "rules.0.backendRefs.0: Bucket is no Service",
        );
        check(
            json!({ "backendRefs": [{ "name": "b" }] }),
            UnsupportedValue,
            "rules.0.backendRefs.0: a Service needs its port",
        );
        check(
            json!({ "timeouts": { "request": "1s" }, "backendRefs": two() }),
            UnsupportedValue,
            "rules.0.timeouts: is not supported: the routes file says it for all",
        );
        let regex =
            json!({ "headers": [{ "type": "RegularExpression", "name": "a", "value": "b" }] });
        let left = check(
            json!({ "matches": [regex], "backendRefs": two() }),
            UnsupportedValue,
            "rules.0.matches: headers a has a regular expression",
        );
        assert_eq!(left, [] as [Value; 0]);
    }

    #[test]
    fn filters_are_edits_and_redirects() {
        let filters = json!([
            { "type": "RequestHeaderModifier", "requestHeaderModifier": { "set": [{ "name": "X-A", "value": "1" }], "remove": ["x-b"] } },
            { "type": "URLRewrite", "urlRewrite": { "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/new/" } } },
        ]);
        let redirect = json!([{ "type": "RequestRedirect", "requestRedirect": { "scheme": "https", "hostname": "b.example", "statusCode": 301 } }]);
        let rules = json!([
            { "matches": [prefix("/old")], "filters": filters, "backendRefs": [service("a", 1)] },
            { "matches": [prefix("/moved")], "filters": redirect },
            { "matches": [prefix("/none")], "backendRefs": [service("a", 0)] },
        ]);
        let found = translate(
            &[route("r", "", json!({ "rules": rules }))],
            "cluster.local",
        );
        assert_eq!(found.problems, []);
        let by_path = |path: &str| {
            let mut all = found.routes.iter().filter(|it| it["match"]["path"] == path);
            let mut route = all.next().unwrap().clone();
            route.as_object_mut().unwrap().remove("match");
            route
        };
        assert_eq!(
            by_path("/old/**"),
            json!({
                "upstream": "shop_a_80",
                "rewrite": "/new/**",
                "headers": { "request": { "set": { "X-A": "1" }, "remove": ["x-b"] } },
            })
        );
        let to = json!({ "to": "https://b.example/moved/**", "status": 301 });
        assert_eq!(by_path("/moved/**"), json!({ "redirect": to }));
        assert_eq!(by_path("/none/**"), json!({ "respond": 500 }));
        config::parse(&in_file(&found), Path::new("f"), &|_| None).unwrap();
    }
}
