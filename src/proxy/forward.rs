//! Sends a request to an upstream and waits for the head of its answer.

use super::body::Outgoing;
use super::line::Line;
use super::reply::{Reason, Refusal};
use super::upload::Upload;
use crate::experiment::UpstreamIndex;
use crate::upstream::{Lease, LendError, Listener, Upstreams};
use http::{Request, Response};
use hyper::body::Incoming;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

/// A connection to an endpoint of this upstream.
pub async fn lend(
    upstreams: &Upstreams<Outgoing>,
    upstream: UpstreamIndex,
) -> Result<Lease<Outgoing>, Refusal> {
    upstreams.lend(upstream).await.map_err(refusal)
}

/// What is sent, and who is told of interim answers.
#[derive(Debug)]
pub struct Sending<'a> {
    /// The request.
    pub request: Request<Outgoing>,
    /// The client's connection, if interim answers can be passed on.
    pub line: Option<&'a Rc<Line>>,
    /// Whether the request asks to upgrade.
    pub upgrading: bool,
    /// How long the head of the answer may take, once nothing of the request moves any more.
    pub within: Duration,
}

/// Sends the request and waits for the head of the answer.
///
/// A kept connection may be closed by its endpoint in the moment it is used. What was not sent
/// at all is sent again on a new one; so is a request without a body whose method is safe.
pub async fn send(
    upstreams: &Upstreams<Outgoing>,
    mut lease: Lease<Outgoing>,
    sending: Sending<'_>,
) -> Result<(Response<Incoming>, Lease<Outgoing>), Refusal> {
    let Sending {
        request,
        line,
        upgrading,
        within,
    } = sending;
    let upload = request.body().upload();
    let listener = || match (&upload, line) {
        (Some(upload), _) => Some(Rc::clone(upload) as Rc<dyn Listener>),
        (None, Some(line)) => Some(Rc::clone(line) as Rc<dyn Listener>),
        (None, None) => None,
    };
    let again =
        (lease.reused && request.method().is_safe() && upload.is_none()).then(|| copy(&request));
    lease.await_answer(listener());
    if upgrading {
        lease.await_upgrade();
    }
    let sent = lease.sender.try_send_request(request);
    let mut failed = match in_time(sent, within, upload.as_deref()).await {
        Some(Ok(response)) => return Ok((response, lease)),
        Some(Err(failed)) => failed,
        None => return Err(Refusal::new(Reason::ResponseTimedOut)),
    };
    let unsent = failed.take_message().filter(|_| lease.reused);
    let error = failed.into_error();
    // An answer that cannot be read is one: it would be no better a second time.
    let Some(request) = unsent.or(again.filter(|_| !error.is_parse())) else {
        return Err(broken(upload.as_deref(), error));
    };
    let mut lease = upstreams.lend_new(&lease).await.map_err(refusal)?;
    lease.await_answer(listener());
    if upgrading {
        lease.await_upgrade();
    }
    let sent = lease.sender.send_request(request);
    match in_time(sent, within, upload.as_deref()).await {
        Some(Ok(response)) => Ok((response, lease)),
        Some(Err(error)) => Err(broken(upload.as_deref(), error)),
        None => Err(Refusal::new(Reason::ResponseTimedOut)),
    }
}

/// Waits for the head of an answer; a body that is still on its way takes the time it takes.
async fn in_time<T>(
    sent: impl Future<Output = T>,
    within: Duration,
    upload: Option<&Upload>,
) -> Option<T> {
    let mut sent = pin!(sent);
    loop {
        let waited = tokio::time::timeout(within, sent.as_mut()).await;
        match waited {
            Ok(sent) => return Some(sent),
            Err(_) if upload.is_some_and(Upload::is_moving) => {}
            Err(_) => return None,
        }
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
fn broken(upload: Option<&Upload>, error: hyper::Error) -> Refusal {
    let reason = match upload.and_then(Upload::fault) {
        Some(fault) => fault,
        None if error.is_parse() => Reason::Unsound,
        None => Reason::Broken,
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
