//! Signals that the process handles.

use crate::tasks;
use anyhow::Context;
use std::future::Future;
use tokio::signal::unix::{SignalKind, signal};

/// Keeps signals that get a handler later from ending the process while it starts. A signal before its
/// handler is lost. Needs a runtime.
pub fn survive() -> anyhow::Result<()> {
    for kind in [
        SignalKind::hangup(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
    ] {
        // tokio keeps a signal registered after the stream is dropped.
        drop(signal(kind).context("cannot listen for signals")?);
    }
    Ok(())
}

/// Resolves at SIGTERM or Ctrl-C. Signals are noticed from now on.
pub fn stop_requested() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // A second signal does not wait for requests. The journal has every request that was answered.
        tasks::spawn("second-signal", async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::warn!("second stop signal: aborting requests in flight");
            std::process::exit(1);
        });
    })
}
