//! The life of a client's connection.

use super::framing::Bounds;
use super::gate::{Gate, Times};
use super::handle::{Client, handle};
use super::headers;
use super::http2;
use super::line::Line;
use super::opening::{self, Rewound};
use super::snapshot::Worker;
use super::socket::Socket;
use super::tunnel::{self, Side};
use crate::config::plan::Plan;
use crate::upstream::Turned;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Serves a connection until it ends; once told to stop, to the end of the request that runs.
pub async fn serve(
    worker: &Rc<Worker>,
    stream: TcpStream,
    peer: IpAddr,
    stop: watch::Receiver<bool>,
) {
    let snapshot = worker.snapshot();
    let plan = &*snapshot.plan;
    let mut socket = Socket::new(stream);
    let opened = tokio::time::timeout(plan.timeouts.head, open(plan, &mut socket, peer)).await;
    let Opened {
        first,
        client,
        http2,
    } = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => return tracing::debug!(%peer, "a connection was closed: {error}"),
        Err(_) => return,
    };
    if first.is_empty() {
        return;
    }
    let served = if http2 {
        let stream = Rewound::new(first, socket);
        let client = Client {
            ip: client,
            line: None,
        };
        http2::serve(worker, plan, stream, client, stop)
            .await
            .map_err(Into::into)
    } else {
        http1(worker, plan, socket.clone(), &socket, first, client, stop).await
    };
    if let Err(error) = served {
        tracing::debug!(%peer, "a connection ended: {error}");
    }
}

struct Opened {
    /// The first bytes; none when the client left without a word.
    first: Vec<u8>,
    /// Whose they are.
    client: IpAddr,
    /// Whether they begin HTTP/2.
    http2: bool,
}

async fn open(plan: &Plan, socket: &mut Socket, peer: IpAddr) -> io::Result<Opened> {
    let mut first = opening::first(socket).await?;
    let mut client = peer;
    if headers::trusts(plan, peer) {
        client = opening::speaks_for(socket, &mut first)
            .await?
            .unwrap_or(peer);
    }
    let http2 = opening::is_http2(socket, &mut first).await?;
    Ok(Opened {
        first,
        client,
        http2,
    })
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
            match line.tunnel.take() {
                Some(upgraded) => {
                    let client = gate.into_side();
                    let Turned { stream, first } = upgraded.await?;
                    let upstream = Side {
                        stream,
                        first: first.into(),
                    };
                    tunnel::run(client, upstream, plan.timeouts.tunnel).await?;
                }
                None => gate.end().await?,
            }
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
