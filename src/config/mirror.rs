//! `mirror:` of an experiment, and `expose: differs`, which rests on it.

use super::conditions;
use super::reader::Node;
use crate::experiment::assign::Share;
use crate::experiment::implication;
use crate::experiment::matcher::Matcher;
use crate::experiment::mirror::{ExposeRule, Mirror};
use crate::experiment::{Group, UpstreamIndex};
use http::Method;
use std::collections::BTreeSet;

/// The keys of an experiment that are read here.
pub(super) const KEYS: &[(&str, &str)] = &[
    (
        "expose",
        "which of these requests expose users, written as `match`, or `differs`: those whose mirrored copy was answered differently; all of them unless given",
    ),
    (
        "mirror",
        "{ to: NAME, share: 5%, methods: [GET, HEAD] }: requests are copied to another version, and the responses compared",
    ),
];
const TO: &str = "the version that gets the copies: the name of an upstream, or of a group";
const SHARE: &str = "the percentage of requests that are copied, such as 5%; 100% unless given";
const METHODS: &str = "GET, HEAD or OPTIONS, or a list of them; GET and HEAD unless given";
/// The word for exposure by difference.
const DIFFERS: &str = "differs";
/// Methods that change nothing, and whose requests have no body.
const SAFE: [Method; 3] = [Method::GET, Method::HEAD, Method::OPTIONS];

/// Reads `expose`.
pub(super) fn expose(experiment: &Node<'_>, matcher: &Matcher) -> ExposeRule {
    let Some(node) = experiment.get("expose") else {
        return ExposeRule::Every;
    };
    if node.is_word(DIFFERS) {
        return ExposeRule::Differing;
    }
    let expose = conditions::read(&node);
    if implication::excludes(matcher.condition(), expose.condition()) {
        node.problem(
            "no request meets both `match` and `expose`: nobody would ever be exposed",
            "conditions of requests that `match` means, too",
        );
    }
    ExposeRule::Matching(expose)
}

/// Reads `mirror` of an experiment with these groups.
pub(super) fn read(
    experiment: &Node<'_>,
    upstreams: &[&str],
    (groups, expose): (&[Group], &ExposeRule),
) -> Option<Mirror> {
    let is_both_ways = matches!(expose, ExposeRule::Differing);
    let Some(node) = experiment.get("mirror") else {
        if let Some(expose) = experiment.get("expose").filter(|_| is_both_ways) {
            expose.problem(
                "`differs` without `mirror`: without copies, no difference can be found",
                "write `mirror: { to: NAME }` beside it, where NAME is one of the two versions",
            );
        }
        return None;
    };
    if !node.keys(&[("to", TO), ("share", SHARE), ("methods", METHODS)]) {
        return None;
    }
    let to = match node.get("to") {
        Some(to) => target(&to, upstreams, groups),
        None => {
            node.missing("to", TO);
            None
        }
    };
    let mirror = Mirror {
        // An invalid mirror is reported, and no second error should follow from it.
        to: to.unwrap_or(UpstreamIndex(0)),
        share: node.get("share").map_or(Share::ALL, |node| share(&node)),
        methods: methods(&node),
        is_both_ways,
    };
    check_groups(&node, groups);
    if let Some(to) = node.get("to").filter(|_| to.is_some()) {
        check_target(&to, (&mirror, groups));
    }
    if is_both_ways {
        check_exposure(&node, (&mirror, groups), to.is_some());
    }
    Some(mirror)
}

/// Finds the upstream that the name of an upstream or a group means.
fn target(node: &Node<'_>, upstreams: &[&str], groups: &[Group]) -> Option<UpstreamIndex> {
    let name = node.text(TO)?;
    let upstream = upstreams.iter().position(|upstream| *upstream == name);
    let upstream = upstream.map(UpstreamIndex);
    let group = groups.iter().find(|group| &*group.name == name);
    let of_group = group.and_then(|group| group.upstream);
    if let (Some(upstream), Some(of_group)) = (upstream, of_group)
        && upstream != of_group
    {
        let other = upstreams[of_group.0];
        node.problem(
            format!("{name:?} is an upstream, and a group whose upstream is {other:?}"),
            "a name that means one of them",
        );
        return None;
    }
    if upstream.is_none() && group.is_none() {
        let groups = groups.iter().map(|group| &*group.name);
        let names = upstreams.iter().copied().chain(groups);
        node.unknown("upstream or group", name, names);
    }
    upstream.or(of_group)
}

fn share(node: &Node<'_>) -> Share {
    let is_sound = |percent: f64| percent > 0.0 && percent <= 100.0;
    let allowed = "a percentage above 0% and up to 100%, with its sign";
    let share = node.percent(allowed, is_sound).and_then(Share::new);
    share.unwrap_or(Share::ALL)
}

fn methods(node: &Node<'_>) -> Box<[Method]> {
    let Some(methods) = node.get("methods") else {
        return [Method::GET, Method::HEAD].into();
    };
    let items = methods.items();
    if items.is_empty() {
        methods.problem("no method: nothing would be copied", METHODS);
    }
    let method = |node: &Node<'_>| {
        let method = conditions::method(node)?;
        if !SAFE.contains(&method) {
            node.problem(
                format!("{method} may change something, and a copy would do so twice"),
                METHODS,
            );
        }
        Some(method)
    };
    items.iter().filter_map(method).collect()
}

/// Reports groups whose versions cannot be compared.
fn check_groups(node: &Node<'_>, groups: &[Group]) {
    let redirects = |group: &Group| {
        let action = group.action.as_ref();
        action.is_some_and(|action| action.redirect.is_some())
    };
    if let Some(group) = groups.iter().find(|group| redirects(group)) {
        node.problem(
            format!(
                "the group `{}` redirects: no upstream serves it",
                group.name
            ),
            "leave `mirror` out, or give the group an upstream in place of the redirect",
        );
    } else if !groups.is_empty() && groups.iter().all(|group| group.upstream.is_none()) {
        node.problem(
            "the groups have no upstreams: there is no other version to copy to",
            "give the groups different upstreams, or leave `mirror` out",
        );
    }
}

/// Reports a target that would get no copy.
fn check_target(node: &Node<'_>, (mirror, groups): (&Mirror, &[Group])) {
    let mut groups = groups.iter();
    if groups.len() > 0 && groups.all(|group| group.upstream == Some(mirror.to)) {
        node.problem(
            "it serves every group: nothing would be copied",
            "the name of another upstream",
        );
    }
}

/// Reports what would expose users of one group more often than those of another.
fn check_exposure(node: &Node<'_>, (mirror, groups): (&Mirror, &[Group]), is_known: bool) {
    let versions: BTreeSet<UpstreamIndex> =
        groups.iter().filter_map(|group| group.upstream).collect();
    if versions.len() > 2 {
        node.problem(
            format!("`expose: differs` with {} versions: users of different groups would be exposed by different comparisons", versions.len()),
            "groups of two upstreams; or conditions for `expose`",
        );
    } else if versions.len() == 2 && is_known && !versions.contains(&mirror.to) {
        let to = node.get("to").unwrap_or_else(|| node.clone());
        to.problem(
            "no group has this upstream, and `expose: differs` compares what groups get",
            "the upstream of one of the groups",
        );
    }
    if !mirror.methods.contains(&Method::GET)
        && let Some(methods) = node.get("methods")
    {
        methods.problem(
            "`expose: differs` without GET: nobody would ever be exposed",
            "a list with GET",
        );
    }
    if mirror.share != Share::ALL
        && let Some(share) = node.get("share")
    {
        let percent = 100.0 * mirror.share.get();
        share.warn(
            format!("`expose: differs` with copies of {percent} % of requests: users are exposed later, and some who would see a difference never are"),
            "100%, if the versions can serve twice the requests; a smaller share treats groups alike, but counts fewer users",
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::config;
    use crate::config::plan::Plan;
    use crate::experiment::{GroupIndex, UpstreamIndex};
    use http::Method;
    use std::path::Path;

    fn read(experiment: &str) -> Result<Plan, Vec<String>> {
        let text = format!(
            "upstreams: {{ a: \"http://127.0.0.1:1\", b: \"http://127.0.0.1:2\", c: \"http://127.0.0.1:3\" }}\n\
             experiments:\n  e: {{ {experiment} }}\n"
        );
        config::parse(&text, Path::new("routes.yaml"), &|_| None).map_err(|invalid| {
            let diagnostics = invalid.diagnostics.iter();
            diagnostics
                .map(|it| format!("{}: {}", it.key, it.found))
                .collect()
        })
    }

    const TWO: &str = "control: a, experiment: b, percent: 50";

    #[test]
    fn copies_go_to_the_version_that_did_not_serve() {
        let check = |mirror: &str, expected: [Option<usize>; 2]| {
            let plan = read(&format!("{TWO}, {mirror}")).unwrap();
            let target = |group| plan.experiments[0].copy_target(GroupIndex(group));
            let found = [0, 1].map(|group| target(group).map(|it| it.upstream.0));
            assert_eq!(found, expected, "{mirror}");
        };
        check("mirror: { to: b }", [Some(1), None]);
        check("mirror: { to: experiment }", [Some(1), None]);
        check("mirror: { to: a }", [None, Some(0)]);
        check("mirror: { to: c }", [Some(2), Some(2)]);
        let differs = "expose: differs, mirror: { to: b }";
        check(differs, [Some(1), Some(0)]);
        check("expose: differs, mirror: { to: a }", [Some(1), Some(0)]);
        check("state: draft, mirror: { to: b }", [Some(1), None]);
        check("winner: control, mirror: { to: b }", [None, None]);
        let plan = read(&format!("{TWO}, mirror: {{ to: c }}")).unwrap();
        let target = plan.experiments[0].copy_target(GroupIndex(0)).unwrap();
        assert_eq!((target.upstream, target.group), (UpstreamIndex(2), None));
    }

    #[test]
    fn defaults_are_all_requests_of_get_and_head() {
        let plan = read(&format!("{TWO}, mirror: {{ to: b }}")).unwrap();
        let mirror = plan.experiments[0].mirror.as_ref().unwrap();
        assert_eq!(mirror.share.get(), 1.0);
        assert_eq!(*mirror.methods, [Method::GET, Method::HEAD]);
    }

    #[test]
    fn unsound_mirrors_are_refused() {
        let check = |experiment: &str, expected: &[&str]| {
            let found = read(experiment).unwrap_err();
            let found: Vec<&str> = found.iter().map(|it| &**it).collect();
            assert_eq!(found, expected, "{experiment}");
        };
        let two = |more: &str| format!("{TWO}, {more}");
        check(
            &two("mirror: { share: 5% }"),
            &["experiments.e.mirror: `to` is missing"],
        );
        check(
            &two("mirror: { to: nobody }"),
            &["experiments.e.mirror.to: there is no upstream or group \"nobody\""],
        );
        check(
            &two("mirror: { to: b, share: 0% }"),
            &["experiments.e.mirror.share: found \"0%\""],
        );
        check(
            &two("mirror: { to: b, methods: [GET, POST] }"),
            &[
                "experiments.e.mirror.methods.1: POST may change something, and a copy would do so twice",
            ],
        );
        check(
            &two("mirror: { to: b, methods: [] }"),
            &["experiments.e.mirror.methods: no method: nothing would be copied"],
        );
        check(
            &two("expose: differs"),
            &[
                "experiments.e.expose: `differs` without `mirror`: without copies, no difference can be found",
            ],
        );
        check(
            &two("expose: differs, mirror: { to: c }"),
            &[
                "experiments.e.mirror.to: no group has this upstream, and `expose: differs` compares what groups get",
            ],
        );
        check(
            &two("expose: differs, mirror: { to: b, methods: HEAD }"),
            &[
                "experiments.e.mirror.methods: `expose: differs` without GET: nobody would ever be exposed",
            ],
        );
        check(
            "groups: { a: { weight: 1, upstream: b }, other: { weight: 1, upstream: a } }, mirror: { to: a }",
            &["experiments.e.mirror.to: \"a\" is an upstream, and a group whose upstream is \"b\""],
        );
        check(
            "groups: { x: { weight: 1, upstream: b }, y: { weight: 1, upstream: b } }, mirror: { to: b }",
            &["experiments.e.mirror.to: it serves every group: nothing would be copied"],
        );
        check(
            "groups: { x: { weight: 1 }, y: { weight: 1 } }, mirror: { to: b }",
            &[
                "experiments.e.mirror: the groups have no upstreams: there is no other version to copy to",
            ],
        );
        check(
            "match: /x, groups: { x: { weight: 1, upstream: a }, y: { weight: 1, redirect: /y } }, mirror: { to: b }",
            &["experiments.e.mirror: the group `y` redirects: no upstream serves it"],
        );
        check(
            "groups: { x: { weight: 1, upstream: a }, y: { weight: 1, upstream: b }, z: { weight: 1, upstream: c } }, expose: differs, mirror: { to: b }",
            &[
                "experiments.e.mirror: `expose: differs` with 3 versions: users of different groups would be exposed by different comparisons",
            ],
        );
    }

    #[test]
    fn small_share_beside_differs_is_explained() {
        let warnings = |experiment: &str| read(experiment).unwrap().warnings.len();
        let differs = |share: &str| format!("{TWO}, expose: differs, mirror: {{ to: b{share} }}");
        assert_eq!(warnings(&differs(", share: 5%")), 1);
        assert_eq!(warnings(&differs("")), 0);
        assert_eq!(
            warnings(&format!("{TWO}, mirror: {{ to: b, share: 5% }}")),
            0
        );
    }
}
