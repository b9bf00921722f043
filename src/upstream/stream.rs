//! A connection to an endpoint, with or without TLS, or a request on a shared connection.

use crate::config::plan::{EndpointAddress, Transport};
use crate::upstream::dial::RawConnection;
use crate::upstream::health_state::ConnectionSlot;
use crate::upstream::http2::Http2Stream;
use rustls::pki_types::ServerName;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A stream, and its permit.
#[derive(Debug)]
pub struct Stream {
    io: Io,
    http2: bool,
    _slot: ConnectionSlot,
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
    Http2(Http2Stream),
}

impl Stream {
    /// Opens the stream to an endpoint, with TLS if its transport is that. With `http1_only`, no newer HTTP is
    /// negotiated. Only TLS can fail.
    pub async fn open(
        raw: RawConnection,
        endpoint: &EndpointAddress,
        http1_only: bool,
        slot: ConnectionSlot,
    ) -> io::Result<Stream> {
        let stream = match raw {
            RawConnection::Tcp(stream) => stream,
            // Only HTTP/1 is spoken there.
            RawConnection::Unix(stream) => {
                return Ok(Stream {
                    io: Io::Unix(stream),
                    http2: false,
                    _slot: slot,
                });
            }
        };
        let (io, http2) = match &endpoint.transport {
            Transport::Http => (Io::Plain(stream), false),
            Transport::H2c => (Io::Plain(stream), true),
            Transport::Https(tls) => {
                let name = match &tls.name {
                    Some(name) => name.clone(),
                    None => {
                        ServerName::try_from(endpoint.host.to_string()).map_err(io::Error::other)?
                    }
                };
                let config = if http1_only { &tls.http1 } else { &tls.any };
                let connector = TlsConnector::from(Arc::clone(config));
                let stream = connector.connect(name, stream).await?;
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                (Io::Tls(Box::new(stream)), http2)
            }
        };
        Ok(Stream {
            io,
            http2,
            _slot: slot,
        })
    }

    /// Makes the stream of a request on a shared connection.
    pub(super) fn of_http2(exchange: Http2Stream) -> Stream {
        Stream {
            io: Io::Http2(exchange),
            http2: true,
            _slot: None,
        }
    }

    /// Whether the endpoint is known not to have processed the request.
    pub fn is_unsent(&self) -> bool {
        match &self.io {
            Io::Http2(exchange) => exchange.is_unsent(),
            Io::Plain(_) | Io::Unix(_) | Io::Tls(_) => false,
        }
    }

    /// Whether the endpoint is known to have sent no valid response.
    pub fn is_invalid(&self) -> bool {
        match &self.io {
            Io::Http2(exchange) => exchange.is_invalid(),
            Io::Plain(_) | Io::Unix(_) | Io::Tls(_) => false,
        }
    }

    /// Whether the body of the response comes in chunks although its head does not say so.
    pub fn is_in_chunks(&self) -> bool {
        match &self.io {
            Io::Http2(exchange) => exchange.is_in_chunks(),
            Io::Plain(_) | Io::Unix(_) | Io::Tls(_) => false,
        }
    }

    /// Whether the endpoint has sent nothing and has not closed, so that the connection can be used.
    pub fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(self)
            .poll_read(&mut context, &mut ReadBuf::new(&mut byte))
            .is_pending()
    }

    /// Whether the connection uses HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.http2
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_read(context, room),
            Io::Unix(stream) => Pin::new(stream).poll_read(context, room),
            Io::Tls(stream) => Pin::new(stream).poll_read(context, room),
            Io::Http2(exchange) => Pin::new(exchange).poll_read(context, room),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Io::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Io::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            Io::Http2(exchange) => Pin::new(exchange).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Io::Unix(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Io::Tls(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Io::Http2(exchange) => Pin::new(exchange).poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Unix(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
            Io::Http2(exchange) => exchange.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_flush(context),
            Io::Unix(stream) => Pin::new(stream).poll_flush(context),
            Io::Tls(stream) => Pin::new(stream).poll_flush(context),
            Io::Http2(exchange) => Pin::new(exchange).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Io::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Io::Http2(exchange) => Pin::new(exchange).poll_shutdown(context),
        }
    }
}
