//! `watershed wait`: waits until an experiment has an answer, for pipelines.

use super::admin_client::get;
use super::admin_server::{AdminServer, ServerAddress};
use super::exit_with::ExitWith;
use super::output::Output;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use std::time::{Duration, Instant};

/// How often the gate is read.
const INTERVAL: Duration = Duration::from_secs(2);
/// The longest time to one response.
const RESPONSE_WITHIN: Duration = Duration::from_secs(30);

const FAILED: u8 = 1;
const INVALID: u8 = 2;
const TIMED_OUT: u8 = 3;
const HARM: u8 = 4;

/// The arguments of `wait`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit 0: reached; 1: it cannot be reached any more, or no response; 2: invalid arguments, or an unknown experiment; 3: timed out; 4: a version does harm (with --fail-on harm)\n\nExample:\n  watershed wait new-site --for winner --fail-on harm --timeout 7d"
)]
pub(super) struct Arguments {
    /// The experiment
    experiment: String,
    /// What to wait for: a group that has won, or any answer
    #[arg(long = "for", value_enum, default_value = "winner")]
    goal: Goal,
    /// What ends the wait early
    #[arg(long, value_enum, value_name = "WHAT")]
    fail_on: Option<FailOn>,
    /// The longest time to wait, such as 30m or 7d
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    server: AdminServer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Goal {
    Winner,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    Harm,
}

/// The server runs, and cannot say anything for now.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct StoreAway(String);

/// What a gate answers.
#[derive(Debug, Deserialize)]
struct Gate {
    state: String,
    reason: String,
}

/// Waits, and prints why the wait is over.
pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let reason = runtime.block_on(wait(arguments, &arguments.server.find()?))?;
    let name = &arguments.experiment;
    let document = || json!({ "experiment": name, "state": "passed", "reason": reason });
    Ok(output.print(|| format!("{name}: {reason}\n"), document)?)
}

async fn wait(arguments: &Arguments, server: &ServerAddress) -> anyhow::Result<String> {
    let begun = Instant::now();
    let mut last: Option<String> = None;
    loop {
        let left = arguments.timeout.saturating_sub(begun.elapsed());
        match tokio::time::timeout(
            left.max(INTERVAL).min(RESPONSE_WITHIN),
            look(arguments, server),
        )
        .await
        {
            Ok(Ok(Looked::Reached(reason))) => return Ok(reason),
            Ok(Ok(Looked::Over(over))) => return Err(over.into()),
            Ok(Ok(Looked::Waiting(reason))) => {
                if last.as_ref() != Some(&reason) {
                    eprintln!("waiting for {}: {reason}", arguments.experiment);
                }
                last = Some(reason);
            }
            // A server that has answered may restart, and its store may come back.
            Ok(Err(error)) if last.is_none() && !error.is::<StoreAway>() => return Err(error),
            Ok(Err(error)) => {
                eprintln!("trying again: {error:#}");
                if error.is::<StoreAway>() {
                    last = Some(error.to_string());
                }
            }
            Err(_) => eprintln!("trying again: no response from {}", server.url),
        }
        let left = arguments.timeout.saturating_sub(begun.elapsed());
        if left.is_zero() {
            let why = last.unwrap_or_else(|| "no response".to_owned());
            let timeout = humantime::format_duration(arguments.timeout);
            let message = format!("{}: timed out after {timeout}: {why}", arguments.experiment);
            let details =
                json!({ "experiment": arguments.experiment, "state": "timed_out", "reason": why });
            return Err(exit(TIMED_OUT, message, details).into());
        }
        tokio::time::sleep(left.min(INTERVAL)).await;
    }
}

/// What one look found.
enum Looked {
    Reached(String),
    Waiting(String),
    Over(ExitWith),
}

async fn look(arguments: &Arguments, server: &ServerAddress) -> anyhow::Result<Looked> {
    if arguments.fail_on == Some(FailOn::Harm) {
        let gate = gate(arguments, server, "safe").await?;
        if gate.state == "harm" {
            return Ok(Looked::Over(over(arguments, HARM, &gate)));
        }
    }
    let goal = match arguments.goal {
        Goal::Winner => "winner",
        Goal::End => "end",
    };
    let gate = gate(arguments, server, goal).await?;
    Ok(match &*gate.state {
        "passed" => Looked::Reached(gate.reason),
        "waiting" => Looked::Waiting(gate.reason),
        _ => Looked::Over(over(arguments, FAILED, &gate)),
    })
}

fn over(arguments: &Arguments, code: u8, gate: &Gate) -> ExitWith {
    let message = format!("{}: {}", arguments.experiment, gate.reason);
    let details =
        json!({ "experiment": arguments.experiment, "state": gate.state, "reason": gate.reason });
    exit(code, message, details)
}

fn exit(code: u8, message: String, details: serde_json::Value) -> ExitWith {
    ExitWith {
        code,
        message,
        details,
    }
}

async fn gate(arguments: &Arguments, server: &ServerAddress, goal: &str) -> anyhow::Result<Gate> {
    let name: String = form_urlencoded::byte_serialize(arguments.experiment.as_bytes()).collect();
    let base = &server.url;
    let url = format!("{base}/admin/experiments/{name}/gate?for={goal}");
    let reply = get(&url, &server.credentials).await?;
    match reply.status {
        StatusCode::OK | StatusCode::CONFLICT => Ok(serde_json::from_str(&reply.text)?),
        StatusCode::NOT_FOUND => {
            let unknown = format!("there is no experiment {:?}", arguments.experiment);
            let details = json!({ "experiment": arguments.experiment });
            Err(exit(INVALID, unknown, details).into())
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            let why = reply.success().unwrap_or_else(|error| error.to_string());
            Err(StoreAway(why).into())
        }
        _ => Err(reply.success().map_or_else(
            |error| error,
            |_| anyhow::anyhow!("{base} is not the admin API of watershed"),
        )),
    }
}
