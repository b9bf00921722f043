//! Bodies of HTTP/2 on their way: the client's to the upstream, an answer to the client. Both
//! stream, and neither is read faster than the other side takes it.

use crate::proxy::error_response::ErrorCode;
use crate::proxy::h2::streamed_body::StreamedBody;
use crate::proxy::observe::access_log::LogEntry;
use crate::proxy::request_body::BodySource;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::error::Error;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

type BoxError = Box<dyn Error + Send + Sync>;

/// A client's body, framed as HTTP/1 frames it.
#[derive(Debug)]
pub struct Http2RequestBody {
    inner: Incoming,
    /// How much is to come, where that is known; otherwise it is framed in chunks.
    left: Option<u64>,
    ended: bool,
}

impl Http2RequestBody {
    /// This body.
    pub fn new(inner: Incoming) -> Http2RequestBody {
        Http2RequestBody {
            left: inner.size_hint().exact(),
            inner,
            ended: false,
        }
    }

    fn end(&mut self, trailers: &http::HeaderMap, into: &mut Vec<u8>) {
        self.ended = true;
        if self.left.is_some() {
            return;
        }
        into.extend_from_slice(b"0\r\n");
        for (name, value) in trailers {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                into.extend_from_slice(part);
            }
        }
        into.extend_from_slice(b"\r\n");
    }
}

impl BodySource for Http2RequestBody {
    fn poll_bytes(
        &mut self,
        context: &mut Context<'_>,
        into: &mut Vec<u8>,
    ) -> Poll<Result<usize, ErrorCode>> {
        let before = into.len();
        while into.len() == before && !self.ended {
            let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
            let Some(frame) = frame else {
                self.end(&http::HeaderMap::new(), into);
                continue;
            };
            let Ok(frame) = frame else {
                return Poll::Ready(Err(ErrorCode::BodyBroken));
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => match self.left {
                    None => {
                        // A vector takes all that is written.
                        let _ = write!(into, "{:x}\r\n", data.len());
                        into.extend_from_slice(&data);
                        into.extend_from_slice(b"\r\n");
                    }
                    Some(left) => {
                        // More than it said to be is no body.
                        let left = left.checked_sub(data.len() as u64);
                        self.left = Some(left.ok_or(ErrorCode::BodyBroken)?);
                        into.extend_from_slice(&data);
                    }
                },
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    self.end(&trailers, into);
                }
            }
        }
        Poll::Ready(Ok(into.len() - before))
    }
}

/// An answer's body on its way to the client.
#[derive(Debug)]
pub enum Http2ResponseBody {
    /// What is there already, and what is logged when the client's connection takes it.
    Whole(Bytes, Option<Box<LogEntry>>),
    /// The upstream's, as it comes.
    Streamed(Box<StreamedBody>),
}

impl Http2ResponseBody {
    /// All of a body.
    pub fn whole(text: Bytes, mut entry: Option<Box<LogEntry>>) -> Http2ResponseBody {
        if text.is_empty() {
            // Nobody asks for nothing.
            if let Some(mut entry) = entry.take() {
                entry.own(0);
            }
        } else if let Some(entry) = &mut entry {
            entry.untaken();
        }
        Http2ResponseBody::Whole(text, entry)
    }

    /// What is logged when the client's connection has taken all of it.
    pub fn take_log(&mut self) -> Option<Box<LogEntry>> {
        match self {
            Http2ResponseBody::Whole(_, entry) => entry.take(),
            Http2ResponseBody::Streamed(streamed) => streamed.take_log(),
        }
    }
}

impl Body for Http2ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Http2ResponseBody::Whole(text, _) if text.is_empty() => Poll::Ready(None),
            Http2ResponseBody::Whole(text, entry) => {
                if let Some(entry) = entry {
                    entry.own(text.len() as u64);
                }
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(text)))))
            }
            Http2ResponseBody::Streamed(streamed) => streamed.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Http2ResponseBody::Whole(text, _) => text.is_empty(),
            Http2ResponseBody::Streamed(streamed) => streamed.has_ended(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Http2ResponseBody::Whole(text, _) => SizeHint::with_exact(text.len() as u64),
            Http2ResponseBody::Streamed(streamed) => match streamed.left_bytes() {
                Some(left) => SizeHint::with_exact(left),
                None => SizeHint::default(),
            },
        }
    }
}
