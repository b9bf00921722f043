//! The threads that serve the public listeners.

use super::opened::Opened;
use crate::proxy::worker::{self, Orders};
use crate::proxy::{SharedState, Worker};
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// One thread for each public listener.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    stop: watch::Sender<Option<Instant>>,
}

/// Where workers listen.
pub struct PublicListeners {
    /// One for each worker.
    pub public: Vec<TcpListener>,
    /// One for each worker, where TLS is served.
    pub secure: Vec<TcpListener>,
    /// Whether a successor holds the same listeners.
    pub held: Arc<AtomicBool>,
}

impl Workers {
    /// Starts them, each with a journal of its own.
    pub fn spawn(
        opened: &mut Opened,
        listeners: PublicListeners,
        shared: &SharedState,
    ) -> io::Result<Workers> {
        let (stop, stops) = watch::channel(None);
        let mut secure = listeners.secure.into_iter();
        let mut threads = Vec::new();
        let journals = std::mem::take(&mut opened.writers).into_iter();
        for (index, (journal, public)) in journals.zip(listeners.public).enumerate() {
            let sockets = worker::Sockets {
                public,
                secure: secure.next(),
            };
            let (plan, shared) = (opened.plan(), shared.clone());
            let orders = Orders {
                plan: opened.plans.clone(),
                stop: stops.clone(),
                held: Arc::clone(&listeners.held),
                supervisor: opened.supervisor.clone(),
            };
            // What a worker runs besides accepting connections is connections and their requests.
            threads.push(opened.supervisor.thread(
                format!("worker-{index}"),
                "request",
                move || worker::run(Worker::new(plan, journal, shared, index), sockets, orders),
            )?);
        }
        Ok(Workers { threads, stop })
    }

    /// Lets them finish what they serve. Idle connections may send one more request for `quiet`.
    pub async fn drain(self, quiet: Duration) -> anyhow::Result<()> {
        // The receivers are gone only when the workers are.
        let _ = self.stop.send(Some(Instant::now() + quiet));
        let threads = self.threads;
        let joined = move || threads.into_iter().try_for_each(|thread| thread.join());
        // A thread catches its panic, and reports it to the supervisor.
        let _ = tokio::task::spawn_blocking(joined).await?;
        Ok(())
    }
}
