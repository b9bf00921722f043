//! The life of a client's connection.

use crate::config::plan::{Plan, ServerTls};
use crate::proxy::client::{ClientInfo, Protocol};
use crate::proxy::connection_limits::Slot;
use crate::proxy::error_response::ErrorCode;
use crate::proxy::h1::server::{ConnectionEnd, Http1Connection, Remains};
use crate::proxy::h2::server as h2;
use crate::proxy::headers::believed_client;
use crate::proxy::observe::access_log;
use crate::proxy::observe::progress::count_unreadable;
use crate::proxy::protocol_detect::{self, Replayed};
use crate::proxy::snapshot::Worker;
use crate::proxy::socket::{self, Socket};
use crate::proxy::tunnel::{self, IdleLimits, TunnelSide};
use crate::tasks::PhaseWatch;
use crate::telemetry::HttpProtocol;
use crate::tls::{self, ClientCertificateHeader};
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

/// How long a connection that is refused may take to say what it speaks.
const FIRST_WORD: Duration = Duration::from_secs(1);

/// Serves a connection until it ends; once the process drains, to the end of the request in flight.
/// With `secure`, TLS is spoken on it. It is counted by its slot.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    (stream, mut slot): (TcpStream, Slot),
    peer: IpAddr,
    secure: bool,
    mut phase: PhaseWatch,
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
        let first = protocol_detect::first(&mut socket.clone(), &worker.buffers).await?;
        let counts = |client| slot.count_for(client, worker.connections_per_address_max());
        Box::pin(open(plan, tls, (first, socket.clone()), peer, counts)).await
    };
    let opened = tokio::select! {
        opened = tokio::time::timeout(plan.timeouts.head, opened) => opened,
        () = h2::quiet_since_stop(&mut phase) => return,
    };
    let served = match opened {
        Ok(Ok(opened)) => speak(worker, plan, socket, opened, secure, phase).await,
        Ok(Err(error)) => Err(error.into()),
        // Nothing was said that could be answered.
        Err(_) => Ok(()),
    };
    if let Err(error) = served {
        tracing::debug!(%peer, "a connection ended: {error}");
    }
}

/// Answers that there is no room for a connection, once it has said what it speaks.
pub(super) async fn refuse(worker: &Rc<Worker>, stream: TcpStream, peer: IpAddr) {
    let snapshot = worker.snapshot();
    let mut socket = Socket::new(stream);
    let first = protocol_detect::first(&mut socket, &worker.buffers);
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
) -> io::Result<()> {
    if first.is_empty() || protocol_detect::may_be_http2(&first) {
        return Ok(());
    }
    let said = access_log::refused(worker, peer, ErrorCode::Full);
    close(plan, socket, &said, false).await
}

struct Opened {
    client: ClientInfo,
    transport: Transport,
}

impl Opened {
    /// A connection without TLS, or before it.
    fn of(address: IpAddr, transport: Transport) -> Opened {
        Opened {
            client: ClientInfo::new(address, Protocol::Http1, false),
            transport,
        }
    }
}

enum Transport {
    /// There is no room for a connection of this client, who has sent this.
    Full(Vec<u8>),
    /// The first bytes; none when the client left without a word.
    Plain(Vec<u8>),
    /// The client speaks no TLS where TLS is spoken.
    NoTls,
    /// An authority has seen what it asked for.
    Proved,
    Tls(Box<TlsStream<Replayed<Socket>>>),
}

async fn open(
    plan: &Plan,
    tls: Option<&ServerTls>,
    (mut first, mut socket): (Vec<u8>, Socket),
    peer: IpAddr,
    counts: impl FnOnce(IpAddr) -> bool,
) -> io::Result<Opened> {
    let mut client = peer;
    if believed_client::trusts(plan, peer) {
        let said = protocol_detect::speaks_for(&mut socket, &mut first).await?;
        client = said.unwrap_or(peer);
        if !believed_client::trusts(plan, client) && !counts(client) {
            return Ok(Opened::of(client, Transport::Full(first)));
        }
    }
    let Some(tls) = tls else {
        let http2 = protocol_detect::is_http2(&mut socket, &mut first).await?;
        let protocol = protocol(http2);
        return Ok(Opened {
            client: ClientInfo::new(client, protocol, false),
            transport: Transport::Plain(first),
        });
    };
    if tls::is_plain_http(&first) {
        return Ok(Opened::of(client, Transport::NoTls));
    }
    let Some(stream) = handshake(tls, Replayed::new(first, socket)).await? else {
        return Ok(Opened::of(client, Transport::Proved));
    };
    let session = stream.get_ref().1;
    let headers = tls.client_certificates.as_deref();
    let shown = session.peer_certificates().and_then(|all| all.first());
    let certificate = headers.zip(shown);
    let certificate =
        certificate.map(|(headers, shown)| ClientCertificateHeader::lines(headers, shown));
    let protocol = protocol(session.alpn_protocol() == Some(b"h2"));
    Ok(Opened {
        client: ClientInfo::new(client, protocol, true).with_certificate(certificate),
        transport: Transport::Tls(Box::new(stream)),
    })
}

fn protocol(is_http2: bool) -> Protocol {
    match is_http2 {
        true => Protocol::Http2,
        false => Protocol::Http1,
    }
}

/// Accepts TLS. `None` where an authority has checked a challenge, after which nothing is said.
async fn handshake(
    tls: &ServerTls,
    stream: Replayed<Socket>,
) -> io::Result<Option<TlsStream<Replayed<Socket>>>> {
    let Some(proofs) = tls.acme.as_ref().and_then(|acme| acme.proofs.as_ref()) else {
        let acceptor = TlsAcceptor::from(Arc::clone(&tls.config));
        return acceptor.accept(stream).await.map(Some);
    };
    let begun = LazyConfigAcceptor::new(Default::default(), stream).await?;
    if !tls::is_challenge(&begun.client_hello()) {
        return begun.into_stream(Arc::clone(&tls.config)).await.map(Some);
    }
    let mut stream = begun.into_stream(Arc::clone(proofs)).await?;
    stream.shutdown().await?;
    Ok(None)
}

async fn speak(
    worker: &Rc<Worker>,
    plan: &Plan,
    socket: Socket,
    opened: Opened,
    secure: bool,
    phase: PhaseWatch,
) -> Result<(), Box<dyn std::error::Error>> {
    let Opened { client, transport } = opened;
    let (ip, http2) = (client.address, client.protocol == Protocol::Http2);
    let sessions = &worker.telemetry().sessions;
    let _counted = match &transport {
        Transport::Full(_) | Transport::NoTls | Transport::Proved => None,
        Transport::Plain(first) if first.is_empty() => None,
        _ => Some(sessions.begin(http2, secure)),
    };
    match (transport, http2) {
        (Transport::Full(first), _) => {
            worker.telemetry().refused_connections.add();
            match secure {
                true => Ok(()),
                false => Ok(Box::pin(tell_full(worker, plan, (socket, first), ip)).await?),
            }
        }
        (Transport::NoTls, _) => {
            count_unreadable(worker, HttpProtocol::Http11, ErrorCode::PlainHttp);
            let said = access_log::refused(worker, ip, ErrorCode::PlainHttp);
            Ok(Box::pin(close(plan, socket, &said, false)).await?)
        }
        (Transport::Proved, _) => Ok(()),
        (Transport::Plain(first), _) if first.is_empty() => Ok(()),
        (Transport::Plain(first), true) => {
            let stream = Replayed::new(first, socket.clone());
            let served = Box::pin(h2::serve(worker, plan, stream, client, phase)).await;
            Box::pin(socket.close()).await;
            Ok(served?)
        }
        (Transport::Plain(first), false) => {
            let streams = (socket.clone(), &socket);
            Ok(http1(worker, plan, streams, first, client).await?)
        }
        (Transport::Tls(stream), true) => {
            let served = Box::pin(h2::serve(worker, plan, stream, client, phase)).await;
            Box::pin(socket.close()).await;
            Ok(served?)
        }
        (Transport::Tls(stream), false) => {
            let streams = (stream, &socket);
            let served = http1(worker, plan, streams, Vec::new(), client);
            Ok(Box::pin(served).await?)
        }
    }
}

/// Serves HTTP/1, and what it is changed to.
async fn http1<S: AsyncRead + AsyncWrite + Unpin>(
    worker: &Rc<Worker>,
    plan: &Plan,
    streams: (S, &Socket),
    first: Vec<u8>,
    client: ClientInfo,
) -> io::Result<()> {
    let peer = client.address;
    let mut served = Http1Connection::new(worker, streams, first, client);
    let ended = served.serve().await;
    let Remains {
        stream,
        input,
        ended: left,
    } = served.into_remains();
    match ended {
        ConnectionEnd::ClientLeft => Ok(()),
        ConnectionEnd::Tunnel(connection, said) => {
            let client = TunnelSide {
                stream,
                first: input,
            };
            let upstream = TunnelSide {
                stream: connection.stream,
                first: said,
            };
            let quiet = IdleLimits::from(&plan.timeouts);
            Box::pin(tunnel::run(client, upstream, quiet)).await
        }
        ConnectionEnd::Close(code) => {
            let said = code.map(|code| {
                count_unreadable(worker, HttpProtocol::Http11, code);
                access_log::refused(worker, peer, code)
            });
            Box::pin(close(plan, stream, &said.unwrap_or_default(), left)).await
        }
    }
}

/// Ends a connection so that the client can read what was said last; one that has `left` sends no
/// more.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(
    plan: &Plan,
    mut stream: S,
    said: &[u8],
    left: bool,
) -> io::Result<()> {
    let ending = async {
        stream.write_all(said).await?;
        stream.shutdown().await
    };
    tokio::time::timeout(plan.timeouts.body, ending).await??;
    if !left {
        socket::linger(&mut stream).await;
    }
    Ok(())
}
