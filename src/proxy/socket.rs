//! A client's socket, read and written by one part and watched by another.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::TcpStream;

/// How long is read on after the last response (RFC 9112, 9.6).
const LINGER: Duration = Duration::from_secs(5);
/// The same while the client says nothing.
const LINGER_QUIET: Duration = Duration::from_secs(1);
/// How much is read on.
const LINGER_BYTES: usize = 16 << 20;

/// Reads until the client closes, too, or a moment has passed. What arrives at a closed socket
/// makes the system reset the connection, and a reset may cost the client the last response.
pub(super) async fn linger(stream: &mut (impl AsyncRead + Unpin)) {
    let mut rest = [0; 4096];
    let drained = async {
        let mut left = LINGER_BYTES;
        while left > 0 {
            let read = tokio::time::timeout(LINGER_QUIET, stream.read(&mut rest)).await;
            match read {
                Ok(Ok(read @ 1..)) => left = left.saturating_sub(read),
                _ => return,
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, drained).await;
}

/// How much may wait in the system's buffer without having been sent. A client that reads makes room
/// for so little soon; a buffer of megabytes, which counts as full until a third of it is free, would
/// make one that reads steadily look like one that does not read.
const UNSENT_BYTES: u32 = 128 << 10;

/// A handle of a socket; clones are of the same one.
#[derive(Clone, Debug)]
pub(super) struct Socket(Rc<TcpStream>);

impl Socket {
    /// A handle of this one.
    pub(super) fn new(stream: TcpStream) -> Socket {
        // Only costs latency where the system does not want it.
        let _ = stream.set_nodelay(true);
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES);
        Socket(Rc::new(stream))
    }

    /// Waits until the other side has reset the connection. That it only stops sending is no
    /// reset: it may wait for its answer.
    pub(super) async fn reset(&self) {
        let _ = self.0.ready(Interest::ERROR).await;
    }

    /// Ends a connection on which the last response was sent, so that the client can read it.
    pub(super) async fn close(mut self) {
        if self.shutdown().await.is_ok() {
            linger(&mut self).await;
        }
    }

    /// Makes the end of this connection a reset, so that what was sent of an answer that only the
    /// end of the connection delimits does not look whole.
    pub(super) fn spoil(&self) {
        let _ = socket2::SockRef::from(&*self.0).set_linger(Some(Duration::ZERO));
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(context))?;
            let asked = room.remaining();
            match self.0.try_read_buf(room) {
                Ok(read) => {
                    if 0 < read && read < asked {
                        // Less than there was room for: nothing is left, and the next read need
                        // not ask the system to hear so. More is told by a new event.
                        let _ = self
                            .0
                            .try_io(Interest::READABLE, || io::Result::<()>::Err(empty()));
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

fn empty() -> io::Error {
    io::ErrorKind::WouldBlock.into()
}

impl Socket {
    fn poll_with<T>(
        &self,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            ready!(self.0.poll_write_ready(context))?;
            match write(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_with(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_with(context, |stream| stream.try_write_vectored(pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = socket2::SockRef::from(&*self.0).shutdown(std::net::Shutdown::Write);
        Poll::Ready(match shut {
            // The other side was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            shut => shut,
        })
    }
}
