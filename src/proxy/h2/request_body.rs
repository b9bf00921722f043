//! The body of a request over HTTP/2, which is read no faster than the upstream takes it.

use crate::proxy::error_response::ErrorCode;
use crate::proxy::request_body::BodySource;
use http_body::Body;
use hyper::body::Incoming;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

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
