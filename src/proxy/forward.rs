//! Sends a request to an upstream and waits for the head of its answer.

use super::body::{Outgoing, Upload};
use super::reply::{Reason, Refusal};
use crate::experiment::UpstreamIndex;
use crate::upstream::{Lease, LendError, Upstreams};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use std::cell::Cell;
use std::time::Duration;

/// A connection to an endpoint of this upstream.
pub async fn lend(
    upstreams: &Upstreams<Outgoing>,
    upstream: UpstreamIndex,
) -> Result<Lease<Outgoing>, Refusal> {
    upstreams.lend(upstream).await.map_err(refusal)
}

/// Sends the request and waits for the head of the answer, `within` this time.
///
/// A kept connection may be closed by its endpoint in the moment it is used. What was not sent
/// at all is sent again on a new one; so is a request without a body whose method is safe.
pub async fn send(
    upstreams: &Upstreams<Outgoing>,
    mut lease: Lease<Outgoing>,
    request: Request<Outgoing>,
    within: Duration,
) -> Result<(Response<Incoming>, Lease<Outgoing>), Refusal> {
    let upload = request.body().state();
    let again = (lease.reused && request.method().is_safe() && request.body().is_end_stream())
        .then(|| copy(&request));
    let sent = tokio::time::timeout(within, lease.sender.try_send_request(request));
    let mut failed = match sent.await {
        Ok(Ok(response)) => return Ok((response, lease)),
        Ok(Err(failed)) => failed,
        Err(_) => return Err(Refusal::new(Reason::ResponseTimedOut)),
    };
    let again = failed
        .take_message()
        .filter(|_| lease.reused)
        .or(again.filter(|_| upload.get() == Upload::Sound));
    let Some(request) = again else {
        return Err(broken(&upload, failed.into_error()));
    };
    let upload = request.body().state();
    let mut lease = upstreams.lend_new(&lease).await.map_err(refusal)?;
    match tokio::time::timeout(within, lease.sender.send_request(request)).await {
        Ok(Ok(response)) => Ok((response, lease)),
        Ok(Err(error)) => Err(broken(&upload, error)),
        Err(_) => Err(Refusal::new(Reason::ResponseTimedOut)),
    }
}

fn copy(request: &Request<Outgoing>) -> Request<Outgoing> {
    let mut copy = Request::new(Outgoing::empty());
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    copy
}

/// Whose fault it is that the exchange broke: the client's if its body was at fault.
fn broken(upload: &Cell<Upload>, error: hyper::Error) -> Refusal {
    let reason = match upload.get() {
        Upload::Sound => Reason::Broken,
        Upload::Broken => Reason::BodyBroken,
        Upload::TooLong => Reason::BodyTooLong,
    };
    Refusal::because(reason, error)
}

fn refusal(error: LendError) -> Refusal {
    let reason = match error {
        LendError::Unresolved { .. } => Reason::Unresolved,
        LendError::Refused { .. } => Reason::Refused,
        LendError::TimedOut { .. } => Reason::ConnectTimedOut,
    };
    Refusal::because(reason, error)
}
