//! `watershed run`: serves.

use super::config_file::ConfigFile;
use super::first_file::{TwoVersions, plan_of_arguments};
use super::output::Output;
use crate::config;
use crate::config::plan::Plan;
use crate::server::handoff::Handover;
use crate::server::{self, Listeners, fd_limit, logging};
use anyhow::Context;
use serde_json::json;
use std::fmt::Write;
use std::path::PathBuf;

/// The arguments of `run`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  watershed run -c routes.yaml\n  watershed run --control http://127.0.0.1:3001 --experiment http://127.0.0.1:3002 --percent 10"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Serve without a file: the address of the site as it is
    #[arg(
        long,
        value_name = "URL",
        requires = "experiment",
        conflicts_with = "config"
    )]
    control: Option<String>,
    /// Without a file: the address of the new version
    #[arg(long, value_name = "URL", requires = "control")]
    experiment: Option<String>,
    /// Without a file: the percentage of users who get the new version
    #[arg(
        long,
        value_name = "PERCENT",
        requires = "control",
        default_value = "10"
    )]
    percent: String,
    /// Without a file: the request that counts as success, such as "POST /checkout -> 2xx"
    #[arg(long, value_name = "RULE", requires = "control")]
    goal: Option<String>,
    /// Without a file: the public address
    #[arg(
        long,
        value_name = "ADDRESS",
        requires = "control",
        default_value = "0.0.0.0:8080"
    )]
    listen: String,
    /// Without a file: the address of the results and the admin API
    #[arg(
        long,
        value_name = "ADDRESS",
        requires = "control",
        default_value = "127.0.0.1:9900"
    )]
    admin: String,
    /// Without a file: the store of the counts, a path or redis://host:port [default: watershed.db in
    /// the current directory]
    #[arg(long, value_name = "STORE", requires = "control")]
    store: Option<String>,
}

/// Serves by the file, or by the arguments, until a signal stops the process.
pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(async { server::survive() })?;
    let (mut plan, file) = plan(arguments)?;
    let requests = logging::start("info", plan.access_log.as_ref())?;
    logging::warn_of(&plan.warnings);
    fd_limit::raise(plan.limits.connections, plan.workers);
    let listeners = Listeners::bind(&plan)?;
    plan.workers = listeners.workers();
    runtime.block_on(async {
        let stop = server::stop_requested()?;
        let (site, admin) = (listeners.public_address()?, listeners.admin_address()?);
        // People read the addresses in the log.
        output.print(String::new, || {
            json!({
                "site": format!("http://{site}"),
                "results": plan.admin.results_url(admin),
            })
        })?;
        let options = server::RunOptions {
            file,
            log: requests.as_ref().map(logging::Requests::sink),
            handover: Some(Handover::of(&listeners)?),
        };
        let logging = async {
            match &requests {
                Some(requests) => requests.keep().await,
                None => logging::without_requests().await,
            }
        };
        tokio::select! {
            ended = server::run(plan, listeners, options, stop) => ended,
            Err(error) = logging => Err(error),
        }
    })
}

/// Returns the plan, and the file that it is from.
fn plan(arguments: &Arguments) -> anyhow::Result<(Plan, Option<PathBuf>)> {
    let (Some(control), Some(experiment)) = (&arguments.control, &arguments.experiment) else {
        let file = arguments.file.path()?;
        return Ok((config::load(&file)?, Some(file)));
    };
    let versions = TwoVersions {
        control,
        experiment,
        percent: &arguments.percent,
    };
    let text = |text: &str| serde_json::Value::from(text).to_string();
    // A port alone is one of this machine, as in the default.
    let admin = match arguments.admin.bytes().all(|byte| byte.is_ascii_digit()) {
        true => format!("127.0.0.1:{}", arguments.admin),
        false => arguments.admin.clone(),
    };
    let mut file = format!(
        "listen: {}\nadmin: {{ listen: {} }}\n{}",
        text(&arguments.listen),
        text(&admin),
        versions.keys()
    );
    // Writing to a String cannot fail.
    if let Some(goal) = &arguments.goal {
        let _ = writeln!(file, "metrics:\n  goal: {}", text(goal));
    }
    if let Some(store) = &arguments.store {
        let _ = writeln!(file, "store: {}", text(store));
    }
    let plan = plan_of_arguments(
        &file,
        &[
            ("listen", "--listen"),
            ("admin", "--admin"),
            ("upstreams.current", "--control"),
            ("upstreams.redesign", "--experiment"),
            ("experiments.new-site", "--percent"),
            ("metrics", "--goal"),
            ("store", "--store"),
        ],
    );
    Ok((plan?, None))
}
