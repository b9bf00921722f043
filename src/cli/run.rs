//! `watershed run`: serve.

use super::house::{self, Sockets};
use super::log;
use super::successor::Estate;
use crate::config;
use anyhow::Context;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::path::Path;

/// Serves what the file says until told to stop.
pub fn run(file: &Path) -> anyhow::Result<()> {
    let mut plan = config::load(file)?;
    let requests = log::start("info", plan.access_log.as_ref())?;
    raise_open_files(plan.limits.connections);
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
        let keeping = async {
            match &requests {
                Some(requests) => requests.keep().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = house::run(plan, Some(file.to_owned()), sockets, stop) => ended,
            Err(error) = keeping => Err(error),
        }
    })
}

/// Lets the process have as many open files as it may, and says so where that is too few.
fn raise_open_files(connections: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!("the limit of open files cannot be raised: {error}");
        }
    }
    // A connection of a client may need one to an upstream.
    let needed = 2 * connections as u64;
    if let Some(may) = getrlimit(Resource::Nofile).current
        && may < needed
    {
        tracing::warn!(
            "only {may} files may be open (ulimit -n), and limits.connections is {connections}: that may need {needed}; raise the one or lower the other"
        );
    }
}
