//! The gate between a client's socket and hyper: only sound messages pass, slow ones in time, and
//! interim answers go out between whole messages.

use super::clock::Clock;
use super::framing::{Bounds, Framing};
use super::line::{self, Line};
use super::reply::{self, Reason};
use super::socket;
use super::tunnel::Side;
use crate::config::plan::Timeouts;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

/// A client's connection as hyper sees it.
#[derive(Debug)]
pub struct Gate<S> {
    stream: S,
    line: Rc<Line>,
    framing: Framing,
    times: Times,
    /// Bytes read and not passed on; the first `sound` may be passed on.
    held: Vec<u8>,
    sound: usize,
    /// Follows what is sound.
    fault: Option<Reason>,
    /// Nothing more is read.
    ended: bool,
    /// The client sends no more.
    left: bool,
    /// Everything that hyper wrote has left: an interim answer may begin here.
    flushed: bool,
    wait: Wait,
    reading: Clock,
    writing: Clock,
}

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    head: Duration,
    idle: Duration,
    body: Duration,
}

impl From<&Timeouts> for Times {
    fn from(timeouts: &Timeouts) -> Times {
        Times {
            head: timeouts.head,
            idle: timeouts.idle,
            body: timeouts.body,
        }
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Nothing,
    First,
    Next,
    /// The next request, while the process stops.
    Last,
    Head,
    Body,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gate<S> {
    /// A gate before this stream, of which `first` has been read.
    pub fn new(stream: S, first: Vec<u8>, line: Rc<Line>, bounds: Bounds, times: Times) -> Gate<S> {
        let mut framing = Framing::new(bounds);
        let (sound, fault) = framing.admit(&first);
        framing.take_bare(&mut line.bare.borrow_mut());
        Gate {
            stream,
            line,
            framing,
            times,
            held: first,
            sound,
            fault,
            ended: false,
            left: false,
            flushed: true,
            wait: Wait::Nothing,
            reading: Clock::default(),
            writing: Clock::default(),
        }
    }

    /// The stream, after a request to upgrade was agreed to.
    pub fn into_side(self) -> Side<S> {
        Side {
            stream: self.stream,
            first: self.held,
        }
    }

    /// Says what the fault was, if there was one, and closes so that the client can read it.
    pub async fn end(mut self) -> io::Result<()> {
        let fault = self.line.fault.get();
        let words = fault.map(reply::words);
        let said = async {
            self.stream.write_all(&words.unwrap_or_default()).await?;
            self.stream.shutdown().await
        };
        tokio::time::timeout(self.times.body, said).await??;
        if !self.left {
            socket::linger(&mut self.stream).await;
        }
        Ok(())
    }

    /// Reads into the caller's room; what is not to be passed on yet is held.
    fn poll_fresh(
        &mut self,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = room.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, room))?;
        let fresh = &room.filled()[before..];
        if fresh.is_empty() {
            self.end_of_input();
            return Poll::Ready(Ok(()));
        }
        let (sound, fault) = self.framing.admit(fresh);
        self.framing.take_bare(&mut self.line.bare.borrow_mut());
        self.fault = fault;
        if fault.is_none() && sound < fresh.len() {
            self.held.extend_from_slice(&fresh[sound..]);
        }
        room.set_filled(before + sound);
        Poll::Ready(Ok(()))
    }

    /// Reads more of what is held and not complete.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut more = [0; 4096];
        let mut room = ReadBuf::new(&mut more);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut room))?;
        if room.filled().is_empty() {
            self.end_of_input();
            return Poll::Ready(Ok(()));
        }
        self.held.extend_from_slice(room.filled());
        self.look();
        Poll::Ready(Ok(()))
    }

    fn look(&mut self) {
        (self.sound, self.fault) = self.framing.admit(&self.held);
        self.framing.take_bare(&mut self.line.bare.borrow_mut());
    }

    /// Whether a message has begun and is not complete; empty lines before it are not its
    /// beginning.
    fn is_within(&self) -> bool {
        let begun = |byte: &u8| !matches!(byte, b'\r' | b'\n');
        !self.framing.is_between() || self.held.iter().any(begun)
    }

    fn end_of_input(&mut self) {
        (self.ended, self.left) = (true, true);
        if self.framing.is_in_head() && self.is_within() {
            self.fault = Some(Reason::Incomplete);
        }
    }

    /// What hyper is told of a fault: in a head, that the client sends no more, so that it
    /// finishes what came before; in a body, the fault, for the one who reads it to answer.
    fn tell(&mut self, fault: Reason) -> io::Result<()> {
        if self.framing.is_in_head() {
            self.line.fault.set(Some(fault));
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, fault))
    }

    /// Whether what is waited for takes too long. A connection that is only idle just ends.
    fn poll_late(&mut self, context: &mut Context<'_>) -> bool {
        let (wait, within) = match self.line.quiet_until.get() {
            _ if !self.framing.is_in_head() => (Wait::Body, self.times.body),
            _ if self.is_within() => (Wait::Head, self.times.head),
            Some(until) => (Wait::Last, line::last_call(until)),
            None if self.line.requests.get() == 0 => (Wait::First, self.times.head),
            None => (Wait::Next, self.times.idle),
        };
        if self.wait != wait {
            self.wait = wait;
            self.reading.stop();
        }
        if !self.reading.poll_over(context, within) {
            return false;
        }
        match wait {
            Wait::Body => self.fault = Some(Reason::BodyTimedOut),
            Wait::Head => self.fault = Some(Reason::HeadTimedOut),
            Wait::First | Wait::Next | Wait::Last | Wait::Nothing => self.ended = true,
        }
        true
    }

    fn poll_interim(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.line.has_interim() {
            let stream = Pin::new(&mut self.stream);
            let written =
                self.line
                    .give_interim(|interim| match stream.poll_write(context, interim) {
                        Poll::Ready(Ok(0)) => {
                            (0, Poll::Ready(Err(io::ErrorKind::WriteZero.into())))
                        }
                        Poll::Ready(Ok(taken)) => (taken, Poll::Ready(Ok(()))),
                        Poll::Ready(Err(error)) => (0, Poll::Ready(Err(error))),
                        Poll::Pending => (0, Poll::Pending),
                    });
            ready!(written)?;
        }
        Poll::Ready(Ok(()))
    }

    /// A write that waits for a client that does not read: for so long, and not past the time that
    /// the whole answer has.
    fn in_time<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let within = match written.is_ready() {
            true => Duration::ZERO,
            false => self.line.patience(self.times.body),
        };
        self.writing.in_time(context, within, written)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        let before = room.filled().len();
        loop {
            if gate.sound > 0 {
                let passed = gate.sound.min(room.remaining());
                room.put_slice(&gate.held[..passed]);
                gate.held.drain(..passed);
                gate.sound -= passed;
            }
            if room.filled().len() > before || room.remaining() == 0 {
                gate.wait = Wait::Nothing;
                return Poll::Ready(Ok(()));
            }
            if let Some(fault) = gate.fault {
                return Poll::Ready(gate.tell(fault));
            }
            if gate.ended {
                return Poll::Ready(Ok(()));
            }
            if gate.framing.is_upgrade() {
                if gate.line.upgrading.get() {
                    gate.line.listen(context);
                    return Poll::Pending;
                }
                gate.framing.resume();
                gate.look();
                continue;
            }
            let read = match gate.held.is_empty() {
                true => gate.poll_fresh(context, room),
                false => gate.poll_more(context),
            };
            match read {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if gate.poll_late(context) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let gate = self.get_mut();
        if gate.flushed {
            let said = gate.poll_interim(context);
            ready!(gate.in_time(context, said))?;
            gate.flushed = false;
        }
        let written = Pin::new(&mut gate.stream).poll_write(context, bytes);
        gate.in_time(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let gate = self.get_mut();
        if gate.flushed {
            let said = gate.poll_interim(context);
            ready!(gate.in_time(context, said))?;
            gate.flushed = false;
        }
        let written = Pin::new(&mut gate.stream).poll_write_vectored(context, pieces);
        gate.in_time(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when nothing of it is left to write.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        gate.flushed = true;
        gate.line.listen(context);
        let said = gate.poll_interim(context);
        ready!(gate.in_time(context, said))?;
        let flushed = Pin::new(&mut gate.stream).poll_flush(context);
        gate.in_time(context, flushed)
    }

    /// Done by `end`, after the last words.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
