//! What ends an experiment: a winner in the file, or a verdict that takes effect by itself.

use super::reader::Node;
use crate::experiment::metric::{Metric, MetricKind};
use crate::experiment::metric_definition::duration;
use crate::experiment::{ActOn, Group, GroupIndex, Horizon};

/// Reads `winner:`, the group whose version everybody gets.
pub fn winner(experiment: &Node<'_>, groups: &[Group]) -> Option<GroupIndex> {
    let winner = experiment.get("winner")?;
    let text = winner.text("the name of a group")?;
    let place = groups.iter().position(|group| &*group.name == text);
    if place.is_none() {
        winner.unknown("group", text, groups.iter().map(|group| &*group.name));
    }
    place.map(GroupIndex)
}

/// Reads `act_on:`, the verdicts that take effect by themselves.
pub fn act_on(experiment: &Node<'_>) -> ActOn {
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

/// With fewer users nothing can be said.
const USERS_MIN: u64 = 100;
const HORIZON: &str =
    "a time after the first user, such as 14d, or a number of users of 100 or more, such as 20000";

/// Reads `horizon:`, the planned end.
pub fn horizon(
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
