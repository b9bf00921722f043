//! One worker: a thread with a single-threaded runtime, its own listening socket, its own
//! upstream connections and its own journal.

use super::handle::handle;
use super::snapshot::Worker;
use crate::config::plan::Plan;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
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
    // Only costs latency where the system does not want it.
    let _ = stream.set_nodelay(true);
    worker.vitals().connections.add();
    worker.open.set(worker.open.get() + 1);
    let mut server = http1::Builder::new();
    server
        .half_close(true)
        .preserve_header_case(true)
        .timer(TokioTimer::new())
        .header_read_timeout(plan.timeouts.head)
        .max_headers(plan.limits.headers)
        .max_buf_size(plan.limits.head_bytes.max(8192));
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        let service = service_fn(|request| handle(&worker, peer.ip(), request));
        let connection = server.serve_connection(TokioIo::new(stream), service);
        if let Err(error) = until_told(connection, stop).await {
            tracing::debug!(%peer, "a connection ended: {error}");
        }
        worker.open.set(worker.open.get() - 1);
    });
}

/// Serves a connection; when told to stop, finishes the request that runs and closes.
async fn until_told<C>(connection: C, mut stop: watch::Receiver<bool>) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>
        + hyper_util::server::graceful::GracefulConnection<Error = hyper::Error>,
{
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = &mut connection => return ended,
        _ = stop.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}
