//! A client's connection of HTTP/1: requests one after the other, each through the pipeline.

use crate::proxy::client::ClientInfo;
use crate::proxy::error_response::ErrorCode;
use crate::proxy::exchange::{ClientStream, Exchange, RecordedResponse, Responding};
use crate::proxy::h1::partial_head::PartialHead;
use crate::proxy::observe::progress::ResponseEnd;
use crate::proxy::pipeline::{self, Begun};
use crate::proxy::request_body::{BodySource, RequestBody};
use crate::proxy::snapshot::Worker;
use crate::proxy::socket::Socket;
use crate::proxy::timer::Timer;
use crate::upstream::PooledConnection;
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
pub(crate) fn last_call(quiet_until: Instant) -> Duration {
    let left = quiet_until.saturating_duration_since(Instant::now());
    left.max(LAST_CALL)
}

/// Why a connection is served no longer.
#[derive(Debug)]
pub(crate) enum ConnectionEnd {
    /// It carries another protocol from here on: the upstream's connection, and what was read of it.
    Tunnel(Box<PooledConnection>, Vec<u8>),
    /// The connection is to be closed, with an error response if there is one to send.
    Close(Option<ErrorCode>),
    /// The client has left, or cannot be reached any more.
    ClientLeft,
}

/// How much of a request's body is read at once.
const BODY_READ_BYTES: usize = 64 << 10;

/// A client's connection.
pub(crate) struct Http1Connection<'a, S> {
    pub(super) worker: &'a Rc<Worker>,
    socket: &'a Socket,
    pub(super) stream: S,
    /// What the client has sent and was not answered.
    input: Vec<u8>,
    partial: PartialHead,
    requests: u32,
    pub(super) timer: Timer,
    /// When the last request was answered, where that is known.
    pub(super) answered: Option<Instant>,
    client: Rc<ClientInfo>,
    /// The client sends no more.
    ended: bool,
    /// Whether the wait for the rest of a head has begun: more of it does not restart it.
    in_head: bool,
    /// The process stops, and this connection may still begin a request for a while.
    draining: bool,
    /// The task is woken when the process stops.
    hears_stop: bool,
}

/// What is left when a connection is served no longer.
pub(crate) struct Remains<S> {
    /// The stream.
    pub stream: S,
    /// What was read of it and not answered.
    pub input: Vec<u8>,
    /// Whether the client sends no more.
    pub ended: bool,
}

/// What follows a request.
enum Next {
    Request,
    Close,
    ClientLeft,
    Tunnel(Box<PooledConnection>, Vec<u8>),
}

/// How far the request at the beginning of the input has come.
enum Step {
    Answered(Next, usize, Option<Box<RequestBody>>),
    Invalid(ErrorCode),
    Incomplete,
}

/// What a wait for the client has brought.
enum Waited {
    Bytes,
    TimedOut,
    End,
    ClientLeft,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientStream for Http1Connection<'_, S> {
    fn worker(&self) -> &Rc<Worker> {
        self.worker
    }

    fn info(&self) -> &ClientInfo {
        &self.client
    }

    fn timer(&mut self) -> &mut Timer {
        &mut self.timer
    }

    async fn send_interim(&mut self, exchange: &Exchange<'_>, interim: &[u8]) -> bool {
        self.write(exchange, interim).await
    }
}

impl<S: AsyncRead + Unpin> BodySource for Http1Connection<'_, S> {
    fn poll_bytes(
        &mut self,
        context: &mut Context<'_>,
        into: &mut Vec<u8>,
    ) -> Poll<Result<usize, ErrorCode>> {
        into.reserve(BODY_READ_BYTES);
        let read = pin!(self.stream.read_buf(into)).poll(context);
        read.map_err(|_| ErrorCode::BodyBroken)
    }
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Http1Connection<'a, S> {
    /// A connection of a client that has sent `input` already.
    pub(crate) fn new(
        worker: &'a Rc<Worker>,
        (stream, socket): (S, &'a Socket),
        input: Vec<u8>,
        client: ClientInfo,
    ) -> Http1Connection<'a, S> {
        Http1Connection {
            worker,
            socket,
            stream,
            input,
            partial: PartialHead::default(),
            requests: 0,
            ended: false,
            timer: Timer::default(),
            answered: None,
            client: Rc::new(client),
            in_head: false,
            draining: false,
            hears_stop: false,
        }
    }

    /// What is left of it.
    pub(crate) fn into_remains(self) -> Remains<S> {
        Remains {
            stream: self.stream,
            input: self.input,
            ended: self.ended,
        }
    }

    /// Answers requests, one after the other.
    pub(crate) async fn serve(&mut self) -> ConnectionEnd {
        let (worker, socket) = (self.worker, self.socket);
        let mut stopped = pin!(worker.stopped.notified());
        let mut left = pin!(socket.reset());
        loop {
            let snapshot = worker.snapshot();
            let input = std::mem::take(&mut self.input);
            let mut forwarded = Vec::new();
            let head_bytes_max = snapshot.plan.limits.head_bytes;
            let step = {
                let mut begun = if input.is_empty() || !self.partial.is_news(&input, head_bytes_max)
                {
                    Begun::Incomplete
                } else {
                    forwarded = worker.buffers.take();
                    let client = (&self.client, self.requests);
                    pipeline::begin(worker, snapshot, client, &input, &mut forwarded)
                };
                // An exchange is large, and need not be moved again.
                match &mut begun {
                    Begun::Request(exchange, body) => {
                        self.in_head = false;
                        self.partial.reset();
                        let bytes = exchange.input_bytes;
                        let request = (&*input, &mut forwarded);
                        let body_ = body.as_deref_mut();
                        let next = self.answer(exchange, request, body_, left.as_mut()).await;
                        Step::Answered(next, bytes, body.take())
                    }
                    Begun::Invalid(code) => Step::Invalid(*code),
                    Begun::Incomplete => Step::Incomplete,
                }
            };
            self.input = input;
            let next = match step {
                Step::Answered(next, bytes, body) => {
                    self.input.drain(..bytes);
                    self.after_body(next, body)
                }
                Step::Invalid(code) => return ConnectionEnd::Close(Some(code)),
                Step::Incomplete => {
                    // It may be long until there is more.
                    worker.buffers.give(std::mem::take(&mut forwarded));
                    match self.wait_for_client(stopped.as_mut()).await {
                        Ok(next) => next,
                        Err(code) => return ConnectionEnd::Close(Some(code)),
                    }
                }
            };
            worker.buffers.give(forwarded);
            match next {
                Next::Request => {}
                Next::Tunnel(connection, received) => {
                    return ConnectionEnd::Tunnel(connection, received);
                }
                Next::Close => return ConnectionEnd::Close(None),
                Next::ClientLeft => return ConnectionEnd::ClientLeft,
            }
        }
    }

    /// What came behind a body is the next request, if all of the body was taken.
    fn after_body(&mut self, next: Next, body: Option<Box<RequestBody>>) -> Next {
        match body {
            Some(body) if body.is_through() => {
                self.input.append(&mut body.into_left());
                next
            }
            // Where the next request begins is not known.
            Some(_) if matches!(next, Next::Request) => Next::Close,
            _ => next,
        }
    }

    /// Answers one request.
    async fn answer(
        &mut self,
        exchange: &Exchange<'_>,
        request: (&[u8], &mut Vec<u8>),
        mut body: Option<&mut RequestBody>,
        mut left: Pin<&mut impl Future<Output = ()>>,
    ) -> Next {
        let buffers = &self.worker.buffers;
        let (mut received, mut head) = (buffers.take(), buffers.take());
        let mut responding = None;
        let exchanged = pipeline::exchange_with_upstream(
            self,
            exchange,
            request,
            body.as_deref_mut(),
            (&mut received, &mut head),
            left.as_mut(),
            &mut responding,
        );
        let (Some(()), Some(responding)) = (exchanged.await, &mut responding) else {
            return Next::ClientLeft;
        };
        self.requests += 1;
        let Responding {
            response,
            connection,
        } = responding;
        if response.status == 101
            && let Some(connection) = connection.take()
        {
            let bytes = (head, received);
            return self.switch(exchange, response, connection, bytes).await;
        }
        let upstream = (connection, body.as_deref_mut());
        let whole = self
            .relay((exchange, response), upstream, (head, received), left)
            .await;
        if let Some(body) = body {
            exchange.progress.received(body.bytes());
        }
        match (whole, response.closes) {
            (false, _) => {
                if exchange.http_10 {
                    // Only the end of the connection tells where the response ends.
                    self.socket.spoil();
                }
                Next::ClientLeft
            }
            (true, true) => Next::Close,
            (true, false) => Next::Request,
        }
    }

    /// Passes on that the upstream switches protocols.
    async fn switch(
        &mut self,
        exchange: &Exchange<'_>,
        response: &RecordedResponse,
        connection: PooledConnection,
        (head, mut received): (Vec<u8>, Vec<u8>),
    ) -> Next {
        if !self.write(exchange, &head).await {
            exchange.progress.ends(ResponseEnd::Left);
            return Next::ClientLeft;
        }
        exchange.progress.ends(ResponseEnd::Complete);
        received.drain(..response.head_bytes);
        Next::Tunnel(Box::new(connection), received)
    }

    /// Waits for more of a request, or for the next one.
    async fn wait_for_client(
        &mut self,
        stopped: Pin<&mut Notified<'_>>,
    ) -> Result<Next, ErrorCode> {
        match self.read(stopped).await {
            Waited::Bytes => Ok(Next::Request),
            Waited::TimedOut if self.has_begun() => Err(ErrorCode::HeadTimedOut),
            Waited::End if self.has_begun() => Err(ErrorCode::Incomplete),
            Waited::TimedOut | Waited::End => Ok(Next::Close),
            Waited::ClientLeft => Ok(Next::ClientLeft),
        }
    }

    /// Whether a request has begun; empty lines before it are not its beginning.
    fn has_begun(&self) -> bool {
        self.input.iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
    }

    /// Reads more of what the client sends.
    async fn read(&mut self, mut stopped: Pin<&mut Notified<'_>>) -> Waited {
        let snapshot = self.worker.snapshot();
        let within = match self.input.is_empty() && self.requests > 0 {
            true => snapshot.plan.timeouts.idle,
            false => snapshot.plan.timeouts.head,
        };
        drop(snapshot);
        let begun = self.has_begun();
        let mut waiting = std::mem::replace(&mut self.in_head, begun) && begun;
        std::future::poll_fn(|context| {
            if self.input.capacity() == 0 {
                self.input = self.worker.buffers.take();
            }
            let read = pin!(self.stream.read_buf(&mut self.input)).poll(context);
            match read {
                Poll::Ready(Ok(0)) => {
                    self.ended = true;
                    return Poll::Ready(Waited::End);
                }
                Poll::Ready(Ok(_)) => return Poll::Ready(Waited::Bytes),
                Poll::Ready(Err(_)) => return Poll::Ready(Waited::ClientLeft),
                Poll::Pending => {}
            }
            if self.input.is_empty() {
                self.worker.buffers.give(std::mem::take(&mut self.input));
            }
            if let Some(until) = self.worker.quiet_until.get()
                && !begun
            {
                return self.poll_last_call(context, last_call(until));
            }
            if !waiting {
                waiting = true;
                // What has been polled once goes on to wake the task.
                if !std::mem::replace(&mut self.hears_stop, true) {
                    let _ = stopped.as_mut().poll(context);
                }
                let now = self.answered.take().unwrap_or_else(Instant::now);
                self.timer.begin(context, now, within);
                return Poll::Pending;
            }
            match self.timer.poll_over(context, within) {
                true => Poll::Ready(Waited::TimedOut),
                false => Poll::Pending,
            }
        })
        .await
    }

    fn poll_last_call(&mut self, context: &mut Context<'_>, within: Duration) -> Poll<Waited> {
        if !std::mem::replace(&mut self.draining, true) {
            self.timer.stop();
        }
        match self.timer.poll_over(context, within) {
            true => Poll::Ready(Waited::TimedOut),
            false => Poll::Pending,
        }
    }
}
