//! Sentences about the sample size of an experiment, and how long it takes. PURE.

use crate::admin::format::{duration, share, thousands, two_digits};
use crate::admin::results::planning_result::PlanningResult;
use crate::admin::results::schema::ExperimentResult;
use crate::admin::view::narrative::is_open;

/// A split that takes so many times the users of an even one is worth a sentence.
const MUCH_LONGER: f64 = 1.2;

/// Returns about how many users an answer takes, while the experiment has no verdict.
pub(super) fn users_needed(experiment: &ExperimentResult) -> Option<String> {
    let planning = experiment.planning.as_ref();
    let needed = planning.filter(|_| is_open(experiment))?.users_needed?;
    Some(format!("about {}", about(needed)))
}

/// Returns the sample size and the time left, while the experiment has no verdict.
pub(super) fn planning(experiment: &ExperimentResult) -> Option<String> {
    let planning = experiment.planning.as_ref();
    let planning = planning.filter(|_| is_open(experiment));
    planning.map(|planning| planned(experiment, planning))
}

fn planned(experiment: &ExperimentResult, planning: &PlanningResult) -> String {
    let mut metrics = experiment.metrics.iter();
    let metric = metrics.find(|it| it.name == planning.metric);
    let found = format!(
        "To detect a lift of {} in {} with {} power",
        share(planning.detect),
        metric.map_or(&*planning.metric, |metric| metric.shown()),
        share(planning.power)
    );
    let Some(needed) = planning.users_needed else {
        return format!("{found}: the sample size is not known yet.");
    };
    let groups: Vec<String> = planning
        .groups
        .iter()
        .filter_map(|group| {
            let name = experiment.shown(&group.name);
            Some(format!("{} {name}", about(group.users_needed?)))
        })
        .collect();
    let left = match planning.seconds_left {
        Some(seconds) if seconds > 0.0 => {
            format!("; about {} left at the current traffic", duration(seconds))
        }
        Some(_) => String::new(),
        None => String::new(),
    };
    format!(
        "{found}: about {} users ({}); {} so far{left}.{}",
        about(needed),
        groups.join(", "),
        thousands(planning.users),
        even_split(planning)
    )
}

/// Says how much sooner an even split would have the answer; empty where that makes little difference.
fn even_split(planning: &PlanningResult) -> String {
    let even = planning.even_split.as_ref();
    let Some(even) = even.filter(|even| even.factor >= MUCH_LONGER) else {
        return String::new();
    };
    match (planning.seconds_in_all, even.seconds_in_all) {
        (Some(now), Some(even)) if now > even => format!(
            " This split takes about {} in all where an even one takes {}.",
            duration(now),
            duration(even)
        ),
        (Some(_), Some(_)) => String::new(),
        _ => format!(
            " This split takes {:.1} times as many users as an even one.",
            even.factor
        ),
    }
}

/// Formats a forecast with two significant digits.
fn about(users: u64) -> String {
    thousands(two_digits(users))
}
