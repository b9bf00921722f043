//! `watershed check`: reports all errors of a routes file.

use super::config_file::ConfigFile;
use super::known_users;
use super::output::{Output, warnings};
use crate::admin::clock::now_ms;
use crate::admin::results::sample_size::usual_users;
use crate::config::plan::Plan;
use crate::experiment::assign::Weight;
use crate::experiment::lifecycle::Ramp;
use crate::experiment::metric::{MetricKind, VALUE_MAX};
use crate::experiment::{Experiment, Group, Lifecycle};
use crate::server::DecidedPlan;
#[cfg(feature = "mcp")]
use crate::server::KnownDecisions;
use serde_json::{Value, json};
use std::path::Path;

/// The arguments of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// New users per day who match, to show how many days an answer takes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    users_per_day: Option<u64>,
}

/// A valid file.
struct CheckedFile<'a> {
    path: &'a Path,
    plan: &'a Plan,
    decided: &'a DecidedPlan,
    /// What the file makes of promotions that are in effect.
    effects: &'a [String],
    users_per_day: Option<u64>,
}

/// Describes a valid file, or fails with all its errors.
pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let path = &arguments.file.path()?;
    let plan = crate::config::load(path)?;
    let (decided, effects) = known_users::decisions(&plan)
        .inspect_err(|why| eprintln!("the store was not asked about promotions: {why}"))
        .unwrap_or_default()
        .preview(&plan, now_ms());
    if let Some(invalid) = decided.problems(Some(path)) {
        return Err(invalid.into());
    }
    if !output.is_json() {
        for warning in &plan.warnings {
            eprintln!("{}", warning.with_line());
        }
    }
    let checked = CheckedFile {
        path,
        plan: &plan,
        decided: &decided,
        effects: &effects,
        users_per_day: arguments.users_per_day,
    };
    Ok(output.print(|| text(&checked), || document(&checked))?)
}

/// Describes a valid plan as if it were that of the file at `path`, with its warnings; or fails with what decisions
/// make of it.
#[cfg(feature = "mcp")]
pub(super) fn described(
    plan: &Plan,
    path: &Path,
    known: &KnownDecisions,
) -> anyhow::Result<String> {
    let (decided, effects) = known.preview(plan, now_ms());
    if let Some(invalid) = decided.problems(Some(path)) {
        return Err(invalid.into());
    }
    let checked = CheckedFile {
        path,
        plan,
        decided: &decided,
        effects: &effects,
        users_per_day: None,
    };
    let warnings = plan.warnings.iter();
    let warnings = warnings.map(|it| format!("{}\n", it.with_line()));
    Ok(warnings.collect::<String>() + &text(&checked))
}

fn text(checked: &CheckedFile<'_>) -> String {
    let CheckedFile { plan, decided, .. } = *checked;
    let mut text = format!(
        "{} is valid:\n  listens on {}, results at {}\n",
        checked.path.display(),
        plan.listen,
        plan.admin.results_url(plan.admin.listen)
    );
    for experiment in of_file(decided) {
        let group = |group: &Group| {
            let upstream = upstream(plan, group).map_or(String::new(), |it| format!(" to {it}"));
            let share = 100.0 * share(experiment, group);
            format!("{} {share:.4} %{upstream}", group.name)
        };
        let groups: Vec<String> = experiment.groups.iter().map(group).collect();
        let name = &experiment.name;
        let state = match experiment.lifecycle {
            Lifecycle::Running => String::new(),
            Lifecycle::Promoted if experiment.ended_by_file => String::new(),
            other => format!(" ({})", other.name()),
        };
        let ramp = experiment.ramp.as_ref();
        let ramp = ramp.map_or(String::new(), |ramp| format!("; ramp: {}", ramp.text()));
        text += &match experiment.winner {
            Some(winner) if experiment.ended_by_file => {
                format!("  {name}: won by {}\n", experiment.groups[winner.0].name)
            }
            Some(winner) => {
                let group = &experiment.groups[winner.0];
                let upstream = upstream(plan, group).map_or(String::new(), |it| format!(" ({it})"));
                let but = match experiment.holdback {
                    Some(_) => ", but for the holdback",
                    None => "",
                };
                format!(
                    "  {name}{state}: everybody gets {}{upstream}{but}\n",
                    group.name
                )
            }
            None => format!("  {name}{state}: {}{ramp}\n", groups.join(", ")),
        };
    }
    for (place, route) in plan.routes.iter().enumerate() {
        text += &format!("  routes.{place}: {}\n", route.described(&plan.upstreams));
    }
    if let Some(redirect) = plan.https.redirect {
        text += &format!(
            "  requests without TLS are redirected to https ({})\n",
            redirect.status
        );
    }
    for promotion in promotions(checked) {
        text += &format!("  {promotion}\n");
    }
    text += &format!(
        "  everything else to {}\n",
        plan.upstream(plan.default).name
    );
    for experiment in of_file(decided) {
        if let Some(time) = time_to_an_answer(plan, experiment, checked.users_per_day) {
            text += &format!("  time: experiments.{}: {time}\n", experiment.name);
        }
    }
    let advice = advice(plan).map(|advice| format!("  advice: {advice}\n"));
    text + &advice.collect::<String>()
}

fn document(checked: &CheckedFile<'_>) -> Value {
    let CheckedFile { plan, decided, .. } = *checked;
    let experiments = of_file(decided).map(|experiment| {
        let groups = experiment.groups.iter().map(|group| {
            json!({
                "name": *group.name,
                "share": share(experiment, group),
                "upstream": upstream(plan, group),
            })
        });
        let groups: Vec<Value> = groups.collect();
        let winner = experiment
            .winner
            .map(|winner| &*experiment.groups[winner.0].name);
        json!({
            "name": *experiment.name,
            "state": experiment.lifecycle.name(),
            "groups": groups,
            "ramp": experiment.ramp.as_ref().map(Ramp::text),
            "winner": winner,
            "time": time_to_an_answer(plan, experiment, checked.users_per_day),
        })
    });
    let routes = plan.routes.iter();
    let routes = routes.map(|route| route.described(&plan.upstreams));
    let redirect = plan
        .https
        .redirect
        .map(|redirect| redirect.status.to_string());
    json!({
        "routes": routes.collect::<Vec<String>>(),
        "https_redirect": redirect,
        "valid": true,
        "file": checked.path,
        "listen": plan.listen.to_string(),
        "results": plan.admin.results_url(plan.admin.listen),
        "experiments": experiments.collect::<Vec<Value>>(),
        "default": *plan.upstream(plan.default).name,
        "promotions": promotions(checked),
        "warnings": warnings(&plan.warnings),
        "advice": advice(plan).collect::<Vec<String>>(),
    })
}

/// The experiments of the file, as decisions have them.
fn of_file(decided: &DecidedPlan) -> impl Iterator<Item = &Experiment> {
    let experiments = decided.plan.experiments.iter();
    experiments.filter(|experiment| !experiment.has_left_file)
}

/// Promotions that stay in effect without their experiments, and what the file makes of others.
fn promotions(checked: &CheckedFile<'_>) -> Vec<String> {
    let kept = checked.decided.kept.iter().map(ToString::to_string);
    kept.chain(checked.effects.iter().cloned()).collect()
}

/// The share of a group among the users who take part, from 0 to 1.
fn share(experiment: &Experiment, group: &Group) -> f64 {
    let weights = experiment.groups.iter().map(|group| group.weight.get());
    group.weight.get() / weights.sum::<f64>()
}

fn upstream<'a>(plan: &'a Plan, group: &Group) -> Option<&'a str> {
    group
        .upstream
        .map(|upstream| &*plan.upstream(upstream).name)
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
    if let Some(nobody) = nobody(experiment) {
        return Some(nobody);
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
        let said = format!(
            "{what}, this split takes {factor:.1} times as many users and days as {split} (`--users-per-day N` says how many days)"
        );
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

/// Says that nobody new gets some groups, if that leaves fewer than two to compare.
fn nobody(experiment: &Experiment) -> Option<String> {
    let groups = experiment.groups.iter();
    let (with, without): (Vec<&Group>, Vec<&Group>) =
        groups.partition(|group| group.weight.get() > 0.0);
    let names: Vec<&str> = without.iter().map(|group| &*group.name).collect();
    (with.len() < 2).then(|| {
        format!(
            "nobody new gets {}, so there is nothing to compare",
            names.join(" or ")
        )
    })
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
