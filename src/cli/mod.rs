//! The command line: one file per command. Only `server` and `cli` depend on all modules.

mod admin_client;
mod admin_server;
mod check;
mod completions;
mod config_file;
mod decisions;
pub mod demo;
mod demo_site;
mod explain;
mod export;
mod first_file;
mod forget;
mod healthcheck;
mod import;
mod init;
mod judge;
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
use config_file::ConfigFile;
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
    Run(run::Arguments),
    /// Report all errors of a routes file; exit 0 if it is valid, 2 if not
    Check(ConfigFile),
    /// Write a first routes file, for two versions of a site
    Init(init::Arguments),
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
    /// Judge totals that were counted elsewhere, such as in a warehouse, as the file's experiments
    Judge(judge::Arguments),
    /// Write the experiments of another vendor as a routes file, in which users keep their groups
    Import(import::Arguments),
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

/// Runs a command. Exit code 0: done; 1: failed; 2: invalid configuration or arguments.
pub fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let done = match command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(file) => check::run(&file),
        Command::Init(arguments) => init::run(&arguments),
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
        Command::Judge(arguments) => judge::run(&arguments),
        Command::Import(arguments) => import::run(&arguments),
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
        eprint!("{}", unsound.with_lines());
        return ExitCode::from(2);
    }
    eprintln!("error: {error:#}");
    if let Some(with_hint) = error.downcast_ref::<ErrorWithHint>() {
        eprintln!("\nhint: {}", with_hint.hint);
    }
    ExitCode::FAILURE
}
