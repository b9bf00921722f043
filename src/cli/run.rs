//! `watershed run`: serve.

use crate::config;
use crate::server::handoff::Estate;
use crate::server::{self, Listeners, fd_limit, logging};
use anyhow::Context;
use std::path::Path;

/// Serves what the file says until told to stop.
pub fn run(file: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(async { server::survive() })?;
    let mut plan = config::load(file)?;
    let requests = logging::start("info", plan.access_log.as_ref())?;
    fd_limit::raise(plan.limits.connections, plan.workers);
    let sockets = Listeners::bind(&plan)?;
    plan.workers = sockets.workers();
    let estate = Estate::of(&sockets)?;
    runtime.block_on(async {
        let stop_requested = server::stop_requested()?;
        let successors = estate.wait()?;
        let stop = async move {
            let mut stop_requested = std::pin::pin!(stop_requested);
            tokio::select! {
                () = &mut stop_requested => return,
                () = successors => {}
            }
            stop_requested.await;
        };
        let sink = requests.as_ref().map(logging::Requests::sink);
        let keeping = async {
            match &requests {
                Some(requests) => requests.keep().await,
                None => logging::without_requests().await,
            }
        };
        tokio::select! {
            ended = server::run(plan, Some(file.to_owned()), sockets, sink, stop) => ended,
            Err(error) = keeping => Err(error),
        }
    })
}
