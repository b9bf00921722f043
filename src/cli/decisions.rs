//! `watershed pause | resume | promote | rollback`: makes decisions by the admin API.

use super::admin_client::post;
use super::admin_server::AdminServer;
use serde_json::{Value, json};

/// An experiment, and the server to ask.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The experiment
    experiment: String,
    #[command(flatten)]
    at: At,
}

/// The arguments of `promote`.
#[derive(Debug, clap::Args)]
pub struct PromoteArguments {
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
pub fn run(action: &str, arguments: &Arguments) -> anyhow::Result<()> {
    decide(action, &arguments.experiment, None, &arguments.at)
}

/// Promotes a group.
pub fn promote(arguments: &PromoteArguments) -> anyhow::Result<()> {
    let group = arguments.group.as_deref();
    decide("promote", &arguments.experiment, group, &arguments.at)
}

fn decide(action: &str, experiment: &str, group: Option<&str>, at: &At) -> anyhow::Result<()> {
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
    let answer = runtime.block_on(post(&url, server.token.as_deref(), said.to_string()))?;
    let done: Value = serde_json::from_str(&answer)?;
    let text = |key: &str| done[key].as_str().unwrap_or_default().to_owned();
    match done["changed"] == true {
        true => println!("{experiment}: {} -> {}", text("from"), text("to")),
        false => println!("{experiment}: {} already", text("to")),
    }
    Ok(())
}

/// Returns who runs the command, as far as that is known.
pub fn somebody() -> String {
    let who = std::env::var("USER").ok();
    format!("{} (command line)", who.as_deref().unwrap_or("somebody"))
}
