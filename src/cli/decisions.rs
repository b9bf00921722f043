//! `watershed pause | resume | promote | rollback`: makes decisions by the admin API.

use super::admin_client::post;
use super::admin_server::AdminServer;
use super::output::Output;
use serde_json::{Value, json};

/// An experiment, and the server to ask.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The experiment
    experiment: String,
    #[command(flatten)]
    at: At,
}

/// The arguments of `promote`.
#[derive(Debug, clap::Args)]
pub(super) struct PromoteArguments {
    /// The experiment
    experiment: String,
    /// The group whose version everybody gets [default: the winner]
    group: Option<String>,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, clap::Args)]
struct At {
    /// The reason, for the audit log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    server: AdminServer,
}

/// Makes a decision, and prints the new state.
pub(super) fn run(action: &str, arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    decide(action, (&arguments.experiment, None), &arguments.at, output)
}

/// Promotes a group.
pub(super) fn promote(arguments: &PromoteArguments, output: Output) -> anyhow::Result<()> {
    let group = arguments.group.as_deref();
    let what = (&*arguments.experiment, group);
    decide("promote", what, &arguments.at, output)
}

fn decide(
    action: &str,
    (experiment, group): (&str, Option<&str>),
    at: &At,
    output: Output,
) -> anyhow::Result<()> {
    let mut said = json!({ "by": somebody() });
    if let Some(group) = group {
        said["group"] = group.into();
    }
    if let Some(reason) = &at.reason {
        said["reason"] = reason.as_str().into();
    }
    let name: String = form_urlencoded::byte_serialize(experiment.as_bytes()).collect();
    let server = at.server.find()?;
    let url = format!("{}/admin/experiments/{name}/{action}", server.url);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer = runtime.block_on(post(&url, &server.credentials, said.to_string()))?;
    let done: Value = serde_json::from_str(&answer)?;
    let text = |key: &str| done[key].as_str().unwrap_or_default().to_owned();
    let text = || match done["changed"] == true {
        true => format!("{experiment}: {} -> {}\n", text("from"), text("to")),
        false => format!("{experiment}: {} already\n", text("to")),
    };
    Ok(output.print(text, || done.clone())?)
}

/// Returns who runs the command, as far as that is known.
pub(super) fn somebody() -> String {
    let who = std::env::var("USER").ok();
    format!("{} (command line)", who.as_deref().unwrap_or("somebody"))
}
