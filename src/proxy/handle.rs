//! The life of a request.

use super::access::{Asked, Entry};
use super::beacon;
use super::body::{Answer, Outgoing, Passed};
use super::event_faults;
use super::headers::{self, Brought};
use super::hops;
use super::last_hop;
use super::line::Line;
use super::record::{self, Answered, Unfinished};
use super::reply::{self, Reason, Refusal};
use super::route::{Route, Sent};
use super::snapshot::{Snapshot, Worker};
use super::trace::{self, Tags};
use super::trickle::Trickle;
use super::tunnel::Quiet;
use super::upgrade::{self, Upgrade};
use super::upload::Upload;
use crate::config::plan::Plan;
use crate::experiment::asked::Fields;
use crate::experiment::forced::{self, Forced};
use crate::experiment::identity::{self, Visitor};
use crate::experiment::metric;
use crate::experiment::visit::{self, visit};
use crate::journal;
use http::header::{CONNECTION, EXPECT};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, request};
use http_body::Body;
use http_body_util::Full as Whole;
use hyper::body::Incoming;
use smallvec::SmallVec;
use std::convert::Infallible;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Who asks, and how.
#[derive(Clone, Debug)]
pub struct Client {
    /// The peer, or whom a trusted peer speaks for.
    pub ip: IpAddr,
    /// Whether it came over TLS.
    pub secure: bool,
    /// An HTTP/1 connection, on which one request is answered after the other.
    pub line: Option<Rc<Line>>,
    /// Whether the rate limit has let this request through already.
    pub admitted: bool,
}

/// Answers a request. Cannot fail: what goes wrong becomes an answer.
pub async fn handle(
    worker: &Rc<Worker>,
    client: &Client,
    mut request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    worker.vitals().requests.add();
    let began = Instant::now();
    let now_ms = journal::system_ms();
    let snapshot = worker.snapshot();
    // Before anything can refuse it: whoever is refused asks why by this ID.
    let trusted = headers::trusts(&snapshot.plan, client.ip);
    let tags = tags(&snapshot.plan, request.headers(), trusted, now_ms);
    let asked = asked(client, &request);
    let mut entry = Entry::of(worker, &snapshot, &asked, &tags, began);
    tags.put(request.headers_mut());
    let came = (began, now_ms);
    let mut answer = answer(worker, &snapshot, client, request, came, &mut entry)
        .await
        .unwrap_or_else(|refusal| refused(worker, &refusal));
    if let Some(id) = &tags.id
        && let Ok(id) = HeaderValue::from_bytes(id.as_bytes())
    {
        answer.headers_mut().insert(trace::REQUEST_ID, id);
    }
    if let Some(entry) = entry {
        let (head, mut body) = answer.into_parts();
        body.log(entry, &head);
        answer = Response::from_parts(head, body);
    }
    if let Some(line) = &client.line {
        let upgrading = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        line.upgrading.set(upgrading);
        let last = line.requests.get() >= snapshot.plan.limits.requests || worker.is_stopping();
        if last && !upgrading {
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(CONNECTION, close);
        }
    } else {
        // HTTP/2 knows no such field (RFC 9113, 8.2.2).
        answer.headers_mut().remove(CONNECTION);
    }
    Ok(answer)
}

async fn answer(
    worker: &Rc<Worker>,
    snapshot: &Rc<Snapshot>,
    client: &Client,
    mut request: Request<Incoming>,
    (began, now_ms): (Instant, u64),
    entry: &mut Option<Box<Entry>>,
) -> Result<Response<Answer>, Refusal> {
    let plan = &*snapshot.plan;
    let upgrade = Upgrade::asked(client, &mut request);
    let (mut head, body) = request.into_parts();
    let peer = client.ip;
    let trusted = headers::trusts(plan, peer);
    let over_tls = client.secure || (trusted && headers::over_tls(&head.headers));
    let deadline = plan.timeouts.total.map(|total| began + total);
    if let Some(line) = &client.line {
        line.requests.set(line.requests.get() + 1);
        line.delimited.set(head.version < http::Version::HTTP_11);
        line.deadline.set(deadline);
    }

    let line = client.line.as_ref();
    let admitted = client.admitted || line.is_some_and(|line| line.admitted.take());
    if let Some(rate) = plan.limits.rate
        && !admitted
        && !worker
            .rates
            .admit(headers::asker(plan, &head.headers, peer), began, rate)
    {
        return Err(Refusal::new(Reason::TooMany));
    }
    let bare = line.is_some_and(|line| line.takes_bare(&head));
    let reserved = &snapshot.words.reserved;
    let brought = headers::admit(plan, reserved, &mut head, peer, bare)?;
    if let Some(own) = last_hop::count_down(&mut head)? {
        return Ok(own);
    }
    if plan.beacon.enabled && head.uri.path() == &*plan.beacon.path {
        return Ok(beacon::answer(worker, snapshot, (&head, peer), body, began).await);
    }
    let body = match upgrade {
        // What comes behind it is not a body.
        Some(_) => Outgoing::empty(),
        None => admit_body(snapshot, client, &head, body)?,
    };
    let upload = body.upload();
    let (visitor, forced) = match consents(plan, &head.headers) {
        true => {
            let visitor = identity::find(&plan.identity, &head).map(Visitor::into_owned);
            (
                visitor.or_else(|| mint(plan, now_ms)),
                honour(plan, brought.as_ref(), now_ms),
            )
        }
        false => (None, None),
    };
    let visit = match &visitor {
        Some(visitor) => {
            let user = visitor.assigned_by();
            visit(&plan.experiments, &head, user, forced.as_ref())
        }
        None => visit::unrecorded(&plan.experiments, &head),
    };
    if let Some(entry) = entry {
        entry.visited(visitor.as_ref(), &visit);
        entry.uploads(upload.clone());
    }
    headers::prepare(
        plan,
        &snapshot.words,
        &mut head,
        peer,
        over_tls,
        visitor.as_ref(),
        &visit,
    );
    if let Some(upgrade) = &upgrade {
        upgrade.ask(&mut head);
    }

    let asked = (head.method.clone(), head.uri.clone());
    let request = Request::from_parts(head, body);
    let upgrading = upgrade.is_some();
    let route = Route {
        worker,
        snapshot,
        visit: &visit,
        client,
        user: visitor.as_ref().map(Visitor::assigned_by),
        upgrading,
        trail: entry.as_deref().and_then(Entry::trail),
    };
    let Sent {
        fallback,
        upstream,
        attempts,
        answer: sent,
    } = route.send(request, deadline).await;
    if let Some(entry) = entry {
        let endpoint = sent.as_ref().ok();
        let endpoint = endpoint.map(|(_, lease)| &*lease.endpoint().address);
        entry.sent(upstream, endpoint, attempts, fallback);
    }
    let mut upgraded = None;
    let sent = sent.and_then(|(response, lease)| {
        let (mut head, body) = response.into_parts();
        hops::admit_answer(upgrading, &mut head).map_err(Refusal::new)?;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            upgraded = lease.into_upgraded();
            return Ok((head, Answer::Own(Whole::default())));
        }
        let quiet_max = quiet_max(plan, headers::is_of_events(&head.headers));
        Ok((
            head,
            Answer::Passed(Passed::new(
                body,
                lease,
                upload,
                Rc::clone(reserved),
                quiet_max,
                deadline,
            )),
        ))
    });
    let (mut head, mut body) = match sent {
        Ok(answer) => answer,
        Err(refusal) => {
            if let Some(trail) = entry.as_deref().and_then(Entry::trail) {
                trail.failed(&refusal);
            }
            refused(worker, &refusal).into_parts()
        }
    };

    let (observations, faults) = metric::observe(&plan.metrics, &asked.0, asked.1.path(), &head);
    if !faults.is_empty() {
        event_faults::of_header(worker, snapshot, upstream, &faults);
    }
    let mut exposures = SmallVec::new();
    if let Some(visitor) = &visitor {
        let status = head.status.as_u16();
        exposures = record::answered(
            worker,
            snapshot,
            Answered {
                now_ms,
                began,
                ended: Instant::now(),
                visitor,
                visit: &visit,
                served: fallback,
                status,
                observations,
            },
        );
    }
    let agreed = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let chosen = agreed.then(|| upgrade::chosen(&head)).flatten();
    if agreed || matches!(body, Answer::Passed(_)) {
        headers::strip_answer(&mut head);
    }
    if let Some(upgrade) = upgrade.filter(|_| agreed) {
        let quiet = Quiet::from(&plan.timeouts);
        upgrade.agreed(&mut head, chosen, upgraded, quiet);
        if let Some(line) = &client.line {
            line.deadline.set(None);
        }
    }
    let cookie = brought
        .zip(forced)
        .and_then(|(brought, forced)| keep_override(&brought, &forced, now_ms, over_tls));
    headers::finish(
        (plan, &snapshot.words),
        (head.version, &mut head.headers),
        visitor.as_ref(),
        &visit,
        cookie,
        over_tls,
    );
    if let Some(experiment) = fallback {
        let control = plan.experiment(experiment).control;
        let said = snapshot.words.group(experiment, control).clone();
        head.headers.insert(headers::FALLBACK, said);
    }
    if let (Answer::Passed(body), Some(visitor)) = (&mut body, visitor) {
        body.watch(Unfinished::of(worker, snapshot, visitor, exposures));
    }
    Ok(Response::from_parts(head, body))
}

/// What the file says that a request must be told apart by.
pub fn tags<'a>(plan: &Plan, fields: impl Fields<'a>, trusted: bool, now_ms: u64) -> Tags {
    Tags::of(&plan.tracing, fields, trusted, now_ms, || {
        fastrand::u128(..)
    })
}

fn asked<'a, B>(client: &Client, request: &'a Request<B>) -> Asked<'a, &'a HeaderMap> {
    let uri = request.uri();
    Asked {
        client: client.ip,
        secure: client.secure,
        method: request.method(),
        authority: uri.authority().map(|authority| authority.as_str()),
        path: uri.path(),
        target: uri.path_and_query().map_or(uri.path(), |it| it.as_str()),
        version: request.version(),
        fields: request.headers(),
    }
}

fn admit_body(
    snapshot: &Snapshot,
    client: &Client,
    head: &request::Parts,
    body: Incoming,
) -> Result<Outgoing, Refusal> {
    if body.is_end_stream() {
        return Ok(Outgoing::empty());
    }
    let plan = &*snapshot.plan;
    let max = plan.limits.body_bytes;
    if max.is_some_and(|max| body.size_hint().lower() > max) {
        return Err(Refusal::new(Reason::BodyTooLong));
    }
    let expects = head.headers.get(EXPECT);
    let asks = expects.is_some_and(|said| said.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let asks = asks && head.version >= http::Version::HTTP_11;
    let upload = Upload::new(client.line.clone(), asks);
    let quiet_max = client.line.is_none().then_some(plan.timeouts.body);
    let reserved = Rc::clone(&snapshot.words.reserved);
    let rate = plan.limits.body_rate;
    let trickle = rate.map(|rate| Trickle::new(rate, plan.timeouts.body));
    Ok(Outgoing::new(
        body,
        max,
        upload,
        (quiet_max, trickle),
        reserved,
    ))
}

/// How long an upstream may pause in the middle of an answer. Events are waited for.
pub fn quiet_max(plan: &Plan, of_events: bool) -> Duration {
    match of_events {
        true => plan.timeouts.tunnel,
        false => plan.timeouts.body,
    }
}

/// Whether this visitor may be recorded.
pub fn consents<'a>(plan: &Plan, fields: impl Fields<'a>) -> bool {
    let consent = plan.consent.as_ref();
    consent.is_none_or(|consent| consent.is_given(fields))
}

/// What a token asks for, if it is sound and for an experiment and group of this plan.
fn honour(plan: &Plan, brought: Option<&Brought>, now_ms: u64) -> Option<Forced> {
    let secret = plan.override_secret.as_ref()?;
    let forced = forced::verify(secret.reveal().as_bytes(), &brought?.token, now_ms / 1000);
    let forced = forced
        .inspect_err(|unsound| tracing::debug!("an override was ignored: {unsound}"))
        .ok()?;
    let known = plan
        .experiments
        .iter()
        .any(|experiment| forced.group_in(experiment).is_some());
    known.then_some(forced)
}

/// A new ID, unless the system has no random numbers to give.
pub fn mint(plan: &Plan, now_ms: u64) -> Option<Visitor<'static>> {
    if plan.experiments.is_empty() {
        return None;
    }
    let mut random = [0; 10];
    getrandom::fill(&mut random).ok()?;
    Some(identity::mint(now_ms, &random))
}

fn keep_override(
    brought: &Brought,
    forced: &Forced,
    now_ms: u64,
    over_tls: bool,
) -> Option<String> {
    let seconds = forced.expires_s.saturating_sub(now_ms / 1000);
    brought
        .by_link
        .then(|| headers::override_cookie(&brought.token, seconds, over_tls))
}

fn refused(worker: &Worker, refusal: &Refusal) -> Response<Answer> {
    note(worker, refusal);
    reply::refuse(refusal.reason)
}

/// Counts a refusal, and says why.
pub fn note(worker: &Worker, refusal: &Refusal) {
    worker.vitals().refusals.add();
    let cause = refusal
        .source
        .as_ref()
        .map_or(String::new(), |cause| format!(": {cause}"));
    match refusal.reason {
        // Said once by the pool, when the endpoint went away.
        Reason::Unresolved | Reason::Refused | Reason::Distrusted | Reason::ConnectTimedOut => {
            tracing::debug!("{refusal}{cause}")
        }
        _ if refusal.reason.terms().2 == reply::Blame::Upstream => {
            tracing::warn!("{refusal}{cause}")
        }
        _ => tracing::debug!("{refusal}{cause}"),
    }
}
