//! A request on a connection of HTTP/2 that several share, seen as a connection of HTTP/1 of its
//! own: what is written to it is one request, what is read from it the response.

use crate::config::plan;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TRANSFER_ENCODING};
use http::uri::{Authority, Scheme, Uri};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use std::error::Error;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::oneshot;

/// How much waits on its way, in each direction.
const PIPE_BYTES: usize = 64 << 10;
/// What is read at once.
const READ_BYTES: usize = 16 << 10;

/// What takes requests on a shared connection.
pub(super) type Sender = SendRequest<Outgoing>;

/// What the bytes of the response do not show.
#[derive(Debug, Default)]
struct Http2Outcome {
    /// The endpoint has not taken the request.
    unsent: AtomicBool,
    /// What it sent is no response.
    invalid: AtomicBool,
    /// The body of the response comes in chunks, although its head does not say so.
    in_chunks: AtomicBool,
}

impl Http2Outcome {
    fn note(&self, error: &hyper::Error) {
        let cause = error.source().and_then(|cause| cause.downcast_ref());
        // What the endpoint itself reports is remote.
        let invalid = cause.is_some_and(|cause: &h2::Error| {
            cause.is_library() && cause.reason() == Some(h2::Reason::PROTOCOL_ERROR)
        });
        self.invalid.store(invalid, Ordering::Relaxed);
    }
}

/// The side of the one who asks. Dropped before the end of the response, it resets the request.
#[derive(Debug)]
pub(super) struct Http2Stream {
    pipe: DuplexStream,
    outcome: Arc<Http2Outcome>,
    _alive: oneshot::Sender<()>,
}

impl Http2Stream {
    /// A request to this endpoint, on its connection.
    pub(super) fn new(sender: Sender, endpoint: Arc<plan::EndpointAddress>) -> Http2Stream {
        let (pipe, other) = tokio::io::duplex(PIPE_BYTES);
        let outcome = Arc::new(Http2Outcome::default());
        let (alive, left) = oneshot::channel();
        let told = Arc::clone(&outcome);
        tokio::task::spawn_local(async move {
            tokio::select! {
                ended = exchange(sender, &endpoint, other, &told) => {
                    if let Err(error) = ended {
                        tracing::debug!("{endpoint}: {error}");
                    }
                }
                _ = left => {}
            }
        });
        Http2Stream {
            pipe,
            outcome,
            _alive: alive,
        }
    }

    /// Whether the endpoint has not taken the request.
    pub(super) fn is_unsent(&self) -> bool {
        self.outcome.unsent.load(Ordering::Relaxed)
    }

    /// Whether the body of the response comes in chunks, although its head does not say so: trailers can
    /// then follow a body whose length is known, as in HTTP/2.
    pub(super) fn is_in_chunks(&self) -> bool {
        self.outcome.in_chunks.load(Ordering::Relaxed)
    }

    /// Whether what the endpoint sent is no response.
    pub(super) fn is_invalid(&self) -> bool {
        self.outcome.invalid.load(Ordering::Relaxed)
    }
}

impl AsyncRead for Http2Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().pipe).poll_read(context, room)
    }
}

impl AsyncWrite for Http2Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().pipe).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().pipe).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().pipe).poll_shutdown(context)
    }
}

async fn exchange(
    mut sender: Sender,
    endpoint: &plan::EndpointAddress,
    pipe: DuplexStream,
    outcome: &Http2Outcome,
) -> io::Result<()> {
    let (from, mut to) = tokio::io::split(pipe);
    let request = read_request(from, endpoint).await?;
    let to_head = request.method() == Method::HEAD;
    let response = match sender.try_send_request(request).await {
        Ok(response) => response,
        Err(mut error) => {
            let unsent = error.take_message().is_some();
            outcome.unsent.store(unsent, Ordering::Relaxed);
            let error = error.into_error();
            outcome.note(&error);
            return Err(io::Error::other(error));
        }
    };
    write_response(response, to_head, &mut to, outcome).await
}

/// Reads the head of a request; its body is read as it is sent.
async fn read_request(
    mut from: ReadHalf<DuplexStream>,
    endpoint: &plan::EndpointAddress,
) -> io::Result<Request<Outgoing>> {
    let mut read = BytesMut::new();
    let unsound = || io::Error::from(io::ErrorKind::InvalidData);
    loop {
        let lines = read.iter().filter(|&&byte| byte == b'\n').count();
        let mut fields = vec![httparse::EMPTY_HEADER; lines];
        let mut head = httparse::Request::new(&mut fields);
        let parsed = head.parse(&read).map_err(|_| unsound())?;
        let httparse::Status::Complete(end) = parsed else {
            read.reserve(READ_BYTES);
            if from.read_buf(&mut read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            continue;
        };
        let mut headers = HeaderMap::new();
        for field in head.headers.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| unsound())?;
            headers.append(
                name,
                HeaderValue::from_bytes(field.value).map_err(|_| unsound())?,
            );
        }
        let method = head.method.unwrap_or_default().as_bytes();
        let method = Method::from_bytes(method).map_err(|_| unsound())?;
        let target = head.path.unwrap_or_default().to_owned();
        let _ = read.split_to(end);
        let framing = match headers.remove(TRANSFER_ENCODING) {
            Some(_) => Framing::Size,
            None => Framing::of_length(headers.get(CONTENT_LENGTH)),
        };
        let host = headers.remove(HOST);
        headers.remove(CONNECTION);
        let mut request = Request::new(Outgoing {
            from,
            read,
            framing,
        });
        *request.method_mut() = method;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = headers;
        *request.uri_mut() = uri(&target, host, endpoint).ok_or_else(unsound)?;
        return Ok(request);
    }
}

/// RFC 9113, 8.3.1: what `Host` says is the target's authority.
fn uri(target: &str, host: Option<HeaderValue>, endpoint: &plan::EndpointAddress) -> Option<Uri> {
    let target = Uri::try_from(target).ok()?;
    let host = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = target.clone().into_parts();
    parts.authority = host.or_else(|| Authority::try_from(endpoint.to_string()).ok());
    parts.scheme = Some(match endpoint.is_secure() {
        true => Scheme::HTTPS,
        false => Scheme::HTTP,
    });
    // Only `*` has no place behind an authority; it stays what it was.
    Some(Uri::from_parts(parts).unwrap_or(target))
}

/// What comes next of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Ended,
    Length(u64),
    /// A line with the size of a chunk.
    Size,
    Chunk(u64),
    /// The end of a chunk's line.
    ChunkEnd,
    Trailers,
}

impl Framing {
    fn of_length(length: Option<&HeaderValue>) -> Framing {
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        match length {
            None | Some(0) => Framing::Ended,
            Some(length) => Framing::Length(length),
        }
    }
}

/// A request's body, as this process has framed it.
#[derive(Debug)]
pub(super) struct Outgoing {
    from: ReadHalf<DuplexStream>,
    read: BytesMut,
    framing: Framing,
}

impl Outgoing {
    /// What can be given of what was read; `None` where more must come.
    fn take(&mut self) -> io::Result<Option<Frame<Bytes>>> {
        let unsound = || io::Error::from(io::ErrorKind::InvalidData);
        loop {
            let line = match self.framing {
                Framing::Length(_) | Framing::Chunk(_) => None,
                _ => self.read.windows(2).position(|end| end == b"\r\n"),
            };
            match (self.framing, line) {
                (Framing::Length(left) | Framing::Chunk(left), _) if !self.read.is_empty() => {
                    let bytes = left.min(self.read.len() as u64);
                    self.framing = match (self.framing, left - bytes) {
                        (Framing::Length(_), 0) => Framing::Ended,
                        (Framing::Length(_), left) => Framing::Length(left),
                        (_, 0) => Framing::ChunkEnd,
                        (_, left) => Framing::Chunk(left),
                    };
                    let data = self.read.split_to(bytes as usize).freeze();
                    return Ok(Some(Frame::data(data)));
                }
                (Framing::Size, Some(end)) => {
                    let size = std::str::from_utf8(&self.read[..end]).ok();
                    let size = size.and_then(|size| u64::from_str_radix(size, 16).ok());
                    self.framing = match size.ok_or_else(unsound)? {
                        0 => Framing::Trailers,
                        size => Framing::Chunk(size),
                    };
                    let _ = self.read.split_to(end + 2);
                }
                (Framing::ChunkEnd, Some(0)) => {
                    self.framing = Framing::Size;
                    let _ = self.read.split_to(2);
                }
                (Framing::Trailers, Some(0)) => {
                    self.framing = Framing::Ended;
                    return Ok(None);
                }
                (Framing::Trailers, Some(_)) => return self.take_trailers(),
                _ => return Ok(None),
            }
        }
    }

    fn take_trailers(&mut self) -> io::Result<Option<Frame<Bytes>>> {
        let unsound = || io::Error::from(io::ErrorKind::InvalidData);
        let lines = self.read.iter().filter(|&&byte| byte == b'\n').count();
        let mut fields = vec![httparse::EMPTY_HEADER; lines];
        let parsed = httparse::parse_headers(&self.read, &mut fields).map_err(|_| unsound())?;
        let httparse::Status::Complete((_, found)) = parsed else {
            return Ok(None);
        };
        let mut trailers = HeaderMap::new();
        for field in found {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| unsound())?;
            trailers.append(
                name,
                HeaderValue::from_bytes(field.value).map_err(|_| unsound())?,
            );
        }
        self.framing = Framing::Ended;
        Ok(Some(Frame::trailers(trailers)))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            if let Some(frame) = self.take()? {
                return Poll::Ready(Some(Ok(frame)));
            }
            if self.framing == Framing::Ended {
                return Poll::Ready(None);
            }
            let body = &mut *self;
            body.read.reserve(READ_BYTES);
            let read = pin!(body.from.read_buf(&mut body.read)).poll(context);
            if ready!(read)? == 0 {
                // The client's body broke off.
                return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.framing == Framing::Ended
    }
}

/// Writes a response as HTTP/1 does. Where it breaks off, its end is missing.
async fn write_response(
    response: Response<Incoming>,
    to_head: bool,
    to: &mut WriteHalf<DuplexStream>,
    outcome: &Http2Outcome,
) -> io::Result<()> {
    let (head, mut body) = response.into_parts();
    let phrase = head.status.canonical_reason().unwrap_or_default();
    let mut text = format!("HTTP/1.1 {} {phrase}\r\n", head.status.as_u16()).into_bytes();
    write_fields(&head.headers, &mut text);
    let bodiless = to_head || matches!(head.status.as_u16(), 100..=199 | 204 | 304);
    let has_length = head.headers.contains_key(CONTENT_LENGTH);
    let empty = bodiless || body.is_end_stream();
    let mut next = match empty {
        true => None,
        false => body.frame().now_or_never().flatten(),
    };
    // A body of a known length that has come whole, as most do, has no trailers.
    let chunked = !(empty || has_length && body.is_end_stream());
    outcome.in_chunks.store(chunked, Ordering::Relaxed);
    if empty && !bodiless && !has_length {
        text.extend_from_slice(b"content-length: 0\r\n");
    }
    text.extend_from_slice(b"\r\n");
    to.write_all(&text).await?;
    let mut ended = false;
    while let Some(frame) = match next.take() {
        Some(frame) => Some(frame),
        None => body.frame().await,
    } {
        match frame.map_err(io::Error::other)?.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) if chunked => {
                let size = format!("{:x}\r\n", data.len());
                to.write_all(size.as_bytes()).await?;
                to.write_all(&data).await?;
                to.write_all(b"\r\n").await?;
            }
            Ok(data) => to.write_all(&data).await?,
            Err(frame) if chunked => {
                let mut last = b"0\r\n".to_vec();
                write_fields(&frame.into_trailers().unwrap_or_default(), &mut last);
                last.extend_from_slice(b"\r\n");
                to.write_all(&last).await?;
                ended = true;
            }
            Err(_) => {}
        }
    }
    if chunked && !ended {
        to.write_all(b"0\r\n\r\n").await?;
    }
    Ok(())
}

fn write_fields(fields: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in fields {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
}
