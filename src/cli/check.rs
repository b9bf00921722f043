//! `watershed check`: reports all errors of a routes file.

use super::config_file::ConfigFile;
use super::known_users;
use super::output::{Output, warnings};
use crate::admin::clock::now_ms;
use crate::config::plan::Plan;
use crate::experiment::lifecycle::Ramp;
use crate::experiment::metric::VALUE_MAX;
use crate::experiment::{Experiment, Group, Lifecycle};
use crate::server::DecidedPlan;
use serde_json::{Value, json};
use std::path::Path;

/// Describes a valid file, or fails with all its errors.
pub fn run(file: &ConfigFile, output: Output) -> anyhow::Result<()> {
    let file = &file.path()?;
    let plan = crate::config::load(file)?;
    let decided = known_users::decisions(&plan)
        .inspect_err(|why| eprintln!("the store was not asked about promotions: {why}"))
        .unwrap_or_default()
        .apply(&plan, now_ms());
    if let Some(invalid) = decided.problems(Some(file)) {
        return Err(invalid.into());
    }
    if !output.is_json() {
        for warning in &plan.warnings {
            eprintln!("{}", warning.with_line());
        }
    }
    Ok(output.print(
        || text(file, &plan, &decided),
        || document(file, &plan, &decided),
    )?)
}

fn text(file: &Path, plan: &Plan, decided: &DecidedPlan) -> String {
    let mut text = format!(
        "{} is valid:\n  listens on {}, results at http://{}/admin/results\n",
        file.display(),
        plan.listen,
        plan.admin.listen
    );
    for experiment in &plan.experiments {
        let group = |group: &Group| {
            let upstream = upstream(plan, group).map_or(String::new(), |it| format!(" to {it}"));
            let share = 100.0 * share(experiment, group);
            format!("{} {share:.4} %{upstream}", group.name)
        };
        let groups: Vec<String> = experiment.groups.iter().map(group).collect();
        let name = &experiment.name;
        let state = match experiment.lifecycle {
            Lifecycle::Running | Lifecycle::Promoted => String::new(),
            other => format!(" ({})", other.name()),
        };
        let ramp = experiment.ramp.as_ref();
        let ramp = ramp.map_or(String::new(), |ramp| format!("; ramp: {}", ramp.text()));
        text += &match experiment.winner {
            Some(winner) => format!("  {name}: won by {}\n", experiment.groups[winner.0].name),
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
    for kept in &decided.kept {
        text += &format!("  {kept}\n");
    }
    text += &format!(
        "  everything else to {}\n",
        plan.upstream(plan.default).name
    );
    let advice = advice(plan).map(|advice| format!("  advice: {advice}\n"));
    text + &advice.collect::<String>()
}

fn document(file: &Path, plan: &Plan, decided: &DecidedPlan) -> Value {
    let experiments = plan.experiments.iter().map(|experiment| {
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
        "file": file,
        "listen": plan.listen.to_string(),
        "results": format!("http://{}/admin/results", plan.admin.listen),
        "experiments": experiments.collect::<Vec<Value>>(),
        "default": *plan.upstream(plan.default).name,
        "promotions": decided.kept.iter().map(ToString::to_string).collect::<Vec<String>>(),
        "warnings": warnings(&plan.warnings),
        "advice": advice(plan).collect::<Vec<String>>(),
    })
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
