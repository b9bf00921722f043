//! `watershed init`: writes a first routes file, for two versions of a site.

use super::admin_client::try_address;
use super::config_file::ConfigFile;
use super::first_file::{self, TwoVersions};
use super::output::Output;
use crate::admin::format::thousands;
use crate::admin::results::sample_size::usual_users;
use crate::config::InvalidConfig;
use crate::config::plan::Plan;
use crate::server::ErrorWithHint;
use anyhow::Context;
use serde_json::json;
use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

/// How long a version may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The share of users with a success, and their number, by which durations are compared.
const RATE: f64 = 0.05;
const USERS_PER_DAY: u64 = 5_000;
/// What counts as success until it is changed.
const GOAL: &str = "POST /checkout -> 2xx";

/// The arguments of `init`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  watershed init\n  watershed init --control http://127.0.0.1:3001 --experiment http://127.0.0.1:3002"
)]
pub(super) struct Arguments {
    /// The address of the site as it is [default: asked for on a terminal]
    #[arg(long, value_name = "URL")]
    control: Option<String>,
    /// The address of the new version [default: asked for on a terminal]
    #[arg(long, value_name = "URL")]
    experiment: Option<String>,
    /// The percentage of users who get the new version
    #[arg(long, value_name = "PERCENT", default_value = "10")]
    percent: String,
    /// The request and response that count as success
    #[arg(long, value_name = "RULE", default_value = GOAL)]
    goal: String,
    /// The number of users per day, for how long an answer takes
    #[arg(long, value_name = "N", default_value_t = USERS_PER_DAY, value_parser = clap::value_parser!(u64).range(1..))]
    users_per_day: u64,
    /// Overwrite a file that exists
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    file: ConfigFile,
}

/// Asks for two addresses, tries them, and writes the file.
pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let path = arguments.file.for_writing();
    // Before any question.
    if path.exists() && !arguments.force {
        return Err(exists(&path));
    }
    let control = address(
        arguments.control.as_deref(),
        "Address of the site as it is",
        "--control",
    )?;
    let experiment = address(
        arguments.experiment.as_deref(),
        "Address of the new version",
        "--experiment",
    )?;
    let versions = TwoVersions {
        control: &control,
        experiment: &experiment,
        percent: &arguments.percent,
    };
    let text = versions.file(&arguments.goal);
    // An invalid address or percentage is reported before anything is written.
    plan_of(&text)?;
    try_versions(&versions, output)?;
    write(&path, &text, arguments.force)?;
    let time = time_to_answer(arguments, &versions)?;
    if output.is_json() {
        let document = || json!({ "file": path, "time_to_answer": time });
        return Ok(output.print(String::new, document)?);
    }
    let named = match arguments.file.is_given() {
        true => format!(" -c {}", path.display()),
        false => String::new(),
    };
    let text = format!(
        "wrote {}\n\n{time}\n\nNext: correct what counts as success in the file (metrics), then `watershed run{named}`.\n",
        path.display()
    );
    Ok(output.print(|| text, || json!({}))?)
}

/// Sends a request to both versions, and prints whether they answer. One that does not may be started later.
fn try_versions(versions: &TwoVersions<'_>, output: Output) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut said = String::new();
    for (name, text) in [
        ("current", versions.control),
        ("redesign", versions.experiment),
    ] {
        let url = first_file::address(text);
        if url.starts_with("h2c://") {
            if !output.is_json() {
                said.push_str(&format!("{name}: {url} is not tried\n"));
            }
            continue;
        }
        let tried = async { tokio::time::timeout(TIMEOUT, try_address(&url)).await };
        match runtime.block_on(tried) {
            Ok(Ok(_)) if output.is_json() => {}
            Ok(Ok(status)) => said.push_str(&format!("{name}: {url} answers ({status})\n")),
            Ok(Err(error)) => eprintln!(
                "warning: {name}: {url} does not answer: {error:#}; start it, or correct its address in the file"
            ),
            Err(_) => eprintln!(
                "warning: {name}: {url} does not answer within {} s; start it, or correct its address in the file",
                TIMEOUT.as_secs()
            ),
        }
    }
    match output.is_json() {
        true => Ok(()),
        false => Ok(output.print(|| said, || json!({}))?),
    }
}

fn exists(path: &Path) -> anyhow::Error {
    let hint = "overwrite it with --force, or name another file with -c FILE";
    ErrorWithHint::new(format!("{} exists already", path.display()), hint).into()
}

/// Returns an address: the argument, or what the user types.
fn address(argument: Option<&str>, question: &str, option: &str) -> anyhow::Result<String> {
    if let Some(argument) = argument {
        return Ok(argument.to_owned());
    }
    if !std::io::stdin().is_terminal() {
        let what = format!("{option} is missing, and there is no terminal to ask on");
        let hint =
            "watershed init --control http://127.0.0.1:3001 --experiment http://127.0.0.1:3002";
        return Err(ErrorWithHint::new(what, hint).into());
    }
    loop {
        print!("{question}, such as http://127.0.0.1:3001: ");
        std::io::stdout().flush()?;
        let mut line = String::new();
        if std::io::stdin().lock().read_line(&mut line)? == 0 {
            anyhow::bail!("no address was given");
        }
        let line = line.trim();
        if !line.is_empty() {
            return Ok(line.to_owned());
        }
    }
}

/// Writes the file, and the folder around it. Without `force`, a file that came meanwhile stays.
fn write(path: &Path, text: &str, force: bool) -> anyhow::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let mut options = std::fs::OpenOptions::new();
    options
        .write(true)
        .truncate(force)
        .create(force)
        .create_new(!force);
    let written = options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(exists(path)),
        written => written.with_context(|| format!("cannot write {}", path.display())),
    }
}

/// Reads the text that would be written.
fn plan_of(text: &str) -> Result<Plan, InvalidConfig> {
    first_file::plan_of_arguments(
        text,
        &[
            ("upstreams.current", "--control"),
            ("upstreams.redesign", "--experiment"),
            ("experiments.new-site", "--percent"),
            ("metrics", "--goal"),
        ],
    )
}

/// Says how long an answer takes at this percentage, and at 50 %.
fn time_to_answer(arguments: &Arguments, versions: &TwoVersions<'_>) -> anyhow::Result<String> {
    let users = |percent: &str| -> anyhow::Result<Option<(u64, f64)>> {
        let text = TwoVersions {
            percent,
            ..*versions
        }
        .file(&arguments.goal);
        let plan = plan_of(&text)?;
        let experiment = &plan.experiments[0];
        let shortest = experiment.min_duration_ms as f64 / 86_400_000.0;
        let users = usual_users(&plan, experiment, RATE);
        Ok(users.map(|users| {
            let days = users as f64 / arguments.users_per_day as f64;
            (users, days.max(shortest).ceil())
        }))
    };
    let percent = arguments.percent.trim().trim_end_matches('%').trim();
    if matches!(percent.parse::<f64>(), Ok(0.0 | 100.0)) {
        return Ok(format!(
            "At {percent} % there is nothing to compare, because everybody gets one version."
        ));
    }
    let (Some((users_now, days_now)), Some((users_even, days_even))) =
        (users(percent)?, users("50")?)
    else {
        return Ok(
            "How long an answer takes depends on the metric: see `watershed simulate`.".to_owned(),
        );
    };
    let basis = format!(
        "(with {} users per day, of whom {} % succeed, and a difference of 10 % to find)",
        thousands(arguments.users_per_day),
        100.0 * RATE
    );
    let compared = match users_now == users_even {
        true => String::new(),
        false => format!(
            ", and {days_even} days at 50 % ({} users)",
            thousands(users_even)
        ),
    };
    Ok(format!(
        "An answer takes about {days_now} days at {percent} % ({} users){compared}\n{basis}.\n\
         `watershed simulate --rate 2% --users-per-day 1000` says it for your site.",
        thousands(users_now)
    ))
}
