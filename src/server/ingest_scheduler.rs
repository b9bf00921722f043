//! Where folding runs: behind the workers, and beside them only where it does not keep up.
//!
//! A worker that shares its core with a thread of the same priority waits for up to three
//! milliseconds whenever that has something to do.

use crate::store::ingest::Ingestor;
use crate::tasks;
use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinSet;

/// How nice the usual threads are: a thirtieth of a core that others want all of.
const NICE: i32 = 15;
/// So many facts behind are too many: some seconds of full load, far from what a journal holds.
const FAR: u64 = 200_000;
/// So few are few enough again.
const NEAR: u64 = 20_000;

/// Folds every `interval` until told to stop, and then what is left. `restarted` after a panic.
pub async fn keep(
    ingestor: Arc<Mutex<Ingestor>>,
    interval: Duration,
    stop: Arc<Notify>,
    restarted: bool,
) -> io::Result<()> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("ingestion")
        .on_thread_start(give_way)
        .enable_all()
        .build()?;
    let behind_others = BehindOthers(Some(runtime));
    let mut ingestor = ingestor.lock_owned().await;
    if restarted {
        ingestor.restart("panicked, and was restarted");
    }
    let mut hurries = false;
    loop {
        let stop = Arc::clone(&stop);
        let ingestion = async move {
            let goes_on = move |behind| match hurries {
                true => behind > NEAR,
                false => behind < FAR,
            };
            let stopped = ingestor.follow(interval, stop.notified(), goes_on).await;
            (ingestor, stopped)
        };
        let ingestion = tasks::named("ingestion-thread", ingestion);
        // Aborted with this future.
        let mut on = JoinSet::new();
        match behind_others.handle().filter(|_| !hurries) {
            Some(handle) => on.spawn_on(ingestion, handle),
            None => on.spawn(ingestion),
        };
        let (back, stopped) = match on.join_next().await {
            Some(Ok(ended)) => ended,
            Some(Err(error)) if error.is_panic() => resume_unwind(error.into_panic()),
            // Its runtime is shutting down.
            Some(Err(_)) | None => return Err(io::Error::other("it was aborted")),
        };
        ingestor = back;
        if stopped {
            break;
        }
        hurries = !hurries;
        tracing::debug!(hurries, "folding goes on at another priority");
    }
    ingestor.finish().await;
    Ok(())
}

/// A runtime whose threads give way. Dropping it waits for nothing, which async code must not do.
struct BehindOthers(Option<Runtime>);

impl BehindOthers {
    fn handle(&self) -> Option<&Handle> {
        self.0.as_ref().map(Runtime::handle)
    }
}

impl Drop for BehindOthers {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn give_way() {
    // Linux knows a niceness of each thread; elsewhere it is the process's, and stays.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!("folding has the workers' priority: {error}");
    }
}
