//! Mirroring: a copy of a request goes to another version, its response is compared with that of the client,
//! and discarded.
//!
//! | step | where | what happens |
//! | --- | --- | --- |
//! | begin | [`begin`] | once the head of the client's response is there, the copy is written and its task begins |
//! | collect | [`collected`] | the body is collected beside the client, who gets it as without a copy |
//! | ask | [`ask`] | the copy goes out, and its response comes in |
//! | compare | [`copy`] | what differs is counted; with `expose: differs`, the user is exposed |
//!
//! A comparison needs two responses to the same plain request. Where the client's is none, because it was
//! compressed, 304, or cut off, the version that has served is asked once more, by a copy, too.

mod ask;
pub(super) mod collected;
mod copy;
mod head;
pub(super) mod slots;

use self::ask::CopyRequest;
use self::collected::{BodyPart, OriginalBody};
use self::copy::{OriginalResponse, RequestCopy};
use self::head::{compared, is_comparable};
use super::changes::{Changes, ServedBy};
use super::exchange::{ClientStream, Exchange, RecordedResponse};
use super::forward::{self, ForwardedRequest};
use super::h1::request_head::Request;
use super::h1::response_head::{self, ParsedHead, ResponseContext, ResponseHead, ResponseLimits};
use super::headers::believed_client;
use super::observe::exposure_log::LateExposure;
use crate::config::plan::OtherVersion;
use crate::experiment::http_view::HeaderView as _;
use crate::experiment::mirror::{CopyTarget, Mirror};
use crate::experiment::not_counted::NotCounted;
use crate::experiment::resolve::AssignedBy;
use crate::experiment::{Experiment, ExperimentIndex, GroupIndex};
use http::Method;
use http::header::{
    ACCEPT_ENCODING, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE,
};
use std::rc::Rc;
use std::sync::Arc;

/// Tells an upstream that a request is a copy, and what it may compress: nothing.
const COPY_FIELDS: &[u8] = b"accept-encoding: identity\r\nwatershed-mirror: 1\r\n";
/// Fields that make a response depend on what the client has, or on what it can read.
const NOT_COPIED: [HeaderName; 6] = [
    ACCEPT_ENCODING,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
];

/// What of a request is copied, and where the copy goes.
struct CopyPlan {
    experiment: ExperimentIndex,
    group: GroupIndex,
    target: CopyTarget,
}

/// Copies a request if its experiment says so. `input` begins with the request as it came, and `received` with the
/// head of its response.
pub(super) fn begin<C: ClientStream>(
    client: &C,
    exchange: &Exchange<'_>,
    input: &[u8],
    (response, received): (&RecordedResponse, &[u8]),
) {
    let snapshot = &exchange.snapshot;
    let Some(plan) = plan(exchange) else {
        return;
    };
    let trusted = believed_client::trusts(&snapshot.plan, client.info().address);
    let read = || forward::read(snapshot, client.info(), trusted, input);
    // Both were read before.
    let (Ok(Some(request)), Some(head)) = (read(), head(exchange, received)) else {
        return;
    };
    let is_part = request.lines.first(&RANGE).is_some() || matches!(head.status, 206 | 416);
    if is_part || head.is_of_events || head.status == 101 {
        return;
    }
    let Some(counts) = snapshot.mirror(plan.experiment) else {
        return;
    };
    let Some(slot) = client.worker().copies.take() else {
        return counts.dropped.add();
    };
    // Writing changes what was read.
    let Ok(Some(read_again)) = read() else {
        return;
    };
    let written = |target, request| {
        let to = (plan.experiment, target);
        write((client, trusted), exchange, to, request)
    };
    let own = CopyTarget {
        upstream: exchange.upstream(),
        group: Some(plan.group),
    };
    let (request, again) = (written(plan.target, request), written(own, read_again));
    counts.copies.add();
    let (body, collected) = OriginalBody::new(BodyPart::new(response.follows));
    let original = original(exchange, &head, response);
    if original.is_comparable {
        // There is one response to a request.
        let _ = exchange.mirrored.set(Box::new(body));
    }
    let copy = RequestCopy {
        worker: Rc::clone(client.worker()),
        snapshot: Rc::clone(snapshot),
        counts: Arc::clone(counts),
        visitor: exchange.visitor.clone().map(|it| it.into_owned()),
        path: exchange.path.into(),
        to_head: exchange.method == Method::HEAD,
        served: exchange.upstream(),
        target: plan.target.upstream,
        request,
        again,
        original,
        collected,
        exposure: exposure(exchange, plan.experiment, response),
        slot,
    };
    tokio::task::spawn_local(copy.run());
}

/// Whether a request is copied, and where to.
fn plan(exchange: &Exchange<'_>) -> Option<CopyPlan> {
    let (index, group, upstream) = exchange.assignment.chosen?;
    let experiment = exchange.snapshot.plan.experiment(index);
    let mirror = experiment.mirrors()?;
    if !is_copied(exchange, mirror) {
        return None;
    }
    // What another version served in place of the group's says nothing about the two.
    let by_group = exchange.progress.served() == (Some(upstream), None);
    let target = experiment.copy_target(group).filter(|_| by_group)?;
    let share = mirror.share.get();
    (share >= 1.0 || fastrand::f64() < share).then_some(CopyPlan {
        experiment: index,
        group,
        target,
    })
}

/// Whether a request is one that may be copied: it changes nothing, matches the experiment itself, and is of a
/// user who is counted. HEAD is never counted, and copied all the same.
fn is_copied(exchange: &Exchange<'_>, mirror: &Mirror) -> bool {
    let is_counted = match exchange.uncounted.as_deref() {
        None => exchange.visitor.is_some(),
        Some(uncounted) => uncounted.why == NotCounted::Head,
    };
    let mut inside = exchange.assignment.inside.iter();
    let is_forced = inside.any(|it| it.by == AssignedBy::Override);
    let is_plain = !exchange.has_body && exchange.upgrade.is_none();
    let has_method = mirror.methods.contains(&exchange.method);
    is_plain && has_method && is_counted && !is_forced && !exchange.assignment.varies_by.page
}

/// The head of the client's response, as the upstream gave it.
fn head<'r>(exchange: &Exchange<'_>, received: &'r [u8]) -> Option<ResponseHead<'r>> {
    let context = ResponseContext {
        to_head: exchange.method == Method::HEAD,
        ..ResponseContext::default()
    };
    match response_head::read(received, ResponseLimits::OWN, context) {
        Ok(ParsedHead::Final(head)) => Some(head),
        _ => None,
    }
}

fn original(
    exchange: &Exchange<'_>,
    head: &ResponseHead<'_>,
    response: &RecordedResponse,
) -> OriginalResponse {
    OriginalResponse {
        compared: compared(head),
        is_comparable: is_comparable(head),
        took: response.at.saturating_duration_since(exchange.began),
    }
}

/// Writes a copy of a request for this version.
fn write<C: ClientStream>(
    (client, trusted): (&C, bool),
    exchange: &Exchange<'_>,
    (experiment, target): (ExperimentIndex, CopyTarget),
    mut request: Request<'_>,
) -> CopyRequest {
    let snapshot = &exchange.snapshot;
    let experiments = &snapshot.plan.experiments;
    let assignment = match target.group {
        Some(group) => exchange.assignment.in_group(experiments, experiment, group),
        None => exchange.assignment.clone(),
    };
    let fallback = target.group.map(|group| OtherVersion {
        experiment,
        group,
        upstream: target.upstream,
    });
    let by = ServedBy {
        upstream: Some(target.upstream),
        fallback,
        stands_in: false,
        assignment: &assignment,
    };
    for name in &NOT_COPIED {
        request.lines.take_named(name);
    }
    let route = exchange.changes.as_ref().and_then(|it| it.route);
    let changes = snapshot
        .has_changes
        .then(|| Changes::new(&request, trusted, route));
    let of = ForwardedRequest {
        snapshot,
        client: (client.info(), trusted),
        over_tls: exchange.over_tls,
        visitor: exchange.visitor.as_ref(),
        extras: exchange.extras.as_deref(),
        changes: changes.as_ref(),
        open_page: exchange.open_page.as_deref(),
    };
    let mut head = Vec::new();
    let written = forward::write(&of, by, &mut request, &mut head);
    let end = head.len() - b"\r\n".len();
    head.splice(end..end, COPY_FIELDS.iter().copied());
    CopyRequest {
        head,
        host_at: written.host_at,
    }
}

/// What is journaled if the comparison finds a difference.
fn exposure(
    exchange: &Exchange<'_>,
    index: ExperimentIndex,
    response: &RecordedResponse,
) -> Option<Box<LateExposure>> {
    let experiment: &Experiment = exchange.snapshot.plan.experiment(index);
    let mut inside = exchange.assignment.inside.iter();
    let inside = inside.find(|it| it.experiment == index && !it.by.is_over())?;
    if !experiment.exposes_by_difference() || exchange.uncounted.is_some() {
        return None;
    }
    let units = exchange.units.as_deref().cloned();
    Some(Box::new(LateExposure {
        at_ms: exchange.answered_ms(response.at),
        visitor: exchange.visitor.clone()?.into_owned(),
        units: units.map(|units| Box::new(units.into_owned())),
        inside: *inside,
        status: response.status,
        latency: response.at.saturating_duration_since(exchange.began),
        segments: exchange.segments.clone().unwrap_or_default(),
    }))
}
