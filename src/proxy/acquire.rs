//! The phase *acquire*: a connection to an endpoint of the upstream that the user's groups choose,
//! or of control's where that one is down.

use crate::experiment::{ExperimentIndex, UpstreamIndex};
use crate::proxy::changes::ServedBy;
use crate::proxy::error_response::{ErrorCode, ProxyError};
use crate::proxy::exchange::Exchange;
use crate::proxy::observe::spans::SpanRecorder;
use crate::proxy::snapshot::Worker;
use crate::upstream::{AcquireError, ConnectionRequest, Endpoint, PooledConnection, Protocols};
use std::rc::Rc;
use std::time::Instant;

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The upstream.
    pub upstream: UpstreamIndex,
    /// The experiment for which control serves in the group's place.
    pub fallback: Option<ExperimentIndex>,
}

/// A connection for one attempt.
#[derive(Debug)]
pub struct Acquired {
    /// The connection.
    pub connection: PooledConnection,
    /// When the attempt begins, where that is known.
    pub now: Option<Instant>,
}

impl Target {
    /// The upstream that the exchange's groups choose.
    pub fn new(exchange: &Exchange<'_>) -> Target {
        let upstream = exchange.upstream();
        exchange.trace(|spans| spans.begins(upstream));
        let target = Target {
            upstream,
            fallback: None,
        };
        target.note(exchange);
        target
    }

    /// Whose version answers.
    pub fn served_by<'a>(&self, exchange: &'a Exchange<'_>) -> ServedBy<'a> {
        ServedBy {
            upstream: Some(self.upstream),
            fallback: self.fallback,
            assignment: &exchange.assignment,
        }
    }

    /// Adds the target to what is logged and counted.
    pub fn note(&self, exchange: &Exchange<'_>) {
        exchange.progress.goes_to(self.upstream, self.fallback);
    }

    /// Adds an attempt, the first or a later one, to what is logged and counted.
    pub fn note_attempt(&self, exchange: &Exchange<'_>, endpoint: &Rc<Endpoint>, attempts: u32) {
        let progress = &exchange.progress;
        progress.sent(&exchange.snapshot, endpoint, attempts);
    }
}

/// A connection where nothing needs to be waited for, as is usual.
pub fn idle(exchange: &Exchange<'_>, target: &Target) -> Option<Acquired> {
    let upstreams = &exchange.snapshot.upstreams;
    let connection = upstreams.acquire_idle(request(exchange, target.upstream), exchange.began)?;
    Some(Acquired {
        connection,
        now: Some(exchange.began),
    })
}

/// A connection to the target. Where no endpoint of it can be connected to, the target becomes
/// control's upstream.
pub async fn first(
    worker: &Worker,
    exchange: &Exchange<'_>,
    target: &mut Target,
) -> Result<Acquired, ProxyError> {
    let snapshot = &exchange.snapshot;
    let acquire = |upstream| snapshot.upstreams.acquire(request(exchange, upstream));
    let error = match acquire(target.upstream).await {
        Ok(connection) => return Ok(connection.into()),
        // One that is busy is not down: its users stay, and their errors count.
        Err(error @ AcquireError::Busy { .. }) => return Err(error.into()),
        Err(error) => error.into(),
    };
    let control = exchange
        .assignment
        .chosen
        .and_then(|(experiment, _, wanted)| {
            let control = snapshot.plan.control_upstream(experiment)?;
            (control != wanted).then_some((experiment, control))
        });
    let Some((experiment, control)) = control else {
        return Err(error);
    };
    worker.telemetry().fallbacks.add();
    (target.upstream, target.fallback) = (control, Some(experiment));
    exchange.trace(|spans| {
        spans.failed(&error);
        spans.begins(control);
    });
    Ok(acquire(control).await?.into())
}

/// Whether a request that may have reached the upstream may be sent once more.
pub fn may_repeat(exchange: &Exchange<'_>, target: &Target, before: &PooledConnection) -> bool {
    let others = exchange.snapshot.upstreams.has_others(target.upstream);
    exchange.method.is_safe() && !exchange.has_body && (before.reused || others)
}

/// A connection for a request that got no response over the one `before`, or the error that is to be
/// answered: `error` where there is nothing else to try.
pub async fn again(
    exchange: &Exchange<'_>,
    target: &Target,
    before: PooledConnection,
    error: ProxyError,
) -> Result<Acquired, ProxyError> {
    let (endpoint, reused) = (before.endpoint().clone(), before.reused);
    drop(before);
    exchange.trace(|spans| {
        spans.failed(&error);
        spans.begins(target.upstream);
    });
    let upstreams = &exchange.snapshot.upstreams;
    let wanted = request(exchange, target.upstream);
    let acquiring = Box::pin(upstreams.acquire_for_retry(wanted, &endpoint, reused));
    let acquired = tokio::select! {
        biased;
        acquired = acquiring => acquired,
        () = until(exchange.deadline) => return Err(ProxyError::new(ErrorCode::TotalTimedOut)),
    };
    match acquired {
        Some(acquired) => Ok(acquired?.into()),
        None => {
            exchange.trace(SpanRecorder::forgets);
            Err(error)
        }
    }
}

/// Resolves at the deadline, if there is one.
pub async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn request<'a>(exchange: &'a Exchange<'_>, upstream: UpstreamIndex) -> ConnectionRequest<'a> {
    ConnectionRequest {
        upstream,
        need: match exchange.upgrade {
            Some(_) => Protocols::Http1,
            None => Protocols::Any,
        },
        user: exchange.user(),
    }
}

impl From<PooledConnection> for Acquired {
    fn from(connection: PooledConnection) -> Acquired {
        Acquired {
            connection,
            now: None,
        }
    }
}

impl From<AcquireError> for ProxyError {
    fn from(error: AcquireError) -> ProxyError {
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
}
