//! Signals that the process handles.

use anyhow::Context;
use std::future::Future;
use tokio::signal::unix::{SignalKind, signal};

/// From now on, no signal that has a handler later ends the process: by default each does, also
/// while the process starts. One that comes before its handler is lost. Needs a runtime.
pub fn survive() -> anyhow::Result<()> {
    for kind in [
        SignalKind::hangup(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
    ] {
        // What is registered once stays so.
        drop(signal(kind).context("cannot listen for signals")?);
    }
    Ok(())
}

/// Resolves at SIGTERM or Ctrl-C. Listens from now on.
pub fn stop_requested() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // A second signal means: do not wait. Everything that was answered is in the journal.
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::warn!("second stop signal: aborting requests in flight");
            std::process::exit(1);
        });
    })
}
