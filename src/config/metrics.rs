//! `metrics:`: which events and responses count.

use super::conditions;
use super::name::check_name;
use super::reader::Node;
use crate::experiment::Experiment;
use crate::experiment::decimal::Decimal;
use crate::experiment::event::is_name;
use crate::experiment::metric::{
    HeaderRule, LatencyQuantile, Metric, MetricGoal, MetricKind, MetricRole, MetricRule, RatioBase,
    StatusRange, Trigger, VALUE_MAX,
};
use crate::experiment::pattern::ValuePattern;
use http::{HeaderValue, Method};
use std::collections::BTreeMap;
use std::time::Duration;

const RULE: &str = "a rule, such as `POST /checkout -> 2xx`, or keys: on or event, kind, value";
const PATH: &str = "a path that begins with /, such as /checkout or /shop/**";
/// How a status is written.
pub(super) const STATUS: &str = "a status, such as 200, 2xx or 200-204";
const EVENT: &str = "the name of an event that is reported: 1 to 256 bytes without control characters, such as purchase, $pageview or \"Order Completed\"";

/// Reads all metrics of the file.
pub(super) fn read(node: Option<Node<'_>>) -> Vec<Metric> {
    let named = node.map(|node| node.named("metric")).unwrap_or_default();
    named
        .iter()
        .filter_map(|(name, node)| metric(name, node))
        .collect()
}

const KEYS: &[(&str, &str)] = &[
    (
        "on",
        "{ method: POST, path: /checkout, status: 2xx, header: \"X-Done: yes\" }",
    ),
    ("event", "the name of an event that the upstream reports"),
    (
        "latency",
        "p50, p95 or p99 of the latency of each user's first response",
    ),
    (
        "value",
        "the event's parameter that holds the value, such as amount",
    ),
    (
        "max",
        "the largest absolute value, such as 10000: an event beyond it is refused",
    ),
    (
        "cap",
        "for `kind: mean`: how much of one user's sum counts, such as 500",
    ),
    (
        "covariate",
        "for `kind: mean`: the time before the first exposure whose sum adjusts the sum after it, such as 14d",
    ),
    ("label", "what people read in place of the name"),
    ("unit", "the unit of the values, such as EUR"),
    ("kind", "conversion, count, mean or ratio"),
    ("goal", "increase or decrease"),
    ("role", "primary or secondary"),
    (
        "per",
        "the base of a ratio: requests, or { event: … } or { on: … }",
    ),
    ("scale", "decimal places kept of a value, 0 to 6"),
    ("within", "the time after the first exposure, such as 7d"),
    ("detect", "the planned relative lift, such as 10%"),
    (
        "margin",
        "the relative difference that counts as no difference, such as 1%",
    ),
    (
        "baseline",
        "the expected rate of control, such as 30%; a number for other kinds than conversion",
    ),
];

fn metric(name: &str, node: &Node<'_>) -> Option<Metric> {
    check_name(node, name);
    let mut metric = Metric {
        name: name.into(),
        label: None,
        unit: None,
        kind: MetricKind::Conversion,
        goal: MetricGoal::Increase,
        role: MetricRole::Secondary,
        trigger: Trigger::Event(name.into()),
        value: None,
        max: None,
        cap: None,
        covariate_ms: None,
        per: None,
        scale: 2,
        within_ms: None,
        detect: 0.1,
        margin: 0.01,
        baseline: None,
    };
    if !node.is_map() {
        metric.trigger = Trigger::Rule(short_rule(node)?);
        return Some(metric);
    }
    node.keys(KEYS);
    metric.label = shown(node, "label", "a text of 1 to 80 characters");
    if let Some(latency) = node.get("latency") {
        read_latency(node, &latency, &mut metric);
        return Some(metric);
    }
    match (node.get("on"), node.get("event")) {
        (Some(on), None) => metric.trigger = Trigger::Rule(rule(&on)),
        (None, Some(event)) => metric.trigger = Trigger::Event(event_name(&event)?),
        (Some(_), Some(event)) => event.problem(
            "both `on` and `event` are written",
            "a metric has one of them",
        ),
        (None, None) => node.missing(
            "event",
            "write `event: NAME` or `on: { method: …, path: …, status: … }`",
        ),
    }
    metric.unit = shown(node, "unit", "a text of 1 to 80 characters, such as EUR");
    read_words(node, &mut metric);
    read_planning(node, &mut metric);
    read_value(node, &mut metric);
    read_per(node, &mut metric);
    Some(metric)
}

/// Reads a text for people.
fn shown(node: &Node<'_>, key: &str, allowed: &str) -> Option<Box<str>> {
    const LONGEST: usize = 80;
    node.get(key)?.read(allowed, |text| {
        let is_valid = (1..=LONGEST).contains(&text.chars().count());
        (is_valid && !text.contains(char::is_control)).then(|| text.into())
    })
}

/// Reads the keys that have a fixed set of words.
fn read_words(node: &Node<'_>, metric: &mut Metric) {
    let kinds = [
        ("conversion", MetricKind::Conversion),
        ("count", MetricKind::Count),
        ("mean", MetricKind::Mean),
        ("ratio", MetricKind::Ratio),
    ];
    set(
        &mut metric.kind,
        node.get("kind").and_then(|node| node.word(&kinds)),
    );
    read_aims(node, metric);
}

/// Reads the baseline and the window.
fn read_planning(node: &Node<'_>, metric: &mut Metric) {
    metric.baseline = node.get("baseline").and_then(|node| match metric.kind {
        MetricKind::Conversion => node.percent("a percentage of users, such as 30%", |percent| {
            percent > 0.0 && percent < 100.0
        }),
        _ => node.read("a number other than 0, such as 12.5", |text| {
            let number: f64 = text.parse().ok()?;
            (number.is_finite() && number != 0.0).then_some(number)
        }),
    });
    metric.within_ms = node
        .get("within")
        .and_then(|node| node.duration())
        .map(|time| time.as_millis() as u64);
}

/// Reads the value of an event, its decimal places and its limit.
fn read_value(node: &Node<'_>, metric: &mut Metric) {
    set(
        &mut metric.scale,
        node.get("scale")
            .and_then(|node| node.whole(0, 6))
            .map(|scale| scale as u8),
    );
    if let Some(value) = node.get("value") {
        metric.value = value
            .text("the name of a parameter, such as amount")
            .map(Into::into);
        if matches!(metric.trigger, Trigger::Rule(_)) {
            value.problem(
                "a rule has no value",
                "take the value from an event: write `event: NAME` in place of `on`",
            );
        }
    }
    metric.max = node.get("max").and_then(|node| max(&node, metric));
    metric.cap = node.get("cap").and_then(|node| cap(&node, metric));
    metric.covariate_ms = node
        .get("covariate")
        .and_then(|node| covariate(&node, metric));
}

/// Reads what every kind of metric may have: goal, role, and the differences that it is planned for.
fn read_aims(node: &Node<'_>, metric: &mut Metric) {
    let goals = [
        ("increase", MetricGoal::Increase),
        ("decrease", MetricGoal::Decrease),
    ];
    set(
        &mut metric.goal,
        node.get("goal").and_then(|node| node.word(&goals)),
    );
    let roles = [
        ("primary", MetricRole::Primary),
        ("secondary", MetricRole::Secondary),
    ];
    set(
        &mut metric.role,
        node.get("role").and_then(|node| node.word(&roles)),
    );
    let share = |node: Node<'_>| {
        node.percent("a percentage above 0, such as 10%", |percent| {
            percent > 0.0 && percent <= 1000.0
        })
    };
    set(&mut metric.detect, node.get("detect").and_then(share));
    set(&mut metric.margin, node.get("margin").and_then(share));
}

/// Reads a quantile of latencies. Its goal is `decrease` unless the file names another.
fn read_latency(node: &Node<'_>, latency: &Node<'_>, metric: &mut Metric) {
    let quantiles = [
        LatencyQuantile::P50,
        LatencyQuantile::P95,
        LatencyQuantile::P99,
    ]
    .map(|quantile| (quantile.name(), quantile));
    metric.kind = MetricKind::Latency;
    metric.goal = MetricGoal::Decrease;
    if let Some(quantile) = latency.word(&quantiles) {
        metric.trigger = Trigger::Latency(quantile);
    }
    read_aims(node, metric);
    for key in OF_EVENTS {
        if let Some(other) = node.get(key) {
            other.problem(
                format!("a latency has no `{key}`"),
                "a metric with `latency` has only label, goal, role, detect and margin beside it",
            );
        }
    }
}

/// Keys of metrics that are made of events.
const OF_EVENTS: [&str; 12] = [
    "unit",
    "on",
    "event",
    "value",
    "max",
    "cap",
    "covariate",
    "kind",
    "per",
    "scale",
    "within",
    "baseline",
];

/// Reads the limit on an event's value, in units of the metric's scale.
fn max(node: &Node<'_>, metric: &Metric) -> Option<i64> {
    if metric.value.is_none() {
        node.problem(
            "`max` limits a value, and the metric has no value",
            "name the event's parameter that holds the value: `value: amount`",
        );
    }
    amount(node, metric, "10000")
}

/// How much of one user's sum counts, in units of the metric's scale.
fn cap(node: &Node<'_>, metric: &Metric) -> Option<i64> {
    if metric.kind != MetricKind::Mean {
        node.problem(
            "a cap on the sum of a user's values, and the metric is no mean",
            "write `kind: mean`, or leave `cap` out",
        );
    }
    amount(node, metric, "500")
}

/// The shortest and the longest time before the first exposure that can be kept.
const COVARIATE_MIN: Duration = Duration::from_secs(3600);
const COVARIATE_MAX: Duration = Duration::from_secs(90 * 86_400);

/// For how long before the first exposure a user's sum is kept.
fn covariate(node: &Node<'_>, metric: &Metric) -> Option<u64> {
    if metric.kind != MetricKind::Mean {
        node.problem(
            "a covariate adjusts the mean of users' sums, and the metric is no mean",
            "write `kind: mean` (without `value`, each event counts 1), or leave `covariate` out",
        );
    }
    covariate_time(node)
}

/// Reads `covariate` of experiments: it applies to each of their metrics of kind mean that has none of its own.
/// A metric has one definition, so the longest time of all experiments that share it applies.
pub(super) fn covariates_of_experiments(
    root: &Node<'_>,
    experiments: &[Experiment],
    metrics: &mut [Metric],
) {
    let named = root.get("experiments").map(|node| node.named("experiment"));
    let mut times: BTreeMap<usize, u64> = BTreeMap::new();
    for (name, node) in named.unwrap_or_default() {
        let Some(node) = node.get("covariate") else {
            continue;
        };
        let experiment = experiments.iter().find(|it| *it.name == *name);
        let (Some(time), Some(experiment)) = (covariate_time(&node), experiment) else {
            continue;
        };
        let means = experiment.metrics.iter().map(|index| index.0);
        let means: Vec<usize> = means
            .filter(|place| metrics[*place].kind == MetricKind::Mean)
            .collect();
        if means.is_empty() {
            node.problem(
                "a covariate adjusts the mean of users' sums, and no metric of this experiment is a mean",
                "name a metric of `kind: mean` in `metrics`, or leave `covariate` out",
            );
        }
        for place in means {
            let longest = times.entry(place).or_default();
            *longest = time.max(*longest);
        }
    }
    for (place, time) in times {
        metrics[place].covariate_ms.get_or_insert(time);
    }
}

fn covariate_time(node: &Node<'_>) -> Option<u64> {
    let time = node.duration()?;
    if !(COVARIATE_MIN..=COVARIATE_MAX).contains(&time) {
        node.problem(
            "a covariate of this length",
            "write a time from 1h to 90d, such as 14d",
        );
        return None;
    }
    Some(time.as_millis() as u64)
}

/// A positive amount, in units of the metric's scale.
fn amount(node: &Node<'_>, metric: &Metric, example: &str) -> Option<i64> {
    let largest = VALUE_MAX / 10i64.pow(u32::from(metric.scale));
    let allowed = format!("a number above 0 and at most {largest}, such as {example}");
    let units = |value: f64| Decimal::read(value.to_string().as_bytes())?.units(metric.scale);
    let sound = |value| units(value).is_some_and(|units| (1..=VALUE_MAX).contains(&units));
    node.number(&allowed, sound).and_then(units)
}

fn read_per(node: &Node<'_>, metric: &mut Metric) {
    let per = node.get("per");
    match (&per, metric.kind) {
        (None, MetricKind::Ratio) => node.missing(
            "per",
            "a ratio needs its base: per: requests, or per: { event: NAME }",
        ),
        (Some(per), kind) if kind != MetricKind::Ratio => per.problem(
            "only a ratio has a base",
            "write `kind: ratio`, or leave `per` out",
        ),
        _ => {}
    }
    let Some(per) = per else { return };
    metric.per = if per.is_map() {
        per.keys(&[("event", "the name of an event"), ("on", "a rule")]);
        match (per.get("event"), per.get("on")) {
            (Some(event), None) => event_name(&event).map(RatioBase::Event),
            (None, Some(on)) => Some(RatioBase::Rule(rule(&on))),
            _ => {
                per.problem(
                    "the base is ambiguous",
                    "write one of `event: NAME` and `on: …`",
                );
                None
            }
        }
    } else {
        per.word(&[("requests", ())]).map(|()| RatioBase::Requests)
    };
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// The methods of RFC 9110 and RFC 5789.
const METHODS: [&str; 9] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
];

/// Reads `POST /checkout -> 2xx`: a method, a path, an arrow and a status. Each may be left out, but
/// not all of them.
fn short_rule(node: &Node<'_>) -> Option<MetricRule> {
    let text = node.text(RULE)?;
    let mut rule = MetricRule::default();
    let (request, status) = text
        .split_once("->")
        .map_or((text, None), |(request, status)| {
            (request, Some(status.trim()))
        });
    for word in request.split_whitespace() {
        let taken = match word {
            _ if word.starts_with('/') && rule.path.is_none() => {
                rule.path = Some(conditions::path_of(node, word)?);
                true
            }
            _ if rule.method.is_none() && rule.path.is_none() => {
                rule.method = conditions::method_of(word);
                rule.method.is_some()
            }
            _ => false,
        };
        if !taken {
            node.problem(format!("{word:?} is neither a method nor a path"), RULE);
            return None;
        }
    }
    if let Some(status) = status {
        rule.status = status_of(status);
        if rule.status.is_none() {
            node.problem(format!("{status:?} is not a status"), STATUS);
            return None;
        }
    }
    if rule.method.is_none() && rule.path.is_none() && rule.status.is_none() {
        node.problem("the rule is empty", RULE);
        return None;
    }
    if let (Some(method), None) = (&rule.method, &rule.path)
        && !METHODS.contains(&method.as_str())
    {
        let allowed = format!(
            "{{ event: {method} }} for an event, or a request such as POST /checkout -> 2xx"
        );
        node.problem(
            format!("no browser sends requests of a method {method}"),
            allowed,
        );
        return None;
    }
    check_method(node, rule.method.as_ref());
    Some(rule)
}

fn rule(node: &Node<'_>) -> MetricRule {
    match node.is_map() {
        true => long_rule(node),
        false => short_rule(node).unwrap_or_default(),
    }
}

fn check_method(node: &Node<'_>, method: Option<&Method>) {
    if matches!(method, Some(&Method::HEAD | &Method::TRACE)) {
        node.problem(
            "HEAD and TRACE requests are never counted",
            "another method, or none",
        );
    }
}

fn long_rule(node: &Node<'_>) -> MetricRule {
    node.keys(&[
        ("method", "GET, POST, …"),
        ("path", PATH),
        ("status", STATUS),
        (
            "header",
            "a header of the response: `Name` or `Name: value`, with `*` for any text",
        ),
    ]);
    MetricRule {
        method: node.get("method").and_then(|node| {
            let method = conditions::method(&node);
            check_method(&node, method.as_ref());
            method
        }),
        path: node.get("path").and_then(|node| conditions::path(&node)),
        status: node
            .get("status")
            .and_then(|node| node.read(STATUS, status_of)),
        header: node.get("header").and_then(|node| {
            let header = node.read("`Name` or `Name: value`", header_of)?;
            if header.value.is_some() {
                node.hide_if_named(header.name.as_str());
            }
            Some(header)
        }),
    }
}

/// Reads a status, a class or a range.
pub(super) fn status_of(text: &str) -> Option<StatusRange> {
    let sound = |status: u16| (100..=599).contains(&status);
    if let Some(class) = text.strip_suffix("xx") {
        let low = class
            .parse::<u16>()
            .ok()
            .filter(|class| (1..=5).contains(class))?
            * 100;
        return Some(StatusRange {
            low,
            high: low + 99,
        });
    }
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let range = StatusRange {
        low: low.trim().parse().ok()?,
        high: high.trim().parse().ok()?,
    };
    (sound(range.low) && sound(range.high) && range.low <= range.high).then_some(range)
}

fn header_of(text: &str) -> Option<HeaderRule> {
    let (name, value) = text
        .split_once(':')
        .map_or((text, None), |(name, value)| (name, Some(value.trim())));
    let name = name.trim();
    let is_sound = |value: &str| HeaderValue::from_str(value).is_ok();
    if name.contains('*') || !value.is_none_or(is_sound) {
        return None;
    }
    Some(HeaderRule {
        name: name.parse().ok()?,
        value: value.map(ValuePattern::new),
    })
}

fn event_name(node: &Node<'_>) -> Option<Box<str>> {
    node.read(EVENT, |text| is_name(text).then(|| text.into()))
}
