//! The command line: one file per command. Only `server` and `cli` depend on all modules.

mod admin_client;
mod check;
mod completions;
mod decisions;
pub mod demo;
mod demo_site;
mod explain;
mod export;
mod forget;
mod healthcheck;
mod known_users;
mod override_;
mod plan;
mod results;
mod run;
mod simulate;
pub mod stats;
mod token;
mod visitors;

use crate::server::ErrorWithHint;
use clap::{CommandFactory, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// A reverse proxy that splits live traffic between versions of a website and tells, honestly,
/// which version is better.
#[derive(Debug, Parser)]
#[command(name = "watershed", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: split, forward, record, report
    Run(FileArguments),
    /// Report all errors of a routes file; exit 0 if it is valid, 2 if not
    Check(check::Arguments),
    /// Run a demo: two versions of a small site, the proxy, and simulated visitors
    Demo(demo::Arguments),
    /// Show the results of a running watershed as a table
    Results(results::Arguments),
    /// Show which group a user is in, and why, without a server
    Explain(explain::Arguments),
    /// Write users, their values or hourly totals as CSV, JSON Lines or Parquet
    Export(export::Arguments),
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
    /// Show how many users would move if one routes file replaced another
    Plan(plan::Arguments),
    /// Print a signed token that puts its bearer into a group
    Override(override_::Arguments),
    /// Ask a running watershed whether it is ready; exit 0 if it is, 1 if not
    Healthcheck(healthcheck::Arguments),
    /// Make a token for the admin API, and its line for the routes file
    Token(token::Arguments),
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

#[derive(Debug, clap::Args)]
struct FileArguments {
    /// The routes file
    #[arg(short, long, value_name = "FILE", default_value = "config/routes.yaml")]
    config: PathBuf,
}

/// Runs a command. Exit code 0: done; 1: failed; 2: invalid configuration or arguments.
pub fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let done = match command {
        Command::Run(file) => run::run(&file.config),
        Command::Check(arguments) => check::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Results(arguments) => results::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::Forget(arguments) => forget::run(&arguments),
        Command::Pause(arguments) => decisions::run("pause", &arguments),
        Command::Resume(arguments) => decisions::run("resume", &arguments),
        Command::Promote(arguments) => decisions::promote(&arguments),
        Command::Rollback(arguments) => decisions::run("rollback", &arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Override(arguments) => override_::run(&arguments),
        Command::Healthcheck(arguments) => healthcheck::run(&arguments),
        Command::Token(arguments) => token::run(&arguments),
        Command::Simulate(arguments) => simulate::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments, Arguments::command()),
        Command::Schema => {
            println!("{:#}", crate::config::schema());
            Ok(())
        }
        Command::Man => completions::man(Arguments::command()),
        Command::Stats => stats::run(std::io::stdin().lock(), std::io::stdout().lock())
            .map_err(anyhow::Error::from),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(unsound) = error.downcast_ref::<crate::config::InvalidConfig>() {
        eprint!("{unsound}");
        return ExitCode::from(2);
    }
    eprintln!("error: {error:#}");
    if let Some(with_hint) = error.downcast_ref::<ErrorWithHint>() {
        eprintln!("\nhint: {}", with_hint.hint);
    }
    ExitCode::FAILURE
}
