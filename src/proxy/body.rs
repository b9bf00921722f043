//! Bodies on their way: the client's to the upstream, the upstream's to the client. Both stream,
//! and neither is read faster than the other side takes it.

use crate::upstream::Lease;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong with a client's body, seen by the one who waits for the upstream's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upload {
    /// Nothing yet.
    #[default]
    Sound,
    /// The client broke off, or its framing is wrong.
    Broken,
    /// It is longer than the limit.
    TooLong,
}

/// A request's body on its way to an upstream.
#[derive(Debug)]
pub struct Outgoing {
    inner: Option<Incoming>,
    left_bytes: u64,
    state: Rc<Cell<Upload>>,
}

impl Outgoing {
    /// A client's body, up to this many bytes.
    pub fn new(body: Incoming, max_bytes: Option<u64>) -> Outgoing {
        let inner = (!body.is_end_stream()).then_some(body);
        Outgoing {
            inner,
            left_bytes: max_bytes.unwrap_or(u64::MAX),
            state: Rc::default(),
        }
    }

    /// No body.
    pub fn empty() -> Outgoing {
        Outgoing {
            inner: None,
            left_bytes: 0,
            state: Rc::default(),
        }
    }

    /// What becomes of it.
    pub fn state(&self) -> Rc<Cell<Upload>> {
        Rc::clone(&self.state)
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(None);
        };
        match ready!(Pin::new(inner).poll_frame(context)) {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                if bytes > self.left_bytes {
                    self.state.set(Upload::TooLong);
                    return Poll::Ready(Some(Err("the body is longer than the limit".into())));
                }
                self.left_bytes -= bytes;
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.state.set(Upload::Broken);
                Poll::Ready(Some(Err(error.into())))
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// An answer's body on its way to the client.
#[derive(Debug)]
pub enum Answer {
    /// Watershed's own words.
    Own(Full<Bytes>),
    /// The upstream's.
    Passed(Passed),
}

/// An upstream's body. When it was read to its end the connection is kept; when the client
/// leaves before, it is closed.
#[derive(Debug)]
pub struct Passed {
    inner: Incoming,
    lease: Option<Lease<Outgoing>>,
}

impl Passed {
    /// The body of an answer, and the connection that it comes over.
    pub fn new(inner: Incoming, lease: Lease<Outgoing>) -> Passed {
        let mut passed = Passed {
            inner,
            lease: Some(lease),
        };
        passed.keep_if_over();
        passed
    }

    fn keep_if_over(&mut self) {
        if self.inner.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Answer::Own(full) => Pin::new(full)
                .poll_frame(context)
                .map_err(|never| match never {}),
            Answer::Passed(passed) => {
                let frame = ready!(Pin::new(&mut passed.inner).poll_frame(context));
                match &frame {
                    Some(Ok(_)) => passed.keep_if_over(),
                    // The connection's state is unknown: it is closed.
                    Some(Err(_)) => drop(passed.lease.take()),
                    None => passed.lease.take().into_iter().for_each(Lease::give_back),
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Answer::Own(full) => full.is_end_stream(),
            Answer::Passed(passed) => passed.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Own(full) => full.size_hint(),
            Answer::Passed(passed) => passed.inner.size_hint(),
        }
    }
}
