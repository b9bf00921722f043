//! `watershed doctor`: visits a site through the proxy as several users, and reports what would make two
//! versions look like two sites.

mod browser;
mod checks;
mod diagnosis;
mod html;
mod shared_cache;
mod visits;

use super::admin_client::fetch;
use super::admin_server::AdminServer;
use super::exit_with::ExitWith;
use super::output::Output;
use anyhow::Context;
use browser::RequestBudget;
use diagnosis::Diagnosis;
use serde_json::{Value, json};
use std::time::Duration;
use visits::Visits;

/// The exit code where something was found.
const FOUND: u8 = 3;

/// The arguments of `doctor`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit 0: nothing found; 1: the site does not answer; 2: invalid arguments or file; 3: problems found\n\nEach version is visited with an override, which counts for nobody: the routes file needs overrides.secret.\nVisitors are new users, and count as such.\n\nExample:\n  watershed doctor https://shop.example/checkout"
)]
pub(super) struct Arguments {
    /// The public address of a page that the experiments match
    site: String,
    /// The number of new users who visit the page, for what caches may do
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(0..=20))]
    visitors: u64,
    /// The most requests
    #[arg(long, value_name = "N", default_value_t = 150, value_parser = clap::value_parser!(u64).range(1..=1000))]
    requests: u64,
    /// The longest time to one response
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    server: AdminServer,
}

/// Visits the site, and prints what is wrong with it; fails where something is.
pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let site = html::PageAddress::of_site(&arguments.site).with_context(|| {
        format!(
            "{:?} is not the address of a page: write http:// or https://, a host, and a path",
            arguments.site
        )
    });
    let site = site.map_err(|error| ExitWith {
        code: 2,
        message: format!("{error:#}"),
        details: json!({}),
    })?;
    let plan = arguments.server.plan()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let budget = RequestBudget::new(arguments.requests, arguments.timeout);
    let mut diagnosis = Diagnosis::default();
    runtime.block_on(async {
        let asked = site;
        let site = visits::secure_address(asked.clone(), &budget).await;
        if site != asked {
            let note = format!("{asked} redirects to {site}, which was visited");
            diagnosis.notes.push(note);
        }
        let how = (&budget, arguments.visitors);
        let visits = Visits::make(&site, plan.as_ref(), how, &mut diagnosis).await?;
        checks::check(&site, plan.as_ref(), &visits, &mut diagnosis);
        ask_results(arguments, &mut diagnosis).await;
        anyhow::Ok(())
    })?;
    if budget.is_spent() {
        let note = format!(
            "after {} requests the rest was not visited (--requests)",
            arguments.requests
        );
        diagnosis.notes.push(note);
    }
    report(&diagnosis, (&arguments.site, budget.made()), output)
}

/// Adds the warnings of results: metrics that never match, and events that no metric uses.
async fn ask_results(arguments: &Arguments, diagnosis: &mut Diagnosis) {
    let asked = async {
        let server = arguments.server.find()?;
        let url = format!("{}/admin/results?format=json", server.url);
        let text = tokio::time::timeout(arguments.timeout, fetch(&url, &server.credentials));
        anyhow::Ok(serde_json::from_str::<Value>(&text.await??)?)
    };
    match asked.await {
        Ok(results) => checks::results(&results, diagnosis),
        Err(error) => diagnosis.notes.push(format!(
            "the results of the running watershed could not be read, so that metrics were not checked: {error:#}"
        )),
    }
}

fn report(
    diagnosis: &Diagnosis,
    (site, requests): (&str, u64),
    output: Output,
) -> anyhow::Result<()> {
    let Diagnosis { problems, notes } = diagnosis;
    let document =
        || json!({ "url": site, "requests": requests, "problems": problems, "notes": notes });
    let text = || {
        let mut text = String::new();
        for problem in problems {
            text += &format!(
                "{}: {}\n  fix: {}\n",
                problem.kind, problem.found, problem.fix
            );
        }
        for note in notes {
            text += &format!("note: {note}\n");
        }
        if problems.is_empty() {
            text += &format!("nothing found in {requests} requests\n");
        }
        text
    };
    if problems.is_empty() {
        return Ok(output.print(text, document)?);
    }
    if !output.is_json() {
        output.print(text, document)?;
    }
    let count = problems.len();
    let message = format!("{count} problem{} found", if count == 1 { "" } else { "s" });
    Err(ExitWith {
        code: FOUND,
        message,
        details: document(),
    }
    .into())
}
