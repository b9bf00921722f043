//! Where folding runs: behind the workers, and beside them only where it does not keep up.
//!
//! A worker that shares its core with a thread of the same priority waits for up to three
//! milliseconds whenever that has something to do.

use crate::ledger::folder::Folder;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::sync::Notify;

/// How nice the usual threads are: a thirtieth of a core that others want all of.
const NICE: i32 = 15;
/// So many facts behind are too many: some seconds of full load, far from what a journal holds.
const FAR: u64 = 200_000;
/// So few are few enough again.
const NEAR: u64 = 20_000;

/// Folds every `interval` until told to stop, and then what is left.
pub async fn keep(mut folder: Folder, interval: Duration, stop: Arc<Notify>) -> anyhow::Result<()> {
    let behind_others = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("folding")
        .on_thread_start(give_way)
        .enable_all()
        .build()?;
    let mut hurries = false;
    loop {
        let on = match hurries {
            true => Handle::current(),
            false => behind_others.handle().clone(),
        };
        let stop = Arc::clone(&stop);
        let folding = on.spawn(async move {
            let goes_on = move |behind| match hurries {
                true => behind > NEAR,
                false => behind < FAR,
            };
            let stopped = folder.follow(interval, stop.notified(), goes_on).await;
            (folder, stopped)
        });
        let (back, stopped) = folding.await?;
        folder = back;
        if stopped {
            break;
        }
        hurries = !hurries;
        tracing::debug!(hurries, "folding goes on at another priority");
    }
    folder.finish().await;
    // Nothing of it runs any more.
    behind_others.shutdown_background();
    Ok(())
}

fn give_way() {
    // Linux knows a niceness of each thread; elsewhere it is the process's, and stays.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!("folding has the workers' priority: {error}");
    }
}
