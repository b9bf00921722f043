//! One request and its response, between the phases of the [pipeline](super::pipeline).

use crate::config::plan::{CacheRules, EndpointAddress, Plan, RouteAnswer, RouteIndex};
use crate::experiment::identity::Visitor;
use crate::experiment::not_counted::{NotCounted, UncountedRequest};
use crate::experiment::record::Exposure;
use crate::experiment::resolve::{AssignedBy, Assignment};
use crate::experiment::units::Units;
use crate::experiment::{UpstreamIndex, UserId};
use crate::proxy::changes::Changes;
use crate::proxy::client::ClientInfo;
use crate::proxy::error_response::ErrorCode;
use crate::proxy::h1::body::ClientFraming;
use crate::proxy::h1::request_head::Request;
use crate::proxy::h1::response_head::BodyFraming;
use crate::proxy::headers::isolated_cookies::PlainCookies;
use crate::proxy::mirror::collected::OriginalBody;
use crate::proxy::observe::exposure_log::UnfinishedExposures;
use crate::proxy::observe::logged_request::LoggedHead;
use crate::proxy::observe::progress::Progress;
use crate::proxy::observe::spans::SpanRecorder;
use crate::proxy::observe::trace_context::{Correlation, PARENT_BYTES, RequestId};
use crate::proxy::open_page::OpenPage;
use crate::proxy::request_body::BodySource;
use crate::proxy::snapshot::{Snapshot, Worker};
use crate::proxy::timer::Timer;
use crate::telemetry::HttpProtocol;
use crate::upstream::PooledConnection;
use http::Method;
use smallvec::SmallVec;
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A request that watershed answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LocalResponse {
    /// An error.
    Refused(ErrorCode),
    /// A TRACE or OPTIONS whose `Max-Forwards` is used up (RFC 9110, 7.6.2).
    LastHop,
    /// Events that a browser reports.
    Report,
    /// The question of an authority whether a name is this site's.
    Challenge,
    /// A request without TLS to a site that is reached over TLS only.
    ToHttps,
    /// What a route or a group of the user says.
    OfPlan,
}

/// One request and its response. It borrows from the bytes of the request's head. When it is dropped,
/// it is counted, logged and exported ([`observe`](super::observe)).
pub(super) struct Exchange<'b> {
    /// The worker that serves it.
    pub worker: &'b Rc<Worker>,
    /// The configuration that applies until the response ends, whatever is reloaded meanwhile.
    pub snapshot: Rc<Snapshot>,
    /// The request's method.
    pub method: Method,
    /// Whether the request has a body.
    pub has_body: bool,
    /// The user's groups, and the upstream that they choose.
    pub assignment: Assignment,
    /// How many bytes of the input belong to the request.
    pub input_bytes: usize,
    /// The user, where one may be recorded.
    pub visitor: Option<Visitor<'b>>,
    /// What the request names besides the user, where experiments divide such units.
    pub units: Option<Box<Units<'b>>>,
    /// Which segments the user is in, where the file has some and the request may be an exposure.
    pub segments: Option<Box<str>>,
    /// Set where the request is served but not counted.
    pub uncounted: Option<Box<UncountedRequest>>,
    /// What shared caches are told.
    pub cache: CacheRules,
    /// The request's path.
    pub path: &'b str,
    /// When the request's head was complete.
    pub began: Instant,
    /// The same by the system's clock, in Unix milliseconds.
    pub began_ms: u64,
    /// Whether the client uses TLS, here or at a trusted peer.
    pub over_tls: bool,
    /// Whether the client's connection ends with the response.
    pub closes: bool,
    /// Whether the client speaks HTTP/1.0.
    pub http_10: bool,
    /// The protocols that the client asks to switch to.
    pub upgrade: Option<&'b [u8]>,
    /// Whether the client takes trailers.
    pub takes_trailers: bool,
    /// When the response must have ended (`timeouts.total`).
    pub deadline: Option<Instant>,
    /// Set where watershed answers the request itself.
    pub local: Option<LocalResponse>,
    /// The request's head, where watershed answers it itself.
    pub head: Option<Box<Request<'b>>>,
    /// Values of `Set-Cookie` that keep an override which came in a link, or the user's groups.
    pub cookies: Vec<String>,
    /// What is to be remembered of the page that the response is, or belongs to.
    pub open_page: Option<Box<OpenPage>>,
    /// Where the endpoint's name stands in the forwarded head, where the client named no host.
    pub host_at: Cell<Option<(usize, usize)>>,
    /// What the file changes in requests and responses, where it changes any.
    pub changes: Option<Box<Changes<'b>>>,
    /// Names of isolated cookies that came without a mark, where versions have cookies for themselves.
    pub plain_cookies: RefCell<PlainCookies>,
    /// What only logged, exported or correlated requests have: on the heap, so that the others need
    /// not carry it.
    pub extras: Option<Box<Extras<'b>>>,
    /// The exposures that were journaled.
    pub exposures: RefCell<SmallVec<[Exposure; 2]>>,
    /// What collects the response's body for a comparison, where the request was copied.
    pub mirrored: OnceCell<Box<OriginalBody>>,
    /// What has happened.
    pub progress: Progress,
}

/// What only logged, exported or correlated requests have.
pub(super) struct Extras<'b> {
    /// The request ID and trace context, as received or made.
    pub correlation: Correlation,
    /// Where `traceparent` stands in the forwarded head.
    pub parent_at: Cell<Option<usize>>,
    /// What is logged of the request's head.
    pub logged: Option<LoggedHead<'b>>,
    /// The spans that are exported.
    pub spans: Option<Box<SpanRecorder>>,
}

/// A response that is recorded and whose head is written for the client.
pub(super) struct RecordedResponse {
    /// What follows the head.
    pub follows: BodyFraming,
    /// Its status.
    pub status: u16,
    /// How the client gets a body of unknown length.
    pub framed: ClientFraming,
    /// How long the upstream's head was, in bytes.
    pub head_bytes: usize,
    /// Whether the upstream's connection can carry another request.
    pub keeps: bool,
    /// How long the upstream keeps the connection without a request, if it says so.
    pub idle_for: Option<Duration>,
    /// Whether the client's connection ends with the response.
    pub closes: bool,
    /// How long the upstream may pause within the body.
    pub pause_max: Duration,
    /// When the upstream's head was complete.
    pub at: Instant,
}

/// A response whose head is ready for the client, and the upstream's connection that the rest of it
/// comes over. Watershed's own has none, and is whole.
pub(super) struct Responding {
    /// The response.
    pub response: RecordedResponse,
    /// The upstream's connection.
    pub connection: Option<PooledConnection>,
}

impl Responding {
    /// A response of watershed's own.
    pub(super) fn own(response: RecordedResponse) -> Responding {
        Responding {
            response,
            connection: None,
        }
    }
}

/// The client's side of an exchange: it gives the request's body and takes interim responses.
pub(super) trait ClientStream: BodySource {
    /// The worker that serves the client.
    fn worker(&self) -> &Rc<Worker>;

    /// What is known of the client.
    fn info(&self) -> &ClientInfo;

    /// Measures how long something is waited for.
    fn timer(&mut self) -> &mut Timer;

    /// Sends an interim response. False when the client cannot be reached any more.
    async fn send_interim(&mut self, exchange: &Exchange<'_>, interim: &[u8]) -> bool;
}

/// Returns the upstream that the user's groups choose, or else that of the route, or the default one.
pub(super) fn wanted_upstream(
    plan: &Plan,
    assignment: &Assignment,
    uncounted: Option<&UncountedRequest>,
    route: Option<RouteIndex>,
) -> UpstreamIndex {
    if let Some(upstream) = plan.counting.preflight
        && uncounted.is_some_and(|it| it.why == NotCounted::Preflight)
    {
        return upstream;
    }
    if let Some((_, _, upstream)) = assignment.chosen {
        return upstream;
    }
    match route.map(|route| &plan.route(route).answer) {
        Some(RouteAnswer::Upstream(upstream)) => *upstream,
        _ => plan.default,
    }
}

impl Exchange<'_> {
    /// The upstream that the user's groups choose, or else the default one.
    pub(super) fn upstream(&self) -> UpstreamIndex {
        let uncounted = self.uncounted.as_deref();
        let route = self.changes.as_ref().and_then(|changes| changes.route);
        wanted_upstream(&self.snapshot.plan, &self.assignment, uncounted, route)
    }

    /// Whether the version of an open page is asked, and not that of the user's group.
    pub(super) fn is_pinned(&self) -> bool {
        let mut inside = self.assignment.inside.iter();
        inside.any(|it| it.by == AssignedBy::Pinned)
    }

    /// The ID that decides groups.
    pub(super) fn user(&self) -> Option<UserId<'_>> {
        self.visitor.as_ref().map(Visitor::assigned_by)
    }

    /// Whether the client asks for a WebSocket over HTTP/2 (RFC 8441). The translation of HTTP/2
    /// removes the `Upgrade` of any other request.
    pub(super) fn is_extended_connect(&self) -> bool {
        self.upgrade.is_some() && self.progress.protocol() == HttpProtocol::Http2
    }

    /// What is logged of the request's head, and the request ID if that was made here.
    pub(super) fn logged(&self) -> Option<(&LoggedHead<'_>, Option<&[u8]>)> {
        let extras = self.extras.as_ref()?;
        let id = extras.correlation.id.as_ref().filter(|id| id.made);
        Some((extras.logged.as_ref()?, id.map(RequestId::as_bytes)))
    }

    /// The `traceparent` that was made here.
    pub(super) fn begun_trace(&self) -> Option<[u8; PARENT_BYTES]> {
        let parent = self.extras.as_ref()?.correlation.begins?;
        Some(parent.text())
    }

    /// Adds to the exchange's spans, where they are exported.
    pub(super) fn trace(&self, add: impl FnOnce(&SpanRecorder)) {
        if let Some(extras) = &self.extras
            && let Some(spans) = &extras.spans
        {
            add(spans);
        }
    }

    /// The request ID that the response carries, if there is one.
    pub(super) fn request_id(&self) -> Option<&[u8]> {
        let id = self.extras.as_ref()?.correlation.id.as_ref()?;
        Some(id.as_bytes())
    }

    /// The body of a request that arrived whole with its head.
    pub(super) fn inline_body<'i>(&self, input: &'i [u8]) -> &'i [u8] {
        let head = self
            .head
            .as_ref()
            .map_or(self.input_bytes, |it| it.head_bytes);
        input.get(head..self.input_bytes).unwrap_or_default()
    }

    /// Completes the forwarded head for this endpoint: `traceparent` names the attempt, and `Host`
    /// the endpoint where the client named none (RFC 9112, 3.2).
    pub(super) fn address_to(&self, endpoint: &EndpointAddress, forwarded: &mut Vec<u8>) {
        self.trace(|spans| {
            if let Some(parent) = spans.sends_to(endpoint)
                && let Some(at) = self
                    .extras
                    .as_ref()
                    .and_then(|extras| extras.parent_at.get())
                && let Some(place) = forwarded.get_mut(at..at + PARENT_BYTES)
            {
                place.copy_from_slice(&parent.text());
            }
        });
        if let Some((from, to)) = self.host_at.get() {
            let line = format!("host: {}\r\n", endpoint.authority());
            self.host_at.set(Some((from, from + line.len())));
            forwarded.splice(from..to, line.into_bytes());
        }
    }

    /// The time left until the deadline, but at most `longest`.
    pub(super) fn time_left(&self, longest: Duration) -> Duration {
        match self.deadline {
            Some(_) => self.time_left_from(Instant::now(), longest),
            None => longest,
        }
    }

    /// The same as seen from this time.
    pub(super) fn time_left_from(&self, from: Instant, longest: Duration) -> Duration {
        self.deadline.map_or(longest, |deadline| {
            longest.min(deadline.saturating_duration_since(from))
        })
    }

    /// Whether the deadline has passed.
    pub(super) fn is_late(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// When a response whose head came at this time was journaled, in Unix milliseconds.
    pub(super) fn answered_ms(&self, at: Instant) -> u64 {
        let latency = at.saturating_duration_since(self.began);
        let system_ms = self.began_ms + latency.as_millis() as u64;
        self.worker.journal.borrow().clock().read(at, system_ms)
    }

    /// What is journaled if the response does not reach its end.
    pub(super) fn unfinished(&self, worker: &Rc<Worker>) -> Option<Box<UnfinishedExposures>> {
        let visitor = self.visitor.clone()?.into_owned();
        let units = self.units.as_deref().cloned();
        let units = units.map(|units| Box::new(units.into_owned()));
        let exposures = self.exposures.borrow().clone();
        UnfinishedExposures::of(worker, &self.snapshot, (visitor, units), exposures)
    }
}
