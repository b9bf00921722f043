//! `routes:`, what becomes of requests that no experiment claims, and `https:`.

use super::conditions;
use super::message_edits::{self, HEADERS, PATHS, REDIRECT, STATUS, redirect_status};
use super::plan::{FixedResponse, HttpsRedirect, HttpsRules, Route, RouteAnswer};
use super::reader::Node;
use crate::experiment::matcher::Matcher;
use crate::experiment::{Experiment, UpstreamIndex, implication};
use crate::regular_file;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const RESPOND: &str =
    "a status, or { status, headers, body } with a text, or { status, headers, file }";
const STATUS_OF_RESPONSE: &str = "a status from 200 to 599, such as 404, except 206 and 304";
/// The largest body of a route, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Reads all routes. `names` are those of the upstreams, and one is the default.
pub(super) fn read(
    root: &Node<'_>,
    (names, default, experiments): (&[&str], UpstreamIndex, &[Experiment]),
    watched: &mut Vec<PathBuf>,
) -> Vec<Route> {
    let Some(node) = root.get("routes") else {
        return Vec::new();
    };
    let mut routes: Vec<Route> = Vec::new();
    for node in node.items() {
        let mut keys = vec![
            (
                "match",
                "which requests: a path, { path, host, method, headers, … }, or a list of them; all requests unless given",
            ),
            (
                "upstream",
                "the name of an upstream; that of `default` unless given",
            ),
            REDIRECT,
            ("respond", RESPOND),
            HEADERS,
        ];
        keys.extend(PATHS);
        if !node.keys(&keys) {
            continue;
        }
        let matcher = node.get("match").map(|node| conditions::read(&node));
        let matcher = matcher.unwrap_or_default();
        warn_unreachable(&node, &matcher, &routes, experiments);
        let route = Route {
            edits: message_edits::read(&node, &matcher),
            answer: answer(&node, &matcher, (names, default), watched),
            names_answer: ANSWERS.iter().any(|key| node.get(key).is_some()),
            matcher,
        };
        check_keys(&node, &route);
        routes.push(route);
    }
    routes
}

/// The keys that say who answers.
const ANSWERS: [&str; 3] = ["upstream", "redirect", "respond"];

const CLAIMED: &str = "routes are for requests that no experiment and no earlier route claims: narrow the `match` of one of these, or leave the route out";

fn warn_unreachable(
    node: &Node<'_>,
    matcher: &Matcher,
    routes: &[Route],
    experiments: &[Experiment],
) {
    let claims = |it: &&Experiment| it.chooses_upstream() && it.admits_all();
    let claims: Vec<&Experiment> = experiments.iter().filter(claims).collect();
    let others = routes.iter().map(|it| it.matcher.condition());
    let others = others.chain(claims.iter().map(|it| it.matcher.condition()));
    let others: Vec<_> = others.collect();
    let Some(before) = implication::covered_by(matcher.condition(), &others) else {
        return;
    };
    let name = |&place: &usize| match place.checked_sub(routes.len()) {
        None => format!("`routes.{place}`"),
        Some(place) => format!("the experiment `{}`", claims[place].name),
    };
    let names = before.iter().map(name).collect::<Vec<_>>().join(" and ");
    let (take, advice) = match before[..] {
        [place] if place < routes.len() => (
            "takes all of them before",
            format!("move it before {names}, or narrow the `match` of that"),
        ),
        [_] => ("chooses the upstream of all of them", CLAIMED.to_owned()),
        _ => ("together take all of them before", CLAIMED.to_owned()),
    };
    let conditions = node.get("match");
    conditions.as_ref().unwrap_or(node).warn(
        format!("no request can reach this route: {names} {take}"),
        advice,
    );
}

fn answer(
    node: &Node<'_>,
    matcher: &Matcher,
    (names, default): (&[&str], UpstreamIndex),
    watched: &mut Vec<PathBuf>,
) -> RouteAnswer {
    let given: Vec<&str> = ANSWERS
        .into_iter()
        .filter(|key| node.get(key).is_some())
        .collect();
    if given.len() > 1 {
        node.problem(given.join(" and "), "one of: upstream, redirect, respond");
    }
    if let Some(redirect) = message_edits::redirect(node, matcher) {
        return RouteAnswer::Redirect(redirect);
    }
    if let Some(node) = node.get("respond") {
        return RouteAnswer::Respond(Arc::new(respond(&node, watched)));
    }
    let upstream = node.get("upstream").and_then(|node| {
        let name = node.text("the name of an upstream")?;
        let place = names.iter().position(|upstream| *upstream == name);
        if place.is_none() {
            node.unknown("upstream", name, names.iter().copied());
        }
        place.map(UpstreamIndex)
    });
    RouteAnswer::Upstream(upstream.unwrap_or(default))
}

/// Reports keys that have no effect beside others.
fn check_keys(node: &Node<'_>, route: &Route) {
    if !route.names_answer && route.edits.is_empty() {
        node.problem(
            "a route that changes nothing",
            "write upstream, redirect or respond; or headers, strip_prefix, add_prefix or rewrite for requests to the default upstream",
        );
    }
    if route.answer.is_own() {
        for (key, _) in PATHS {
            if let Some(node) = node.get(key) {
                let found = format!("`{key}` beside `redirect` or `respond`");
                node.problem(found, "no upstream gets the path: leave it out");
            }
        }
        if !route.edits.request.is_empty()
            && let Some(node) = node.get("headers").and_then(|node| node.get("request"))
        {
            node.problem(
                "headers of requests beside `redirect` or `respond`",
                "no upstream gets the request: leave them out",
            );
        }
    }
}

fn respond(node: &Node<'_>, watched: &mut Vec<PathBuf>) -> FixedResponse {
    let mut response = FixedResponse {
        status: 200,
        fields: Box::default(),
        body: Box::default(),
    };
    if !node.is_map() {
        response.status = status(node).unwrap_or(response.status);
        return response;
    }
    node.keys(&[
        ("status", STATUS_OF_RESPONSE),
        ("headers", "header names, each with its value"),
        ("body", "a text"),
        (
            "file",
            "the path of a file with the body, relative to this file",
        ),
    ]);
    let given = node.get("status").and_then(|node| status(&node));
    response.status = given.unwrap_or(response.status);
    content(node, &mut response, watched);
    response
}

/// Reads `headers`, and `body` or `file`, of a response of the file.
pub(super) fn content(node: &Node<'_>, response: &mut FixedResponse, watched: &mut Vec<PathBuf>) {
    let named = node.get("headers").map(|node| node.named("header"));
    let mut fields: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for (name, node) in named.iter().flatten() {
        let value = message_edits::value(name, node);
        fields.extend(message_edits::header_name(node, name).zip(value));
    }
    let mut content_type = "text/plain; charset=utf-8";
    match (node.get("body"), node.get("file")) {
        (Some(body), Some(_)) => {
            body.problem("`body` beside `file`", "one of them");
        }
        (Some(body), None) => {
            let text = body.text("a text").unwrap_or_default();
            response.body = text.as_bytes().into();
        }
        (None, Some(file)) => {
            let path = file.file(file.text("the path of a file").unwrap_or_default());
            content_type = content_type_of(&path);
            response.body = contents(&file, &path).into();
            watched.push(path);
        }
        (None, None) => {}
    }
    if response.body.len() > BODY_BYTES_MAX {
        node.problem(
            format!("a body of {} bytes", response.body.len()),
            format!("at most {BODY_BYTES_MAX} bytes: an upstream can serve more"),
        );
    }
    if matches!(response.status, 204 | 205) && !response.body.is_empty() {
        let found = format!("a body with the status {}", response.status);
        node.problem(found, "another status, or no body");
    }
    let has_type = fields.iter().any(|(name, _)| name == CONTENT_TYPE);
    if !response.body.is_empty() && !has_type {
        fields.push((CONTENT_TYPE, HeaderValue::from_static(content_type)));
    }
    response.fields = fields.into();
}

fn status(node: &Node<'_>) -> Option<u16> {
    node.read(STATUS_OF_RESPONSE, |text| {
        let status: u16 = text.parse().ok()?;
        let is_sound = (200..=599).contains(&status) && !matches!(status, 206 | 304);
        is_sound.then_some(status)
    })
}

fn contents(node: &Node<'_>, path: &Path) -> Vec<u8> {
    regular_file::read(path).unwrap_or_else(|error| {
        let found = format!("{} cannot be read: {error}", path.display());
        node.problem(found, "the path of a file, relative to this file");
        Vec::new()
    })
}

fn content_type_of(path: &Path) -> &'static str {
    match path.extension().and_then(|it| it.to_str()) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("json") => "application/json",
        Some("xml") => "application/xml",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        _ => "text/plain; charset=utf-8",
    }
}

/// Reads `https`.
pub(super) fn https(root: &Node<'_>) -> HttpsRules {
    let mut rules = HttpsRules::default();
    let Some(node) = root.get("https") else {
        return rules;
    };
    node.keys(&[
        (
            "redirect",
            "true, or the status of the redirect of requests without TLS: 301, 302, 307 or 308 (which true means)",
        ),
        ("port", "the public port with TLS; 443 unless given"),
        (
            "hsts",
            "how long browsers use TLS only, such as 365d, or { max_age, subdomains, preload }",
        ),
    ]);
    let port = node.get("port").and_then(|node| node.whole(1, 65_535));
    if let Some(redirect) = node.get("redirect") {
        let status = match redirect.flag() {
            Some(is_on) => is_on.then_some(308),
            None => redirect.read(STATUS, redirect_status),
        };
        if status.is_some() && root.get("tls").is_none() && root.get("trust").is_none() {
            redirect.problem(
                "requests would be redirected without end: this file has neither `tls` nor `trust`, so that none counts as one over TLS",
                "`tls: { listen, certificates }`, or the networks of the load balancer in `trust`",
            );
        }
        rules.redirect = status.map(|status| HttpsRedirect {
            status,
            port: port.unwrap_or(443) as u16,
        });
    }
    rules.hsts = node.get("hsts").and_then(|node| hsts(&node));
    rules
}

fn hsts(node: &Node<'_>) -> Option<HeaderValue> {
    let is_map = node.is_map();
    let (mut subdomains, mut preload) = (false, false);
    let mut max_age = Some(node.clone());
    if is_map {
        node.keys(&[
            ("max_age", "how long browsers use TLS only, such as 365d"),
            (
                "subdomains",
                "whether this holds for all subdomains: true or false",
            ),
            (
                "preload",
                "whether browsers may have it built in: true or false",
            ),
        ]);
        let flag = |key: &str| {
            node.get(key)
                .and_then(|node| node.boolean())
                .unwrap_or(false)
        };
        (subdomains, preload) = (flag("subdomains"), flag("preload"));
        max_age = node.get("max_age");
        if max_age.is_none() {
            node.missing("max_age", "how long browsers use TLS only, such as 365d");
        }
    }
    let seconds = max_age?.duration()?.as_secs();
    if preload && !(subdomains && seconds >= 31_536_000) {
        node.problem(
            "`preload` without `subdomains`, or for less than a year",
            "{ max_age: 365d, subdomains: true, preload: true }, which the list of browsers requires",
        );
    }
    let mut text = format!("max-age={seconds}");
    for (is_on, directive) in [(subdomains, "; includeSubDomains"), (preload, "; preload")] {
        if is_on {
            text.push_str(directive);
        }
    }
    HeaderValue::try_from(text).ok()
}
