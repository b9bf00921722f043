//! `experiments:`: who takes part, and in which groups.

use super::admission;
use super::algorithm;
use super::conditions;
use super::flag_value;
use super::lifecycle;
use super::message_edits;
use super::mirror;
use super::name::check_name;
use super::ramp;
use super::reader::Node;
use super::version_rules;
use crate::experiment::admission::Admission;
use crate::experiment::assign::{Share, Weight};
use crate::experiment::guardrail::{Guardrail, GuardrailTarget};
use crate::experiment::implication;
use crate::experiment::lifecycle::Ramp;
use crate::experiment::matcher::{Condition, Matcher};
use crate::experiment::message_edits::GroupAction;
use crate::experiment::metric::{Metric, MetricRole};
use crate::experiment::mirror::ExposeRule;
use crate::experiment::units::Unit;
use crate::experiment::{
    Crossover, Experiment, Group, GroupIndex, Lifecycle, MetricIndex, UpstreamIndex,
};
use http::Method;
use std::path::PathBuf;

/// The names that experiments refer to.
pub(super) struct Known<'a> {
    /// Names of upstreams, in file order.
    pub upstreams: &'a [&'a str],
    /// All metrics, in file order.
    pub metrics: &'a [Metric],
}

const KEYS: &[(&str, &str)] = &[
    ("control", "short form: the upstream of control"),
    ("experiment", "short form: the upstream of the other group"),
    (
        "percent",
        "short form: the percentage of users who get `experiment`",
    ),
    (
        "match",
        "who is eligible: a path, { path, host, method, headers, … }, or a list of them",
    ),
    (
        "salt",
        "the text that is hashed with the user ID; the experiment's name unless given",
    ),
    (
        "traffic",
        "the percentage of eligible users who take part, such as 100%",
    ),
    (
        "groups",
        "a name for each group, then { weight: 50, upstream: NAME }",
    ),
    ("metrics", "a list of its metrics; all metrics unless given"),
    (
        "guardrails",
        "limits on harm, such as { errors: { max_increase: 1% } }",
    ),
    ("winner", "the group whose version everybody gets"),
    (
        "act_on",
        "verdicts that take effect by themselves: winner (promoted), loser (rolled back), or both",
    ),
    (
        "confirm",
        "who must agree before act_on promotes: person, or webhook",
    ),
    ("count_overrides", "true or false"),
    ("min_duration", "the earliest verdict, such as 7d"),
    (
        "covariate",
        "a time before the first exposure, such as 14d: what users did then adjusts the metrics of kind mean",
    ),
    (
        "horizon",
        "the planned end: a time after the first user, such as 14d, or a number of users",
    ),
];
const WEIGHT: &str = "a number of 0 or more, such as 50; nobody new gets a group of weight 0";
const LABEL: &str = "what people read in place of the group's name: at most 80 letters";
const LABEL_MAX: usize = 80;

/// Reads all experiments of the file, and what they divide besides users.
pub(super) fn read(
    root: &Node<'_>,
    known: &Known<'_>,
    watched: &mut Vec<PathBuf>,
) -> (Vec<Experiment>, Vec<Unit>) {
    let named = root.get("experiments").map(|node| node.named("experiment"));
    let named = named.unwrap_or_default();
    let keys = [
        KEYS,
        lifecycle::KEYS,
        ramp::KEYS,
        admission::KEYS,
        version_rules::KEYS,
        algorithm::KEYS,
        mirror::KEYS,
    ]
    .concat();
    let (mut experiments, mut nodes, mut units) = (Vec::new(), Vec::new(), Vec::new());
    for (name, node) in &named {
        check_name(node, name);
        if node.keys(&keys) {
            let experiment = experiment(name, node, known, (&mut units, watched));
            warn_of_no_traffic(node, &experiment);
            experiments.push(experiment);
            nodes.push(node);
        }
    }
    admission::connect(root, &nodes, &mut experiments);
    for (late, early) in implication::unreachable(&experiments) {
        let late = &experiments[late.0].name;
        if let Some((_, node)) = named.iter().find(|(name, _)| **name == **late) {
            let names = early
                .iter()
                .map(|it| format!("`{}`", experiments[it.0].name));
            warn_unreachable(node, &names.collect::<Vec<_>>());
        }
    }
    let guardrails = experiments.iter_mut().flat_map(|own| &mut own.guardrails);
    let counted = guardrails.filter(|own| !matches!(own.what, GuardrailTarget::Metric(_)));
    for (place, guardrail) in counted.enumerate() {
        guardrail.counted_as = MetricIndex(known.metrics.len() + place);
    }
    (experiments, units)
}

fn warn_unreachable(node: &Node<'_>, early: &[String]) {
    let conditions = node.get("match");
    let (does, first) = match early {
        [early] => (format!("{early} always chooses"), early),
        _ => (
            format!("{} together always choose", early.join(" and ")),
            &early[0],
        ),
    };
    conditions.as_ref().unwrap_or(node).warn(
        format!("no user can reach this experiment: {does} the upstream before"),
        format!("move it before {first}, narrow the `match` of {first}, or admit fewer users there with `traffic`"),
    );
}

fn experiment(
    name: &str,
    node: &Node<'_>,
    known: &Known<'_>,
    shared: (&mut Vec<Unit>, &mut Vec<PathBuf>),
) -> Experiment {
    let matcher = node.get("match").map(|node| conditions::read(&node));
    let matcher = matcher.unwrap_or_default();
    let groups = match node.get("groups") {
        Some(groups) => long_groups(node, &groups, (known, &matcher)),
        None => short_groups(node, known),
    };
    let salt = node
        .get("salt")
        .and_then(|node| node.text("a text"))
        .unwrap_or(name);
    let ramp = ramp::read(node);
    let traffic = traffic(node, ramp.as_ref());
    let division = algorithm::read(node, salt, traffic, &groups);
    let winner = lifecycle::winner(node, &groups);
    let control = groups
        .iter()
        .position(|group| &*group.name == "control")
        .unwrap_or(0);
    let metrics = judged_by(node.get("metrics"), known);
    let primary = metrics.first().map(|index| &known.metrics[index.0]);
    let min_duration = node.get("min_duration").and_then(|node| node.duration());
    let min_duration_ms = min_duration.map_or(7 * 24 * 3_600_000, |time| time.as_millis() as u64);
    let guardrails = node.get("guardrails");
    let guardrails = guardrails.map(|node| self::guardrails(&node, known));
    let count_overrides = node.get("count_overrides");
    let count_overrides = count_overrides.and_then(|node| node.boolean());
    let expose = mirror::expose(node, &matcher);
    check_methods(node, &matcher, &expose);
    let mut experiment = Experiment {
        name: name.into(),
        about: lifecycle::about(node),
        salt: division.salt,
        mirror: mirror::read(node, known.upstreams, (&groups, &expose)),
        expose,
        matcher,
        admission: Admission::default(),
        is_sticky: false,
        unit: None,
        crossover: Crossover::First,
        holdback: None,
        allocation: None,
        traffic,
        ramp,
        control: GroupIndex(control),
        metrics,
        guardrails: guardrails.unwrap_or_default(),
        lifecycle: winner.map_or(Lifecycle::Running, |_| Lifecycle::Promoted),
        schedule: lifecycle::schedule(node, min_duration_ms),
        ended_by_file: winner.is_some(),
        has_left_file: false,
        versions: version_rules::read(node, &groups),
        act_on: lifecycle::act_on(node),
        confirm: lifecycle::confirm(node),
        winner,
        count_overrides: count_overrides.unwrap_or(false),
        min_duration_ms,
        horizon: lifecycle::horizon(node, min_duration_ms, primary),
        split: division.split,
        epoch: division.epoch,
        groups: groups.into(),
    };
    admission::read(node, &mut experiment, primary, shared);
    experiment
}

/// Reads the share of users who take part; with a ramp, that of its first step.
fn traffic(node: &Node<'_>, ramp: Option<&Ramp>) -> Share {
    let traffic = node.get("traffic").and_then(|node| {
        node.percent("a percentage from 0% to 100%, with its sign", |percent| {
            (0.0..=100.0).contains(&percent)
        })
    });
    match ramp {
        Some(ramp) => ramp.steps[0].share,
        None => traffic.and_then(Share::new).unwrap_or(Share::ALL),
    }
}

/// Warns of an experiment without participants. The winner of one that has ended is for everybody.
fn warn_of_no_traffic(node: &Node<'_>, experiment: &Experiment) {
    let is_empty = experiment.traffic.get() == 0.0 && experiment.admission.include.is_empty();
    let traffic = node
        .get("traffic")
        .filter(|_| is_empty && experiment.winner.is_none());
    if let Some(traffic) = traffic {
        traffic.warn(
            "nobody takes part in this experiment",
            "a share above 0%, or leave the experiment out",
        );
    }
}

/// Reports conditions of requests that expose nobody.
fn check_methods(node: &Node<'_>, matcher: &Matcher, expose: &ExposeRule) {
    let expose = match expose {
        ExposeRule::Matching(expose) => Some(expose),
        ExposeRule::Every | ExposeRule::Differing => None,
    };
    let conditions = [Some(matcher), expose].into_iter().flatten();
    let all = Condition::All(conditions.map(|it| it.condition().clone()).collect());
    let never = [Method::HEAD, Method::TRACE].map(Condition::Method);
    // What never holds is another error.
    let is_possible = !implication::never_holds(&all);
    if is_possible && implication::implies(&all, &Condition::Any(never.into())) {
        let place = node.get("expose").or_else(|| node.get("match"));
        place.as_ref().unwrap_or(node).problem(
            "only HEAD or TRACE requests meet the conditions, and they expose nobody",
            "a method such as GET or POST, or no method",
        );
    }
}

/// `{ control: current, experiment: redesign, percent: 10 }`.
fn short_groups(node: &Node<'_>, known: &Known<'_>) -> Vec<Group> {
    let percent = node.get("percent").and_then(|node| {
        let allowed = "a percentage from 0 to 100, such as 10 or 10%";
        node.read(allowed, |text| {
            let number: f64 = text.trim_end_matches('%').trim_end().parse().ok()?;
            (0.0..=100.0).contains(&number).then_some(number)
        })
    });
    let mut groups = Vec::new();
    for (name, weight) in [
        ("control", 100.0 - percent.unwrap_or(50.0)),
        ("experiment", percent.unwrap_or(50.0)),
    ] {
        let Some(upstream) = node.get(name) else {
            node.missing(
                name,
                "write `control: UPSTREAM`, `experiment: UPSTREAM` and `percent: 10`, or `groups:`",
            );
            continue;
        };
        let Some(weight) = Weight::new(weight) else {
            continue;
        };
        groups.push(Group {
            name: name.into(),
            weight,
            upstream: upstream_named(&upstream, known),
            action: None,
            label: None,
            value: None,
        });
    }
    groups
}

fn long_groups(
    experiment: &Node<'_>,
    node: &Node<'_>,
    (known, matcher): (&Known<'_>, &Matcher),
) -> Vec<Group> {
    for key in ["control", "experiment", "percent"] {
        if let Some(short) = experiment.get(key) {
            short.problem(
                "the short form beside `groups`",
                "write either `groups` or the short form",
            );
        }
    }
    let named = node.named("group");
    if named.len() < 2 {
        node.problem(
            format!("{} groups", named.len()),
            "an experiment compares at least two groups",
        );
    }
    let read = |(name, node): &(String, Node<'_>)| group(name, node, (known, matcher));
    let mut groups: Vec<Group> = named.iter().filter_map(read).collect();
    if !groups.is_empty() && groups.iter().all(|group| group.weight.get() == 0.0) {
        node.problem(
            "all weights are 0: no group could get a user",
            "a positive weight for one group at least",
        );
    }
    flag_value::check(node, &groups);
    check_labels(&named, &groups);
    let redirects = |group: &Group| {
        let action = group.action.as_ref();
        action.is_some_and(|action| action.redirect.is_some())
    };
    let lacks = |group: &Group| group.upstream.is_none() && !redirects(group);
    let first = groups.iter().find_map(|group| group.upstream);
    if first.is_some() && groups.iter().any(lacks) {
        let allowed = "give every group an upstream, or none of them (the upstream then reads the Watershed-Experiment header); a group that redirects needs none";
        node.problem("some groups have an upstream and some have none", allowed);
    }
    // What serves no page of these users still belongs to an experiment that chooses the upstream.
    for group in groups.iter_mut().filter(|group| redirects(group)) {
        group.upstream = group.upstream.or(first);
    }
    groups
}

fn group(name: &str, node: &Node<'_>, (known, matcher): (&Known<'_>, &Matcher)) -> Option<Group> {
    check_name(node, name);
    let mut keys = vec![
        ("weight", WEIGHT),
        ("upstream", "the name of an upstream"),
        ("label", LABEL),
        ("value", flag_value::HOLDS),
        message_edits::HEADERS,
        message_edits::REDIRECT,
    ];
    keys.extend(message_edits::PATHS);
    if !node.keys(&keys) {
        return None;
    }
    let weight = match node.get("weight") {
        Some(weight) => weight.number(WEIGHT, |weight| weight.is_finite() && weight >= 0.0),
        None => {
            node.missing("weight", WEIGHT);
            None
        }
    };
    let action = GroupAction {
        edits: message_edits::read(node, matcher),
        redirect: message_edits::redirect(node, matcher),
    };
    let upstream = node.get("upstream");
    Some(Group {
        name: name.into(),
        // An invalid group still counts as a group, so that no second error follows from it.
        weight: Weight::new(weight.unwrap_or(1.0))?,
        upstream: upstream.and_then(|node| upstream_named(&node, known)),
        action: (!action.is_empty()).then(|| Box::new(action)),
        label: node.get("label").and_then(|node| label(&node)),
        value: node.get("value").and_then(|node| flag_value::read(&node)),
    })
}

/// Reports labels that already stand for another group: nobody could tell the two apart.
fn check_labels(named: &[(String, Node<'_>)], groups: &[Group]) {
    for (place, group) in groups.iter().enumerate() {
        let Some(label) = &group.label else {
            continue;
        };
        let stands_for = |(other, it): &(usize, &Group)| {
            let is_earlier = *other < place && it.label.as_ref() == Some(label);
            *other != place && (it.name == *label || is_earlier)
        };
        let Some((_, other)) = groups.iter().enumerate().find(stands_for) else {
            continue;
        };
        let node = named.iter().find(|(name, _)| **name == *group.name);
        if let Some(node) = node.and_then(|(_, node)| node.get("label")) {
            node.problem(
                format!("{label:?} already stands for the group {}", other.name),
                "a label of its own for each group",
            );
        }
    }
}

fn label(node: &Node<'_>) -> Option<Box<str>> {
    let is_sound = |text: &str| {
        let letters = text.chars().count();
        (1..=LABEL_MAX).contains(&letters) && !text.chars().any(char::is_control)
    };
    node.read(LABEL, |text| {
        is_sound(text.trim()).then(|| text.trim().into())
    })
}

fn upstream_named(node: &Node<'_>, known: &Known<'_>) -> Option<UpstreamIndex> {
    let name = node.text("the name of an upstream")?;
    let place = known
        .upstreams
        .iter()
        .position(|upstream| *upstream == name);
    if place.is_none() {
        node.unknown("upstream", name, known.upstreams.iter().copied());
    }
    place.map(UpstreamIndex)
}

/// Reads the metrics of the verdict, the primary metric first.
fn judged_by(node: Option<Node<'_>>, known: &Known<'_>) -> Box<[MetricIndex]> {
    let mut judging: Vec<MetricIndex> = match node {
        None => (0..known.metrics.len()).map(MetricIndex).collect(),
        Some(node) => {
            let mut judging = Vec::new();
            for item in node.items() {
                let Some(metric) = metric_named(&item, known) else {
                    continue;
                };
                match judging.contains(&metric) {
                    false => judging.push(metric),
                    // Counted once, as the correction for several metrics counts it.
                    true => item.warn("a metric for the second time", "name each metric once"),
                }
            }
            judging
        }
    };
    let primary = judging
        .iter()
        .position(|metric| known.metrics[metric.0].role == MetricRole::Primary);
    if let Some(primary) = primary {
        judging[..=primary].rotate_right(1);
    }
    judging.into()
}

fn metric_named(node: &Node<'_>, known: &Known<'_>) -> Option<MetricIndex> {
    let name = node.text("the name of a metric")?;
    let place = known
        .metrics
        .iter()
        .position(|metric| &*metric.name == name);
    if place.is_none() {
        node.unknown(
            "metric",
            name,
            known.metrics.iter().map(|metric| &*metric.name),
        );
    }
    place.map(MetricIndex)
}

fn guardrails(node: &Node<'_>, known: &Known<'_>) -> Box<[Guardrail]> {
    let read = |(name, node): &(String, Node<'_>)| {
        node.keys(&[
            (
                "max_increase",
                "the tolerated relative increase, such as 1%",
            ),
            ("over", "for `slow`: a time, such as 500ms"),
        ]);
        let allowed = "a percentage of 0% or more";
        let max_increase = node
            .get("max_increase")
            .and_then(|node| node.percent(allowed, |percent| percent >= 0.0));
        let what = match &**name {
            "errors" => GuardrailTarget::Errors,
            "slow" => match node.get("over") {
                Some(over) => GuardrailTarget::Slow {
                    over_us: over.duration()?.as_micros() as u64,
                },
                None => {
                    node.missing(
                        "over",
                        "the time above which a response is slow, such as 500ms",
                    );
                    return None;
                }
            },
            metric => match known
                .metrics
                .iter()
                .position(|known| &*known.name == metric)
            {
                Some(place) => GuardrailTarget::Metric(MetricIndex(place)),
                None => {
                    let names = ["errors", "slow"]
                        .into_iter()
                        .chain(known.metrics.iter().map(|metric| &*metric.name));
                    node.unknown("guardrail", metric, names);
                    return None;
                }
            },
        };
        let counted_as = match what {
            GuardrailTarget::Metric(metric) => metric,
            // Assigned once all experiments are known.
            GuardrailTarget::Errors | GuardrailTarget::Slow { .. } => {
                MetricIndex(known.metrics.len())
            }
        };
        Some(Guardrail {
            what,
            max_increase: max_increase.unwrap_or(0.0),
            counted_as,
        })
    };
    node.named("guardrail").iter().filter_map(read).collect()
}
