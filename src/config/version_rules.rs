//! How versions are kept apart and stand in for each other: `validators`, `cookies`, `assets`, `skew`
//! and `when_down` of an experiment.

use super::identity::{COOKIE, is_cookie_name};
use super::metrics;
use super::reader::Node;
use crate::experiment::Group;
use crate::experiment::version_rules::{CookieIsolation, StandIn, VersionRules, WhenDown};
use std::ops::RangeInclusive;

/// The keys of an experiment that are read here.
pub(super) const KEYS: &[(&str, &str)] = &[
    (
        "validators",
        "version (ETags name the version that issued them), or off; version where groups have different upstreams, paths or request headers",
    ),
    (
        "cookies",
        "isolate (each version has its own cookies), or { isolated: [NAME], shared: [NAME] }; shared unless given",
    ),
    (
        "assets",
        "follow (what one version answers with 404 is looked for in the other), or off; follow where groups have different upstreams",
    ),
    (
        "skew",
        "how long an open page keeps getting what belongs to it from the version that served it, such as 1h (at most 30d), or 0; 1h where groups have different upstreams",
    ),
    (
        "when_down",
        "who serves in the place of a version that fails: control, other or error, or { serve, status: [502-504] }",
    ),
];
/// Statuses that say that a version fails.
const FAILURES: RangeInclusive<u16> = 502..=504;
/// How long open pages are followed unless the file says otherwise, in seconds.
const SKEW_S: u32 = 3_600;
const SKEW_MAX_S: u64 = 30 * 24 * 3_600;
const STATUS: &str = "a status from 500 to 599, or a range of them, such as 502-504";

/// Reads the rules of an experiment with these groups.
pub(super) fn read(node: &Node<'_>, groups: &[Group]) -> VersionRules {
    let mut upstreams = groups.iter().map(|group| group.upstream);
    let first = upstreams.next().flatten();
    let differ = upstreams.any(|it| it != first);
    // One upstream that gets other requests for a group answers with another version, too.
    let acts = |group: &Group| group.action.as_ref().is_some_and(|it| it.is_version());
    let has_versions = differ || groups.iter().any(acts);
    for key in ["validators", "cookies", "assets", "skew", "when_down"] {
        let is_possible = differ || (key == "validators" && has_versions);
        if let Some(node) = node.get(key).filter(|_| !is_possible) {
            node.problem(
                "the groups have the same upstream",
                "give the groups different upstreams, or leave this out: there is one version only",
            );
        }
    }
    let validators = node.get("validators");
    let validators = validators.and_then(|node| node.word(&[("version", true), ("off", false)]));
    let assets = node.get("assets");
    let assets = assets.and_then(|node| node.word(&[("follow", true), ("off", false)]));
    VersionRules {
        follows_assets: assets.unwrap_or(differ),
        skew_s: match node.get("skew").filter(|_| differ) {
            Some(node) => skew(&node),
            None => differ.then_some(SKEW_S),
        },
        marks_validators: validators.unwrap_or(has_versions),
        isolation: node.get("cookies").and_then(|node| isolation(&node)),
        when_down: node
            .get("when_down")
            .map(|node| when_down(&node))
            .unwrap_or_default(),
    }
}

/// Reads how long open pages are followed; `None` for not at all.
fn skew(node: &Node<'_>) -> Option<u32> {
    const ALLOWED: &str = "a time from 1m to 30d, such as 1h, or 0 to switch it off";
    let time = node.read(ALLOWED, |text| match text {
        "0" => Some(0),
        text => {
            let time = humantime::parse_duration(text).ok()?.as_secs();
            (time == 0 || (60..=SKEW_MAX_S).contains(&time)).then_some(time as u32)
        }
    });
    time.filter(|time| *time > 0)
}

fn isolation(node: &Node<'_>) -> Option<CookieIsolation> {
    if !node.is_map() {
        return node
            .word(&[("isolate", true), ("shared", false)])?
            .then(CookieIsolation::default);
    }
    node.keys(&[
        (
            "isolated",
            "names of cookies that each version has for itself: a list",
        ),
        ("shared", "names of cookies that all versions see: a list"),
    ]);
    let names = |key: &str| {
        let items = node.get(key)?.items();
        let name =
            |node: &Node<'_>| node.read(COOKIE, |text| is_cookie_name(text).then(|| text.into()));
        Some(items.iter().filter_map(name).collect::<Box<[Box<str>]>>())
    };
    let (isolated, shared) = (names("isolated"), names("shared"));
    let both = isolated.iter().flatten();
    let mut both = both.filter(|name| shared.iter().flatten().any(|it| it == *name));
    if let Some(name) = both.next() {
        node.problem(
            format!("`{name}` is isolated and shared"),
            "write it in one of the two lists",
        );
    }
    Some(CookieIsolation {
        isolated,
        shared: shared.unwrap_or_default(),
    })
}

/// Warns of names that are isolated without an effect. All of the file must have been read, so that the cookies are known that
/// watershed reads itself.
pub(super) fn warn_of_isolated(root: &Node<'_>) {
    let experiments = root.get("experiments").filter(Node::is_map);
    let experiments = experiments.map(|node| node.named("experiment"));
    let lists = experiments.into_iter().flatten().filter_map(|(_, node)| {
        let cookies = node.get("cookies").filter(Node::is_map)?;
        cookies.get("isolated")
    });
    let read = root.reading.cookies_read.borrow();
    for node in lists.flat_map(|list| list.items()) {
        let name = node.text(COOKIE).unwrap_or_default();
        if name.contains('*') {
            node.warn(
                format!("`{name}` is the name of one cookie: `*` stands for nothing here"),
                "write each name, or `cookies: isolate` for all but those of `shared`",
            );
        }
        let mut read = read.iter();
        if read.any(|it| **it == *name) || name.starts_with("watershed_") {
            node.warn(
                format!("`{name}` is always shared: watershed reads it"),
                "leave it out",
            );
        }
    }
}

fn when_down(node: &Node<'_>) -> WhenDown {
    let words = [
        ("control", StandIn::Control),
        ("other", StandIn::Other),
        ("error", StandIn::Error),
    ];
    let serve = match node.is_map() {
        true => {
            node.keys(&[
                ("serve", "who serves in its place: control, other or error"),
                (
                    "status",
                    "statuses to safe requests that count as failures, such as 502-504; a list, or none",
                ),
            ]);
            node.get("serve")
        }
        false => Some(node.clone()),
    };
    let status = node.is_map().then(|| node.get("status")).flatten();
    let serve: StandIn = serve.and_then(|node| node.word(&words)).unwrap_or_default();
    if serve == StandIn::Error
        && let Some(status) = &status
    {
        status.problem(
            "`status` beside `serve: error`",
            "leave it out: no other version is asked",
        );
    }
    WhenDown {
        serve,
        statuses: match status {
            Some(status) => statuses(&status),
            None => [FAILURES].into(),
        },
    }
}

fn statuses(node: &Node<'_>) -> Box<[RangeInclusive<u16>]> {
    if !node.is_list() && node.is_none() {
        return Box::default();
    }
    if node.is_list() && node.items().is_empty() {
        node.problem("an empty list", STATUS);
    }
    let read = |node: &Node<'_>| {
        let range = node.read(STATUS, |text| {
            let range = metrics::status_of(text)?;
            (range.low >= 500 && range.high <= 599).then_some(range)
        })?;
        Some(range.low..=range.high)
    };
    node.items().iter().filter_map(read).collect()
}
