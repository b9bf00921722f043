//! The first bytes of a connection: for whom it is, and what is spoken on it.

use crate::proxy::buffer_pool::BufferPool;
use ppp::{PartialResult, v1, v2};
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What comes before the first request is no longer than this.
const FIRST_BYTES: usize = 4096;
/// RFC 9113, 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PROXY_V1: &[u8] = b"PROXY ";
/// The longest line of version 1, with its end.
const PROXY_V1_BYTES: usize = 107;
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Reads the first bytes; none when the client leaves without a word. One that has not said a
/// word holds no room for it.
pub async fn first(
    stream: &mut (impl AsyncRead + Unpin),
    buffers: &BufferPool,
) -> io::Result<Vec<u8>> {
    std::future::poll_fn(|context| {
        let mut first = buffers.take();
        let read = pin!(stream.read_buf(&mut first)).poll(context);
        match read {
            Poll::Ready(read) => Poll::Ready(read.map(|_| first)),
            Poll::Pending => {
                buffers.give(first);
                Poll::Pending
            }
        }
    })
    .await
}

/// Takes the header of the PROXY protocol, version 1 or 2, off the first bytes of a trusted peer.
/// Whom it speaks for, if it says so.
pub async fn speaks_for(
    stream: &mut (impl AsyncRead + Unpin),
    first: &mut Vec<u8>,
) -> io::Result<Option<IpAddr>> {
    loop {
        let read = if may_begin(first, PROXY_V1) {
            v1_header(first)?
        } else if may_begin(first, PROXY_V2) {
            v2_header(first)?
        } else {
            return Ok(None);
        };
        if let Some((length, client)) = read {
            first.drain(..length);
            if first.is_empty() {
                stream.read_buf(first).await?;
            }
            return Ok(client);
        }
        if first.len() >= FIRST_BYTES || stream.read_buf(first).await? == 0 {
            return Err(unsound());
        }
    }
}

/// How long the header is and whom it names; `None` when more of it must come.
fn v1_header(first: &[u8]) -> io::Result<Option<(usize, Option<IpAddr>)>> {
    let short = &first[..first.len().min(PROXY_V1_BYTES)];
    // The parser takes other ends of a line, too, when nothing follows yet.
    let Some(end) = short.windows(2).position(|end| end == b"\r\n") else {
        return match first.len() < PROXY_V1_BYTES {
            true => Ok(None),
            false => Err(unsound()),
        };
    };
    let (line, length) = (&first[..end + 2], end + 2);
    let said = line[PROXY_V1.len()..end].strip_prefix(b"UNKNOWN");
    if matches!(said, Some([] | [b' ', ..])) {
        // Whatever else it says is passed over.
        return Ok(Some((length, None)));
    }
    match v1::Header::try_from(line) {
        Ok(header) if header.header.len() == length => Ok(Some((length, v1_source(&header)))),
        _ => Err(unsound()),
    }
}

/// The same for version 2.
fn v2_header(first: &[u8]) -> io::Result<Option<(usize, Option<IpAddr>)>> {
    if first.len() < PROXY_V2.len() {
        return Ok(None);
    }
    match v2::Header::try_from(first) {
        Ok(header) => Ok(Some((header.len(), v2_source(&header)))),
        Err(error) if error.is_incomplete() => Ok(None),
        Err(_) => Err(unsound()),
    }
}

fn unsound() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an unsound PROXY header")
}

fn v1_source(header: &v1::Header<'_>) -> Option<IpAddr> {
    match header.addresses {
        v1::Addresses::Tcp4(addresses) => Some(addresses.source_address.into()),
        v1::Addresses::Tcp6(addresses) => Some(addresses.source_address.into()),
        v1::Addresses::Unknown => None,
    }
}

fn v2_source(header: &v2::Header<'_>) -> Option<IpAddr> {
    match (header.command, header.addresses) {
        // The peer's own connection, for its health checks.
        (v2::Command::Local, _) => None,
        (_, v2::Addresses::IPv4(addresses)) => Some(addresses.source_address.into()),
        (_, v2::Addresses::IPv6(addresses)) => Some(addresses.source_address.into()),
        (_, _) => None,
    }
}

/// Whether HTTP/2 is spoken without having been negotiated (RFC 9113, 3.3).
pub async fn is_http2(
    stream: &mut (impl AsyncRead + Unpin),
    first: &mut Vec<u8>,
) -> io::Result<bool> {
    while may_begin(first, PREFACE) {
        if first.len() >= PREFACE.len() {
            return Ok(true);
        }
        if stream.read_buf(first).await? == 0 {
            return Ok(false);
        }
    }
    Ok(false)
}

/// Whether these first bytes begin HTTP/2.
pub fn may_be_http2(first: &[u8]) -> bool {
    may_begin(first, PREFACE)
}

fn may_begin(bytes: &[u8], with: &[u8]) -> bool {
    let length = bytes.len().min(with.len());
    length > 0 && bytes[..length] == with[..length]
}

/// A stream of which the first bytes were read and are read again.
#[derive(Debug)]
pub struct Replayed<S> {
    first: Vec<u8>,
    stream: S,
}

impl<S> Replayed<S> {
    /// This stream, with these bytes before it.
    pub fn new(first: Vec<u8>, stream: S) -> Replayed<S> {
        Replayed { first, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Replayed<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rewound = self.get_mut();
        if rewound.first.is_empty() {
            return Pin::new(&mut rewound.stream).poll_read(context, room);
        }
        let passed = rewound.first.len().min(room.remaining());
        room.put_slice(&rewound.first[..passed]);
        rewound.first.drain(..passed);
        if rewound.first.is_empty() {
            rewound.first = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replayed<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
