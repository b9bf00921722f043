//! Sends a request to an upstream and waits for the head of its answer.

use super::body::Outgoing;
use super::line::Line;
use super::reply::{Blame, Reason, Refusal};
use super::trail::Trail;
use super::upload::Upload;
use crate::upstream::{Lease, LendError, Listener, Need, Upstreams, Wish};
use http::{Request, Response};
use hyper::body::Incoming;
use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

/// How often one request may be sent.
pub const ATTEMPTS_MAX: u32 = 3;

/// A connection to an endpoint of an upstream.
pub async fn lend(
    upstreams: &Upstreams<Outgoing>,
    wish: Wish<'_>,
) -> Result<Lease<Outgoing>, Refusal> {
    upstreams.lend(wish).await.map_err(refusal)
}

/// What is sent, and who is told of interim answers.
#[derive(Debug)]
pub struct Sending<'a> {
    /// The request.
    pub request: Request<Outgoing>,
    /// Where it goes, and whether it asks to upgrade.
    pub wish: Wish<'a>,
    /// The client's connection, if interim answers can be passed on.
    pub line: Option<&'a Rc<Line>>,
    /// How long the head of the answer may take, once nothing of the request moves any more.
    pub within: Duration,
    /// Counts how often it was sent.
    pub attempts: &'a Cell<u32>,
    /// Where it is noted how it goes, if it is exported.
    pub trail: Option<&'a Trail>,
}

/// Sends the request and waits for the head of the answer.
///
/// A kept connection may be closed by its endpoint in the moment it is used, and an endpoint may
/// fail. What was not sent at all is sent again, on a new connection or to another endpoint; so
/// is a request without a body whose method is safe.
pub async fn send(
    upstreams: &Upstreams<Outgoing>,
    mut lease: Lease<Outgoing>,
    sending: Sending<'_>,
) -> Result<(Response<Incoming>, Lease<Outgoing>), Refusal> {
    let Sending {
        mut request,
        wish,
        line,
        within,
        attempts,
        trail,
    } = sending;
    let upload = request.body().upload();
    let listener = || match (&upload, line) {
        (Some(upload), _) => Some(Rc::clone(upload) as Rc<dyn Listener>),
        (None, Some(line)) => Some(Rc::clone(line) as Rc<dyn Listener>),
        (None, None) => None,
    };
    loop {
        attempts.set(attempts.get() + 1);
        if let Some(trail) = trail {
            let parent = trail.goes(&lease.endpoint().address);
            parent.inspect(|parent| parent.put(request.headers_mut()));
        }
        let may_repeat = request.method().is_safe() && upload.is_none();
        let again = (may_repeat && (lease.reused || upstreams.has_others(wish.upstream)))
            .then(|| copy(&request));
        lease.await_answer(listener(), wish.need == Need::Http1);
        let sent = lease.sender.try_send(request);
        let mut failed = match in_time(sent, within, upload.as_deref()).await {
            Some(Ok(response)) => {
                lease.endpoint().served();
                if let Some(upload) = &upload {
                    upload.answer();
                }
                if let Some(trail) = trail {
                    trail.answered(response.status().as_u16(), response.version());
                }
                return Ok((response, lease));
            }
            Some(Err(failed)) => failed,
            None => {
                lease.endpoint().failed();
                return Err(Refusal::new(Reason::ResponseTimedOut));
            }
        };
        let unsent = failed.take_message();
        let refused = broken(upload.as_deref(), failed.into_error());
        if refused.reason.terms().2 == Blame::Upstream && !lease.reused {
            lease.endpoint().failed();
        }
        // An answer that cannot be read is one: it would be no better a second time.
        let again = again.filter(|_| refused.reason == Reason::Broken);
        let Some(next) = unsent.or(again).filter(|_| attempts.get() < ATTEMPTS_MAX) else {
            return Err(refused);
        };
        request = next;
        if let Some(trail) = trail {
            trail.failed(&refused);
            trail.begins(wish.upstream);
        }
        let Some(lent) = upstreams.lend_again(wish, &lease).await else {
            if let Some(trail) = trail {
                trail.forgets();
            }
            return Err(refused);
        };
        lease = lent.map_err(refusal)?;
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

/// Why a connection could not be lent.
pub fn refusal(error: LendError) -> Refusal {
    let reason = match error {
        LendError::Unresolved { .. } => Reason::Unresolved,
        LendError::Refused { .. } => Reason::Refused,
        LendError::Distrusted { .. } => Reason::Distrusted,
        LendError::TimedOut { .. } => Reason::ConnectTimedOut,
        LendError::Busy { .. } => Reason::Busy,
        LendError::Down { .. } => Reason::Down,
    };
    Refusal::because(reason, error)
}
