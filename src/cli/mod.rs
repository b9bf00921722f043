//! The command line: one file per command. Only `server` and `cli` depend on all modules.

mod admin_client;
mod admin_server;
mod archive;
mod check;
mod completions;
mod config_file;
mod decisions;
pub mod demo;
mod demo_site;
mod doctor;
mod exit_with;
mod explain;
mod export;
mod first_file;
mod forget;
mod healthcheck;
mod import;
mod init;
mod judge;
mod known_users;
mod kubernetes;
mod mcp;
mod output;
mod override_;
mod plan;
mod replay;
mod results;
mod run;
mod simulate;
pub mod stats;
mod token;
mod visitors;
mod wait;

use clap::{CommandFactory, Parser, Subcommand};
use exit_with::ExitWith;
use output::Output;
use std::process::ExitCode;

/// A reverse proxy that splits live traffic between versions of a website and tells, honestly,
/// which version is better.
#[derive(Debug, Parser)]
#[command(name = "watershed", version, max_term_width = 100)]
struct Arguments {
    /// Print one JSON document, also for errors; exit codes stay the same
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: split, forward, record, report
    Run(run::Arguments),
    /// Report all errors of a routes file; exit 0 if it is valid, 2 if not
    Check(check::Arguments),
    /// Write a first routes file, for two versions of a site
    Init(init::Arguments),
    /// Run a demo: two versions of a small site, the proxy, and simulated visitors
    Demo(demo::Arguments),
    /// Visit a site through the proxy, and report what would make versions mix or break; exit 3 if something
    /// is found
    Doctor(doctor::Arguments),
    /// Show the results of a running watershed as a table
    Results(results::Arguments),
    /// Show which group a user is in, and why, without a server
    Explain(explain::Arguments),
    /// Write users, their values or hourly totals as CSV, JSON Lines or Parquet
    Export(export::Arguments),
    /// Print views of the archive for a warehouse
    #[command(subcommand)]
    Archive(archive::ArchiveCommand),
    /// Delete one user from the store
    Forget(forget::Arguments),
    /// Serve control to everybody until the experiment is resumed
    Pause(decisions::Arguments),
    /// Split users again, after a pause or another decision
    Resume(decisions::Arguments),
    /// Serve the version of one group to everybody: the winner's, or that of a named group
    Promote(decisions::PromoteArguments),
    /// Serve control to everybody for good
    Rollback(decisions::Arguments),
    /// Wait until an experiment has a winner or any answer; exit 0: reached, 1: failed, 2: invalid, 3: timed
    /// out, 4: harm
    Wait(wait::Arguments),
    /// Show how many users would move if one routes file replaced another
    Plan(plan::Arguments),
    /// Judge totals that were counted elsewhere, such as in a warehouse, as the file's experiments
    Judge(judge::Arguments),
    /// Count a new metric from the archive, as if it had been in the file, and judge it
    Replay(replay::Arguments),
    /// Write the experiments of another vendor as a routes file, in which users keep their groups
    Import(import::Arguments),
    /// Print a signed token that puts its bearer into a group
    Override(override_::Arguments),
    /// Ask a running watershed whether it is ready; exit 0 if it is, 1 if not
    Healthcheck(healthcheck::Arguments),
    /// Make a token for the admin API, and its line for the routes file
    Token(token::Arguments),
    /// Serve results to assistants by the Model Context Protocol, on standard input and output; read-only unless
    /// told otherwise
    Mcp(mcp::Arguments),
    /// Write a routes file from the HTTPRoutes of a Kubernetes cluster, and again when they change
    Kubernetes(kubernetes::Arguments),
    /// Simulate the file's experiments: how often verdicts are wrong, and how long they take
    Simulate(simulate::Arguments),
    /// Print the JSON Schema of the routes file, with which editors complete and check it
    Schema,
    /// Print the completion script of a shell
    Completions(completions::Arguments),
    /// Print the manual page
    Man,
    /// Run the statistics as a tool: requests as JSON lines in, responses as JSON lines out
    Stats,
}

/// Runs a command. Exit code 0: done; 1: failed; 2: invalid configuration or arguments. `wait` has more.
pub fn main() -> ExitCode {
    let Arguments { json, command } = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return invalid(&error),
    };
    let output = Output::of(json);
    match run(command, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.print_error(&error);
            exit_code(&error)
        }
    }
}

fn run(command: Command, output: Output) -> anyhow::Result<()> {
    match command {
        Command::Run(file) => run::run(&file, output),
        Command::Check(arguments) => check::run(&arguments, output),
        Command::Init(arguments) => init::run(&arguments, output),
        Command::Demo(arguments) => demo::run(&arguments, output),
        Command::Doctor(arguments) => doctor::run(&arguments, output),
        Command::Results(arguments) => results::run(&arguments, output),
        Command::Explain(arguments) => explain::run(&arguments, output),
        Command::Export(arguments) => export::run(&arguments, output),
        Command::Archive(command) => archive::run(&command, output),
        Command::Forget(arguments) => forget::run(&arguments, output),
        Command::Pause(arguments) => decisions::run("pause", &arguments, output),
        Command::Resume(arguments) => decisions::run("resume", &arguments, output),
        Command::Promote(arguments) => decisions::promote(&arguments, output),
        Command::Rollback(arguments) => decisions::run("rollback", &arguments, output),
        Command::Wait(arguments) => wait::run(&arguments, output),
        Command::Plan(arguments) => plan::run(&arguments, output),
        Command::Judge(arguments) => judge::run(&arguments, output),
        Command::Replay(arguments) => replay::run(&arguments, output),
        Command::Import(arguments) => import::run(&arguments, output),
        Command::Override(arguments) => override_::run(&arguments, output),
        Command::Healthcheck(arguments) => healthcheck::run(&arguments, output),
        Command::Token(arguments) => token::run(&arguments, output),
        Command::Mcp(arguments) => mcp::run(&arguments),
        Command::Kubernetes(arguments) => kubernetes::run(&arguments, output),
        Command::Simulate(arguments) => simulate::run(&arguments, output),
        Command::Completions(arguments) => {
            completions::run(&arguments, Arguments::command(), output)
        }
        Command::Schema => {
            let schema = crate::config::schema();
            Ok(output.print(|| format!("{schema:#}\n"), || schema.clone())?)
        }
        Command::Man => completions::man(Arguments::command(), output),
        Command::Stats => {
            let input = std::io::stdin().lock();
            match output {
                Output::Text => stats::run(input, std::io::stdout().lock())?,
                Output::Json => {
                    let answers = stats::all(input)?;
                    output.print(String::new, || answers)?;
                }
            }
            Ok(())
        }
    }
}

/// Reports invalid arguments; or prints the help or the version.
fn invalid(error: &clap::Error) -> ExitCode {
    let asks_for_json = std::env::args_os().any(|argument| argument == "--json");
    if !asks_for_json || !error.use_stderr() {
        error.exit();
    }
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    Output::Json.print_error(&anyhow::anyhow!(text.trim_end().to_owned()));
    ExitCode::from(2)
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<crate::config::InvalidConfig>() {
        return ExitCode::from(2);
    }
    let exit = error.downcast_ref::<ExitWith>();
    exit.map_or(ExitCode::FAILURE, |exit| ExitCode::from(exit.code))
}
