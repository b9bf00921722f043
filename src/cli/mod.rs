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
    /// Say everything that is wrong with a routes file; exit 0 when sound, 2 when not
    Check(FileArguments),
    /// See it work: two versions of a small site, the proxy, and simulated visitors
    Demo(demo::Arguments),
    /// Show the results of a running watershed as a table
    Results(results::Arguments),
    /// Say which group a user is in, and why, without a server
    Explain(explain::Arguments),
    /// Write users, their values or hourly totals as CSV, JSON Lines or Parquet
    Export(export::Arguments),
    /// Delete what the store has of one user
    Forget(forget::Arguments),
    /// Show control to everybody, for now
    Pause(decisions::Arguments),
    /// Split again, after a pause or anything else that was decided
    Resume(decisions::Arguments),
    /// Show the version of one group to everybody: of the one that has won, or of the one named
    Promote(decisions::PromoteArguments),
    /// Show control to everybody: the other versions were not good
    Rollback(decisions::Arguments),
    /// Say who would move between groups if one routes file took another one's place
    Plan(plan::Arguments),
    /// Print a signed token that puts its bearer into a group
    Override(override_::Arguments),
    /// Make a token for the admin door, and the line of the file that knows it
    Token(token::Arguments),
    /// Play the file's experiments with made-up users: how often verdicts err, and how long they take
    Simulate(simulate::Arguments),
    /// Print the JSON Schema of the routes file, by which editors complete and check it
    Schema,
    /// Print what lets a shell complete these commands
    Completions(completions::Arguments),
    /// Print the manual page
    Man,
    /// The statistics as a tool: questions as JSON lines in, answers as JSON lines out
    Stats,
}

#[derive(Debug, clap::Args)]
struct FileArguments {
    /// The routes file
    #[arg(short, long, value_name = "FILE", default_value = "config/routes.yaml")]
    config: PathBuf,
}

/// Runs the command that the arguments name. Exit code 0: done; 1: could not; 2: unsound
/// configuration or arguments.
pub fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let done = match command {
        Command::Run(file) => run::run(&file.config),
        Command::Check(file) => check::run(&file.config),
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
        Err(error) => complain(&error),
    }
}

fn complain(error: &anyhow::Error) -> ExitCode {
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
