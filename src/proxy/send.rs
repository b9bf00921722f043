//! The phase *send*: a request goes out over a connection, and the head of the response comes in.

use super::acquire::{Refusal, Refusals};
use super::changes::ServedBy;
use super::error_response::{ErrorCode, ProxyError};
use super::exchange::{ClientStream, Exchange, RecordedResponse};
use super::h1::body::{BodyReader, ClientFraming};
use super::h1::partial_head::PartialHead;
use super::h1::response_head::{
    self, HeadWriter, ParsedHead, ResponseContext, ResponseHead, ResponseLimits,
};
use super::headers::hop_by_hop;
use super::request_body::{CONTINUE, RequestBody};
use super::respond::Provenance;
use super::snapshot::Worker;
use crate::upstream::{PooledConnection, Stream};
use http::{Method, Version};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWrite};

/// How many interim responses may come before the final one.
const INTERIM_MAX: usize = 64;

/// One attempt: what is sent, and where the response goes.
pub(super) struct SendAttempt<'a, H> {
    /// The exchange.
    pub exchange: &'a Exchange<'a>,
    /// Whose version answers.
    pub by: ServedBy<'a>,
    /// The forwarded head, with a body that came whole.
    pub request: &'a [u8],
    /// A body that follows.
    pub body: Option<&'a mut RequestBody>,
    /// The upstream's bytes.
    pub received: &'a mut Vec<u8>,
    /// The head that the client gets.
    pub head: &'a mut H,
    /// When it begins, where that is known.
    pub now: Option<Instant>,
    /// Which responses are not passed on.
    pub refusals: Refusals<'a>,
}

/// Why an attempt has brought no response.
pub(super) enum Failed {
    /// The connection broke; `unsent` if that was before a byte of the request was taken.
    Broken {
        /// What the system reported.
        error: io::Error,
        /// Whether the upstream has certainly not seen the request.
        unsent: bool,
    },
    /// Another version is asked.
    Refused(Refusal),
    /// The response is invalid, or its head exceeds a limit.
    Invalid(ErrorCode),
    /// The response's head did not arrive in time.
    TimedOut,
    /// The client's request body is at fault.
    Client(ErrorCode),
    /// The client has left.
    ClientLeft,
}

/// What the wait for a response's head has brought.
enum Waited {
    Read(io::Result<usize>),
    /// The upstream does not say whether it wants the body: the client need not wait any longer.
    SendBody,
}

impl Failed {
    /// The error that is answered, and whether nothing of the request was taken. Counts it against
    /// the endpoint, if that is to blame. `None` when the client has left.
    pub(super) fn into_error(
        self,
        exchange: &Exchange<'_>,
        connection: &PooledConnection,
    ) -> Option<(ProxyError, bool)> {
        // A connection that was idle may have been closed for that.
        let to_blame = !connection.reused;
        let (error, unsent, counts) = match self {
            Failed::ClientLeft => return None,
            // It is passed on, or another version is asked.
            Failed::Refused(_) => (ProxyError::new(ErrorCode::Broken), false, false),
            Failed::TimedOut if exchange.is_late() => {
                (ProxyError::new(ErrorCode::TotalTimedOut), false, false)
            }
            Failed::TimedOut => (ProxyError::new(ErrorCode::ResponseTimedOut), false, true),
            // A valid response to another kind of request: the endpoint is healthy.
            Failed::Client(code) | Failed::Invalid(code @ ErrorCode::NotUpgraded) => {
                (ProxyError::new(code), false, false)
            }
            Failed::Invalid(code) => match over_limit(code, exchange, connection) {
                // It has answered: it is in order, and only the page is too large.
                Some(error) => (error, false, false),
                None => (ProxyError::new(code), false, to_blame),
            },
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
}

/// The error of a response whose head exceeds a limit, which names the limit.
fn over_limit(
    code: ErrorCode,
    exchange: &Exchange<'_>,
    connection: &PooledConnection,
) -> Option<ProxyError> {
    let limits = &exchange.snapshot.plan.limits;
    let limit = match code {
        ErrorCode::ResponseHeadTooLong => {
            format!(
                "limits.response_head ({} bytes)",
                limits.response_head_bytes
            )
        }
        ErrorCode::TooManyResponseHeaders => {
            format!("limits.response_headers ({})", limits.response_headers)
        }
        _ => return None,
    };
    let endpoint = &connection.endpoint().address;
    let text = format!("the head of the response of {endpoint} exceeds {limit}");
    Some(ProxyError::because(code, text))
}

/// A request on its way over a connection, and the wait for what comes back.
struct Sending<'a> {
    stream: &'a mut Stream,
    request: &'a [u8],
    sent: usize,
    flushed: bool,
    /// Why the upstream takes no more. Its last response may still be read.
    deaf: Option<io::Error>,
    /// Whether the time of the response's head runs: all of it has one, however many reads it takes.
    waiting: bool,
    /// When the attempt is made, where that is known.
    now: Option<Instant>,
}

impl<'a> Sending<'a> {
    fn new(stream: &'a mut Stream, request: &'a [u8], now: Option<Instant>) -> Sending<'a> {
        Sending {
            stream,
            request,
            sent: 0,
            flushed: false,
            deaf: None,
            waiting: false,
            now,
        }
    }

    /// Whether the upstream has taken all of the request, but for a body that follows.
    fn is_sent(&self) -> bool {
        self.flushed && self.deaf.is_none()
    }

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
            // TLS buffers what is written until it is flushed.
            self.flushed = Pin::new(&mut *self.stream).poll_flush(context).is_ready();
        }
    }

    /// Moves the request and its body, and reads into `received`.
    fn poll<C: ClientStream>(
        &mut self,
        context: &mut Context<'_>,
        client: &mut C,
        body: Option<&mut RequestBody>,
        received: &mut Vec<u8>,
    ) -> Poll<Result<Waited, Failed>> {
        self.poll_write(context);
        if let Some(body) = body.filter(|_| self.flushed) {
            // A body that is still on its way takes the time it takes.
            self.waiting &= !body.poll(context, client, self.stream);
            if let Some(code) = body.fault() {
                return Poll::Ready(Err(Failed::Client(code)));
            }
            if body.poll_patience(context) {
                return Poll::Ready(Ok(Waited::SendBody));
            }
        }
        let read = pin!(self.stream.read_buf(received)).poll(context);
        if let Poll::Ready(read) = read {
            return Poll::Ready(Ok(Waited::Read(read)));
        }
        Poll::Pending
    }

    /// Whether the head of the response has taken too long.
    fn poll_late<C: ClientStream>(
        &mut self,
        context: &mut Context<'_>,
        client: &mut C,
        (exchange, refusals): (&Exchange<'_>, Refusals<'_>),
    ) -> Poll<Result<Waited, Failed>> {
        let longest = refusals.longest(exchange.snapshot.plan.timeouts.response);
        if !self.waiting {
            self.waiting = true;
            let now = self.now.take().unwrap_or_else(Instant::now);
            if exchange.is_late() {
                return Poll::Ready(Err(Failed::TimedOut));
            }
            let within = exchange.time_left_from(now, longest);
            client.timer().begin(context, now, within);
            return Poll::Pending;
        }
        match client.timer().poll_over(context, longest) {
            true => Poll::Ready(Err(Failed::TimedOut)),
            false => Poll::Pending,
        }
    }

    /// Why the connection has broken.
    fn broken(&mut self, error: io::Error) -> Failed {
        if self.stream.is_invalid() {
            return Failed::Invalid(ErrorCode::Unsound);
        }
        Failed::Broken {
            error: self.deaf.take().unwrap_or(error),
            unsent: self.sent == 0 || self.stream.is_unsent(),
        }
    }
}

/// Sends the request and reads until the head of the final response is complete. `left` resolves
/// when the client has left.
pub(super) async fn attempt<C: ClientStream, H: HeadWriter>(
    client: &mut C,
    stream: &mut Stream,
    attempt: SendAttempt<'_, H>,
    mut left: Pin<&mut impl Future<Output = ()>>,
) -> Result<RecordedResponse, Failed> {
    let SendAttempt {
        exchange,
        by,
        request,
        mut body,
        received,
        head,
        now,
        refusals,
    } = attempt;
    let mut sending = Sending::new(stream, request, now);
    let limits = ResponseLimits::from(&exchange.snapshot.plan.limits);
    let mut interims = 0;
    let mut partial = PartialHead::default();
    loop {
        let waited = std::future::poll_fn(|context| {
            let body = body.as_deref_mut();
            let waited = sending.poll(context, client, body, received);
            if waited.is_ready() {
                return waited;
            }
            if left.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(Failed::ClientLeft));
            }
            sending.poll_late(context, client, (exchange, refusals))
        });
        let closed = match waited.await? {
            Waited::SendBody => {
                send_continue(client, exchange, body.as_deref_mut()).await?;
                continue;
            }
            Waited::Read(Ok(read)) => read == 0,
            Waited::Read(Err(error)) => return Err(sending.broken(error)),
        };
        // Without the end of a line, there is nothing new but the close: what cannot be parsed is a
        // response, though an invalid one, and no reason to try again.
        while closed || partial.is_news(received, limits.head_bytes) {
            let context = context_of(exchange, sending.stream);
            let (status, end) = match response_head::read(received, limits, context) {
                Ok(ParsedHead::Final(answer)) => {
                    check_refusals(exchange, refusals, answer.status)?;
                    let from = (by, sending.stream.is_http2());
                    let provenance = check_final(exchange, &answer, received, from, body)?;
                    let mut response = exchange.respond(client.worker(), answer, provenance, head);
                    // What is left of the request would be taken for the next one.
                    response.keeps &= sending.is_sent();
                    return Ok(response);
                }
                Ok(ParsedHead::More) => break,
                Ok(ParsedHead::Interim(status, end)) => (status, end),
                Err(code) => return Err(Failed::Invalid(code)),
            };
            interims += 1;
            if interims > INTERIM_MAX {
                return Err(Failed::Invalid(ErrorCode::Unsound));
            }
            let interim = (status, &received[..end]);
            pass_interim(client, exchange, interim, body.as_deref_mut()).await?;
            received.drain(..end);
            partial.reset();
            sending.waiting = false;
        }
        if closed {
            return Err(sending.broken(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// Passes a response on that was refused, because no other version stands in. Its head is in `received`.
pub(super) fn keep<H: HeadWriter>(
    worker: &Worker,
    exchange: &Exchange<'_>,
    (by, stream): (ServedBy<'_>, &Stream),
    received: &[u8],
    head: &mut H,
) -> Result<RecordedResponse, ErrorCode> {
    let limits = ResponseLimits::from(&exchange.snapshot.plan.limits);
    let read = response_head::read(received, limits, context_of(exchange, stream))?;
    let ParsedHead::Final(answer) = read else {
        return Err(ErrorCode::Unsound);
    };
    let from = (by, stream.is_http2());
    let provenance = check_final(exchange, &answer, received, from, None);
    let provenance = provenance.map_err(|_| ErrorCode::Unsound)?;
    Ok(exchange.respond(worker, answer, provenance, head))
}

/// Returns what the meaning of the response depends on besides its bytes.
fn context_of(exchange: &Exchange<'_>, stream: &Stream) -> ResponseContext {
    ResponseContext {
        to_head: exchange.method == Method::HEAD,
        upgrading: exchange.upgrade.is_some(),
        in_chunks: stream.is_in_chunks(),
    }
}

/// Checks whether a response of this status is passed on.
fn check_refusals(
    exchange: &Exchange<'_>,
    refusals: Refusals<'_>,
    status: u16,
) -> Result<(), Failed> {
    let Some(refusal) = refusals.refuses(status) else {
        return Ok(());
    };
    exchange.trace(|spans| spans.answered(status, Version::HTTP_11));
    Err(Failed::Refused(refusal))
}

/// Checks the beginning of the body of a final response, and ends the wait for its head.
fn check_final(
    exchange: &Exchange<'_>,
    response: &ResponseHead<'_>,
    received: &[u8],
    (by, http2): (ServedBy<'_>, bool),
    body: Option<&mut RequestBody>,
) -> Result<Provenance, Failed> {
    let first = received.get(response.head_bytes..).unwrap_or_default();
    if !BodyReader::new(response.follows, ClientFraming::Chunks).may_begin(first) {
        return Err(Failed::Invalid(ErrorCode::Unsound));
    }
    if exchange.is_extended_connect() && (200..300).contains(&response.status) {
        // To the client, any 2xx means that the tunnel is open (RFC 9110, 9.3.6).
        return Err(Failed::Invalid(ErrorCode::NotUpgraded));
    }
    let version = match (http2, response.http_10) {
        (true, _) => Version::HTTP_2,
        (false, true) => Version::HTTP_10,
        (false, false) => Version::HTTP_11,
    };
    exchange.trace(|spans| spans.answered(response.status, version));
    // What a client that waits for `100 Continue` sends now cannot be told apart.
    let unread = body.is_some_and(|body| {
        body.answered();
        body.waits()
    });
    Ok(Provenance {
        upstream: by.upstream,
        is_changed: true,
        fallback: by.fallback,
        stands_in: by.stands_in,
        version,
        unread,
    })
}

/// Passes an interim response on to a client that may understand it. That a request may continue is
/// only news to one that asked; an old client takes any for the final response (RFC 9110, 15.2).
async fn pass_interim<C: ClientStream>(
    client: &mut C,
    exchange: &Exchange<'_>,
    (status, interim): (u16, &[u8]),
    body: Option<&mut RequestBody>,
) -> Result<(), Failed> {
    if status == 100 {
        return send_continue(client, exchange, body).await;
    }
    if !exchange.http_10
        && let Some(interim) = hop_by_hop::interim(interim)
        && !client.send_interim(exchange, &interim).await
    {
        return Err(Failed::ClientLeft);
    }
    Ok(())
}

/// Sends `100 Continue` to a client that waits for it.
async fn send_continue<C: ClientStream>(
    client: &mut C,
    exchange: &Exchange<'_>,
    body: Option<&mut RequestBody>,
) -> Result<(), Failed> {
    let is_due = body.is_some_and(|body| body.waits() && body.go());
    match is_due && !client.send_interim(exchange, CONTINUE).await {
        true => Err(Failed::ClientLeft),
        false => Ok(()),
    }
}
