//! The spans of a request, while it lasts: which ones they are, and what becomes of each time that
//! it is sent.

use super::handle::Client;
use super::headers;
use super::reply::Refusal;
use super::snapshot::Snapshot;
use super::trace::{self, TRACESTATE};
use crate::config::plan::Endpoint;
use crate::experiment::UpstreamIndex;
use crate::spans::exchange::{Attempt, Exchange, Trace};
use crate::upstream::LendError;
use http::{HeaderMap, Request, Version};
use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The longest `tracestate` that a span keeps, in bytes.
const STATE_BYTES_MAX: usize = 1024;

/// A request that will be exported.
#[derive(Debug)]
pub struct Trail {
    snapshot: Rc<Snapshot>,
    /// What it belongs to.
    pub trace: Trace,
    /// Its own span.
    pub span: u64,
    began: Instant,
    /// The same since the Unix epoch.
    pub began_at: Duration,
    /// Whether the client came over TLS, here or at a trusted peer.
    pub secure: bool,
    /// Who asks, here or at a trusted peer.
    pub client: IpAddr,
    attempts: RefCell<Vec<Attempt>>,
}

impl Trail {
    /// Begins with a request that is sampled; `None` where it is not, or where nothing is exported.
    /// With `begun` its `traceparent` was made here, and names nobody.
    pub fn of<B>(
        snapshot: &Rc<Snapshot>,
        client: &Client,
        request: &Request<B>,
        began: Instant,
        begun: bool,
    ) -> Option<Box<Trail>> {
        snapshot.outbox.as_ref()?;
        let said = trace::parent(request.headers()).filter(|it| it.is_sampled())?;
        let (plan, fields) = (&*snapshot.plan, request.headers());
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let trusted = headers::trusts(plan, client.ip);
        Some(Box::new(Trail {
            snapshot: Rc::clone(snapshot),
            trace: Trace {
                id: said.trace,
                parent: (!begun).then_some(said.span),
                flags: said.flags,
                state: state(fields),
            },
            span: span(),
            began,
            began_at: since_epoch
                .unwrap_or_default()
                .saturating_sub(began.elapsed()),
            secure: client.secure || (trusted && headers::over_tls(fields)),
            client: headers::asker(plan, fields, client.ip),
            attempts: RefCell::default(),
        }))
    }

    /// Gives away what is known in the end.
    pub fn give(&self, exchange: Exchange) {
        if let Some(outbox) = &self.snapshot.outbox {
            outbox.give(Box::new(exchange));
        }
    }

    /// What became of each time that it was sent.
    pub fn take_attempts(&mut self) -> Vec<Attempt> {
        std::mem::take(self.attempts.get_mut())
    }

    /// A connection to this version of the site is looked for.
    pub fn begins(&self, upstream: UpstreamIndex) {
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
    pub fn forgets(&self) {
        self.attempts.borrow_mut().pop();
    }

    /// One was lent: what is sent on it names this attempt as its parent.
    pub fn goes(&self, endpoint: &Endpoint, fields: &mut HeaderMap) {
        if let Some(attempt) = self.attempts.borrow_mut().last_mut() {
            attempt.endpoint = Some(place(endpoint));
            let parent = trace::Parent {
                trace: self.trace.id,
                span: attempt.span,
                flags: self.trace.flags,
            };
            parent.write(fields);
        }
    }

    /// The head of its answer is there; it ends with the request.
    pub fn answered(&self, status: u16, version: Version) {
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
    pub fn failed(&self, refusal: &Refusal) {
        let source = refusal.source.as_ref();
        let error = source.and_then(|source| source.downcast_ref::<LendError>());
        if matches!(error, Some(LendError::Down { .. })) {
            // Nobody was asked.
            return self.forgets();
        }
        let mut attempts = self.attempts.borrow_mut();
        let last = attempts.last_mut().filter(|it| it.took.is_none());
        if let Some(attempt) = last {
            let (_, token, _) = refusal.reason.terms();
            attempt.error = Some(token);
            attempt.took = Some(self.began.elapsed().saturating_sub(attempt.after));
            if let Some(endpoint) = error.and_then(LendError::endpoint) {
                attempt.endpoint = Some(place(endpoint));
            }
        }
    }
}

fn place(endpoint: &Endpoint) -> (&'static str, String, u16) {
    (endpoint.scheme(), endpoint.host.to_string(), endpoint.port)
}

/// A new span: any but zero.
fn span() -> u64 {
    fastrand::u64(1..)
}

/// Several lines are one list (Trace Context, 3.3.1). One that is too long is not kept, for it
/// would mean something else when it is cut; it goes on to the upstream all the same.
fn state(fields: &HeaderMap) -> Option<String> {
    let lines = fields.get_all(TRACESTATE).iter();
    let lines: Vec<&str> = lines.filter_map(|line| line.to_str().ok()).collect();
    let bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
    (1..=STATE_BYTES_MAX)
        .contains(&bytes)
        .then(|| lines.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

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
