//! `watershed run`: serve.

use super::house::{self, Sockets};
use crate::config;
use anyhow::Context;
use std::path::Path;
use tracing_subscriber::EnvFilter;

/// Serves what the file says until told to stop.
pub fn run(file: &Path) -> anyhow::Result<()> {
    log("info");
    let plan = config::load(file)?;
    let sockets = Sockets::bind(&plan)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(async {
        let stop = house::told_to_stop()?;
        house::run(plan, Some(file.to_owned()), sockets, stop).await
    })
}

/// Logs to standard error; `RUST_LOG` says how much.
pub fn log(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr())
        && std::env::var_os("NO_COLOR").is_none();
    // A second call, in tests, changes nothing.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        .try_init();
}
