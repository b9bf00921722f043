//! The phases that every request runs through, whichever protocol its client speaks and whatever
//! the file asks for:
//!
//! | phase | where | what happens |
//! | --- | --- | --- |
//! | accept | [`worker`](super::worker), [`connection`](super::connection) | a connection is counted, its protocol detected, TLS accepted |
//! | parse | [`forward::read`] | the request's head is read; [`h2`](super::h2) writes its requests as HTTP/1 first |
//! | admit | [`admit`] | limits; requests that watershed answers itself |
//! | identify | [`identify`] | the user's ID, or a minted one |
//! | assign | [`assign`] | the user's groups, and the upstream that they choose |
//! | acquire | [`attempts`], [`acquire`](super::acquire) | a connection to a healthy endpoint, or to the version that stands in |
//! | send | [`attempts`], [`send`](mod@super::send) | the request goes out; the response's head comes in |
//! | record | [`respond`](mod@super::respond) | the exposure and events are journaled |
//! | respond | [`respond`](mod@super::respond) | the client gets the head; [`h1`](super::h1) and [`h2`](super::h2) stream the body |
//! | log | [`observe`](super::observe) | the metrics, one line, one span, when the exchange is dropped |
//!
//! [`begin`] runs the phases from parse to assign, [`exchange_with_upstream`] those from acquire to
//! respond. An [`Exchange`] carries what they find from one to the next.

use super::acme_challenge;
use super::attempts::{self, AttemptFailure};
use super::changes::{self, Changes, ServedBy};
use super::client::{ClientInfo, Protocol};
use super::error_response::ErrorCode;
use super::exchange::{ClientStream, Exchange, Extras, LocalResponse, Responding, wanted_upstream};
use super::forward::{self, ForwardedRequest, WrittenHead};
use super::h1::request_head::{Body, Request};
use super::h1::response_head::HeadWriter;
use super::headers::believed_client::{self, BelievedClient, believed_client};
use super::local_response;
use super::mirror;
use super::observe::logged_request::{LoggedHead, LoggedRequest};
use super::observe::progress::Progress;
use super::observe::spans::SpanRecorder;
use super::open_page::{self, OpenPage};
use super::policy;
use super::request_body::RequestBody;
use super::respond::Provenance;
use super::snapshot::{Snapshot, Worker};
use crate::config::plan::{Plan, RouteIndex};
use crate::experiment::http_view::{HeaderView as _, RequestView};
use crate::experiment::identity::{self, Visitor};
use crate::experiment::not_counted::{NotCounted, UncountedRequest};
use crate::experiment::override_token::Override;
use crate::experiment::page_view::{PageRequest, PageView, is_of_part};
use crate::experiment::resolve::{self, AssignedBy, Assignment, Subject};
use crate::experiment::segment;
use crate::experiment::units::Units;
use crate::experiment::{ExperimentIndex, GroupIndex, UpstreamIndex};
use crate::journal;
use crate::telemetry::HttpProtocol;
use http::header::TRAILER;
use std::cell::{Cell, OnceCell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Instant;

/// What stands at the beginning of a client's input.
#[expect(
    clippy::large_enum_variant,
    reason = "never kept: moved once, on the stack"
)]
pub(super) enum Begun<'b> {
    /// A head that is not complete.
    Incomplete,
    /// A head that cannot be parsed.
    Invalid(ErrorCode),
    /// A request, and the part of its body that has not come with its head.
    Request(Exchange<'b>, Option<Box<RequestBody>>),
}

/// Runs the phases parse, admit, identify and assign for the request at the beginning of `input`,
/// the first or a later one of its connection, and writes the head that the upstream gets.
pub(super) fn begin<'b>(
    worker: &'b Rc<Worker>,
    snapshot: Rc<Snapshot>,
    (client, requests_before): (&Rc<ClientInfo>, u32),
    input: &'b [u8],
    forwarded: &mut Vec<u8>,
) -> Begun<'b> {
    let plan = &*snapshot.plan;
    let trusted = believed_client::trusts(plan, client.address);
    let mut request = match forward::read(&snapshot, client, trusted, input) {
        Ok(Some(request)) => request,
        Ok(None) => return Begun::Incomplete,
        Err(code) => return Begun::Invalid(code),
    };
    let (began, began_ms) = (Instant::now(), journal::system_ms());
    let believed = believed_client(plan, &request, (client.address, client.secure));
    request.client = Some(believed.address);
    let progress = Progress::new(worker, protocol(client, &request), began);
    let at = (trusted, began, began_ms);
    let extras = observe(&snapshot, (client, believed), &request, at);
    let at = (believed.over_tls, began, began_ms);
    let decided = decide(worker, &snapshot, &request, at);

    let inline = inline_bytes(&request, input);
    progress.received(inline as u64);
    let new_changes = || Box::new(Changes::new(&request, trusted, decided.route));
    let changes = snapshot.has_changes.then(new_changes);
    let with = (extras.as_deref(), changes.as_deref());
    let from = (&*snapshot, (&**client, trusted));
    let inline_body = &input[request.head_bytes..][..inline];
    let written = decided.forward(from, with, (&mut request, inline_body), forwarded);
    let came = (input, inline);
    let body = rest_of_body(&snapshot, client, &request, came, decided.local, forwarded);
    let input_bytes = input_bytes(&request, came, body.is_some());
    // An exchange is large: it is made where it is needed.
    Begun::Request(
        Exchange {
            worker,
            path: (&request).path(),
            has_body: request.body != Body::None,
            method: request.method.clone(),
            assignment: decided.assignment,
            input_bytes,
            visitor: decided.visitor,
            units: decided.units,
            segments: decided.segments,
            uncounted: decided.uncounted,
            cache: plan.cache.rules_of(&request),
            began,
            began_ms,
            over_tls: decided.over_tls,
            closes: request.closes || requests_before + 1 >= plan.limits.requests,
            http_10: request.http_10,
            upgrade: request.upgrade(),
            takes_trailers: request.takes_trailers(),
            deadline: plan.timeouts.total.map(|total| began + total),
            head: decided.local.map(|_| Box::new(request)),
            local: decided.local,
            cookies: decided.cookies,
            open_page: decided.open_page,
            host_at: Cell::new(written.host_at.map(|at| (at, at))),
            plain_cookies: RefCell::new(written.plain_cookies),
            changes,
            extras,
            exposures: RefCell::default(),
            mirrored: OnceCell::new(),
            progress,
            snapshot,
        },
        body,
    )
}

/// What the phases admit, identify and assign have found.
struct Decided<'b> {
    local: Option<LocalResponse>,
    over_tls: bool,
    visitor: Option<Visitor<'b>>,
    units: Option<Box<Units<'b>>>,
    uncounted: Option<Box<UncountedRequest>>,
    assignment: Assignment,
    segments: Option<Box<str>>,
    cookies: Vec<String>,
    route: Option<RouteIndex>,
    open_page: Option<Box<OpenPage>>,
}

impl<'b> Decided<'b> {
    /// Writes the head that the upstream gets, and the part of the body that came with it. What is answered here is sent to nobody, and is read as it came.
    fn forward(
        &self,
        (snapshot, client): (&Snapshot, (&ClientInfo, bool)),
        (extras, changes): (Option<&Extras<'b>>, Option<&Changes<'b>>),
        (request, inline_body): (&mut Request<'_>, &[u8]),
        forwarded: &mut Vec<u8>,
    ) -> WrittenHead {
        if self.local.is_some() {
            return WrittenHead::default();
        }
        let of = ForwardedRequest {
            snapshot,
            client,
            over_tls: self.over_tls,
            visitor: self.visitor.as_ref(),
            extras,
            changes,
            open_page: self.open_page.as_deref(),
        };
        let by = ServedBy {
            upstream: Some(self.upstream(&snapshot.plan)),
            fallback: None,
            stands_in: false,
            assignment: &self.assignment,
        };
        let written = forward::write(&of, by, request, forwarded);
        forwarded.extend_from_slice(inline_body);
        written
    }

    /// The upstream that the user's groups choose, or else that of the route, or the default one.
    fn upstream(&self, plan: &Plan) -> UpstreamIndex {
        wanted_upstream(
            plan,
            &self.assignment,
            self.uncounted.as_deref(),
            self.route,
        )
    }
}

/// Runs the phases *admit*, *identify* and *assign*.
fn decide<'b>(
    worker: &Worker,
    snapshot: &Snapshot,
    request: &Request<'b>,
    (over_tls, began, began_ms): (bool, Instant, u64),
) -> Decided<'b> {
    let plan = &*snapshot.plan;
    let local = admit(worker, plan, request, (over_tls, began));
    let (visitor, not_counted) = identify(snapshot, request, local, began_ms);
    policy::note_id(worker, plan, visitor.as_ref());
    let is_known = visitor.is_some() || not_counted.is_some();
    let overriding = honour_override(plan, request, is_known, began_ms);
    let uncounted = not_counted.map(|why| {
        let experiments = resolve::eligible(&plan.experiments, request).collect();
        Box::new(UncountedRequest { why, experiments })
    });
    let units = policy::units(plan, request);
    let kept = policy::kept_groups(plan, request, visitor.as_ref(), began_ms);
    let forced = overriding.as_ref();
    let subject = visitor.as_ref().map(|visitor| Subject {
        user: visitor.assigned_by(),
        forced,
        kept: kept.as_deref(),
        units: units.as_deref(),
    });
    let (mut assignment, route) = match (local, not_counted) {
        (Some(_), _) => (Assignment::default(), None),
        (None, Some(NotCounted::Preflight)) => {
            let mut assignment = Assignment::default();
            let route = routed(plan, request, &mut assignment);
            (assignment, route)
        }
        _ => assign(plan, request, subject.as_ref(), forced),
    };
    let open_page = match local {
        Some(_) => None,
        None => {
            let to = (&mut assignment, route);
            open_page::follow(snapshot, request, to, (is_known, began_ms))
        }
    };
    let is_answered_here = snapshot.has_changes
        && local.is_none()
        && changes::is_answered_here(plan, &assignment, route);
    let segments = segments(plan, request, visitor.as_ref(), &assignment, began_ms);
    let keep_override = request.override_token().zip(overriding.as_ref());
    let keep_override =
        keep_override.and_then(|(token, it)| policy::keep_override(token, it, began_ms, over_tls));
    let counted = visitor.as_ref().filter(|_| not_counted.is_none());
    let keep_groups = counted.zip(kept.as_deref()).and_then(|(visitor, kept)| {
        policy::keep_groups(plan, visitor, kept, &assignment, (began_ms, over_tls))
    });
    // Few requests have any.
    let cookies = match (keep_override, keep_groups) {
        (None, None) => Vec::new(),
        (one, other) => one.into_iter().chain(other).collect(),
    };
    Decided {
        local: local.or(is_answered_here.then_some(LocalResponse::OfPlan)),
        over_tls,
        visitor,
        units,
        uncounted,
        assignment,
        segments,
        cookies,
        route,
        open_page,
    }
}

/// Phase *assign*. What no experiment matches follows the page that it belongs to, unless a route says who answers it.
pub fn assign<'a>(
    plan: &Plan,
    request: impl RequestView<'a>,
    subject: Option<&Subject<'_>>,
    forced: Option<&Override>,
) -> (Assignment, Option<RouteIndex>) {
    let experiments = &plan.experiments;
    let mut assignment = match subject {
        Some(subject) => resolve::resolve(experiments, request, subject),
        None => resolve::unrecorded(experiments, request, forced),
    };
    let route = routed(plan, request, &mut assignment);
    // `Referer` is the client's word, and a route that of the file: who answers by it stays so.
    let is_answered = route.is_some_and(|route| plan.route(route).names_answer);
    if assignment.chosen.is_none()
        && !is_answered
        && experiments.follows_pages()
        && let Some(page) = PageView::of(request)
    {
        let of_page = match subject {
            Some(subject) => resolve::resolve(experiments, page, subject),
            None => resolve::unrecorded(experiments, page, forced),
        };
        assignment.follow(experiments, of_page);
    }
    if assignment.chosen.is_none()
        && !is_answered
        && let Some(version) = forced.and_then(|forced| of_override(plan, request, forced))
    {
        assignment.pin(experiments, version, AssignedBy::Override);
    }
    let route = route.filter(|_| assignment.chosen.is_none());
    (assignment, route)
}

/// The version that a tester sees, for what the files of a page load: it names no page that could be followed, and nobody
/// remembers pages of an override.
fn of_override<'a>(
    plan: &Plan,
    request: impl RequestView<'a>,
    forced: &Override,
) -> Option<(ExperimentIndex, GroupIndex)> {
    let index = plan.experiment_named(&forced.experiment)?;
    let experiment = plan.experiment(index);
    let belongs = || PageRequest::of(request).belongs && is_of_part(request);
    let group = experiment.group_named(&forced.group)?;
    (experiment.versions.follows_assets && belongs()).then_some((index, group))
}

/// Finds the route of a request, if no experiment has chosen its upstream.
fn routed<'a>(
    plan: &Plan,
    request: impl RequestView<'a>,
    assignment: &mut Assignment,
) -> Option<RouteIndex> {
    let is_open = assignment.chosen.is_none() && !plan.routes.is_empty();
    match is_open {
        true => changes::find_route(plan, request, &mut assignment.varies_by),
        false => None,
    }
}

/// The segments of a user who is in a group of some experiment.
fn segments(
    plan: &Plan,
    request: &Request<'_>,
    visitor: Option<&Visitor<'_>>,
    assignment: &Assignment,
    now_ms: u64,
) -> Option<Box<str>> {
    let visitor = visitor.filter(|_| !plan.segments.is_empty() && !assignment.inside.is_empty())?;
    let text = segment::describe(&plan.segments, request, visitor.minted_ms(), now_ms);
    Some(text.into())
}

/// Phase *admit*: whether watershed answers the request itself, with an error or otherwise.
fn admit(
    worker: &Worker,
    plan: &Plan,
    request: &Request<'_>,
    (over_tls, now): (bool, Instant),
) -> Option<LocalResponse> {
    if let Some(acme) = plan.tls.as_ref().and_then(|tls| tls.acme.as_ref())
        && acme_challenge::answer(acme, request).is_some()
    {
        return Some(LocalResponse::Challenge);
    }
    if let Some(rate) = plan.limits.rate
        && let Some(address) = request.client()
        && !worker.rates.admit(address, now, rate)
    {
        return Some(LocalResponse::Refused(ErrorCode::TooMany));
    }
    if plan.https.redirect.is_some() && !over_tls {
        return Some(LocalResponse::ToHttps);
    }
    if request.is_at_last_hop() {
        return Some(LocalResponse::LastHop);
    }
    if plan.beacon.enabled && request.path() == &*plan.beacon.path {
        return Some(LocalResponse::Report);
    }
    let max = plan.limits.body_bytes.unwrap_or(u64::MAX);
    match request.body {
        Body::Length(length) if length > max => {
            Some(LocalResponse::Refused(ErrorCode::BodyTooLong))
        }
        _ => None,
    }
}

/// Phase *identify*: the first configured source that has an ID, or a minted one, and why the request is
/// not counted, if it is not. Neither where nobody may be recorded.
fn identify<'b>(
    snapshot: &Snapshot,
    request: &Request<'b>,
    local: Option<LocalResponse>,
    now_ms: u64,
) -> (Option<Visitor<'b>>, Option<NotCounted>) {
    let plan = &*snapshot.plan;
    if local.is_some() || !policy::consents(plan, request) {
        return (None, None);
    }
    let visitor = identity::find(&plan.identity, request);
    let with = (plan, &snapshot.robots);
    let not_counted = policy::not_counted(with, request, visitor.as_ref());
    let visitor = match not_counted {
        None => visitor.or_else(|| policy::mint(plan, request, now_ms)),
        Some(why) => visitor.filter(|_| plan.counting.follows_group(why)),
    };
    (visitor, not_counted)
}

/// The override that the request carries, if its token is valid here. Without consent, there are no
/// groups to choose from.
fn honour_override(
    plan: &Plan,
    request: &Request<'_>,
    is_known: bool,
    now_ms: u64,
) -> Option<Override> {
    let token = request.override_token().filter(|_| is_known)?;
    policy::honour(plan, token, now_ms)
}

/// The request's ID and trace context, and what is logged and exported of it, where the file asks
/// for any of them.
fn observe<'b>(
    snapshot: &Rc<Snapshot>,
    (client, believed): (&Rc<ClientInfo>, BelievedClient),
    request: &Request<'b>,
    (trusted, began, began_ms): (bool, Instant, u64),
) -> Option<Box<Extras<'b>>> {
    if !snapshot.has_extras {
        return None;
    }
    let plan = &*snapshot.plan;
    let correlation = policy::correlation(plan, request, trusted, began_ms);
    let (path, target) = request.target();
    let logged = LoggedRequest {
        client: believed.address,
        secure: believed.over_tls,
        method: request.method.clone(),
        authority: request.authority(),
        path,
        target,
        protocol: protocol(client, request),
        fields: request,
    };
    let log = plan.access_log.as_ref();
    let spans = snapshot.outbox.as_ref().and_then(|_| {
        let with_query = log.is_some_and(|log| log.query);
        let target = if with_query { target } else { path };
        SpanRecorder::of(snapshot, &logged, target, &correlation, began)
    });
    Some(Box::new(Extras {
        logged: log.map(|_| LoggedHead::new(client, &logged)),
        spans,
        parent_at: Cell::new(None),
        correlation,
    }))
}

/// The HTTP that the client speaks.
fn protocol(client: &ClientInfo, request: &Request<'_>) -> HttpProtocol {
    match (client.protocol, request.http_10) {
        (Protocol::Http2, _) => HttpProtocol::Http2,
        (Protocol::Http1, false) => HttpProtocol::Http11,
        (Protocol::Http1, true) => HttpProtocol::Http10,
    }
}

/// How many bytes of the input are a body that came whole with its head; 0 if a part is missing.
fn inline_bytes(request: &Request<'_>, input: &[u8]) -> usize {
    match request.body {
        Body::Length(length) if length <= (input.len() - request.head_bytes) as u64 => {
            length as usize
        }
        _ => 0,
    }
}

/// How many bytes of the input belong to the request. What has come of a body that goes on is taken with its head.
fn input_bytes(request: &Request<'_>, (input, inline): (&[u8], usize), goes_on: bool) -> usize {
    match goes_on {
        true => input.len(),
        false => request.head_bytes + inline,
    }
}

/// A body that has not come whole with its head. What has come of it is written behind the
/// forwarded head.
fn rest_of_body(
    snapshot: &Snapshot,
    client: &ClientInfo,
    request: &Request<'_>,
    (input, inline): (&[u8], usize),
    local: Option<LocalResponse>,
    forwarded: &mut Vec<u8>,
) -> Option<Box<RequestBody>> {
    if request.body == Body::None || inline > 0 {
        return None;
    }
    let came = input[request.head_bytes..].to_vec();
    // In HTTP/2 trailers need not be announced.
    let trailers = client.protocol == Protocol::Http2 || request.lines.first(&TRAILER).is_some();
    let how = (request.expects, trailers);
    let reserved = &snapshot.plan_headers.reserved;
    let mut body = Box::new(RequestBody::new(
        &snapshot.plan,
        reserved,
        request.body,
        came,
        how,
    ));
    if local != Some(LocalResponse::Report) {
        body.begin(forwarded);
    }
    Some(body)
}

/// Runs the phases acquire, send, record and respond, or answers in the upstream's place. Reads the
/// upstream's bytes into `received` and writes the client's head into `head`. `responding` gets the response: it is larger
/// than what should be moved from phase to phase. `None` when the client has left, which resolves `left`, too.
pub(super) async fn exchange_with_upstream<C: ClientStream, H: HeadWriter>(
    client: &mut C,
    exchange: &Exchange<'_>,
    (input, forwarded): (&[u8], &mut Vec<u8>),
    mut body: Option<&mut RequestBody>,
    (received, head): (&mut Vec<u8>, &mut H),
    left: Pin<&mut impl Future<Output = ()>>,
    responding: &mut Option<Responding>,
) -> Option<()> {
    let sent = match exchange.local {
        None => {
            let to = (body.as_deref_mut(), &mut *received);
            let out = (&mut *head, &mut *responding);
            attempts::acquire_and_send(client, exchange, (input, forwarded), to, out, left).await
        }
        Some(LocalResponse::Refused(code)) => Err(AttemptFailure::of(code)),
        Some(local) => {
            let body = (exchange.inline_body(input), body.as_deref_mut());
            let response = local_response::answer(client, exchange, local, body, received, head);
            *responding = Some(Responding::own(response.await?));
            return Some(());
        }
    };
    match sent {
        Ok(()) => {
            if exchange.snapshot.has_mirrors
                && let Some(responding) = responding
            {
                let came = (&responding.response, &**received);
                mirror::begin(client, exchange, input, came);
            }
            Some(())
        }
        Err(AttemptFailure::ClientLeft) => None,
        Err(AttemptFailure::Error(error)) => {
            policy::log_error(client.worker(), &error);
            // A version that could not stand in has no part in the error.
            exchange.progress.goes_to(exchange.upstream(), None);
            exchange.trace(|spans| spans.failed(&error));
            let unread = body.is_some_and(|body| !body.is_through());
            let provenance = Provenance::own(unread);
            let worker = client.worker();
            let response = exchange.respond_error(worker, error.code, provenance, received, head);
            *responding = Some(Responding::own(response?));
            Some(())
        }
    }
}
