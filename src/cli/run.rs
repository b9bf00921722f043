//! `watershed run`: serves.

use crate::config;
use crate::server::handoff::Handover;
use crate::server::{self, Listeners, fd_limit, logging};
use anyhow::Context;
use std::path::Path;

/// Serves by the file until a signal stops the process.
pub fn run(file: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(async { server::survive() })?;
    let mut plan = config::load(file)?;
    let requests = logging::start("info", plan.access_log.as_ref())?;
    logging::warn_of(&plan.warnings);
    fd_limit::raise(plan.limits.connections, plan.workers);
    let listeners = Listeners::bind(&plan)?;
    plan.workers = listeners.workers();
    runtime.block_on(async {
        let stop = server::stop_requested()?;
        let options = server::RunOptions {
            file: Some(file.to_owned()),
            log: requests.as_ref().map(logging::Requests::sink),
            handover: Some(Handover::of(&listeners)?),
        };
        let logging = async {
            match &requests {
                Some(requests) => requests.keep().await,
                None => logging::without_requests().await,
            }
        };
        tokio::select! {
            ended = server::run(plan, listeners, options, stop) => ended,
            Err(error) = logging => Err(error),
        }
    })
}
