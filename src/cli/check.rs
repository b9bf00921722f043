//! `watershed check`: everything that is wrong with a routes file.

use crate::config;
use std::path::Path;

/// Says that the file is sound, with what it does; or fails with all that is wrong.
pub fn run(file: &Path) -> anyhow::Result<()> {
    let plan = config::load(file)?;
    println!("{} is sound:", file.display());
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
        match experiment.winner {
            Some(winner) => println!(
                "  {}: won by {}",
                experiment.name, experiment.groups[winner.0].name
            ),
            None => println!("  {}: {}", experiment.name, groups.join(", ")),
        }
    }
    println!("  everything else to {}", plan.upstream(plan.default).name);
    Ok(())
}
