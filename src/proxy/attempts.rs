//! The phases *acquire* and *send* of one request: attempts, until one brings a response that the client
//! gets. A request that may be sent twice goes to another endpoint, or to another version, where one fails.

use super::acquire::{self, Acquired, Refusal};
use super::error_response::{ErrorCode, ProxyError};
use super::exchange::{ClientStream, Exchange, RecordedResponse, Responding};
use super::forward;
use super::h1::response_head::HeadWriter;
use super::request_body::RequestBody;
use super::send::{self, Failed, SendAttempt};
use crate::upstream::PooledConnection;
use std::pin::Pin;

/// How often one request may be sent.
const ATTEMPTS_MAX: u32 = 3;

/// Why no upstream has answered.
pub(super) enum AttemptFailure {
    /// What is answered instead.
    Error(ProxyError),
    /// The client has left.
    ClientLeft,
}

impl AttemptFailure {
    /// An error before any upstream was asked.
    pub(super) fn of(code: ErrorCode) -> AttemptFailure {
        AttemptFailure::Error(ProxyError::new(code))
    }
}

/// The phases *acquire* and *send*, again where the request may be sent once more.
pub(super) async fn acquire_and_send<C: ClientStream, H: HeadWriter>(
    client: &mut C,
    exchange: &Exchange<'_>,
    (input, forwarded): (&[u8], &mut Vec<u8>),
    (mut body, received): (Option<&mut RequestBody>, &mut Vec<u8>),
    (head, responding): (&mut H, &mut Option<Responding>),
    mut left: Pin<&mut impl Future<Output = ()>>,
) -> Result<(), AttemptFailure> {
    if let Some(code) = body.as_ref().and_then(|body| body.fault()) {
        return Err(AttemptFailure::of(code));
    }
    let mut target = acquire::Target::new(exchange);
    let mut acquired = match acquire::idle(exchange, &target) {
        Some(acquired) => acquired,
        None => acquire_first(exchange, &mut target, left.as_mut()).await?,
    };
    if target.fallback.is_some() {
        address_again(client, exchange, &target, input, forwarded);
    }
    let (mut attempts, mut refused) = (0, None);
    loop {
        attempts += 1;
        received.clear();
        let connection = &mut acquired.connection;
        let endpoint = connection.endpoint();
        exchange.address_to(&endpoint.address, forwarded);
        target.note_attempt(exchange, endpoint, attempts);
        let attempt = SendAttempt {
            exchange,
            by: target.served_by(exchange),
            request: forwarded,
            body: body.as_deref_mut(),
            received,
            head,
            now: acquired.now.take(),
            refusals: target.refusals(exchange),
        };
        let stream = &mut connection.stream;
        let failed = match send::attempt(client, stream, attempt, left.as_mut()).await {
            Ok(response) => {
                target.count_fallback(exchange, client.worker());
                *responding = Some(responded(exchange, &target, response, acquired.connection));
                return Ok(());
            }
            Err(failed) => failed,
        };
        let has_begun = body.as_ref().is_some_and(|body| body.has_begun());
        let (to, how) = ((exchange, &mut target), (attempts, has_begun));
        let came = (acquired.connection, &mut *received, &mut refused);
        let next = recover(to, came, failed, how).await?;
        if !matches!(&next, Next::Ask(next) if !next.is_other) {
            attempts = 0;
            address_again(client, exchange, &target, input, forwarded);
        }
        match next {
            Next::Ask(next) => acquired = next,
            Next::PassOn(RefusedResponse { connection, bytes }) => {
                *received = bytes;
                let from = (target.served_by(exchange), &connection.stream);
                let kept = send::keep(client.worker(), exchange, from, received, head);
                let kept = kept.map_err(AttemptFailure::of)?;
                *responding = Some(responded(exchange, &target, kept, connection));
                return Ok(());
            }
        }
    }
}

/// A response of an endpoint, which its upstream notes.
fn responded(
    exchange: &Exchange<'_>,
    target: &acquire::Target,
    response: RecordedResponse,
    mut connection: PooledConnection,
) -> Responding {
    connection.idle_for = response.idle_for;
    let upstreams = &exchange.snapshot.upstreams;
    upstreams.responded(target.upstream, connection.endpoint(), response.status);
    Responding {
        response,
        connection: Some(connection),
    }
}

/// Writes the request for another upstream than that which it was written for.
fn address_again<C: ClientStream>(
    client: &C,
    exchange: &Exchange<'_>,
    target: &acquire::Target,
    input: &[u8],
    forwarded: &mut Vec<u8>,
) {
    target.note(exchange);
    let by = target.served_by(exchange);
    forward::write_again(client.info(), exchange, by, input, forwarded);
}

/// A connection to the target, or to the version that stands in for it.
async fn acquire_first(
    exchange: &Exchange<'_>,
    target: &mut acquire::Target,
    left: Pin<&mut impl Future<Output = ()>>,
) -> Result<Acquired, AttemptFailure> {
    let acquiring = Box::pin(acquire::first(exchange, target));
    let acquired = tokio::select! {
        biased;
        acquired = acquiring => acquired,
        () = left => return Err(AttemptFailure::ClientLeft),
        () = acquire::until(exchange.deadline) => Err(ProxyError::new(ErrorCode::TotalTimedOut)),
    };
    target.note(exchange);
    acquired.map_err(AttemptFailure::Error)
}

/// A response that was not passed on: what has come of it.
struct RefusedResponse {
    connection: PooledConnection,
    bytes: Vec<u8>,
}

/// What follows an attempt without a response.
enum Next {
    /// The request is sent once more.
    Ask(Acquired),
    /// The client gets the response that was refused.
    PassOn(RefusedResponse),
}

/// Asks another version, because a response was refused. Where what is asked for is only looked for there, the
/// response is kept in `refused`.
async fn ask_other(
    (exchange, target): (&Exchange<'_>, &mut acquire::Target),
    why: Refusal,
    (connection, received, refused): (PooledConnection, &mut Vec<u8>, &mut Option<RefusedResponse>),
) -> Next {
    let response = RefusedResponse {
        connection,
        bytes: std::mem::take(received),
    };
    if why == Refusal::NotFound {
        target.go_back(exchange);
        return Next::PassOn(refused.take().unwrap_or(response));
    }
    let Some(to) = target.after(exchange, why) else {
        return Next::PassOn(response);
    };
    match acquire::other_version(exchange, target, to, None).await {
        Some(next) => {
            target.is_search = why == Refusal::Missing;
            *refused = target.is_search.then_some(response);
            Next::Ask(next)
        }
        None => Next::PassOn(response),
    }
}

/// What follows an attempt without a response that is passed on: another endpoint, another version, or a
/// response that was refused before.
async fn recover(
    (exchange, target): (&Exchange<'_>, &mut acquire::Target),
    (connection, received, refused): (PooledConnection, &mut Vec<u8>, &mut Option<RefusedResponse>),
    failed: Failed,
    (attempts, has_begun): (u32, bool),
) -> Result<Next, AttemptFailure> {
    if let Failed::Refused(why) = failed {
        let came = (connection, received, refused);
        return Ok(ask_other((exchange, target), why, came).await);
    }
    let Some((error, unsent)) = failed.into_error(exchange, &connection) else {
        return Err(AttemptFailure::ClientLeft);
    };
    if let Some(refused) = refused.take() {
        target.go_back(exchange);
        return Ok(Next::PassOn(refused));
    }
    // A response that cannot be parsed is one: it would be no better a second time.
    let again = error.code == ErrorCode::Broken
        && attempts < ATTEMPTS_MAX
        && ((unsent && !has_begun) || acquire::may_repeat(exchange, target, &connection));
    let error = match again {
        true => match acquire::again(exchange, target, connection, error).await {
            Ok(next) => return Ok(Next::Ask(next)),
            Err(error) => error,
        },
        false => error,
    };
    let status = error.code.status().as_u16();
    if target.refusals(exchange).refuses(status) == Some(Refusal::Failed)
        && let Some(to) = target.after(exchange, Refusal::Failed)
        && let Some(next) = acquire::other_version(exchange, target, to, Some(&error)).await
    {
        return Ok(Next::Ask(next));
    }
    Err(AttemptFailure::Error(error))
}
