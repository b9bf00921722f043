//! A client's connection of HTTP/1.

use crate::proxy::error_response::ErrorCode;
use crate::proxy::h1::partial_head::PartialHead;
use crate::proxy::headers::forwarding::ClientInfo;
use crate::proxy::headers::plan_headers;
use crate::proxy::local_response;
use crate::proxy::observe::access_log::End;
use crate::proxy::pipeline::{self, Exchange, Found, LocalResponse, RecordedResponse};
use crate::proxy::policy;
use crate::proxy::request_body::{BodySource, RequestBody};
use crate::proxy::send::{self, Client, SendOutcome};
use crate::proxy::snapshot::Worker;
use crate::proxy::socket::Socket;
use crate::proxy::timer::Timer;
use crate::upstream::PooledConnection;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::futures::Notified;

/// How long a connection may at least begin another request when the process stops. Less would
/// cut off clients that have just connected or just received a response.
const LAST_CALL: Duration = Duration::from_secs(1);

/// How long a connection without a request may still begin one, when those that are quiet are
/// closed from then on.
pub fn last_call(quiet_until: Instant) -> Duration {
    let left = quiet_until.saturating_duration_since(Instant::now());
    left.max(LAST_CALL)
}

/// Why a connection is served no more.
#[derive(Debug)]
pub enum Ended {
    /// It is another protocol from here on: the upstream's side, and what was read of it.
    Tunnel(Box<PooledConnection>, Vec<u8>),
    /// The connection is to be closed; first the code is told, if there is one.
    Close(Option<ErrorCode>),
    /// The client has left, or cannot be told anything any more.
    Gone,
}

/// How much of an body is read at once.
const UPLOAD_BYTES: usize = 64 << 10;

/// A client's connection.
pub struct Http1Connection<'a, S> {
    pub(super) worker: &'a Rc<Worker>,
    socket: &'a Socket,
    pub(super) stream: S,
    /// What the client has sent and was not answered.
    held: Vec<u8>,
    partial: PartialHead,
    requests: u32,
    pub(super) clock: Timer,
    /// When the last request was answered, where that is known.
    pub(super) answered: Option<Instant>,
    peer: IpAddr,
    secure: bool,
    ours: ClientInfo,
    /// The client sends no more.
    ended: bool,
    /// Whether the wait for the rest of a head has begun: more of it does not begin it anew.
    in_head: bool,
    /// The process stops, and this one may still begin a request for a while.
    called: bool,
}

/// What is left when the straight way has ended.
pub struct Leftover<S> {
    /// The stream.
    pub stream: S,
    /// What was read of it and not answered.
    pub held: Vec<u8>,
    /// Whether the client sends no more.
    pub ended: bool,
}

/// What became of a request.
enum Done {
    Next,
    Close,
    Gone,
    Tunnel(Box<PooledConnection>, Vec<u8>),
}

/// How far a request has come.
enum Step {
    Answered(Done, usize, Option<Box<RequestBody>>),
    Unsound(ErrorCode),
    More,
}

/// What a wait for the client has brought.
enum Came {
    Bytes,
    Late,
    End,
    Gone,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client for Http1Connection<'_, S> {
    fn worker(&self) -> &Rc<Worker> {
        self.worker
    }

    fn peer(&self) -> IpAddr {
        self.peer
    }

    fn clock(&mut self) -> &mut Timer {
        &mut self.clock
    }

    async fn tell(&mut self, exchange: &Exchange<'_>, interim: &[u8]) -> bool {
        self.give(exchange, interim).await
    }
}

impl<S: AsyncRead + Unpin> BodySource for Http1Connection<'_, S> {
    fn poll_bytes(
        &mut self,
        context: &mut Context<'_>,
        into: &mut Vec<u8>,
    ) -> Poll<Result<usize, ErrorCode>> {
        into.reserve(UPLOAD_BYTES);
        let read = pin!(self.stream.read_buf(into)).poll(context);
        read.map_err(|_| ErrorCode::BodyBroken)
    }
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Http1Connection<'a, S> {
    /// A connection of this client, who has sent `held` already.
    pub fn new(
        worker: &'a Rc<Worker>,
        (stream, socket): (S, &'a Socket),
        held: Vec<u8>,
        (peer, secure): (IpAddr, bool),
    ) -> Http1Connection<'a, S> {
        let trusted = plan_headers::trusts(&worker.snapshot().plan, peer);
        Http1Connection {
            worker,
            socket,
            stream,
            held,
            partial: PartialHead::default(),
            requests: 0,
            ended: false,
            clock: Timer::default(),
            answered: None,
            peer,
            secure,
            ours: ClientInfo::new(peer, trusted, false),
            in_head: false,
            called: false,
        }
    }

    /// What is left of it.
    pub fn into_left(self) -> Leftover<S> {
        Leftover {
            stream: self.stream,
            held: self.held,
            ended: self.ended,
        }
    }

    /// Answers requests, one after the other.
    pub async fn serve(&mut self) -> Ended {
        let (worker, socket) = (self.worker, self.socket);
        let mut told = pin!(worker.stopped.notified());
        let mut reset = pin!(socket.reset());
        loop {
            let snapshot = worker.snapshot();
            let trusted = plan_headers::trusts(&snapshot.plan, self.peer);
            if trusted != self.ours.trusted {
                self.ours = ClientInfo::new(self.peer, trusted, false);
            }
            let held = std::mem::take(&mut self.held);
            let mut request = Vec::new();
            let head_bytes_max = snapshot.plan.limits.head_bytes;
            let step = {
                let found = if held.is_empty() || !self.partial.is_news(&held, head_bytes_max) {
                    Found::More
                } else {
                    request = worker.buffers.take();
                    pipeline::find(worker, snapshot, self.by(), &held, &mut request)
                };
                match found {
                    Found::Go(exchange, mut body) => {
                        self.in_head = false;
                        self.partial.reset();
                        let taken = exchange.taken;
                        let sent = (&mut request, body.as_deref_mut());
                        let done = self.answer(&exchange, &held, sent, reset.as_mut()).await;
                        Step::Answered(done, taken, body)
                    }
                    Found::Unsound(code) => Step::Unsound(code),
                    Found::More => Step::More,
                }
            };
            self.held = held;
            let done = match step {
                Step::Answered(done, taken, body) => {
                    self.held.drain(..taken);
                    self.behind(done, body)
                }
                Step::Unsound(code) => return Ended::Close(Some(code)),
                Step::More => {
                    // It may be long until there is more.
                    worker.buffers.give(std::mem::take(&mut request));
                    match self.read(told.as_mut()).await {
                        Came::Bytes => Done::Next,
                        Came::Late if self.has_begun() => {
                            return Ended::Close(Some(ErrorCode::HeadTimedOut));
                        }
                        Came::End if self.has_begun() => {
                            return Ended::Close(Some(ErrorCode::Incomplete));
                        }
                        Came::Late | Came::End => Done::Close,
                        Came::Gone => Done::Gone,
                    }
                }
            };
            worker.buffers.give(request);
            match done {
                Done::Next => {}
                Done::Tunnel(connection, said) => return Ended::Tunnel(connection, said),
                Done::Close => return Ended::Close(None),
                Done::Gone => return Ended::Gone,
            }
        }
    }

    /// What came behind a body is the next request, if all of the body was taken.
    fn behind(&mut self, done: Done, body: Option<Box<RequestBody>>) -> Done {
        match body {
            Some(body) if body.is_through() => {
                self.held.append(&mut body.into_left());
                done
            }
            // Where the next request begins is not known.
            Some(_) if matches!(done, Done::Next) => Done::Close,
            _ => done,
        }
    }

    fn by(&self) -> pipeline::By<'_> {
        pipeline::By {
            ours: &self.ours,
            peer: self.peer,
            secure: self.secure,
            http2: false,
            requests: self.requests,
        }
    }

    /// Asks the upstream and answers the client.
    async fn answer(
        &mut self,
        exchange: &Exchange<'_>,
        held: &[u8],
        (request, mut body): (&mut Vec<u8>, Option<&mut RequestBody>),
        mut reset: Pin<&mut impl Future<Output = ()>>,
    ) -> Done {
        let worker = self.worker;
        let (mut said, mut head) = (worker.buffers.take(), worker.buffers.take());
        let heard = match exchange.instead {
            None => {
                let sent = (request, body.as_deref_mut());
                send::ask(self, exchange, sent, &mut said, &mut head, reset.as_mut()).await
            }
            Some(LocalResponse::Refused(code)) => SendOutcome::refused(code),
            Some(instead) => {
                let body = (exchange.inline(held), body.as_deref_mut());
                let own =
                    local_response::answer(self, exchange, instead, body, &mut said, &mut head)
                        .await;
                own.map_or(SendOutcome::ClientGone, SendOutcome::Local)
            }
        };
        let (finished, connection) = match heard {
            SendOutcome::Response(finished, connection) => (finished, Some(connection)),
            SendOutcome::Local(finished) => (finished, None),
            SendOutcome::Failed(error, fallback) => {
                policy::note(worker, &error);
                exchange.trail(|trail| trail.failed(&error));
                let unread = body.as_ref().is_some_and(|it| !it.is_through());
                let how = (error.code, fallback, unread);
                match exchange.refuse(worker, how, &mut said, &mut head) {
                    Some(finished) => (finished, None),
                    // What watershed says itself can be read.
                    None => return Done::Gone,
                }
            }
            SendOutcome::ClientGone => return Done::Gone,
        };
        self.requests += 1;
        let connection = match connection {
            Some(connection) if finished.status == 101 => {
                return self
                    .change(exchange, finished, connection, (head, said))
                    .await;
            }
            connection => connection,
        };
        let closes = finished.closes;
        let upstream = (connection, body.as_deref_mut());
        let given = self.relay((exchange, &finished), upstream, (head, said), reset);
        let given = given.await;
        if let Some(body) = body {
            exchange.note(|entry| entry.brought(body.bytes()));
        }
        match (given, closes) {
            (false, _) => {
                if exchange.http_10 {
                    // Only the end of the connection tells where the answer ends.
                    self.socket.spoil();
                }
                Done::Gone
            }
            (true, true) => Done::Close,
            (true, false) => Done::Next,
        }
    }

    /// Passes on that the upstream switches protocols.
    async fn change(
        &mut self,
        exchange: &Exchange<'_>,
        finished: RecordedResponse,
        connection: PooledConnection,
        (head, mut said): (Vec<u8>, Vec<u8>),
    ) -> Done {
        if !self.give(exchange, &head).await {
            exchange.note(|entry| entry.ends(End::Left));
            return Done::Gone;
        }
        exchange.note(|entry| entry.ends(End::Complete));
        said.drain(..finished.head_bytes);
        Done::Tunnel(Box::new(connection), said)
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
                self.held = self.worker.buffers.take();
            }
            let read = pin!(self.stream.read_buf(&mut self.held)).poll(context);
            match read {
                Poll::Ready(Ok(0)) => {
                    self.ended = true;
                    return Poll::Ready(Came::End);
                }
                Poll::Ready(Ok(_)) => return Poll::Ready(Came::Bytes),
                Poll::Ready(Err(_)) => return Poll::Ready(Came::Gone),
                Poll::Pending => {}
            }
            if self.held.is_empty() {
                self.worker.buffers.give(std::mem::take(&mut self.held));
            }
            if let Some(until) = self.worker.quiet_until.get()
                && !begun
            {
                return self.poll_last_call(context, last_call(until));
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
