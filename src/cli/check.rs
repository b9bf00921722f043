//! `watershed check`: reports all errors of a routes file.

use super::config_file::ConfigFile;
use super::known_users;
use crate::admin::clock::now_ms;
use crate::config::plan::Plan;
use crate::experiment::Lifecycle;
use crate::experiment::metric::VALUE_MAX;

/// Describes a valid file, or fails with all its errors.
pub fn run(file: &ConfigFile) -> anyhow::Result<()> {
    let file = file.path()?;
    let plan = crate::config::load(&file)?;
    let decided = known_users::decisions(&plan)
        .inspect_err(|why| eprintln!("the store was not asked about promotions: {why}"))
        .unwrap_or_default()
        .apply(&plan, now_ms());
    if let Some(invalid) = decided.problems(Some(&file)) {
        return Err(invalid.into());
    }
    for warning in &plan.warnings {
        eprintln!("{}", warning.with_line());
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
    for kept in &decided.kept {
        println!("  {kept}");
    }
    println!("  everything else to {}", plan.upstream(plan.default).name);
    for advice in advice(&plan) {
        println!("  advice: {advice}");
    }
    Ok(())
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
