//! `watershed run`: serve.

use super::files;
use super::house::{self, Sockets};
use super::log;
use super::successor::Estate;
use crate::config;
use anyhow::Context;
use std::path::Path;

/// Serves what the file says until told to stop.
pub fn run(file: &Path) -> anyhow::Result<()> {
    let mut plan = config::load(file)?;
    let requests = log::start("info", plan.access_log.as_ref())?;
    files::raise(plan.limits.connections, plan.workers);
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
        let sink = requests.as_ref().map(log::Requests::sink);
        let keeping = async {
            match &requests {
                Some(requests) => requests.keep().await,
                None => log::without_requests().await,
            }
        };
        tokio::select! {
            ended = house::run(plan, Some(file.to_owned()), sockets, sink, stop) => ended,
            Err(error) = keeping => Err(error),
        }
    })
}
