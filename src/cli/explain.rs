//! `watershed explain`: which group a user is in, without a server.

use crate::admin::assignments;
use crate::config;
use std::path::PathBuf;

/// Which user, by which file.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The user's ID, as it stands in the cookie or header
    #[arg(short, long, value_name = "ID")]
    user: String,
    /// The routes file
    #[arg(short, long, value_name = "FILE", default_value = "config/routes.yaml")]
    config: PathBuf,
}

/// Prints the user's group in every experiment, and why.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let plan = config::load(&arguments.config)?;
    for assignment in assignments::explain(&plan, arguments.user.as_bytes()).experiments {
        let group = assignment.group.as_deref().unwrap_or("no group");
        let upstream = assignment
            .upstream
            .map_or(String::new(), |upstream| format!(" (upstream {upstream})"));
        println!(
            "{}: {group}{upstream}\n  {}",
            assignment.name, assignment.why
        );
    }
    Ok(())
}
