//! The life of a client's connection.

use super::framing::Bounds;
use super::gate::{Gate, Times};
use super::handle::{Client, handle};
use super::line::Line;
use super::snapshot::Worker;
use super::socket::Socket;
use crate::config::plan::Plan;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Room for the first read: most heads fit.
const FIRST_BYTES: usize = 4096;

/// Serves a connection until it ends; once told to stop, to the end of the request that runs.
pub async fn serve(worker: &Worker, stream: TcpStream, peer: IpAddr, stop: watch::Receiver<bool>) {
    let snapshot = worker.snapshot();
    let plan = &*snapshot.plan;
    let mut socket = Socket::new(stream);
    let opened = tokio::time::timeout(plan.timeouts.head, open(&mut socket)).await;
    let Ok(Ok(first)) = opened else { return };
    if first.is_empty() {
        return;
    }
    let served = http1(worker, plan, socket.clone(), &socket, first, peer, stop).await;
    if let Err(error) = served {
        tracing::debug!(%peer, "a connection ended: {error}");
    }
}

/// The first bytes; none when the client leaves without a word.
async fn open(socket: &mut Socket) -> io::Result<Vec<u8>> {
    let mut first = Vec::with_capacity(FIRST_BYTES);
    socket.read_buf(&mut first).await?;
    Ok(first)
}

async fn http1<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    worker: &Worker,
    plan: &Plan,
    stream: S,
    socket: &Socket,
    first: Vec<u8>,
    peer: IpAddr,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Box<dyn std::error::Error>> {
    let line = Rc::new(Line::new(peer));
    let gate = Gate::new(
        stream,
        first,
        Rc::clone(&line),
        Bounds::from(&plan.limits),
        Times::from(&plan.timeouts),
    );
    let client = Client {
        ip: peer,
        line: Some(Rc::clone(&line)),
    };
    let service = service_fn(|request| handle(worker, &client, request));
    let mut connection = http1::Builder::new()
        .half_close(true)
        .preserve_header_case(true)
        .max_headers(plan.limits.headers)
        // The gate lets no larger head pass; what is read at once comes on top.
        .max_buf_size(plan.limits.head_bytes + (16 << 10))
        .serve_connection(TokioIo::new(gate), service);
    let mut told = pin!(stop.wait_for(|stop| *stop));
    let mut is_told = false;
    let mut reset = pin!(socket.reset());
    let ended = std::future::poll_fn(|context| {
        if !is_told && told.as_mut().poll(context).is_ready() {
            is_told = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(context) {
            return Poll::Ready(Some(ended));
        }
        // Whoever has left waits for nothing: all that runs for it is dropped here and now.
        reset.as_mut().poll(context).map(|()| None)
    });
    match ended.await {
        Some(Ok(())) => {
            let gate = connection.into_parts().io.into_inner();
            gate.end().await?;
        }
        Some(Err(error)) => {
            if error.is_user() && line.delimited.get() {
                socket.spoil();
            }
            return Err(error.into());
        }
        None => tracing::debug!(%peer, "the client reset its connection"),
    }
    Ok(())
}
