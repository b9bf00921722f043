//! A runtime whose thread has a lower priority than the workers.

use std::io;
use tokio::runtime::{Builder, Handle, Runtime};

/// The niceness of its thread: it gets a thirtieth of a core that workers keep busy.
const NICE: i32 = 15;

/// A runtime whose thread has a lower priority. Dropping it does not block, because it is dropped in
/// async code.
pub(super) struct LowPriorityRuntime(Option<Runtime>);

impl LowPriorityRuntime {
    /// Makes a runtime with one thread of this name.
    pub(super) fn new(name: &'static str) -> io::Result<LowPriorityRuntime> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(name)
            .on_thread_start(lower_priority)
            .enable_all()
            .build()?;
        Ok(LowPriorityRuntime(Some(runtime)))
    }

    /// Returns the runtime's handle.
    pub(super) fn handle(&self) -> Option<&Handle> {
        self.0.as_ref().map(Runtime::handle)
    }
}

impl Drop for LowPriorityRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn lower_priority() {
    // Linux has a niceness for each thread. Elsewhere it is the niceness of the process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!("a thread cannot lower its priority: {error}");
    }
}
