//! A client's stream of bytes under HTTP/2: writes fail when the client takes nothing for too long,
//! reads where a path has a fragment.

use crate::proxy::h2::hpack::Paths;
use crate::proxy::timer::Timer;
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What has moved since it was last looked at.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// The client has sent something.
    pub read: Cell<bool>,
    /// The client's socket has taken something.
    pub wrote: Cell<bool>,
}

/// A stream of bytes, how long one write to it may wait, and the paths that come over it.
#[derive(Debug)]
pub(super) struct Http2Transport<S> {
    stream: S,
    clock: Timer,
    stall_max: Duration,
    activity: Rc<Activity>,
    paths: Paths,
}

impl<S> Http2Transport<S> {
    /// This stream, each write to which may wait for `stall_max`.
    pub(super) fn new(
        stream: S,
        stall_max: Duration,
        activity: Rc<Activity>,
        paths: Paths,
    ) -> Http2Transport<S> {
        Http2Transport {
            stream,
            clock: Timer::default(),
            stall_max,
            activity,
            paths,
        }
    }

    fn in_time<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if matches!(written, Poll::Ready(Ok(_))) {
            self.activity.wrote.set(true);
        }
        self.clock.in_time(context, self.stall_max, written)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Http2Transport<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.activity.read.set(true);
        Poll::Ready(match self.paths.admit(&buffer.filled()[before..]) {
            true => Ok(()),
            false => Err(io::ErrorKind::InvalidData.into()),
        })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Http2Transport<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.in_time(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.in_time(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        let stall_max = self.stall_max;
        // A flush of nothing is no progress.
        self.clock.in_time(context, stall_max, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
