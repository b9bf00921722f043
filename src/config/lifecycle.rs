//! What an experiment is about, when it runs, and what ends it: a winner in the file, or a verdict that takes
//! effect by itself.

use super::name::check_name;
use super::plan::{NotificationKind, Webhook};
use super::reader::Node;
use crate::experiment::lifecycle::{About, Schedule};
use crate::experiment::metric::{Metric, MetricKind};
use crate::experiment::metric_definition::duration;
use crate::experiment::{ActOn, Confirmer, Experiment, Group, GroupIndex, Horizon};

/// The keys of an experiment that say what it is about and when it runs.
pub(super) const KEYS: &[(&str, &str)] = &[
    ("description", "what is tried, for people who read results"),
    ("owner", "who answers for the experiment"),
    ("hypothesis", "what is expected, and why"),
    (
        "link",
        "the address of a page about the experiment, such as https://…",
    ),
    (
        "state",
        "draft (everybody gets control, and overrides reach the other groups), or running",
    ),
    ("start", "when it starts, such as 2026-12-01T08:00:00Z"),
    ("end", "when it ends, such as 2026-12-15T08:00:00Z"),
];
/// The most characters of a text about an experiment.
const ABOUT_MAX: usize = 1000;

/// Reads what people should know of an experiment.
pub(super) fn about(experiment: &Node<'_>) -> About {
    let text = |key: &str| -> Option<Box<str>> {
        let allowed = format!("a text of at most {ABOUT_MAX} characters");
        experiment.get(key)?.read(&allowed, |text| {
            // YAML can fold a text over several lines; it is shown in one.
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let is_sound = (1..=ABOUT_MAX).contains(&text.chars().count())
                && !text.chars().any(char::is_control);
            is_sound.then(|| text.into())
        })
    };
    let link = experiment.get("link").and_then(|node| {
        node.read(
            "an address that begins with https:// or http://, without user and password",
            |text| -> Option<Box<str>> {
                let uri: http::Uri = text.parse().ok()?;
                let is_web = matches!(uri.scheme_str(), Some("https" | "http"));
                let has_login = uri.authority().is_some_and(|it| it.as_str().contains('@'));
                (is_web && !has_login && uri.host().is_some_and(|host| !host.is_empty()))
                    .then(|| text.into())
            },
        )
    });
    About {
        description: text("description"),
        owner: text("owner"),
        hypothesis: text("hypothesis"),
        link,
    }
}

/// Reads `state`, `start` and `end`.
pub(super) fn schedule(experiment: &Node<'_>, min_duration_ms: u64) -> Schedule {
    let time = |key: &str| {
        let node = experiment.get(key)?;
        let allowed = "a date and time with its offset, such as 2026-12-01T08:00:00Z or 2026-12-01T09:00:00+01:00";
        node.read(allowed, |text| {
            let time: jiff::Timestamp = text.parse().ok()?;
            u64::try_from(time.as_millisecond()).ok()
        })
    };
    let state = experiment.get("state");
    let is_draft = state.and_then(|node| node.word(&[("draft", true), ("running", false)]));
    let (start_ms, mut end_ms) = (time("start"), time("end"));
    if let (Some(start), Some(end)) = (start_ms, end_ms)
        && end <= start
        && let Some(node) = experiment.get("end")
    {
        node.problem(
            "the experiment ends before it starts",
            "a time after `start`",
        );
        end_ms = None;
    }
    if let (Some(start), Some(end)) = (start_ms, end_ms)
        && end - start < min_duration_ms
        && let Some(node) = experiment.get("end")
    {
        let earliest = duration(min_duration_ms);
        node.warn(
            format!("it ends before the earliest verdict (min_duration: {earliest})"),
            "a later end, or a shorter `min_duration`",
        );
    }
    Schedule {
        is_draft: is_draft.unwrap_or(false),
        start_ms,
        end_ms,
    }
}

/// Reads `winner:`, the group whose version everybody gets.
pub(super) fn winner(experiment: &Node<'_>, groups: &[Group]) -> Option<GroupIndex> {
    let winner = experiment.get("winner")?;
    let text = winner.text("the name of a group")?;
    let place = groups.iter().position(|group| &*group.name == text);
    if place.is_none() {
        winner.unknown("group", text, groups.iter().map(|group| &*group.name));
    }
    place.map(GroupIndex)
}

/// Reads `retired:`, the experiments whose promotion ends.
pub(super) fn retired(root: &Node<'_>) -> Box<[Box<str>]> {
    let items = root.get("retired").map(|node| node.items());
    let experiments = root.get("experiments").map(|node| node.named("experiment"));
    let in_file = |name: &str| {
        let mut experiments = experiments.iter().flatten();
        experiments.any(|(known, _)| known == name)
    };
    let read = |node: &Node<'_>| {
        let name = node.text("the name of an experiment that left the file")?;
        check_name(node, name);
        if in_file(name) {
            node.problem(
                format!("`{name}` is in `experiments`"),
                "take it out of one of the two: only the promotion of an experiment that left the file is ended here",
            );
        }
        Some(name.into())
    };
    items.iter().flatten().filter_map(read).collect()
}

/// Reads `act_on:`, the verdicts that take effect by themselves.
pub(super) fn act_on(experiment: &Node<'_>) -> ActOn {
    let items = experiment.get("act_on").map(|node| node.items());
    let mut act_on = ActOn::default();
    for item in items.unwrap_or_default() {
        match item.word(&[("winner", true), ("loser", false)]) {
            Some(true) => act_on.winner = true,
            Some(false) => act_on.loser = true,
            None => {}
        }
    }
    act_on
}

/// Reads `confirm:`, who must agree before `act_on` promotes.
pub(super) fn confirm(experiment: &Node<'_>) -> Option<Confirmer> {
    let node = experiment.get("confirm")?;
    node.word(&[
        ("person", Confirmer::Person),
        ("webhook", Confirmer::Webhook),
    ])
}

/// Reports confirmations that can never be needed or never come.
pub(super) fn confirmations(root: &Node<'_>, experiments: &[Experiment], webhooks: &[Webhook]) {
    let named = root.get("experiments");
    for experiment in experiments {
        let node = named.as_ref().and_then(|it| it.get(&experiment.name));
        let Some(node) = node.and_then(|it| it.get("confirm")) else {
            continue;
        };
        if experiment.confirm.is_some() && !experiment.act_on.winner {
            node.warn(
                "nothing is promoted without a person, because `act_on` has no `winner`",
                "add `act_on: winner`, or leave `confirm` out",
            );
        }
        let mut kinds = webhooks.iter().flat_map(|webhook| &webhook.on);
        let is_told = kinds.any(|kind| *kind == NotificationKind::Winner);
        if experiment.confirm == Some(Confirmer::Webhook) && !is_told {
            node.problem(
                "no webhook receives `winner`, so none can confirm",
                "a webhook at `webhooks` with `winner` among its `on`, or `confirm: person`",
            );
        }
    }
}

/// With fewer users nothing can be said.
const USERS_MIN: u64 = 100;
const HORIZON: &str =
    "a time after the first user, such as 14d, or a number of users of 100 or more, such as 20000";

/// Reads `horizon:`, the planned end.
pub(super) fn horizon(
    experiment: &Node<'_>,
    min_duration_ms: u64,
    primary: Option<&Metric>,
) -> Option<Horizon> {
    let node = experiment.get("horizon")?;
    let horizon = node.read(HORIZON, |text| match text.parse() {
        Ok(users) => (users >= USERS_MIN).then_some(Horizon::Users(users)),
        Err(_) => {
            let time = humantime::parse_duration(text).ok()?;
            let ms = u64::try_from(time.as_millis()).ok()?;
            (ms > 0).then_some(Horizon::Time(ms))
        }
    });
    if let Some(Horizon::Time(ms)) = horizon
        && ms < min_duration_ms
    {
        let earliest = duration(min_duration_ms);
        node.problem(
            format!("it ends before the earliest verdict (min_duration: {earliest})"),
            "a longer horizon, or a shorter `min_duration`",
        );
    }
    if let Some(metric) = primary.filter(|metric| metric.kind == MetricKind::Latency) {
        node.problem(
            format!(
                "its analyses are of means and shares, and {} is a latency",
                metric.name
            ),
            "make another metric the primary one, or leave `horizon` out: a latency is judged at any time",
        );
    }
    horizon
}
