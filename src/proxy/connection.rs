//! The life of a client's connection.

use super::access;
use super::direct::{Ended, Left, Straight};
use super::framing::Bounds;
use super::gate::{Gate, Times};
use super::handle::{Client, handle};
use super::headers;
use super::http2;
use super::line::{self, Line};
use super::opening::{self, Rewound};
use super::reply::Reason;
use super::slots::Slot;
use super::snapshot::Worker;
use super::socket::Socket;
use super::tunnel::{self, Quiet, Side};
use crate::config::plan::{Plan, ServerTls};
use crate::upstream::Turned;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a connection that is refused may take to say what it speaks.
const FIRST_WORD: Duration = Duration::from_secs(1);

/// Serves a connection until it ends; once told to stop, to the end of the request that runs.
/// With `secure`, TLS is spoken on it. It is counted by its slot.
pub async fn serve(
    worker: &Rc<Worker>,
    (stream, mut slot): (TcpStream, Slot),
    peer: IpAddr,
    secure: bool,
    mut stop: watch::Receiver<Option<Instant>>,
) {
    let snapshot = worker.snapshot();
    let plan = &*snapshot.plan;
    let tls = plan.tls.as_ref().filter(|_| secure);
    if secure && tls.is_none() {
        // The file has no certificates any more: there is nothing to be shown.
        return;
    }
    let socket = Socket::new(stream);
    let opened = async {
        let first = opening::first(&mut socket.clone(), &worker.rooms).await?;
        let counts = |client| slot.count_for(client, worker.connections_per_address_max());
        Box::pin(open(plan, tls, (first, socket.clone()), peer, counts)).await
    };
    let opened = tokio::select! {
        opened = tokio::time::timeout(plan.timeouts.head, opened) => opened,
        () = last_call(&mut stop) => return,
    };
    let served = match opened {
        Ok(Ok(opened)) => speak(worker, plan, socket, opened, secure, stop).await,
        Ok(Err(error)) => Err(error.into()),
        // Nothing was said that could be answered.
        Err(_) => Ok(()),
    };
    if let Err(error) = served {
        tracing::debug!(%peer, "a connection ended: {error}");
    }
}

/// Answers that there is no room for a connection, once it has said what it speaks.
pub async fn refuse(worker: &Rc<Worker>, stream: TcpStream, peer: IpAddr) {
    let snapshot = worker.snapshot();
    let mut socket = Socket::new(stream);
    let first = opening::first(&mut socket, &worker.rooms);
    if let Ok(Ok(first)) = tokio::time::timeout(FIRST_WORD, first).await
        && let Err(error) = tell_full(worker, &snapshot.plan, (socket, first), peer).await
    {
        tracing::debug!(%peer, "a refused connection ended: {error}");
    }
}

/// HTTP/1 is answered; HTTP/2, and who has left, is only closed.
async fn tell_full(
    worker: &Rc<Worker>,
    plan: &Plan,
    (socket, first): (Socket, Vec<u8>),
    peer: IpAddr,
) -> Result<(), Box<dyn std::error::Error>> {
    if first.is_empty() || opening::may_be_http2(&first) {
        return Ok(());
    }
    let client = Client {
        ip: peer,
        secure: false,
        line: None,
        admitted: false,
    };
    close(worker, plan, socket, first, client, Some(Reason::Full)).await
}

/// Resolves some time after the order to stop: a client that has just connected sends its request
/// soon.
async fn last_call(stop: &mut watch::Receiver<Option<Instant>>) {
    let told = stop.wait_for(Option::is_some).await;
    let until = told.ok().and_then(|until| *until);
    tokio::time::sleep(line::last_call(until.unwrap_or_else(Instant::now))).await;
}

struct Opened {
    /// Whose it is.
    client: IpAddr,
    http2: bool,
    transport: Transport,
}

enum Transport {
    /// There is no room for a connection of this client, who has sent this.
    Full(Vec<u8>),
    /// The first bytes; none when the client left without a word.
    Plain(Vec<u8>),
    Tls(Box<TlsStream<Rewound<Socket>>>),
}

async fn open(
    plan: &Plan,
    tls: Option<&ServerTls>,
    (mut first, mut socket): (Vec<u8>, Socket),
    peer: IpAddr,
    counts: impl FnOnce(IpAddr) -> bool,
) -> io::Result<Opened> {
    let mut client = peer;
    if headers::trusts(plan, peer) {
        let said = opening::speaks_for(&mut socket, &mut first).await?;
        client = said.unwrap_or(peer);
        if !headers::trusts(plan, client) && !counts(client) {
            return Ok(Opened {
                client,
                http2: false,
                transport: Transport::Full(first),
            });
        }
    }
    let Some(tls) = tls else {
        let http2 = opening::is_http2(&mut socket, &mut first).await?;
        let transport = Transport::Plain(first);
        return Ok(Opened {
            client,
            http2,
            transport,
        });
    };
    let acceptor = TlsAcceptor::from(Arc::clone(&tls.config));
    let stream = acceptor.accept(Rewound::new(first, socket)).await?;
    Ok(Opened {
        client,
        http2: stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        transport: Transport::Tls(Box::new(stream)),
    })
}

async fn speak(
    worker: &Rc<Worker>,
    plan: &Plan,
    socket: Socket,
    opened: Opened,
    secure: bool,
    stop: watch::Receiver<Option<Instant>>,
) -> Result<(), Box<dyn std::error::Error>> {
    let ip = opened.client;
    let client = Client {
        ip,
        secure,
        line: None,
        admitted: false,
    };
    match (opened.transport, opened.http2) {
        (Transport::Full(first), _) => {
            worker.vitals().refused_connections.add();
            match secure {
                true => Ok(()),
                false => Box::pin(tell_full(worker, plan, (socket, first), ip)).await,
            }
        }
        (Transport::Plain(first), _) if first.is_empty() => Ok(()),
        (Transport::Plain(first), true) => {
            let stream = Rewound::new(first, socket.clone());
            let served = Box::pin(http2::serve(worker, plan, stream, client, stop)).await;
            Box::pin(socket.close()).await;
            Ok(served?)
        }
        (Transport::Plain(first), false) => {
            straight(worker, plan, socket.clone(), &socket, first, client, stop).await
        }
        (Transport::Tls(stream), true) => {
            let served = Box::pin(http2::serve(worker, plan, stream, client, stop)).await;
            Box::pin(socket.close()).await;
            Ok(served?)
        }
        (Transport::Tls(stream), false) => {
            let first = Vec::new();
            Box::pin(straight(worker, plan, stream, &socket, first, client, stop)).await
        }
    }
}

/// Serves HTTP/1: plain requests on the straight way, and from the first that is not one on by
/// hyper.
async fn straight<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    worker: &Rc<Worker>,
    plan: &Plan,
    stream: S,
    socket: &Socket,
    first: Vec<u8>,
    client: Client,
    stop: watch::Receiver<Option<Instant>>,
) -> Result<(), Box<dyn std::error::Error>> {
    let by = (client.ip, client.secure);
    let mut straight = Straight::new(worker, (stream, socket), first, by);
    let ended = straight.serve().await;
    let Left {
        stream,
        held,
        requests,
        admitted,
    } = straight.into_left();
    let line = Rc::new(Line::new(client.ip));
    line.requests.set(requests);
    line.admitted.set(admitted);
    let client = Client {
        line: Some(line),
        ..client
    };
    match ended {
        Ended::Gone => Ok(()),
        Ended::Other => Box::pin(http1(worker, plan, stream, socket, held, client, stop)).await,
        Ended::Close(reason) => Box::pin(close(worker, plan, stream, held, client, reason)).await,
    }
}

/// Ends a connection so that the client can read what was said last.
async fn close<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    worker: &Rc<Worker>,
    plan: &Plan,
    stream: S,
    held: Vec<u8>,
    client: Client,
    reason: Option<Reason>,
) -> Result<(), Box<dyn std::error::Error>> {
    let line = client.line.unwrap_or_else(|| Rc::new(Line::new(client.ip)));
    if let Some(reason) = reason {
        line.fault.set(Some(reason));
        access::refused(worker, line.client, reason);
    }
    let times = Times::from(&plan.timeouts);
    let gate = Gate::new(stream, held, line, Bounds::from(&plan.limits), times);
    Ok(gate.end().await?)
}

async fn http1<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    worker: &Rc<Worker>,
    plan: &Plan,
    stream: S,
    socket: &Socket,
    first: Vec<u8>,
    client: Client,
    mut stop: watch::Receiver<Option<Instant>>,
) -> Result<(), Box<dyn std::error::Error>> {
    let line = client.line.clone();
    let line = line.unwrap_or_else(|| Rc::new(Line::new(client.ip)));
    let client = Client {
        line: Some(Rc::clone(&line)),
        ..client
    };
    let gate = Gate::new(
        stream,
        first,
        Rc::clone(&line),
        Bounds::from(&plan.limits),
        Times::from(&plan.timeouts),
    );
    let service = service_fn(|request| handle(worker, &client, request));
    let mut connection = http1::Builder::new()
        .half_close(true)
        .preserve_header_case(true)
        .max_headers(plan.limits.headers)
        // The gate lets no larger head pass; what is read at once comes on top.
        .max_buf_size(plan.limits.head_bytes + (16 << 10))
        .serve_connection(TokioIo::new(gate), service);
    let mut told = pin!(stop.wait_for(Option::is_some));
    let mut is_told = false;
    let mut reset = pin!(socket.reset());
    let ended = std::future::poll_fn(|context| {
        if !is_told && let Poll::Ready(told) = told.as_mut().poll(context) {
            // hyper would cut off a client whose next request is on its way: the gate waits for it,
            // and the response to it is the last one.
            is_told = true;
            line.quiet_until.set(told.ok().and_then(|until| *until));
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
                    let quiet = Quiet::from(&plan.timeouts);
                    tunnel::run(client, upstream, quiet).await?;
                }
                None => {
                    if let Some(reason) = line.fault.get() {
                        access::refused(worker, line.client, reason);
                    }
                    gate.end().await?;
                }
            }
        }
        Some(Err(error)) => {
            if error.is_user() && line.delimited.get() {
                socket.spoil();
            }
            return Err(error.into());
        }
        None => tracing::debug!(peer = %client.ip, "the client reset its connection"),
    }
    Ok(())
}
