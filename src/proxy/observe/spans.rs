//! The spans of a request, while it lasts: which ones they are, and what becomes of each time that
//! it is sent.

use crate::config::plan::EndpointAddress;
use crate::experiment::UpstreamIndex;
use crate::experiment::http_view::HeaderView;
use crate::otel::sampled_request::{Attempt, SampledRequest, Trace};
use crate::proxy::error_response::ProxyError;
use crate::proxy::observe::logged_request::{LoggedRequest, bounded};
use crate::proxy::observe::trace_context::{self, Correlation, TRACESTATE};
use crate::proxy::snapshot::Snapshot;
use crate::telemetry::HttpProtocol;
use crate::upstream::AcquireError;
use http::Version;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The longest `tracestate` that a span keeps, in bytes.
const STATE_BYTES_MAX: usize = 1024;

/// A request that will be exported.
#[derive(Debug)]
pub(crate) struct SpanRecorder {
    snapshot: Rc<Snapshot>,
    began: Instant,
    /// What is known of it so far.
    pub exchange: SampledRequest,
    attempts: RefCell<Vec<Attempt>>,
}

impl SpanRecorder {
    /// Begins with a request that is sampled; `None` where it is not, or where nothing is exported.
    pub(crate) fn of<'a, F: HeaderView<'a>>(
        snapshot: &Rc<Snapshot>,
        asked: &LoggedRequest<'a, F>,
        target: &str,
        tags: &Correlation,
        began: Instant,
    ) -> Option<Box<SpanRecorder>> {
        snapshot.outbox.as_ref()?;
        let fields = asked.fields;
        let said = tags.begins.or_else(|| trace_context::parent(fields));
        let said = said.filter(|it| it.is_sampled())?;
        // One that was begun here names nobody.
        let begun = tags.begins.is_some();
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let exchange = SampledRequest {
            trace: Trace {
                id: said.trace,
                parent: (!begun).then_some(said.span),
                flags: said.flags,
                state: state(fields).filter(|_| !begun),
            },
            span: span(),
            began: since_epoch
                .unwrap_or_default()
                .saturating_sub(began.elapsed()),
            took: Duration::ZERO,
            secure: asked.secure,
            client: asked.client,
            method: bounded(asked.method.as_str().as_bytes()),
            host: asked.host().map(bounded),
            path: bounded(target.as_bytes()),
            version: match asked.protocol {
                HttpProtocol::Http2 => "2",
                HttpProtocol::Http11 => "1.1",
                HttpProtocol::Http10 => "1.0",
            },
            user_agent: asked.user_agent().map(bounded),
            experiments: None,
            group: None,
            assigned_by: None,
            fallback: None,
            upstream: None,
            status: None,
            error: None,
            end: "",
            attempts: Vec::new(),
        };
        Some(Box::new(SpanRecorder {
            snapshot: Rc::clone(snapshot),
            began,
            exchange,
            attempts: RefCell::default(),
        }))
    }

    /// Gives away what is known in the end.
    pub(crate) fn give(self: Box<Self>) {
        let mut exchange = self.exchange;
        exchange.attempts = self.attempts.into_inner();
        if let Some(outbox) = &self.snapshot.outbox {
            outbox.give(Box::new(exchange));
        }
    }

    /// A connection to this version of the site is looked for.
    pub(crate) fn begins(&self, upstream: UpstreamIndex) {
        let upstream = self.snapshot.plan.upstream(upstream);
        self.attempts.borrow_mut().push(Attempt {
            span: span(),
            after: self.began.elapsed(),
            took: None,
            upstream: upstream.name.to_string(),
            endpoint: None,
            version: None,
            status: None,
            error: None,
        });
    }

    /// None was, after all.
    pub(crate) fn forgets(&self) {
        self.attempts.borrow_mut().pop();
    }

    /// Whom it names as its parent where nobody else sends it.
    pub(crate) fn parent(&self) -> trace_context::TraceParent {
        trace_context::TraceParent {
            trace: self.exchange.trace.id,
            span: self.exchange.span,
            flags: self.exchange.trace.flags,
        }
    }

    /// One was lent: what is sent on it names this attempt as its parent.
    pub(crate) fn sends_to(
        &self,
        endpoint: &EndpointAddress,
    ) -> Option<trace_context::TraceParent> {
        let mut attempts = self.attempts.borrow_mut();
        let attempt = attempts.last_mut()?;
        attempt.endpoint = Some(place(endpoint));
        Some(trace_context::TraceParent {
            span: attempt.span,
            ..self.parent()
        })
    }

    /// The head of its answer is there; it ends with the request.
    pub(crate) fn answered(&self, status: u16, version: Version) {
        if let Some(attempt) = self.attempts.borrow_mut().last_mut() {
            attempt.status = Some(status);
            attempt.version = Some(match version {
                Version::HTTP_2 => "2",
                Version::HTTP_11 => "1.1",
                _ => "1.0",
            });
        }
    }

    /// It came to nothing. Said once more, this changes nothing.
    pub(crate) fn failed(&self, error: &ProxyError) {
        let acquire = error.source.as_ref();
        let acquire = acquire.and_then(|source| source.downcast_ref::<AcquireError>());
        if matches!(acquire, Some(AcquireError::Down { .. })) {
            // Nobody was asked.
            return self.forgets();
        }
        let mut attempts = self.attempts.borrow_mut();
        let last = attempts.last_mut().filter(|it| it.took.is_none());
        if let Some(attempt) = last {
            attempt.error = Some(error.code.token());
            attempt.took = Some(self.began.elapsed().saturating_sub(attempt.after));
            if let Some(endpoint) = acquire.and_then(AcquireError::endpoint) {
                attempt.endpoint = Some(place(endpoint));
            }
        }
    }
}

fn place(endpoint: &EndpointAddress) -> (&'static str, String, u16) {
    (endpoint.scheme(), endpoint.host.to_string(), endpoint.port)
}

/// A new span: any but zero.
fn span() -> u64 {
    fastrand::u64(1..)
}

/// Several lines are one list (Trace Context, 3.3.1). One that is too long is not kept, for it
/// would mean something else when it is cut; it goes on to the upstream all the same.
fn state<'a>(fields: impl HeaderView<'a>) -> Option<String> {
    let visible = |line: &&[u8]| line.iter().all(|byte| (b' '..=b'~').contains(byte));
    let name = &TRACESTATE;
    let lines = fields.all(name).filter(visible);
    let lines: Vec<&str> = lines
        .filter_map(|it| std::str::from_utf8(it).ok())
        .collect();
    let bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
    (1..=STATE_BYTES_MAX)
        .contains(&bytes)
        .then(|| lines.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue};

    #[track_caller]
    fn kept(lines: &[&str], expected: Option<&str>) {
        let mut fields = HeaderMap::new();
        for line in lines {
            fields.append(TRACESTATE, HeaderValue::from_str(line).unwrap());
        }
        assert_eq!(state(&fields).as_deref(), expected);
    }

    #[test]
    fn a_state_is_one_list_of_bounded_length() {
        kept(&[], None);
        kept(&["a=1"], Some("a=1"));
        kept(&["a=1", "b=2,c=3"], Some("a=1,b=2,c=3"));
        let long = "x".repeat(STATE_BYTES_MAX - 1);
        kept(&[&long], Some(&long));
        kept(&[&long, "a=1"], None);
    }
}
