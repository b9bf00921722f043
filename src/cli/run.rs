//! `watershed run`: serve.

use super::house::{self, Sockets};
use super::successor::Estate;
use crate::config;
use anyhow::Context;
use std::path::Path;
use tracing_subscriber::EnvFilter;

/// Serves what the file says until told to stop.
pub fn run(file: &Path) -> anyhow::Result<()> {
    log("info");
    let mut plan = config::load(file)?;
    let sockets = Sockets::bind(&plan)?;
    plan.workers = sockets.workers();
    let estate = Estate::of(&sockets)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(async {
        let told = house::told_to_stop()?;
        let stop = async move {
            let mut successor = std::pin::pin!(estate.wait());
            let mut told = std::pin::pin!(told);
            tokio::select! {
                () = &mut told => return,
                Err(error) = &mut successor => tracing::warn!("{error:#}"),
            }
            told.await;
        };
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
