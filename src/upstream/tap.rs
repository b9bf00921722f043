//! What an endpoint says before hyper reads it: interim answers are taken out and told, which
//! hyper would only skip; and what it says last is still heard when it no longer listens.

use super::stream::Stream;
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// The largest interim answer, and how many may come before the final one.
const INTERIM_BYTES_MAX: usize = 16 << 10;
const INTERIM_MAX: usize = 64;
/// Up to the first digit of the status: `HTTP/1.1 1`.
const SEEN_BYTES: usize = 10;

/// Wants to know of interim answers (1xx, but for 101).
pub trait Listener {
    /// One came: its status, and its head with the empty line at its end.
    fn interim(&self, status: u16, head: &[u8]);
}

/// A connection that has stopped being HTTP: its stream, and what was read of it already.
#[derive(Debug)]
pub struct Turned {
    /// The stream.
    pub stream: Tap<Stream>,
    /// What was read of it already.
    pub first: Bytes,
}

/// A connection that will be given when its endpoint has agreed to upgrade.
pub type Upgraded = oneshot::Receiver<Turned>;

/// Says for whom a connection is listened to.
#[derive(Default)]
pub struct Ear {
    listener: RefCell<Option<Rc<dyn Listener>>>,
    /// Who gets the connection when it stops being HTTP.
    upgrade: Cell<Option<oneshot::Sender<Turned>>>,
    /// No byte of the final answer has come yet.
    awaited: Cell<bool>,
}

impl Ear {
    /// An answer is awaited; interim ones are told to this listener.
    pub fn await_answer(&self, listener: Option<Rc<dyn Listener>>) {
        *self.listener.borrow_mut() = listener;
        self.awaited.set(true);
    }

    /// The request asks to upgrade: who gets the connection when the endpoint agrees.
    pub fn await_upgrade(&self) -> Upgraded {
        let (sender, upgraded) = oneshot::channel();
        self.upgrade.set(Some(sender));
        upgraded
    }

    /// Gives the connection to whoever waits for it.
    pub fn turn(&self, turned: Turned) {
        if let Some(upgrade) = self.upgrade.take() {
            // Who waited may have left: then the connection ends here.
            let _ = upgrade.send(turned);
        }
    }

    /// Nobody listens any more.
    pub fn forget(&self) {
        *self.listener.borrow_mut() = None;
    }
}

impl std::fmt::Debug for Ear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ear")
            .field("awaited", &self.awaited)
            .finish_non_exhaustive()
    }
}

/// A connection to an endpoint as hyper sees it.
#[derive(Debug)]
pub struct Tap<S> {
    stream: S,
    ear: Rc<Ear>,
    /// The beginning of an answer that may be an interim one.
    held: Vec<u8>,
    heard: usize,
    /// The endpoint reads no more: what is written is for nobody.
    deaf: bool,
}

impl<S> Tap<S> {
    /// A tap on this stream.
    pub fn new(stream: S, ear: Rc<Ear>) -> Tap<S> {
        Tap {
            stream,
            ear,
            held: Vec::new(),
            heard: 0,
            deaf: false,
        }
    }

    /// Takes interim answers out of what is held. Whether the rest belongs to the final answer.
    fn take_interim(&mut self) -> io::Result<bool> {
        loop {
            if !may_be_interim(&self.held) {
                return Ok(true);
            }
            if self.held.len() < SEEN_BYTES {
                return Ok(false);
            }
            let mut fields = [httparse::EMPTY_HEADER; 64];
            let mut answer = httparse::Response::new(&mut fields);
            let (status, end) = match answer.parse(&self.held) {
                Ok(httparse::Status::Complete(end)) => (answer.code.unwrap_or(0), end),
                Ok(httparse::Status::Partial) if self.held.len() <= INTERIM_BYTES_MAX => {
                    return Ok(false);
                }
                // hyper says what is wrong with it.
                _ => return Ok(true),
            };
            if status == 101 {
                return Ok(true);
            }
            self.heard += 1;
            if self.heard > INTERIM_MAX {
                return Err(io::Error::other("too many interim answers"));
            }
            if let Some(listener) = &*self.ear.listener.borrow() {
                listener.interim(status, &self.held[..end]);
            }
            self.held.drain(..end);
        }
    }

    /// A write that nobody takes is no reason not to hear why.
    fn written(&mut self, written: Poll<io::Result<usize>>, all: usize) -> Poll<io::Result<usize>> {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        match &written {
            Poll::Ready(Err(error))
                if matches!(
                    error.kind(),
                    BrokenPipe | ConnectionAborted | ConnectionReset
                ) =>
            {
                self.deaf = true;
                Poll::Ready(Ok(all))
            }
            _ => written,
        }
    }
}

/// Whether these bytes begin an interim answer, as far as can be seen.
fn may_be_interim(bytes: &[u8]) -> bool {
    const VERSION: &[u8] = b"HTTP/1.";
    let version = bytes.len().min(VERSION.len());
    bytes[..version] == VERSION[..version]
        && bytes.get(SEEN_BYTES - 1).is_none_or(|&digit| digit == b'1')
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let tap = self.get_mut();
        loop {
            if !tap.ear.awaited.get() {
                if tap.held.is_empty() {
                    return Pin::new(&mut tap.stream).poll_read(context, room);
                }
                let passed = tap.held.len().min(room.remaining());
                room.put_slice(&tap.held[..passed]);
                tap.held.drain(..passed);
                return Poll::Ready(Ok(()));
            }
            let before = room.filled().len();
            ready!(Pin::new(&mut tap.stream).poll_read(context, room))?;
            let fresh = &room.filled()[before..];
            if fresh.is_empty() {
                tap.ear.awaited.set(false);
                continue;
            }
            if tap.held.is_empty() && !may_be_interim(fresh) {
                // The usual case: the final answer, where hyper wants it.
                tap.ear.awaited.set(false);
                return Poll::Ready(Ok(()));
            }
            tap.held.extend_from_slice(fresh);
            room.set_filled(before);
            if tap.take_interim()? {
                tap.ear.awaited.set(false);
                tap.heard = 0;
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let tap = self.get_mut();
        if tap.deaf {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut tap.stream).poll_write(context, bytes);
        tap.written(written, bytes.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let tap = self.get_mut();
        let all = pieces.iter().map(|piece| piece.len()).sum();
        if tap.deaf {
            return Poll::Ready(Ok(all));
        }
        let written = Pin::new(&mut tap.stream).poll_write_vectored(context, pieces);
        tap.written(written, all)
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
