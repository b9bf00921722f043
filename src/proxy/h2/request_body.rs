//! The body of a request over HTTP/2, which is read no faster than the upstream takes it.

use crate::proxy::error_response::ErrorCode;
use crate::proxy::request_body::BodySource;
use h2::RecvStream;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Request};
use std::io::Write;
use std::task::{Context, Poll, ready};

/// A client's body, framed as HTTP/1 frames it.
#[derive(Debug)]
pub(super) struct Http2RequestBody {
    stream: RecvStream,
    /// How much is to come, where that is known; otherwise it is framed in chunks.
    left: Option<u64>,
    ended: bool,
}

impl Http2RequestBody {
    /// The body of this request.
    pub(super) fn new(request: Request<RecvStream>) -> Http2RequestBody {
        let length = request.headers().get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        Http2RequestBody {
            left: length,
            stream: request.into_body(),
            ended: false,
        }
    }

    /// The client's side of the stream.
    pub(super) fn into_stream(self) -> RecvStream {
        self.stream
    }

    fn end(&mut self, trailers: &HeaderMap, into: &mut Vec<u8>) {
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
            let data = match ready!(self.stream.poll_data(context)) {
                Some(Ok(data)) => data,
                Some(Err(_)) => return Poll::Ready(Err(ErrorCode::BodyBroken)),
                None => {
                    let trailers = ready!(self.stream.poll_trailers(context));
                    let trailers = trailers.map_err(|_| ErrorCode::BodyBroken)?;
                    self.end(&trailers.unwrap_or_default(), into);
                    continue;
                }
            };
            // Its room is free for more.
            let _ = self.stream.flow_control().release_capacity(data.len());
            match self.left {
                _ if data.is_empty() => {}
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
            }
        }
        Poll::Ready(Ok(into.len() - before))
    }
}
