//! Reads a request, and finds what it means: admit, identify, assign.

use crate::config::plan::Plan;
use crate::experiment::http_view::{HeaderView as _, RequestView as _};
use crate::experiment::identity::{self, Visitor};
use crate::experiment::resolve::{self, Assignment};
use crate::journal;
use crate::proxy::error_response::ErrorCode;
use crate::proxy::h1::framing::Bounds;
use crate::proxy::h1::request_head::{self, Body, Request};
use crate::proxy::headers::forwarding::{ClientInfo, Placeholders};
use crate::proxy::headers::plan_headers;
use crate::proxy::headers::reserved::ReservedNames;
use crate::proxy::observe::access_log::{LogEntry, LoggedRequest};
use crate::proxy::observe::spans::SpanRecorder;
use crate::proxy::observe::trace_context::Correlation;
use crate::proxy::pipeline::{Exchange, Extras, LocalResponse};
use crate::proxy::policy;
use crate::proxy::request_body::RequestBody;
use crate::proxy::snapshot::{Snapshot, Worker};
use http::Version;
use http::header::TRAILER;
use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

/// The client, and how it is connected.
pub struct By<'a> {
    /// What is said of the client.
    pub ours: &'a ClientInfo,
    /// The peer, or whom a trusted peer speaks for.
    pub peer: IpAddr,
    /// Whether it came over TLS.
    pub secure: bool,
    /// Whether it came over HTTP/2.
    pub http2: bool,
    /// Requests before this one on the connection.
    pub requests: u32,
}

/// What stands at the beginning of what a client has sent.
#[expect(
    clippy::large_enum_variant,
    reason = "never kept: moved once, on the stack"
)]
pub enum Found<'b> {
    /// Something that is not complete.
    More,
    /// Something that cannot be read.
    Unsound(ErrorCode),
    /// A request, and the part of its body that has not come with it.
    Go(Exchange<'b>, Option<Box<RequestBody>>),
}

/// Reads a request, finds what it means, and writes what the upstream gets.
pub fn find<'b>(
    worker: &Rc<Worker>,
    snapshot: Rc<Snapshot>,
    by: By<'_>,
    held: &'b [u8],
    out: &mut Vec<u8>,
) -> Found<'b> {
    let plan = &*snapshot.plan;
    let (bounds, reserved) = (bounds(plan, by.http2), &snapshot.words.reserved);
    let mut request = match request_head::read(held, &bounds, reserved, by.ours.trusted) {
        Ok(Some(request)) => request,
        Ok(None) => return Found::More,
        Err(code) => return Found::Unsound(code),
    };
    worker.telemetry().requests.add();
    let (began, now_ms) = (Instant::now(), journal::system_ms());
    let mut marks = snapshot.marks.then(|| {
        let tags = policy::tags(plan, &request, by.ours.trusted, now_ms);
        Box::new(Extras {
            tags,
            parent_at: None,
        })
    });
    let mut entry = marks
        .as_ref()
        .and_then(|marks| entry(worker, &snapshot, &by, &request, &marks.tags, began));
    let instead = instead(worker, plan, &by, &request, began);
    let over_tls = by.secure || (by.ours.trusted && plan_headers::over_tls(&request));
    let meant = mean(plan, &request, instead, (now_ms, over_tls));
    let (taken, inline) = taken(&request, held);
    let mut parent = marks.as_ref().and_then(|marks| marks.tags.begins);
    if let Some(entry) = &mut entry {
        if instead.is_none() {
            entry.visited(meant.visitor.as_ref(), &meant.visit);
        }
        entry.brought(inline as u64);
        // Each attempt puts its own span there.
        parent = parent.or(entry.trail().map(SpanRecorder::parent));
    }
    let tags = marks.as_ref().map(|marks| &marks.tags);
    let (words, tagged) = (&snapshot.words, (tags, parent));
    let by_whom = (by.ours, over_tls);
    let (visitor, visit) = (meant.visitor.as_ref(), &meant.visit);
    let mut places = Placeholders::default();
    // What is answered here is sent to nobody, and is read as it came.
    if instead.is_none() {
        places = request.write(out, by_whom, words, tagged, visitor, visit);
        out.extend_from_slice(&held[request.head_bytes..request.head_bytes + inline]);
    }
    if let Some(marks) = &mut marks {
        marks.parent_at = places.parent;
    }
    let reports = instead == Some(LocalResponse::Report);
    let body = body(
        plan,
        reserved,
        &request,
        (held, inline),
        (reports, by.http2),
        out,
    );
    let closes = request.closes || by.requests + 1 >= plan.limits.requests;
    let upgrade = request.upgrade();
    let exchange = Exchange {
        path: (&request).path(),
        has_body: request.body != Body::None,
        method: request.method.clone(),
        visit: meant.visit,
        taken,
        visitor: meant.visitor,
        began,
        now_ms,
        over_tls,
        closes,
        http_10: request.http_10,
        upgrade,
        takes_trailers: request.takes_trailers(),
        deadline: plan.timeouts.total.map(|total| began + total),
        own: instead.map(|_| Box::new(request)),
        instead,
        cookie: meant.cookie,
        host: Cell::new(places.host.map(|at| (at, at))),
        marks,
        entry: entry.map(RefCell::new),
        snapshot,
    };
    Found::Go(exchange, body)
}

/// The user, and the groups that the user is in.
struct Meant<'b> {
    visitor: Option<Visitor<'b>>,
    visit: Assignment,
    /// Keeps an override that came in a link.
    cookie: Option<String>,
}

fn mean<'b>(
    plan: &Plan,
    request: &Request<'b>,
    instead: Option<LocalResponse>,
    (now_ms, over_tls): (u64, bool),
) -> Meant<'b> {
    if instead.is_some() || !policy::consents(plan, request) {
        return Meant {
            visitor: None,
            visit: match instead {
                None => resolve::unrecorded(&plan.experiments, request),
                // Nobody is asked.
                Some(_) => Assignment::default(),
            },
            cookie: None,
        };
    }
    let visitor = identity::find(&plan.identity, request);
    let visitor = visitor.or_else(|| policy::mint(plan, now_ms));
    let brought = request.brought();
    let forced = brought.and_then(|brought| policy::honour(plan, brought, now_ms));
    let visit = match &visitor {
        Some(visitor) => {
            let user = visitor.assigned_by();
            resolve::resolve(&plan.experiments, request, user, forced.as_ref())
        }
        None => resolve::unrecorded(&plan.experiments, request),
    };
    let cookie = brought
        .zip(forced)
        .and_then(|(brought, forced)| policy::keep_override(brought, &forced, now_ms, over_tls));
    Meant {
        visitor,
        visit,
        cookie,
    }
}

/// How large a head may be. What came over HTTP/2 has been measured before it was written down.
fn bounds(plan: &Plan, http2: bool) -> Bounds {
    let bounds = Bounds::from(&plan.limits);
    match http2 {
        true => Bounds {
            head_bytes: usize::MAX,
            headers: usize::MAX,
            ..bounds
        },
        false => bounds,
    }
}

fn entry(
    worker: &Rc<Worker>,
    snapshot: &Rc<Snapshot>,
    by: &By<'_>,
    request: &Request<'_>,
    tags: &Correlation,
    began: Instant,
) -> Option<Box<LogEntry>> {
    let (path, target) = request.target();
    let asked = LoggedRequest {
        client: by.peer,
        secure: by.secure,
        method: &request.method,
        authority: request.authority(),
        path,
        target,
        version: match (by.http2, request.http_10) {
            (true, _) => Version::HTTP_2,
            (false, false) => Version::HTTP_11,
            (false, true) => Version::HTTP_10,
        },
        fields: request,
    };
    LogEntry::of(worker, snapshot, &asked, tags, began)
}

/// Whether it is answered here: what its limits say, or that it is not for an upstream.
fn instead(
    worker: &Worker,
    plan: &Plan,
    by: &By<'_>,
    request: &Request<'_>,
    now: Instant,
) -> Option<LocalResponse> {
    if let Some(rate) = plan.limits.rate {
        let client_ip = plan_headers::client_ip(plan, request, by.peer);
        if !worker.rates.admit(client_ip, now, rate) {
            return Some(LocalResponse::Refused(ErrorCode::TooMany));
        }
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

/// How many of these bytes belong to a request, and how many of them are all of its body.
fn taken(request: &Request<'_>, held: &[u8]) -> (usize, usize) {
    match request.body {
        Body::None => (request.head_bytes, 0),
        Body::Length(length) if length <= (held.len() - request.head_bytes) as u64 => {
            let length = length as usize;
            (request.head_bytes + length, length)
        }
        _ => (held.len(), 0),
    }
}

/// A body that has not come whole with its head.
fn body(
    plan: &Plan,
    reserved: &Rc<ReservedNames>,
    request: &Request<'_>,
    (held, inline): (&[u8], usize),
    (reports, http2): (bool, bool),
    out: &mut Vec<u8>,
) -> Option<Box<RequestBody>> {
    if request.body == Body::None || inline > 0 {
        return None;
    }
    let came = held[request.head_bytes..].to_vec();
    // In HTTP/2 trailers need not be announced.
    let trailers = http2 || request.lines.first(&TRAILER).is_some();
    let how = (request.expects, trailers);
    let body = RequestBody::new(plan, reserved, request.body, came, how);
    let mut body = Box::new(body);
    // What is reported is not passed on.
    if !reports {
        body.begin(out);
    }
    Some(body)
}
