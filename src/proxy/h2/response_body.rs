//! The body of a response over HTTP/2.

use crate::proxy::h2::streamed_body::StreamedBody;
use crate::proxy::observe::access_log::LogEntry;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

type BoxError = Box<dyn Error + Send + Sync>;

/// The body of a response.
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
