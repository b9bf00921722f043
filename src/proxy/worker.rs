//! One worker: a thread with a single-threaded runtime, its own listening socket, its own
//! upstream connections and its own journal.

use super::connection;
use super::snapshot::Worker;
use crate::config::plan::Plan;
use std::io;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What every worker is told.
#[derive(Clone, Debug)]
pub struct Orders {
    /// The plan to serve by; a new one takes effect with the next request.
    pub plan: watch::Receiver<Arc<Plan>>,
    /// True when no more connections are to be accepted and open ones are to finish.
    pub stop: watch::Receiver<bool>,
}

/// Serves on this socket until told to stop; then finishes what runs, within the plan's time.
/// Blocks its thread.
pub fn run(worker: Worker, listener: StdListener, orders: Orders) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())?;
    runtime.block_on(serve(Rc::new(worker), listener, orders))
}

async fn serve(worker: Rc<Worker>, listener: StdListener, orders: Orders) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let Orders { mut plan, mut stop } = orders;
    let told = stop.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => accept(&worker, stream, told.clone()),
                Err(error) => {
                    // Out of file descriptors, most often: connections that end give some back.
                    tracing::warn!("a connection cannot be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            },
            changed = plan.changed() => match changed {
                Ok(()) => worker.reload(Arc::clone(&plan.borrow_and_update())),
                // Who gives the orders is gone.
                Err(_) => break,
            },
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    drop(listener);
    let deadline = tokio::time::Instant::now() + worker.snapshot().plan.timeouts.shutdown;
    while worker.open.get() > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

fn accept(worker: &Rc<Worker>, stream: TcpStream, stop: watch::Receiver<bool>) {
    let plan = &worker.snapshot().plan;
    if worker.open.get() >= plan.limits.connections.div_ceil(plan.workers) {
        tracing::warn!("a connection was closed: limits.connections is reached");
        return;
    }
    let Ok(peer) = stream.peer_addr() else { return };
    worker.vitals().connections.add();
    worker.open.set(worker.open.get() + 1);
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        connection::serve(&worker, stream, peer.ip(), stop).await;
        worker.open.set(worker.open.get() - 1);
    });
}
