//! The threads that serve the public listeners.

use super::opened::Opened;
use crate::proxy::worker::{self, WorkerConfig};
use crate::proxy::{SharedState, Worker};
use std::io;
use std::net::TcpListener;
use std::thread::JoinHandle;

/// One thread for each public listener.
pub(super) struct Workers {
    threads: Vec<JoinHandle<()>>,
}

/// The listeners of the workers.
pub(super) struct PublicListeners {
    /// One for each worker.
    pub public: Vec<TcpListener>,
    /// One for each worker, where TLS is served.
    pub secure: Vec<TcpListener>,
}

impl Workers {
    /// Starts the threads, each with a journal of its own.
    pub(super) fn spawn(
        opened: &mut Opened,
        listeners: PublicListeners,
        shared: &SharedState,
    ) -> io::Result<Workers> {
        let mut secure = listeners.secure.into_iter();
        let mut threads = Vec::new();
        let journals = std::mem::take(&mut opened.writers).into_iter();
        for (index, (journal, public)) in journals.zip(listeners.public).enumerate() {
            let sockets = worker::Sockets {
                public,
                secure: secure.next(),
            };
            let (plan, shared) = (opened.plan(), shared.clone());
            let config = WorkerConfig {
                plan: opened.plans.clone(),
                supervisor: opened.supervisor.clone(),
            };
            // Besides the loop that accepts connections, a worker runs only their requests.
            threads.push(opened.supervisor.thread(
                format!("worker-{index}"),
                "request",
                move || worker::run(Worker::new(plan, journal, shared, index), sockets, config),
            )?);
        }
        Ok(Workers { threads })
    }

    /// Waits until all workers have ended.
    pub(super) async fn ended(self) -> anyhow::Result<()> {
        let threads = self.threads;
        let joined = move || threads.into_iter().try_for_each(|thread| thread.join());
        // A thread catches its panic and reports it to the supervisor.
        let _ = tokio::task::spawn_blocking(joined).await?;
        Ok(())
    }
}
