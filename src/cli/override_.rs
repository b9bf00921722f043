//! `watershed override`: makes a signed token that puts its bearer into a group.

use super::config_file::ConfigFile;
use super::output::Output;
use crate::experiment::override_token::{self, OVERRIDE_COOKIE, Override};
use crate::server::ErrorWithHint;
use serde_json::json;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The arguments of `override`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The experiment
    experiment: String,
    /// The group
    group: String,
    /// How long the token is valid
    #[arg(long, value_name = "TIME", default_value = "8h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    #[command(flatten)]
    file: ConfigFile,
}

/// Prints the token and, to a terminal, how to use it.
pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let plan = arguments.file.load()?;
    let Some(secret) = &plan.override_secret else {
        return Err(ErrorWithHint::new(
            "overrides are off: the file has no overrides.secret",
            "write `overrides: { secret: … }` with what `openssl rand -hex 32` prints",
        )
        .into());
    };
    let named = |index: crate::experiment::ExperimentIndex| plan.experiment(index);
    let Some(experiment) = plan.experiment_named(&arguments.experiment).map(named) else {
        let names: Vec<&str> = plan
            .experiments
            .iter()
            .map(|experiment| &*experiment.name)
            .collect();
        return Err(ErrorWithHint::new(
            format!("there is no experiment {:?}", arguments.experiment),
            format!("known: {}", names.join(", ")),
        )
        .into());
    };
    if experiment.group_named(&arguments.group).is_none() {
        let names: Vec<&str> = experiment.groups.iter().map(|group| &*group.name).collect();
        return Err(ErrorWithHint::new(
            format!("{} has no group {:?}", experiment.name, arguments.group),
            format!("known: {}", names.join(", ")),
        )
        .into());
    }
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let expires_s = now_s.saturating_add(arguments.ttl.as_secs());
    let forced = Override {
        experiment: arguments.experiment.clone(),
        group: arguments.group.clone(),
        expires_s,
    };
    let token = override_token::sign(secret.reveal().as_bytes(), &forced);
    let document = || {
        json!({
            "experiment": arguments.experiment,
            "group": arguments.group,
            "token": token,
            "expires_s": expires_s,
            "header": format!("Watershed-Override: {token}"),
            "query": format!("{OVERRIDE_COOKIE}={token}"),
        })
    };
    output.print(|| format!("{token}\n"), document)?;
    if !output.is_json() && std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        eprintln!(
            "\nAs a link, which sets a cookie: http://YOUR-SITE/?{OVERRIDE_COOKIE}={token}\nAs a header: Watershed-Override: {token}"
        );
    }
    Ok(())
}
