//! The life of a request.

use super::beacon;
use super::body::{Answer, Outgoing, Passed};
use super::forward::{self, Sending};
use super::headers::{self, Brought};
use super::hops;
use super::line::Line;
use super::record::{self, Answered, Unfinished};
use super::reply::{self, Reason, Refusal};
use super::snapshot::{Snapshot, Worker};
use super::upgrade::{self, Upgrade};
use super::upload::Upload;
use crate::config::plan::Plan;
use crate::experiment::forced::{self, Forced};
use crate::experiment::identity::{self, Visitor};
use crate::experiment::metric;
use crate::experiment::visit::{self, Visit, visit};
use crate::experiment::{ExperimentIndex, UpstreamIndex, UserId};
use crate::journal;
use crate::upstream::{Lease, Wish};
use http::header::{CONNECTION, CONTENT_TYPE, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Request, Response, StatusCode, request, response};
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
}

/// Answers a request. Cannot fail: what goes wrong becomes an answer.
pub async fn handle(
    worker: &Rc<Worker>,
    client: &Client,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    worker.vitals().requests.add();
    let mut answer = answer(worker, client, request)
        .await
        .unwrap_or_else(|refusal| refused(worker, &refusal));
    if let Some(line) = &client.line {
        line.upgrading
            .set(answer.status() == StatusCode::SWITCHING_PROTOCOLS);
    } else {
        // HTTP/2 knows no such field (RFC 9113, 8.2.2).
        answer.headers_mut().remove(CONNECTION);
    }
    Ok(answer)
}

async fn answer(
    worker: &Rc<Worker>,
    client: &Client,
    mut request: Request<Incoming>,
) -> Result<Response<Answer>, Refusal> {
    let began = Instant::now();
    let snapshot = worker.snapshot();
    let now_ms = journal::system_ms();
    let plan = &*snapshot.plan;
    let upgrade = Upgrade::asked(client, &mut request);
    let (mut head, body) = request.into_parts();
    let peer = client.ip;
    let over_tls = client.secure || headers::over_tls(plan, &head, peer);
    if let Some(line) = &client.line {
        line.requests.set(line.requests.get() + 1);
        line.delimited.set(head.version < http::Version::HTTP_11);
    }

    if let Some(rate) = plan.limits.rate
        && !worker
            .rates
            .admit(headers::asker(plan, &head, peer), began, rate)
    {
        return Err(Refusal::new(Reason::TooMany));
    }
    let brought = headers::admit(plan, &mut head, peer)?;
    if plan.beacon.enabled && head.uri.path() == &*plan.beacon.path {
        return Ok(beacon::answer(worker, &snapshot, &head, body, began).await);
    }
    let body = match upgrade {
        // What comes behind it is not a body.
        Some(_) => Outgoing::empty(),
        None => admit_body(plan, client, &head, body)?,
    };
    let upload = body.upload();
    let (visitor, forced) = match consents(plan, &head) {
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
        Some(visitor) => visit(&plan.experiments, &head, visitor.user(), forced.as_ref()),
        None => visit::unrecorded(&plan.experiments, &head),
    };
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
    let user = visitor.as_ref().map(|visitor| visitor.user());
    let sending = send(worker, &snapshot, &visit, client, user, request, upgrading);
    let deadline = plan.timeouts.total.map(|total| began + total);
    let (served, sent) = match deadline.filter(|_| !upgrading) {
        None => sending.await,
        Some(deadline) => tokio::time::timeout_at(deadline.into(), sending)
            .await
            .unwrap_or_else(|_| (None, Err(Refusal::new(Reason::TotalTimedOut)))),
    };
    let mut upgraded = None;
    let sent = sent.and_then(|(response, lease)| {
        let (mut head, body) = response.into_parts();
        hops::admit_answer(upgrading, &mut head).map_err(Refusal::new)?;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            upgraded = lease.into_upgraded();
            return Ok((head, Answer::Own(Whole::default())));
        }
        let quiet_max = quiet_max(plan, &head);
        Ok((
            head,
            Answer::Passed(Passed::new(body, lease, upload, quiet_max, deadline)),
        ))
    });
    let (mut head, mut body) = match sent {
        Ok(answer) => answer,
        Err(refusal) => refused(worker, &refusal).into_parts(),
    };

    let (observations, readable) = metric::observe(&plan.metrics, &asked.0, asked.1.path(), &head);
    if !readable {
        worker.vitals().unreadable_events.add();
    }
    let mut exposures = SmallVec::new();
    if let Some(visitor) = &visitor {
        let status = head.status.as_u16();
        exposures = record::answered(
            worker,
            &snapshot,
            Answered {
                now_ms,
                began,
                visitor,
                visit: &visit,
                served,
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
        upgrade.agreed(&mut head, chosen, upgraded, plan.timeouts.tunnel);
    }
    let cookie = brought
        .zip(forced)
        .and_then(|(brought, forced)| keep_override(&brought, &forced, now_ms, over_tls));
    if let Some(line) = &client.line
        && line.requests.get() >= plan.limits.requests
    {
        head.headers
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    headers::finish(
        plan,
        &snapshot.words,
        &mut head,
        visitor.as_ref(),
        &visit,
        cookie,
        over_tls,
    );
    if let Some(experiment) = served {
        let control = plan.experiment(experiment).control;
        let said = snapshot.words.group(experiment, control);
        head.headers.insert(headers::FALLBACK, said);
    }
    if let (Answer::Passed(body), Some(visitor)) = (&mut body, visitor) {
        body.watch(Unfinished::of(worker, &snapshot, visitor, exposures));
    }
    Ok(Response::from_parts(head, body))
}

fn admit_body(
    plan: &Plan,
    client: &Client,
    head: &request::Parts,
    body: Incoming,
) -> Result<Outgoing, Refusal> {
    if body.is_end_stream() {
        return Ok(Outgoing::empty());
    }
    let max = plan.limits.body_bytes;
    if max.is_some_and(|max| body.size_hint().lower() > max) {
        return Err(Refusal::new(Reason::BodyTooLong));
    }
    let expects = head.headers.get(EXPECT);
    let asks = expects.is_some_and(|said| said.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let asks = asks && head.version >= http::Version::HTTP_11;
    let upload = Upload::new(client.line.clone(), asks);
    let quiet_max = client.line.is_none().then_some(plan.timeouts.body);
    Ok(Outgoing::new(body, max, upload, quiet_max))
}

/// How long an upstream may pause in the middle of an answer. Events are waited for.
fn quiet_max(plan: &Plan, head: &response::Parts) -> Duration {
    let events = head.headers.get(CONTENT_TYPE).is_some_and(|said| {
        let said = said.as_bytes().get(..b"text/event-stream".len());
        said.is_some_and(|said| said.eq_ignore_ascii_case(b"text/event-stream"))
    });
    match events {
        true => plan.timeouts.tunnel,
        false => plan.timeouts.body,
    }
}

/// Whether this visitor may be recorded.
pub fn consents(plan: &Plan, head: &request::Parts) -> bool {
    let consent = plan.consent.as_ref();
    consent.is_none_or(|consent| consent.is_given(&head.headers))
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
fn mint(plan: &Plan, now_ms: u64) -> Option<Visitor<'static>> {
    if plan.experiments.is_empty() {
        return None;
    }
    let mut random = [0; 10];
    getrandom::fill(&mut random).ok()?;
    Some(identity::mint(now_ms, &random))
}

type Sent = Result<(Response<Incoming>, Lease<Outgoing>), Refusal>;

/// Sends the request where it belongs, or to control where that cannot be connected to. Also
/// says which experiment, if any, was served by control in its group's place.
async fn send(
    worker: &Worker,
    snapshot: &Snapshot,
    visit: &Visit,
    client: &Client,
    user: Option<UserId<'_>>,
    mut request: Request<Outgoing>,
    upgrading: bool,
) -> (Option<ExperimentIndex>, Sent) {
    let plan = &*snapshot.plan;
    let wanted = visit
        .chosen
        .map_or(plan.default, |(_, _, upstream)| upstream);
    let wish = |upstream| Wish {
        upstream,
        http1_only: upgrading,
        user,
    };
    let lend = |upstream| forward::lend(&snapshot.upstreams, wish(upstream));
    let (fallback, upstream, lent) = match lend(wanted).await {
        Ok(lease) => (None, wanted, Ok(lease)),
        // One that is busy is not down: its users stay, and their errors count.
        Err(refusal) if refusal.reason == Reason::Busy => (None, wanted, Err(refusal)),
        Err(refusal) => match control_instead(plan, visit, wanted) {
            Some((experiment, control)) => {
                worker.vitals().fallbacks.add();
                (Some(experiment), control, lend(control).await)
            }
            None => (None, wanted, Err(refusal)),
        },
    };
    let lease = match lent {
        Ok(lease) => lease,
        Err(refusal) => return (fallback, Err(refusal)),
    };
    complete(&mut request, &lease);
    // What the client spoke says nothing of what the endpoint is spoken to in.
    *request.version_mut() = http::Version::HTTP_11;
    let sending = Sending {
        request,
        wish: wish(upstream),
        line: client.line.as_ref(),
        within: plan.timeouts.response,
    };
    (
        fallback,
        forward::send(&snapshot.upstreams, lease, sending).await,
    )
}

/// What HTTP/1.1 needs and the client may have left out.
fn complete(request: &mut Request<Outgoing>, lease: &Lease<Outgoing>) {
    let unframed = !request.body().is_end_stream() && request.body().size_hint().exact().is_none();
    if unframed {
        // For a method that seldom has a body hyper would send none.
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(TRANSFER_ENCODING, chunked);
    }
    if request.version() < http::Version::HTTP_11 && !request.headers().contains_key(HOST) {
        // RFC 9112, 3.2: an old client need not say which site it wants.
        if let Ok(host) = HeaderValue::try_from(lease.endpoint().address.to_string()) {
            request.headers_mut().insert(HOST, host);
        }
    }
}

fn control_instead(
    plan: &Plan,
    visit: &Visit,
    wanted: UpstreamIndex,
) -> Option<(ExperimentIndex, UpstreamIndex)> {
    let (experiment, _, _) = visit.chosen?;
    let control = plan.control_upstream(experiment)?;
    (control != wanted).then_some((experiment, control))
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
    reply::refuse(refusal.reason)
}
