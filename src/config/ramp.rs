//! `ramp:` and `on_alarm:`, the steps in which an experiment admits more and more users.

use super::reader::Node;
use crate::experiment::assign::Share;
use crate::experiment::lifecycle::{OnAlarm, Ramp, RampStep};

/// The keys of an experiment that are read here.
pub(super) const KEYS: &[(&str, &str)] = &[
    (
        "ramp",
        "the steps in which more users are admitted: [1% for 1h, 10% for 1d, 50%]",
    ),
    (
        "on_alarm",
        "what the ramp does when a guardrail, the sample ratio or the data gives an alarm: hold, or rollback",
    ),
];
const STEP: &str = "a share of all matching users and how long it lasts, such as `10% for 1d`; the last step is a share alone, such as `50%`";
/// More steps than anybody wants.
const STEPS_MAX: usize = 100;
/// The shortest step, in milliseconds.
const STEP_MS_MIN: u64 = 1000;

/// Reads `ramp` and `on_alarm`. Slots of a layer are added once all layers are known.
pub(super) fn read(experiment: &Node<'_>) -> Option<Ramp> {
    let on_alarm = experiment.get("on_alarm");
    let words = [("hold", OnAlarm::Hold), ("rollback", OnAlarm::Rollback)];
    let action = on_alarm.as_ref().and_then(|node| node.word(&words));
    let Some(node) = experiment.get("ramp") else {
        if let Some(on_alarm) = on_alarm {
            on_alarm.problem(
                "`on_alarm` without a ramp",
                "write `ramp:`, such as `ramp: [1% for 1h, 10% for 1d, 50%]`",
            );
        }
        return None;
    };
    for key in ["traffic", "percent"] {
        if let Some(other) = experiment.get(key) {
            other.problem(
                format!("`{key}` beside `ramp`"),
                "leave it out: each step of the ramp is the share of all matching users who are admitted, and the weights of `groups` divide them",
            );
        }
    }
    let items = node.items();
    if items.is_empty() || items.len() > STEPS_MAX {
        node.problem(
            format!("{} steps", items.len()),
            format!("1 to {STEPS_MAX} steps, such as [1% for 1h, 10% for 1d, 50%]"),
        );
        return None;
    }
    let steps: Vec<RampStep> = items.iter().filter_map(step).collect();
    if steps.len() < items.len() {
        return None;
    }
    let is_sound = check(&items, &steps);
    is_sound.then(|| Ramp {
        steps: steps.into(),
        on_alarm: action.unwrap_or_default(),
    })
}

/// Reads one step, such as `10% for 1d`.
fn step(item: &Node<'_>) -> Option<RampStep> {
    item.read(STEP, |text| {
        let mut words = text.split_whitespace();
        let percent: f64 = words.next()?.strip_suffix('%')?.parse().ok()?;
        let share = Share::new(percent / 100.0)?;
        let time: Vec<&str> = words.collect();
        let for_ms = match &time[..] {
            [] => None,
            ["for", time @ ..] => {
                let time = humantime::parse_duration(&time.join(" ")).ok()?;
                Some(u64::try_from(time.as_millis()).ok()?)
            }
            _ => return None,
        };
        Some(RampStep {
            share,
            for_ms,
            layer: None,
        })
    })
}

/// Reports steps that do not follow each other.
fn check(items: &[Node<'_>], steps: &[RampStep]) -> bool {
    let mut is_sound = true;
    let mut problem = |item: &Node<'_>, found: String, allowed: &str| {
        item.problem(found, allowed);
        is_sound = false;
    };
    for (place, (item, step)) in items.iter().zip(steps).enumerate() {
        let is_last = place + 1 == steps.len();
        match step.for_ms {
            None if !is_last => problem(
                item,
                "a step without the time that it lasts".to_owned(),
                "write it, such as `10% for 1d`; only the last step stays",
            ),
            Some(_) if is_last => problem(
                item,
                "the last step has a time, and no step follows".to_owned(),
                "a share alone, such as `50%`: the last step stays",
            ),
            Some(ms) if ms < STEP_MS_MIN => problem(
                item,
                "a step of less than 1s".to_owned(),
                "1s or more, such as `10% for 1d`",
            ),
            _ => {}
        }
        if place > 0 && step.share <= steps[place - 1].share {
            problem(
                item,
                format!("{} after {}", step.text(), steps[place - 1].text()),
                "a larger share than that of the step before: a ramp only widens",
            );
        }
    }
    is_sound
}
