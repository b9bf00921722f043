//! `watershed check`: reports all errors of a routes file.

use super::FileArguments;
use super::simulate::usual_users;
use crate::config;
use crate::config::plan::Plan;
use crate::experiment::assign::Weight;
use crate::experiment::metric::{MetricKind, VALUE_MAX};
use crate::experiment::{Experiment, Lifecycle};

/// The arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    file: FileArguments,
    /// New users per day who match, to show how many days an answer takes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    users_per_day: Option<u64>,
}

/// Describes a valid file, or fails with all its errors.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let file = &*arguments.file.config;
    let plan = config::load(file)?;
    for warning in &plan.warnings {
        eprintln!("{warning}");
    }
    println!("{} is valid:", file.display());
    println!(
        "  listens on {}, results at http://{}/admin/results",
        plan.listen, plan.admin.listen
    );
    for experiment in &plan.experiments {
        let all: f64 = experiment
            .groups
            .iter()
            .map(|group| group.weight.get())
            .sum();
        let group = |group: &crate::experiment::Group| {
            let upstream = group.upstream.map_or(String::new(), |upstream| {
                format!(" to {}", plan.upstream(upstream).name)
            });
            format!(
                "{} {:.4} %{upstream}",
                group.name,
                100.0 * group.weight.get() / all
            )
        };
        let groups: Vec<String> = experiment.groups.iter().map(group).collect();
        let state = match experiment.lifecycle {
            Lifecycle::Running | Lifecycle::Promoted => String::new(),
            other => format!(" ({})", other.name()),
        };
        let ramp = experiment.ramp.as_ref();
        let ramp = ramp.map_or(String::new(), |ramp| format!("; ramp: {}", ramp.text()));
        match experiment.winner {
            Some(winner) => println!(
                "  {}: won by {}",
                experiment.name, experiment.groups[winner.0].name
            ),
            None => println!("  {}{state}: {}{ramp}", experiment.name, groups.join(", ")),
        }
    }
    for (place, route) in plan.routes.iter().enumerate() {
        println!("  routes.{place}: {}", route.described(&plan.upstreams));
    }
    if let Some(redirect) = plan.https.redirect {
        println!(
            "  requests without TLS are redirected to https ({})",
            redirect.status
        );
    }
    println!("  everything else to {}", plan.upstream(plan.default).name);
    for experiment in &plan.experiments {
        if let Some(time) = time_to_an_answer(&plan, experiment, arguments.users_per_day) {
            println!("  time: experiments.{}: {time}", experiment.name);
        }
    }
    for advice in advice(&plan) {
        println!("  advice: {advice}");
    }
    Ok(())
}

/// The share of users with an event where the metric has no baseline.
const RATE: f64 = 0.05;
/// An even split that saves less is not worth a line.
const FACTOR_MIN: f64 = 1.2;

/// Compares how long an answer takes at this split and at an even one: in days if the traffic is known, or else
/// as a factor. `None` where the split is even, or nothing is judged.
fn time_to_an_answer(
    plan: &Plan,
    experiment: &Experiment,
    users_per_day: Option<u64>,
) -> Option<String> {
    if experiment.winner.is_some() {
        return None;
    }
    let metric = plan.metric(*experiment.metrics.first()?);
    let baseline = metric
        .baseline
        .filter(|_| metric.kind == MetricKind::Conversion);
    let rate = baseline
        .filter(|rate| *rate > 0.0 && *rate < 1.0)
        .unwrap_or(RATE);
    let mut even = experiment.clone();
    let weights = experiment
        .groups
        .iter()
        .map(|group| match group.weight.get() {
            0.0 => Some(group.weight),
            _ => Weight::new(1.0),
        });
    even.reweigh(&weights.collect::<Option<Vec<_>>>()?);
    let users = [experiment, &even].map(|it| usual_users(plan, it, rate));
    let [Some(users), Some(even_users)] = users else {
        return None;
    };
    let factor = users as f64 / even_users as f64;
    let split = match experiment
        .groups
        .iter()
        .filter(|it| it.weight.get() > 0.0)
        .count()
    {
        2 => "50/50".to_owned(),
        groups => format!("{groups} even parts"),
    };
    let detect = (metric.detect * 1e4).round() / 1e2;
    let what = format!("to detect a lift of {detect} % in {}", metric.name);
    let Some(per_day) = users_per_day else {
        let said =
            format!("{what}, this split takes {factor:.1} times as many users and days as {split}");
        return (factor >= FACTOR_MIN).then_some(said);
    };
    // With a ramp, its last step.
    let ramp = experiment.ramp.as_ref().and_then(|ramp| ramp.steps.last());
    let share = ramp.map_or(experiment.traffic, |step| step.share).get();
    let days = |users: u64| {
        let days = (users as f64 / (per_day as f64 * share)).ceil();
        days.max(experiment.min_duration_ms as f64 / 86_400_000.0)
    };
    if share == 0.0 {
        return None;
    }
    let rate = (rate * 1e4).round() / 1e2;
    let mut said = format!(
        "{what} at a rate of {rate} %, it takes about {} days",
        days(users).ceil()
    );
    if factor >= FACTOR_MIN {
        said += &format!(", where {split} takes {}", days(even_users).ceil());
    }
    Some(said)
}

/// Returns recommendations for a valid file.
fn advice(plan: &Plan) -> impl Iterator<Item = String> {
    let browsers = plan.beacon.enabled;
    plan.metrics.iter().filter(move |_| browsers).filter_map(|metric| {
        let value = metric.value.as_ref().filter(|_| metric.max.is_none())?;
        let largest = VALUE_MAX / 10i64.pow(u32::from(metric.scale));
        Some(format!(
            "metrics.{}: any browser can report a `{value}` of up to {largest}, which moves the mean; set `max` to the largest value that is genuine, such as `max: 10000`",
            metric.name
        ))
    })
}
