//! Runs the archive on a thread with a lower priority than the workers.

use super::low_priority::LowPriorityRuntime;
use crate::archive::Archiver;
use crate::tasks::{self, Phase, PhaseWatch};
use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// Archives until [`Phase::Flushing`], and then the records that are left.
pub async fn keep(archiver: Arc<Mutex<Archiver>>, mut phase: PhaseWatch) -> io::Result<()> {
    let runtime = LowPriorityRuntime::new("archive")?;
    let archiving = tasks::named("archive-thread", async move {
        let mut archiver = archiver.lock_owned().await;
        archiver.run(phase.reached(Phase::Flushing)).await;
    });
    // Aborted with this future.
    let mut on = JoinSet::new();
    match runtime.handle() {
        Some(handle) => on.spawn_on(archiving, handle),
        None => on.spawn(archiving),
    };
    match on.join_next().await {
        Some(Err(error)) if error.is_panic() => resume_unwind(error.into_panic()),
        // Its runtime is shutting down.
        Some(Err(_)) | None => Err(io::Error::other("it was aborted")),
        Some(Ok(())) => Ok(()),
    }
}
