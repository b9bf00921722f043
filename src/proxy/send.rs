//! Asks an upstream on a connection connection, and again where that may be done.

use crate::experiment::{ExperimentIndex, UpstreamIndex};
use crate::proxy::error_response::{ErrorCode, ProxyError};
use crate::proxy::h1::body::{BodyReader, ClientFraming};
use crate::proxy::h1::partial_head::PartialHead;
use crate::proxy::h1::response_head::{self, HeadWriter, ParsedHead, ResponseHead};
use crate::proxy::headers::hop_by_hop;
use crate::proxy::observe::spans::SpanRecorder;
use crate::proxy::pipeline::{Exchange, RecordedResponse};
use crate::proxy::request_body::{BodySource, CONTINUE, RequestBody};
use crate::proxy::snapshot::Worker;
use crate::proxy::timer::Timer;
use crate::upstream::{AcquireError, ConnectionRequest, PooledConnection, Protocols, Stream};
use http::{Method, Version};
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWrite};

/// How often one request may be sent.
const ATTEMPTS_MAX: u32 = 3;
/// How many interim answers may come before the final one.
const INTERIM_MAX: usize = 64;

/// What asking has brought.
pub enum SendOutcome {
    /// An answer, recorded, and the connection that the rest of it comes over.
    Response(RecordedResponse, PooledConnection),
    /// Watershed's own.
    Local(RecordedResponse),
    /// None, and what is said instead.
    Failed(ProxyError, Option<ExperimentIndex>),
    /// The client has left.
    ClientGone,
}

impl SendOutcome {
    /// Nobody is asked.
    pub fn refused(code: ErrorCode) -> SendOutcome {
        SendOutcome::Failed(ProxyError::new(code), None)
    }
}

/// For whom an upstream is asked.
pub trait Client: BodySource {
    /// Whose client it is.
    fn worker(&self) -> &Rc<Worker>;
    /// The address of the client, or of the one that a trusted peer speaks for.
    fn peer(&self) -> IpAddr;
    /// Times what is waited for.
    fn clock(&mut self) -> &mut Timer;
    /// Tells it of an interim answer. False when it cannot be told anything any more.
    async fn tell(&mut self, exchange: &Exchange<'_>, interim: &[u8]) -> bool;
}

/// What is sent, and where the answer goes.
struct Attempt<'a, H> {
    exchange: &'a Exchange<'a>,
    fallback: Option<ExperimentIndex>,
    request: &'a [u8],
    body: Option<&'a mut RequestBody>,
    said: &'a mut Vec<u8>,
    head: &'a mut H,
    /// When it is made, where that is known.
    now: Option<Instant>,
}

/// Why one attempt has brought no answer.
enum Failed {
    /// It broke off; with `unsent`, before a byte of the request was taken.
    Broken {
        error: io::Error,
        unsent: bool,
    },
    Unsound,
    TimedOut,
    /// The client did this wrong.
    Client(ErrorCode),
    Gone,
}

/// What waiting has brought.
enum Came {
    Read(io::Result<usize>),
    /// The upstream has taken its time: the client need not wait for its word any longer.
    Go,
}

/// Sends the request and reads the head of its answer into `said`; the head that the client gets
/// is written into `head`.
pub async fn ask<C: Client, H: HeadWriter>(
    client: &mut C,
    exchange: &Exchange<'_>,
    (request, mut body): (&mut Vec<u8>, Option<&mut RequestBody>),
    said: &mut Vec<u8>,
    head: &mut H,
    mut reset: Pin<&mut impl Future<Output = ()>>,
) -> SendOutcome {
    if let Some(code) = body.as_ref().and_then(|body| body.fault()) {
        return SendOutcome::Failed(ProxyError::new(code), None);
    }
    let upstreams = &exchange.snapshot.upstreams;
    let (mut upstream, mut fallback) = (exchange.wanted(), None);
    let mut attempts = 0;
    exchange.trail(|trail| trail.begins(upstream));
    exchange.note(|entry| entry.sent(upstream, None, attempts, fallback));
    let at_once = upstreams.acquire_idle(wanted(exchange, upstream), exchange.began);
    let mut now = at_once.is_some().then_some(exchange.began);
    let mut connection = match at_once {
        Some(connection) => connection,
        None => {
            let acquiring = Box::pin(acquire(
                client.worker(),
                exchange,
                &mut upstream,
                &mut fallback,
            ));
            let acquired = tokio::select! {
                biased;
                acquired = acquiring => acquired,
                () = reset.as_mut() => return SendOutcome::ClientGone,
                () = until(exchange.deadline) => Err(ProxyError::new(ErrorCode::TotalTimedOut)),
            };
            exchange.note(|entry| entry.sent(upstream, None, attempts, fallback));
            match acquired {
                Ok(connection) => connection,
                Err(error) => return SendOutcome::Failed(error, fallback),
            }
        }
    };
    loop {
        attempts += 1;
        said.clear();
        let endpoint = &connection.endpoint().address;
        exchange.goes(endpoint, request);
        exchange.note(|entry| entry.sent(upstream, Some(endpoint), attempts, fallback));
        let attempt = Attempt {
            exchange,
            fallback,
            request,
            body: body.as_deref_mut(),
            said,
            head,
            now: now.take(),
        };
        let failed = match try_once(client, &mut connection.stream, attempt, reset.as_mut()).await {
            Ok(finished) => {
                connection.endpoint().served();
                return SendOutcome::Response(finished, connection);
            }
            Err(failed) => failed,
        };
        let Some((error, unsent)) = refusal_for(failed, exchange, &connection) else {
            return SendOutcome::ClientGone;
        };
        let others = upstreams.has_others(upstream);
        let unsent = unsent && !body.as_ref().is_some_and(|body| body.has_begun());
        let repeats =
            exchange.method.is_safe() && !exchange.has_body && (connection.reused || others);
        // An answer that cannot be read is one: it would be no better a second time.
        let again = error.code == ErrorCode::Broken && (unsent || repeats);
        if !again || attempts == ATTEMPTS_MAX {
            return SendOutcome::Failed(error, fallback);
        }
        let (endpoint, reused) = (connection.endpoint().clone(), connection.reused);
        drop(connection);
        exchange.trail(|trail| {
            trail.failed(&error);
            trail.begins(upstream);
        });
        let wanted = wanted(exchange, upstream);
        let acquiring = Box::pin(upstreams.acquire_for_retry(wanted, &endpoint, reused));
        let acquired = tokio::select! {
            biased;
            acquired = acquiring => acquired,
            () = until(exchange.deadline) => {
                let error = ProxyError::new(ErrorCode::TotalTimedOut);
                return SendOutcome::Failed(error, fallback);
            }
        };
        connection = match acquired {
            Some(Ok(connection)) => connection,
            Some(Err(error)) => return SendOutcome::Failed(error_of(error), fallback),
            None => {
                exchange.trail(SpanRecorder::forgets);
                return SendOutcome::Failed(error, fallback);
            }
        };
    }
}

/// Why an attempt has failed, and whether nothing of the request was taken. Counts it against the
/// endpoint, if it is to blame. `None` when the client has left.
fn refusal_for(
    failed: Failed,
    exchange: &Exchange<'_>,
    connection: &PooledConnection,
) -> Option<(ProxyError, bool)> {
    // A connection that was idle may have been closed for that.
    let to_blame = !connection.reused;
    let (error, unsent, counts) = match failed {
        Failed::Gone => return None,
        Failed::TimedOut if exchange.is_late() => {
            (ProxyError::new(ErrorCode::TotalTimedOut), false, false)
        }
        Failed::TimedOut => (ProxyError::new(ErrorCode::ResponseTimedOut), false, true),
        Failed::Client(code) => (ProxyError::new(code), false, false),
        Failed::Unsound => (ProxyError::new(ErrorCode::Unsound), false, to_blame),
        Failed::Broken { error, unsent } => {
            let error = ProxyError::because(ErrorCode::Broken, error);
            (error, unsent, to_blame)
        }
    };
    if counts {
        connection.endpoint().failed();
    }
    Some((error, unsent))
}

fn wanted<'a>(exchange: &'a Exchange<'_>, upstream: UpstreamIndex) -> ConnectionRequest<'a> {
    ConnectionRequest {
        upstream,
        need: match exchange.upgrade {
            Some(_) => Protocols::Http1,
            None => Protocols::Any,
        },
        user: exchange.user(),
    }
}

/// Why a connection could not be acquired.
fn error_of(error: AcquireError) -> ProxyError {
    let code = match error {
        AcquireError::Unresolved { .. } => ErrorCode::Unresolved,
        AcquireError::Refused { .. } => ErrorCode::Refused,
        AcquireError::Distrusted { .. } => ErrorCode::Distrusted,
        AcquireError::TimedOut { .. } => ErrorCode::ConnectTimedOut,
        AcquireError::Busy { .. } => ErrorCode::Busy,
        AcquireError::Down { .. } => ErrorCode::Down,
    };
    ProxyError::because(code, error)
}

/// Resolves then, or never.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// A connection to where the request goes, or to control where that cannot be connected to.
async fn acquire(
    worker: &Worker,
    exchange: &Exchange<'_>,
    upstream: &mut UpstreamIndex,
    fallback: &mut Option<ExperimentIndex>,
) -> Result<PooledConnection, ProxyError> {
    let snapshot = &exchange.snapshot;
    let wanted = |upstream| wanted(exchange, upstream);
    let refused = match snapshot.upstreams.acquire(wanted(*upstream)).await {
        Ok(connection) => return Ok(connection),
        // One that is busy is not down: its users stay, and their errors count.
        Err(error @ AcquireError::Busy { .. }) => return Err(error_of(error)),
        Err(error) => error_of(error),
    };
    let instead = exchange.visit.chosen.and_then(|(experiment, _, wanted)| {
        let control = snapshot.plan.control_upstream(experiment)?;
        (control != wanted).then_some((experiment, control))
    });
    let Some((experiment, control)) = instead else {
        return Err(refused);
    };
    worker.telemetry().fallbacks.add();
    (*upstream, *fallback) = (control, Some(experiment));
    exchange.trail(|trail| {
        trail.failed(&refused);
        trail.begins(control);
    });
    let acquired = snapshot.upstreams.acquire(wanted(control)).await;
    acquired.map_err(error_of)
}

/// A request on its way over a connection, and the wait for what comes back.
struct Sending<'a> {
    stream: &'a mut Stream,
    request: &'a [u8],
    sent: usize,
    flushed: bool,
    /// Why the upstream takes no more. What it said last may still be read.
    deaf: Option<io::Error>,
    /// Whether the time of the response's head runs: all of it has one, however many reads it takes.
    waiting: bool,
    /// When the attempt is made, where that is known.
    now: Option<Instant>,
}

impl Sending<'_> {
    /// Writes what can be written of the request, without a body that follows.
    fn poll_write(&mut self, context: &mut Context<'_>) {
        while self.sent < self.request.len() && self.deaf.is_none() {
            let rest = &self.request[self.sent..];
            match Pin::new(&mut *self.stream).poll_write(context, rest) {
                Poll::Ready(Ok(taken)) if taken > 0 => self.sent += taken,
                Poll::Ready(Ok(_)) => self.deaf = Some(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Err(error)) => self.deaf = Some(error),
                Poll::Pending => break,
            }
        }
        if self.sent == self.request.len() && !self.flushed {
            // TLS keeps what is written until it is told to send it.
            self.flushed = Pin::new(&mut *self.stream).poll_flush(context).is_ready();
        }
    }

    /// Moves the request and its body, and reads into `said`, in time.
    fn poll<C: Client>(
        &mut self,
        context: &mut Context<'_>,
        client: &mut C,
        body: Option<&mut RequestBody>,
        said: &mut Vec<u8>,
    ) -> Poll<Result<Came, Failed>> {
        self.poll_write(context);
        if let Some(body) = body.filter(|_| self.flushed) {
            // A body that is still on its way takes the time it takes.
            self.waiting &= !body.poll(context, client, self.stream);
            if let Some(code) = body.fault() {
                return Poll::Ready(Err(Failed::Client(code)));
            }
            if body.poll_patience(context) {
                return Poll::Ready(Ok(Came::Go));
            }
        }
        let read = pin!(self.stream.read_buf(said)).poll(context);
        if let Poll::Ready(read) = read {
            return Poll::Ready(Ok(Came::Read(read)));
        }
        Poll::Pending
    }

    /// Whether the head of the response has taken too long.
    fn poll_late<C: Client>(
        &mut self,
        context: &mut Context<'_>,
        client: &mut C,
        exchange: &Exchange<'_>,
    ) -> Poll<Result<Came, Failed>> {
        let longest = exchange.snapshot.plan.timeouts.response;
        if !self.waiting {
            self.waiting = true;
            let now = self.now.take().unwrap_or_else(Instant::now);
            if exchange.is_late() {
                return Poll::Ready(Err(Failed::TimedOut));
            }
            let within = exchange.within_from(now, longest);
            client.clock().begin(context, now, within);
            return Poll::Pending;
        }
        match client.clock().poll_over(context, longest) {
            true => Poll::Ready(Err(Failed::TimedOut)),
            false => Poll::Pending,
        }
    }

    /// Why the connection has broken.
    fn broken(&mut self, error: io::Error) -> Failed {
        Failed::Broken {
            error: self.deaf.take().unwrap_or(error),
            unsent: self.sent == 0 || self.stream.is_unsent(),
        }
    }
}

/// Sends the request on this connection and reads until the head of the final answer is whole.
async fn try_once<C: Client, H: HeadWriter>(
    client: &mut C,
    stream: &mut Stream,
    attempt: Attempt<'_, H>,
    mut reset: Pin<&mut impl Future<Output = ()>>,
) -> Result<RecordedResponse, Failed> {
    let Attempt {
        exchange,
        fallback,
        request,
        mut body,
        said,
        head,
        now,
    } = attempt;
    let mut sending = Sending {
        stream,
        request,
        sent: 0,
        flushed: false,
        deaf: None,
        waiting: false,
        now,
    };
    let to_head = exchange.method == Method::HEAD;
    let mut interims = 0;
    let mut partial = PartialHead::default();
    loop {
        let came = std::future::poll_fn(|context| {
            let body = body.as_deref_mut();
            let came = sending.poll(context, client, body, said);
            if came.is_ready() {
                return came;
            }
            if reset.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(Failed::Gone));
            }
            sending.poll_late(context, client, exchange)
        });
        let closed = match came.await? {
            Came::Go => {
                go(client, exchange, body.as_deref_mut()).await?;
                continue;
            }
            Came::Read(Ok(read)) => read == 0,
            Came::Read(Err(error)) => return Err(sending.broken(error)),
        };
        // Without the end of a line, there is nothing new but the close: what cannot be read is a
        // response, though an unsound one, and no code to ask again.
        while closed || partial.is_news(said, response_head::HEAD_BYTES_MAX) {
            let (status, end) = match response_head::read(said, to_head, exchange.upgrade.is_some())
            {
                Ok(ParsedHead::Final(answer)) => {
                    let first = said.get(answer.head_bytes..).unwrap_or_default();
                    let http2 = sending.stream.is_http2();
                    let (version, unread) = answered(exchange, &answer, (first, http2), body)?;
                    let how = (fallback, version, unread);
                    let mut finished = exchange.finish(client.worker(), answer, how, head);
                    // What is left of the request would be taken for the next one.
                    finished.keeps &= sending.flushed && sending.deaf.is_none();
                    return Ok(finished);
                }
                Ok(ParsedHead::More) => break,
                Ok(ParsedHead::Interim(status, end)) => (status, end),
                Err(_) => return Err(Failed::Unsound),
            };
            interims += 1;
            if interims > INTERIM_MAX {
                return Err(Failed::Unsound);
            }
            // That a request may continue is only news to one who asked; an old client takes any
            // for the answer (RFC 9110, 15.2).
            if status == 100 {
                go(client, exchange, body.as_deref_mut()).await?;
            } else if !exchange.http_10
                && let Some(told) = hop_by_hop::interim(&said[..end])
                && !client.tell(exchange, &told).await
            {
                return Err(Failed::Gone);
            }
            said.drain(..end);
            partial.reset();
            sending.waiting = false;
        }
        if closed {
            return Err(sending.broken(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// Checks the beginning of the body of a final response, and ends the wait for its head. Returns
/// its version, and whether a part of the client's request is left unread.
fn answered(
    exchange: &Exchange<'_>,
    answer: &ResponseHead<'_>,
    (first, http2): (&[u8], bool),
    body: Option<&mut RequestBody>,
) -> Result<(Version, bool), Failed> {
    if !BodyReader::new(answer.follows, ClientFraming::Chunks).may_begin(first) {
        return Err(Failed::Unsound);
    }
    let version = match (http2, answer.http_10) {
        (true, _) => Version::HTTP_2,
        (false, true) => Version::HTTP_10,
        (false, false) => Version::HTTP_11,
    };
    exchange.trail(|trail| trail.answered(answer.status, version));
    // What a client that waits for `100 Continue` sends now cannot be told apart.
    let unread = body.is_some_and(|body| {
        body.answered();
        body.waits()
    });
    Ok((version, unread))
}

/// Sends `100 Continue` to a client that waits for it.
async fn go<C: Client>(
    client: &mut C,
    exchange: &Exchange<'_>,
    body: Option<&mut RequestBody>,
) -> Result<(), Failed> {
    let tells = body.is_some_and(|body| body.waits() && body.go());
    match tells && !client.tell(exchange, CONTINUE).await {
        true => Err(Failed::Gone),
        false => Ok(()),
    }
}
