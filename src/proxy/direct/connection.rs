//! A client's connection while its requests are plain.

use super::exchange::{self, Client, Heard};
use super::going::{self, Found, Going};
use super::partial::Partial;
use super::request::Ours;
use crate::proxy::clock::Clock;
use crate::proxy::handle;
use crate::proxy::headers;
use crate::proxy::line;
use crate::proxy::reply::Reason;
use crate::proxy::snapshot::Worker;
use crate::proxy::socket::Socket;
use http::Version;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::futures::Notified;

/// Why the straight way ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// What the client has sent is not plain: it is for hyper.
    Other,
    /// The connection is to be closed; first the reason is told, if there is one.
    Close(Option<Reason>),
    /// The client has left, or cannot be told anything any more.
    Gone,
}

/// A client's connection.
pub struct Straight<'a, S> {
    pub(super) worker: &'a Rc<Worker>,
    socket: &'a Socket,
    pub(super) stream: S,
    /// What the client has sent and was not answered.
    held: Vec<u8>,
    partial: Partial,
    requests: u32,
    /// Whether the request that is held was let through by the rate limit.
    admitted: bool,
    pub(super) clock: Clock,
    /// When the last request was answered, where that is known.
    pub(super) answered: Option<Instant>,
    peer: IpAddr,
    secure: bool,
    ours: Ours,
    /// Whether the wait for the rest of a head has begun: more of it does not begin it anew.
    in_head: bool,
    /// The process stops, and this one may still begin a request for a while.
    called: bool,
}

/// What is left when the straight way has ended.
pub struct Left<S> {
    /// The stream.
    pub stream: S,
    /// What was read of it and not answered.
    pub held: Vec<u8>,
    /// How many requests were answered.
    pub requests: u32,
    /// Whether the next one was let through by the rate limit already.
    pub admitted: bool,
}

/// What became of a request.
enum Done {
    Next,
    Other,
    Close,
    Gone,
}

/// What a wait for the client has brought.
enum Came {
    Bytes,
    Late,
    End,
    Gone,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client for Straight<'_, S> {
    fn worker(&self) -> &Rc<Worker> {
        self.worker
    }

    fn clock(&mut self) -> &mut Clock {
        &mut self.clock
    }

    async fn tell(&mut self, going: &Going<'_>, interim: &[u8]) -> bool {
        self.give(going, interim).await
    }
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Straight<'a, S> {
    /// A connection of this client, who has sent `held` already.
    pub fn new(
        worker: &'a Rc<Worker>,
        (stream, socket): (S, &'a Socket),
        held: Vec<u8>,
        (peer, secure): (IpAddr, bool),
    ) -> Straight<'a, S> {
        let trusted = headers::trusts(&worker.snapshot().plan, peer);
        Straight {
            worker,
            socket,
            stream,
            held,
            partial: Partial::default(),
            requests: 0,
            admitted: false,
            clock: Clock::default(),
            answered: None,
            peer,
            secure,
            ours: Ours::new(peer, trusted, false),
            in_head: false,
            called: false,
        }
    }

    /// What is left of it.
    pub fn into_left(self) -> Left<S> {
        Left {
            stream: self.stream,
            held: self.held,
            requests: self.requests,
            admitted: self.admitted,
        }
    }

    /// Answers requests for as long as they are plain.
    pub async fn serve(&mut self) -> Ended {
        let (worker, socket) = (self.worker, self.socket);
        let mut told = pin!(worker.stopped.notified());
        let mut reset = pin!(socket.reset());
        loop {
            let snapshot = worker.snapshot();
            let trusted = headers::trusts(&snapshot.plan, self.peer);
            if trusted != self.ours.trusted {
                return Ended::Other;
            }
            let held = std::mem::take(&mut self.held);
            let mut request = Vec::new();
            let head_bytes_max = snapshot.plan.limits.head_bytes;
            let found = if held.is_empty() || !self.partial.is_news(&held, head_bytes_max) {
                Found::More
            } else {
                request = worker.rooms.take();
                going::find(worker, snapshot, self.by(), &held, &mut request)
            };
            let done = match found {
                Found::Go(going) => {
                    self.in_head = false;
                    self.partial.reset();
                    let taken = going.taken;
                    let done = self.answer(&going, &mut request, reset.as_mut()).await;
                    self.held = held;
                    if matches!(done, Done::Next | Done::Close) {
                        self.held.drain(..taken);
                    }
                    done
                }
                Found::Other => {
                    self.held = held;
                    Done::Other
                }
                Found::More => {
                    self.held = held;
                    // It may be long until there is more.
                    worker.rooms.give(std::mem::take(&mut request));
                    match self.read(told.as_mut()).await {
                        Came::Bytes => Done::Next,
                        Came::Late if self.has_begun() => {
                            return Ended::Close(Some(Reason::HeadTimedOut));
                        }
                        Came::End if self.has_begun() => {
                            return Ended::Close(Some(Reason::Incomplete));
                        }
                        Came::Late | Came::End => Done::Close,
                        Came::Gone => Done::Gone,
                    }
                }
            };
            worker.rooms.give(request);
            match done {
                Done::Next => {}
                Done::Other => return Ended::Other,
                Done::Close => return Ended::Close(None),
                Done::Gone => return Ended::Gone,
            }
        }
    }

    fn by(&mut self) -> going::By<'_> {
        going::By {
            ours: &self.ours,
            peer: self.peer,
            secure: self.secure,
            version: Version::HTTP_11,
            requests: self.requests,
            admitted: &mut self.admitted,
        }
    }

    /// Asks the upstream and answers the client.
    async fn answer(
        &mut self,
        going: &Going<'_>,
        request: &mut [u8],
        mut reset: Pin<&mut impl Future<Output = ()>>,
    ) -> Done {
        let worker = self.worker;
        let (mut said, mut head) = (worker.rooms.take(), worker.rooms.take());
        let heard = exchange::ask(self, going, request, &mut said, &mut head, reset.as_mut());
        let (finished, bare) = match heard.await {
            Heard::Answer(finished, bare) => (finished, Some(bare)),
            Heard::Refused(refusal, fallback) => {
                handle::note(worker, &refusal);
                going.trail(|trail| trail.failed(&refusal));
                said.clear();
                let own = going.refuse(worker, refusal.reason, fallback, &mut said, &mut head);
                match own {
                    Some(finished) => (finished, None),
                    // What watershed says itself can be read.
                    None => return Done::Gone,
                }
            }
            Heard::Other => return Done::Other,
            Heard::Gone => return Done::Gone,
        };
        worker.vitals().requests.add();
        self.requests += 1;
        self.admitted = false;
        let given = self.relay((going, &finished), bare, (head, said), reset);
        let given = given.await;
        match (given, finished.closes) {
            (false, _) => Done::Gone,
            (true, true) => Done::Close,
            (true, false) => Done::Next,
        }
    }

    /// Whether a request has begun; empty lines before it are not its beginning.
    fn has_begun(&self) -> bool {
        self.held.iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
    }

    /// Reads more of what the client sends.
    async fn read(&mut self, mut told: Pin<&mut Notified<'_>>) -> Came {
        let snapshot = self.worker.snapshot();
        let within = match self.held.is_empty() && self.requests > 0 {
            true => snapshot.plan.timeouts.idle,
            false => snapshot.plan.timeouts.head,
        };
        drop(snapshot);
        let begun = self.has_begun();
        let mut waiting = std::mem::replace(&mut self.in_head, begun) && begun;
        std::future::poll_fn(|context| {
            if self.held.capacity() == 0 {
                self.held = self.worker.rooms.take();
            }
            let read = pin!(self.stream.read_buf(&mut self.held)).poll(context);
            match read {
                Poll::Ready(Ok(0)) => return Poll::Ready(Came::End),
                Poll::Ready(Ok(_)) => return Poll::Ready(Came::Bytes),
                Poll::Ready(Err(_)) => return Poll::Ready(Came::Gone),
                Poll::Pending => {}
            }
            if self.held.is_empty() {
                self.worker.rooms.give(std::mem::take(&mut self.held));
            }
            if let Some(until) = self.worker.quiet_until.get()
                && !begun
            {
                return self.poll_last_call(context, line::last_call(until));
            }
            if !waiting {
                waiting = true;
                let _ = told.as_mut().poll(context);
                let now = self.answered.take().unwrap_or_else(Instant::now);
                self.clock.begin(context, now, within);
                return Poll::Pending;
            }
            match self.clock.poll_over(context, within) {
                true => Poll::Ready(Came::Late),
                false => Poll::Pending,
            }
        })
        .await
    }

    fn poll_last_call(&mut self, context: &mut Context<'_>, within: Duration) -> Poll<Came> {
        if !std::mem::replace(&mut self.called, true) {
            self.clock.stop();
        }
        match self.clock.poll_over(context, within) {
            true => Poll::Ready(Came::Late),
            false => Poll::Pending,
        }
    }
}
