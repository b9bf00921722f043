//! Runs tasks that read journals beside ingestion, on a thread with a lower priority than the workers.

use super::low_priority::LowPriorityRuntime;
use crate::tasks;
use std::future::Future;
use std::io;
use std::panic::resume_unwind;
use tokio::task::JoinSet;

/// Does this work, all of it at the same time, on a thread of this name. A panic ends all of it.
pub(super) async fn keep<F>(name: &'static str, work: impl IntoIterator<Item = F>) -> io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = LowPriorityRuntime::new(name)?;
    // Aborted with this future.
    let mut on = JoinSet::new();
    for work in work {
        let named = tasks::named(name, work);
        match runtime.handle() {
            Some(handle) => on.spawn_on(named, handle),
            None => on.spawn(named),
        };
    }
    while let Some(ended) = on.join_next().await {
        match ended {
            Ok(()) => {}
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            // Its runtime is shutting down.
            Err(_) => return Err(io::Error::other("it was aborted")),
        }
    }
    Ok(())
}
