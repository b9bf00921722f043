//! `watershed explain`: computes the groups of a user, without a server.

use crate::admin::results::assignments;
use crate::config;
use crate::experiment::minted;
use std::path::PathBuf;

/// The arguments of `explain`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The user ID, or the whole value of the minted cookie
    #[arg(short, long, value_name = "ID")]
    user: String,
    /// The routes file
    #[arg(short, long, value_name = "FILE", default_value = "config/routes.yaml")]
    config: PathBuf,
}

/// Prints the user's group in every experiment, and the reason.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let plan = config::load(&arguments.config)?;
    let user = minted::id_of(&plan.identity.keys, arguments.user.as_bytes());
    for assignment in assignments::explain(&plan, user).experiments {
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
