//! Sentences that the table and the page share.

use super::shape::{
    ExperimentResult, FixedResult, GroupResult, GuardrailGroup, GuardrailResult, MetricResult,
    PlanningResult, Results, SampleRatio,
};
use crate::stats::verdict::{thousands, two_digits};

/// Everything that a reader should know of an experiment beside its tables, as alarms.
pub fn alarms(experiment: &ExperimentResult) -> Vec<String> {
    let mut said = experiment.warnings.clone();
    said.extend(parting(&experiment.sample_ratio));
    let dead = experiment.groups.iter().filter_map(|group| {
        let recently = group.recently.as_ref().filter(|recently| recently.dead)?;
        Some(format!(
            "{}: {} of {} answers of this hour and the one before failed: its upstream looks dead",
            group.name, recently.failed, recently.answers
        ))
    });
    said.extend(dead);
    for guardrail in &experiment.guardrails {
        let breached = guardrail.groups.iter();
        let breached = breached.filter(|group| group.breached == Some(true));
        said.extend(breached.map(|group| {
            format!(
                "guardrail {} is breached: {}",
                bound(guardrail),
                harm(group)
            )
        }));
    }
    said
}

/// What can be wrong with the data of an experiment: what it is, how it is, and whether that is bad.
pub fn health(
    results: &Results,
    experiment: &ExperimentResult,
) -> Vec<(&'static str, String, bool)> {
    let store = &results.store;
    let ratio = &experiment.sample_ratio;
    let sum = |count: fn(&GroupResult) -> u64| experiment.groups.iter().map(count).sum::<u64>();
    let share = |count: u64, of: u64| match of {
        0 => count.to_string(),
        of => format!("{count} ({:.2} %)", 100.0 * count as f64 / of as f64),
    };
    let (users, requests) = (sum(|it| it.users), sum(|it| it.requests));
    let fallbacks = sum(|it| it.fallbacks);
    let much = |count: u64, of: u64| count as f64 > MUCH * of as f64;
    let sizes = match (ratio.mismatch, ratio.p_value) {
        (true, _) => "the groups do not have the sizes that their weights ask for".to_owned(),
        (false, Some(p)) => format!("as the weights ask for (p = {})", short(p)),
        (false, None) => "nobody yet".to_owned(),
    };
    let lag = match store.healthy {
        true => format!("{} facts behind", store.lag_events),
        false => format!("not taking results; {} facts wait", store.lag_events),
    };
    let lost = store.dropped_events + store.damaged_events;
    let disagreeing = results.disagreeing();
    vec![
        ("sample ratio", sizes, ratio.mismatch),
        (
            "crossed over",
            format!("{} users", share(experiment.crossed_over, users)),
            much(experiment.crossed_over, users),
        ),
        (
            "fallbacks",
            format!("{} requests", share(fallbacks, requests + fallbacks)),
            much(fallbacks, requests + fallbacks),
        ),
        ("lost", format!("{lost} facts"), lost > 0),
        ("store", lag, !store.healthy || store.lag_seconds > LATE_S),
        (
            "replicas",
            match disagreeing {
                0 => format!("{}, all agree", results.replicas.len()),
                some => format!("{some} of {} disagree", results.replicas.len()),
            },
            disagreeing > 0,
        ),
        (
            "overrides",
            "visitors who forced a group are not counted".to_owned(),
            false,
        ),
    ]
}

/// A share that is shown as bad.
const MUCH: f64 = 0.01;
/// A store so far behind is shown as bad, in seconds.
const LATE_S: f64 = 30.0;

/// The Bayesian view of a metric: a sentence for each group that it is known of.
pub fn bayesian(metric: &MetricResult) -> Vec<String> {
    let groups = metric.groups.iter();
    let told = groups.filter_map(|group| {
        let (chance, loss) = (group.chance_to_beat_control?, group.expected_loss?);
        Some(format!(
            "{} beats control with a chance of {:.1} %; choosing it wrongly would cost {} of {} on average",
            group.name,
            100.0 * chance,
            short(loss),
            metric.name
        ))
    });
    told.collect()
}

fn parting(sample_ratio: &SampleRatio) -> Option<String> {
    let parting = sample_ratio.parting.as_ref()?;
    let epochs: Vec<String> = parting.epochs.iter().map(u32::to_string).collect();
    let epochs = match &epochs[..] {
        [] => String::new(),
        epochs => format!(" (epochs at fault: {})", epochs.join(", ")),
    };
    Some(format!("the groups part {}{epochs}", parting.sentence))
}

/// What a guardrail bounds, such as `errors (at most +1 %)`.
pub fn bound(guardrail: &GuardrailResult) -> String {
    let over = guardrail
        .over_ms
        .map_or(String::new(), |ms| format!(" over {ms} ms"));
    format!(
        "{}{over} (at most +{} %)",
        guardrail.name,
        rounded(100.0 * guardrail.max_increase)
    )
}

/// What a guardrail says of one group.
pub fn harm(group: &GuardrailGroup) -> String {
    let mut said = format!("{}: {} of {} users", group.name, group.harmed, group.users);
    match (group.breached, group.dead) {
        (_, Some(true)) => said.push_str(", more than half of them"),
        (Some(true), _) => said.push_str(", harm is shown"),
        (Some(false), _) => said.push_str(", no harm is shown"),
        (None, _) => {}
    }
    if let Some(least) = group.at_least.filter(|least| *least > 0.0) {
        said.push_str(&format!(
            ", at least {} % more than with control",
            rounded(100.0 * least)
        ));
    }
    if let Some(p) = group.p_value {
        said.push_str(&format!(" (p = {})", short(p)));
    }
    said
}

/// How many users it takes, and how long.
pub fn planning(planning: &PlanningResult) -> String {
    let found = format!(
        "To find a lift of {} % of {} with a chance of {} %",
        rounded(100.0 * planning.detect),
        planning.metric,
        rounded(100.0 * planning.power)
    );
    let Some(needed) = planning.users_needed else {
        return format!("{found}: it is not known yet how many users it takes.");
    };
    let groups: Vec<String> = planning
        .groups
        .iter()
        .filter_map(|group| Some(format!("{} {}", about(group.users_needed?), group.name)))
        .collect();
    let left = match planning.seconds_left {
        Some(seconds) if seconds > 0.0 => {
            format!("; about {} left at the present traffic", time(seconds))
        }
        Some(_) => "; enough".to_owned(),
        None => String::new(),
    };
    format!(
        "{found}: about {} users ({}), of whom {} have come{left}.",
        about(needed),
        groups.join(", "),
        thousands(planning.users)
    )
}

/// A lift and its interval for whoever looks once.
pub fn fixed(fixed: Option<&FixedResult>) -> String {
    let Some(fixed) = fixed else {
        return "-".to_owned();
    };
    let percent = |value: f64| format!("{:+.1} %", 100.0 * value);
    let lift = fixed.relative.map_or("?".to_owned(), percent);
    let interval = fixed
        .relative_interval
        .map_or(String::new(), |(low, high)| {
            format!(" [{}, {}]", percent(low), percent(high))
        });
    let p = fixed
        .p_value
        .map_or(String::new(), |p| format!(", p = {}", short(p)));
    format!("{lift}{interval}{p}")
}

/// A duration in the largest unit that says it in two digits or so.
pub fn time(seconds: f64) -> String {
    let units = [
        (86_400.0 * 365.0, "year"),
        (86_400.0, "day"),
        (3_600.0, "hour"),
        (60.0, "minute"),
    ];
    let fits = units.iter().find(|(unit, _)| seconds >= 1.5 * unit);
    let (unit, word) = fits.copied().unwrap_or((1.0, "second"));
    let count = (seconds / unit).ceil();
    let plural = if count == 1.0 { "" } else { "s" };
    format!("{count} {word}{plural}")
}

/// A forecast, with as many digits as it is worth.
fn about(users: u64) -> String {
    thousands(two_digits(users))
}

fn rounded(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

fn short(p: f64) -> String {
    if p >= 0.001 {
        format!("{p:.3}")
    } else {
        format!("{p:.1e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_one_unit() {
        for (seconds, said) in [
            (0.4, "1 second"),
            (89.0, "89 seconds"),
            (90.0, "2 minutes"),
            (7200.0, "2 hours"),
            (100_000.0, "28 hours"),
            (12.0 * 86_400.0, "12 days"),
            (3e8, "10 years"),
        ] {
            assert_eq!(time(seconds), said);
        }
    }
}
