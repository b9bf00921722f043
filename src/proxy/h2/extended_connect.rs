//! Requests of HTTP/2 to leave HTTP, by extended CONNECT (RFC 8441). The upstream gets a request
//! with `Upgrade`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes};
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::header::{HeaderName, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// Makes an extended CONNECT for a WebSocket the GET that asks for the same. Returns whether it was
/// one.
pub(super) fn becomes_upgrade<B>(request: &mut Request<B>) -> bool {
    let protocol = request.extensions().get::<Protocol>();
    // Nothing else is known to mean the same in both versions.
    let is_websocket = protocol.is_some_and(|protocol| protocol.as_str() == "websocket");
    if request.method() != Method::CONNECT || !is_websocket {
        return false;
    }
    let mut random = [0; 16];
    let Ok(()) = getrandom::fill(&mut random) else {
        return false;
    };
    let Ok(key) = HeaderValue::try_from(STANDARD.encode(random)) else {
        return false;
    };
    *request.method_mut() = Method::GET;
    request.headers_mut().insert(KEY, key);
    true
}

/// Makes the head of an upstream's agreement that of HTTP/2.
pub(super) fn agreed(head: &mut Response<()>) {
    *head.status_mut() = StatusCode::OK;
    head.headers_mut().remove(ACCEPT);
    head.headers_mut().remove(UPGRADE);
}

/// A client's stream that carries bytes of another protocol.
#[derive(Debug)]
pub(super) struct Http2TunnelStream {
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// Received, and not read.
    rest: Bytes,
}

impl Http2TunnelStream {
    /// The two directions of a stream.
    pub(super) fn new(send: SendStream<Bytes>, receive: RecvStream) -> Http2TunnelStream {
        Http2TunnelStream {
            send,
            receive,
            rest: Bytes::new(),
        }
    }
}

impl AsyncRead for Http2TunnelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.receive.poll_data(context)) {
                Some(Ok(data)) => {
                    let _ = self.receive.flow_control().release_capacity(data.len());
                    self.rest = data;
                }
                // Clients end a stream that way, too.
                Some(Err(error)) => {
                    return Poll::Ready(match error.reason() {
                        Some(Reason::NO_ERROR | Reason::CANCEL) => Ok(()),
                        _ => Err(io::Error::other(error)),
                    });
                }
                None => return Poll::Ready(Ok(())),
            }
        }
        let part = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..part]);
        self.rest.advance(part);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Http2TunnelStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(bytes.len());
        while self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(context)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let part = self.send.capacity().min(bytes.len());
        let sent = self
            .send
            .send_data(Bytes::copy_from_slice(&bytes[..part]), false);
        Poll::Ready(sent.map(|()| part).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.send.send_data(Bytes::new(), true);
        Poll::Ready(sent.map_err(io::Error::other))
    }
}
