//! The phase *acquire*: a connection to an endpoint of the upstream that the user's groups choose,
//! or of the version that stands in where that one is down.

use crate::config::plan::OtherVersion;
use crate::experiment::UpstreamIndex;
use crate::experiment::version_rules::WhenDown;
use crate::proxy::changes::ServedBy;
use crate::proxy::error_response::{ErrorCode, ProxyError};
use crate::proxy::exchange::Exchange;
use crate::proxy::observe::spans::SpanRecorder;
use crate::proxy::snapshot::Worker;
use crate::upstream::{AcquireError, ConnectionRequest, Endpoint, PooledConnection, Protocols};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// The upstream.
    pub upstream: UpstreamIndex,
    /// The version that serves in the place of the group's.
    pub fallback: Option<OtherVersion>,
    /// Whether that is because the group's version does not have what is asked for.
    pub is_search: bool,
}

/// A connection for one attempt.
#[derive(Debug)]
pub(super) struct Acquired {
    /// The connection.
    pub connection: PooledConnection,
    /// When the attempt begins, where that is known.
    pub now: Option<Instant>,
    /// Whether it is to another version than the one that was asked before.
    pub is_other: bool,
}

impl Target {
    /// The upstream that the exchange's groups choose.
    pub(super) fn new(exchange: &Exchange<'_>) -> Target {
        let upstream = exchange.upstream();
        exchange.trace(|spans| spans.begins(upstream));
        let target = Target {
            upstream,
            fallback: None,
            is_search: false,
        };
        target.note(exchange);
        target
    }

    /// Whose version answers.
    pub(super) fn served_by<'a>(&self, exchange: &'a Exchange<'_>) -> ServedBy<'a> {
        ServedBy {
            upstream: Some(self.upstream),
            fallback: self.fallback,
            stands_in: self.fallback.is_some() && !self.is_search,
            assignment: &exchange.assignment,
        }
    }

    /// Goes over to another version, once.
    fn go_over(&mut self, exchange: &Exchange<'_>, to: OtherVersion, error: Option<&ProxyError>) {
        (self.upstream, self.fallback) = (to.upstream, Some(to));
        exchange.trace(|spans| {
            if let Some(error) = error {
                spans.failed(error);
            }
            spans.begins(to.upstream);
        });
    }

    /// Goes back to the version that the exchange's groups choose.
    pub(super) fn go_back(&mut self, exchange: &Exchange<'_>) {
        (self.upstream, self.fallback, self.is_search) = (exchange.upstream(), None, false);
    }

    /// Counts a response of another version than that of the user's group.
    pub(super) fn count_fallback(&self, exchange: &Exchange<'_>, worker: &Worker) {
        if exchange.is_pinned() {
            worker.telemetry().requests_pinned.add();
        }
        match (self.fallback, self.is_search) {
            (None, _) => {}
            (Some(_), true) => worker.telemetry().assets_followed.add(),
            (Some(_), false) => worker.telemetry().fallbacks.add(),
        }
    }

    /// The version that stands in where that of the target fails.
    fn stand_in(&self, exchange: &Exchange<'_>) -> Option<OtherVersion> {
        let stand_in = exchange.snapshot.plan.stand_in(&exchange.assignment);
        stand_in.filter(|_| self.fallback.is_none())
    }

    /// The version in which what that of the target does not have is looked for.
    fn other(&self, exchange: &Exchange<'_>) -> Option<OtherVersion> {
        let plan = &exchange.snapshot.plan;
        let other = plan.other_version(&exchange.assignment, self.upstream);
        other.filter(|it| self.fallback.is_none() && it.upstream != self.upstream)
    }

    /// The version that is asked after a response was refused, if there is one.
    pub(super) fn after(&self, exchange: &Exchange<'_>, refusal: Refusal) -> Option<OtherVersion> {
        match refusal {
            Refusal::Failed => self.stand_in(exchange),
            Refusal::Missing => self.other(exchange),
            Refusal::NotFound => None,
        }
    }

    /// Which responses are not passed on, because another version is asked: only to requests that may be
    /// sent twice.
    pub(super) fn refusals<'a>(&self, exchange: &'a Exchange<'_>) -> Refusals<'a> {
        let plan = &exchange.snapshot.plan;
        let may_repeat =
            exchange.method.is_safe() && !exchange.has_body && exchange.upgrade.is_none();
        let is_first = may_repeat && self.fallback.is_none() && !plan.experiments.is_empty();
        let chosen = exchange.assignment.chosen.filter(|_| is_first);
        let rules = chosen.map(|(experiment, ..)| &plan.experiment(experiment).versions);
        Refusals {
            failures: rules.map(|rules| &rules.when_down),
            missing: is_first && rules.is_none_or(|rules| rules.follows_assets),
            is_search: self.is_search,
        }
    }

    /// Adds the target to what is logged and counted.
    pub(super) fn note(&self, exchange: &Exchange<'_>) {
        let fallback = self.fallback.map(|it| it.experiment);
        exchange.progress.goes_to(self.upstream, fallback);
    }

    /// Adds an attempt, the first or a later one, to what is logged and counted.
    pub(super) fn note_attempt(
        &self,
        exchange: &Exchange<'_>,
        endpoint: &Rc<Endpoint>,
        attempts: u32,
    ) {
        let progress = &exchange.progress;
        progress.sent(&exchange.snapshot, endpoint, attempts);
    }
}

/// Which responses of a version are not passed on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusals<'a> {
    /// Which statuses are failures.
    failures: Option<&'a WhenDown>,
    /// Whether 404 is one.
    missing: bool,
    /// Whether the version is asked because another one answered 404.
    is_search: bool,
}

/// How long a version may take to say whether it has what another one does not have.
const SEARCH_MAX: Duration = Duration::from_secs(3);

impl Refusals<'_> {
    /// How long a response may take where others may take `usual`: behind a search, a response is there already.
    pub(super) fn longest(&self, usual: Duration) -> Duration {
        match self.is_search {
            true => usual.min(SEARCH_MAX),
            false => usual,
        }
    }

    /// Returns why a response of this status is not passed on.
    pub(super) fn refuses(&self, status: u16) -> Option<Refusal> {
        match status {
            200..400 => None,
            _ if self.is_search => Some(Refusal::NotFound),
            404 => self.missing.then_some(Refusal::Missing),
            _ => {
                let is_failure = self.failures.is_some_and(|it| it.is_failure(status));
                is_failure.then_some(Refusal::Failed)
            }
        }
    }
}

/// Why a response is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The version fails, and another one stands in.
    Failed,
    /// The version does not have what is asked for, and another one is asked.
    Missing,
    /// This version does not have it either.
    NotFound,
}

/// A connection where nothing needs to be waited for, as is usual.
pub(super) fn idle(exchange: &Exchange<'_>, target: &Target) -> Option<Acquired> {
    let upstreams = &exchange.snapshot.upstreams;
    let connection = upstreams.acquire_idle(request(exchange, target.upstream), exchange.began)?;
    Some(Acquired {
        connection,
        now: Some(exchange.began),
        is_other: false,
    })
}

/// A connection to the target. Where no endpoint of it can be connected to, the target becomes the
/// upstream of the version that stands in.
pub(super) async fn first(
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
    let Some(to) = target.stand_in(exchange) else {
        return Err(error);
    };
    target.go_over(exchange, to, Some(&error));
    Ok(acquire(target.upstream).await?.into())
}

/// A connection to another version, after the one of the target has failed by `error`, or was refused. `None`
/// leaves the target as it is.
pub(super) async fn other_version(
    exchange: &Exchange<'_>,
    target: &mut Target,
    to: OtherVersion,
    error: Option<&ProxyError>,
) -> Option<Acquired> {
    let before = *target;
    target.go_over(exchange, to, error);
    let upstreams = &exchange.snapshot.upstreams;
    let acquiring = Box::pin(upstreams.acquire(request(exchange, target.upstream)));
    let acquired = tokio::select! {
        biased;
        acquired = acquiring => acquired.map_err(ProxyError::from),
        () = until(exchange.deadline) => Err(ProxyError::new(ErrorCode::TotalTimedOut)),
    };
    match acquired {
        Ok(connection) => Some(Acquired {
            is_other: true,
            ..connection.into()
        }),
        Err(error) => {
            exchange.trace(|spans| spans.failed(&error));
            *target = before;
            None
        }
    }
}

/// Whether a request that may have reached the upstream may be sent once more.
pub(super) fn may_repeat(
    exchange: &Exchange<'_>,
    target: &Target,
    before: &PooledConnection,
) -> bool {
    let others = exchange.snapshot.upstreams.has_others(target.upstream);
    exchange.method.is_safe() && !exchange.has_body && (before.reused || others)
}

/// A connection for a request that got no response over the one `before`, or the error that is to be
/// answered: `error` where there is nothing else to try.
pub(super) async fn again(
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
pub(super) async fn until(deadline: Option<Instant>) {
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
            is_other: false,
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
