//! The phases *record* and *respond*: a response is journaled, then its head is written for the
//! client.

use crate::config::plan::OtherVersion;
use crate::experiment::{UpstreamIndex, metric};
use crate::proxy::changes::ServedBy;
use crate::proxy::error_response::{self, Blame, ErrorCode};
use crate::proxy::exchange::{Exchange, RecordedResponse};
use crate::proxy::h1::body::ClientFraming;
use crate::proxy::h1::response_head::{
    self, ClientContext, EditableHead, ExtraHeaders, HeadWriter, ParsedHead, ResponseContext,
    ResponseHead, ResponseLimits,
};
use crate::proxy::headers::edit::Edit;
use crate::proxy::headers::plan_headers;
use crate::proxy::observe::event_faults;
use crate::proxy::observe::exposure_log::{self, Answered};
use crate::proxy::observe::trace_context::REQUEST_ID;
use crate::proxy::policy;
use crate::proxy::snapshot::Worker;
use http::header::STRICT_TRANSPORT_SECURITY;
use http::{HeaderValue, Method, Version};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How a response came about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Provenance {
    /// The upstream that has answered, unless watershed did.
    pub upstream: Option<UpstreamIndex>,
    /// Whether it is changed as the file says, which errors are not.
    pub is_changed: bool,
    /// The version that served in the place of the group's.
    pub fallback: Option<OtherVersion>,
    /// Whether that is because the group's version fails.
    pub stands_in: bool,
    /// The version of HTTP that the response came in.
    pub version: Version,
    /// A part of the request's body has not been read: the client's connection cannot be reused.
    pub unread: bool,
}

impl Provenance {
    /// Of a response that watershed made itself. No version has served, also where another one was asked in the
    /// place of the group's.
    pub(super) fn own(unread: bool) -> Provenance {
        Provenance {
            upstream: None,
            is_changed: false,
            fallback: None,
            stands_in: false,
            version: Version::HTTP_11,
            unread,
        }
    }
}

impl Exchange<'_> {
    /// Records an upstream's response and writes the head that the client gets.
    pub(super) fn respond(
        &self,
        worker: &Worker,
        mut response: ResponseHead<'_>,
        provenance: Provenance,
        head: &mut impl HeadWriter,
    ) -> RecordedResponse {
        let at = Instant::now();
        let latency = at.saturating_duration_since(self.began);
        self.record(worker, &response, provenance, (at, latency));
        let progress = &self.progress;
        progress.responded(&self.snapshot, response.status, latency);
        response.strip();
        let closes = self.closes || provenance.unread;
        self.complete(worker, response, provenance, (closes, at), head)
    }

    /// Records an error and writes its response, whole into `received` and its head for the client.
    /// `None` if that response cannot be parsed, which does not happen.
    pub(super) fn respond_error(
        &self,
        worker: &Worker,
        code: ErrorCode,
        provenance: Provenance,
        received: &mut Vec<u8>,
        head: &mut impl HeadWriter,
    ) -> Option<RecordedResponse> {
        received.clear();
        let pages = &self.snapshot.plan.error_pages;
        let page = pages.get(&code.status().as_u16()).map(|page| &**page);
        received.extend_from_slice(&error_response::with_page(code, None, page));
        let response = self.parse_own(received)?;
        let at = Instant::now();
        let latency = at.saturating_duration_since(self.began);
        self.record(worker, &response, provenance, (at, latency));
        self.responds_itself(&response, received, at, Some(code.token()));
        let closes = self.closes || code.blame() == Blame::Client || provenance.unread;
        let response = self.complete(worker, response, provenance, (closes, at), head);
        Some(response)
    }

    /// Records a response that a route or a group of the user makes, which stands whole in `received`,
    /// and writes its head.
    pub(super) fn respond_by_plan(
        &self,
        worker: &Worker,
        received: &[u8],
        unread: bool,
        head: &mut impl HeadWriter,
    ) -> Option<RecordedResponse> {
        let response = self.parse_own(received)?;
        let at = Instant::now();
        let latency = at.saturating_duration_since(self.began);
        let provenance = Provenance {
            is_changed: true,
            ..Provenance::own(unread)
        };
        self.record(worker, &response, provenance, (at, latency));
        self.responds_itself(&response, received, at, None);
        let closes = self.closes || unread;
        let response = self.complete(worker, response, provenance, (closes, at), head);
        Some(response)
    }

    /// Writes the head of a response of watershed's own, which stands in `received` and is not
    /// recorded. `error` is the token of what was wrong with the request.
    pub(super) fn respond_locally(
        &self,
        worker: &Worker,
        received: &[u8],
        (error, unread): (Option<&'static str>, bool),
        head: &mut impl HeadWriter,
    ) -> Option<RecordedResponse> {
        let mut response = self.parse_own(received)?;
        let at = Instant::now();
        self.responds_itself(&response, received, at, error);
        let how = (self.closes || unread, at);
        let more = &mut ExtraHeaders::new();
        Some(self.write_head(worker, &mut response, more, how, head))
    }

    /// Notes a response of watershed's own, whole in `received`.
    fn responds_itself(
        &self,
        response: &ResponseHead<'_>,
        received: &[u8],
        at: Instant,
        error: Option<&'static str>,
    ) {
        let bytes = match self.method {
            Method::HEAD => 0,
            _ => (received.len() - response.head_bytes) as u64,
        };
        let status = response.status;
        let latency = at.saturating_duration_since(self.began);
        self.progress
            .responded_itself(status, latency, error, bytes);
    }

    fn parse_own<'r>(&self, received: &'r [u8]) -> Option<ResponseHead<'r>> {
        let to_head = self.method == Method::HEAD;
        let context = ResponseContext {
            to_head,
            ..ResponseContext::default()
        };
        match response_head::read(received, ResponseLimits::OWN, context) {
            Ok(ParsedHead::Final(response)) => Some(response),
            _ => None,
        }
    }

    /// Journals what the response counts for.
    fn record(
        &self,
        worker: &Worker,
        response: &ResponseHead<'_>,
        provenance: Provenance,
        (at, latency): (Instant, Duration),
    ) {
        let snapshot = &*self.snapshot;
        let metrics = &snapshot.plan.metrics;
        let observed = metric::observe(metrics, &self.method, self.path, response, self.began_ms);
        if !observed.faults.is_empty() {
            let upstream = provenance.upstream.unwrap_or(self.upstream());
            event_faults::of_header(worker, snapshot, upstream, &observed.faults);
        }
        snapshot.note_rules(worker, &observed);
        if let Some(uncounted) = &self.uncounted {
            let how = (response.status, self.began_ms);
            exposure_log::not_counted(worker, snapshot, uncounted, how);
            return;
        }
        let Some(visitor) = &self.visitor else {
            return;
        };
        let answered = Answered {
            now_ms: self.began_ms,
            ended: at,
            latency,
            visitor,
            units: self.units.as_deref(),
            assignment: &self.assignment,
            served: provenance.fallback.map(|it| it.experiment),
            status: response.status,
            segments: self.segments.as_deref().unwrap_or_default(),
            observations: observed.observations,
        };
        let exposures = exposure_log::answered(worker, snapshot, answered);
        self.exposures.replace(exposures);
    }

    /// Adds what users, caches and later proxies must know.
    fn complete(
        &self,
        worker: &Worker,
        mut response: ResponseHead<'_>,
        provenance: Provenance,
        how: (bool, Instant),
        head: &mut impl HeadWriter,
    ) -> RecordedResponse {
        let (plan, prepared) = (&*self.snapshot.plan, &self.snapshot.plan_headers);
        let mut more = ExtraHeaders::new();
        let by = ServedBy {
            upstream: provenance.upstream,
            fallback: provenance.fallback,
            stands_in: provenance.stands_in,
            assignment: &self.assignment,
        };
        let mut edited = EditableHead {
            answer: &mut response,
            more: &mut more,
        };
        if let Some(changes) = self.changes.as_deref().filter(|_| provenance.is_changed) {
            changes.to_response(plan, by, self.over_tls, &mut edited);
        }
        if let Some(upstream) = provenance.upstream {
            self.keep_versions_apart((upstream, by), &mut edited);
        }
        // What is the same in all versions, as the file says, is of none.
        let open_page = self.open_page.as_deref().filter(|_| !self.cache.is_shared);
        let page_cookie = open_page.and_then(|page| {
            let how = (edited.answer.status, self.over_tls);
            page.cookie(&self.snapshot, by, how, &edited)
        });
        let cookies = self.cookies.iter().chain(&page_cookie);
        plan_headers::finish(
            (plan, prepared),
            (provenance.version, &mut edited),
            self.visitor.as_ref(),
            (&self.assignment, self.cache),
            (cookies, self.uncounted.is_some(), provenance.stands_in),
            self.over_tls,
        );
        if let Some(other) = provenance.fallback {
            let group = prepared.group(other.experiment, other.group).clone();
            edited.append(plan_headers::FALLBACK, group);
        }
        self.write_head(worker, &mut response, &mut more, how, head)
    }

    /// Marks what clients keep of a response of this upstream's version.
    fn keep_versions_apart(
        &self,
        (upstream, by): (UpstreamIndex, ServedBy<'_>),
        head: &mut impl Edit,
    ) {
        let versions = &self.snapshot.plan_headers.versions;
        let mark = by.validator_mark(&self.snapshot.plan, versions);
        if mark.is_some() || versions.isolates() {
            let plain = self.plain_cookies.borrow();
            versions.to_response((upstream, mark.as_deref()), &plain, self.began_ms, head);
        }
    }

    /// Writes the head that the client gets.
    fn write_head(
        &self,
        worker: &Worker,
        response: &mut ResponseHead<'_>,
        more: &mut ExtraHeaders,
        (closes, at): (bool, Instant),
        head: &mut impl HeadWriter,
    ) -> RecordedResponse {
        if let Some(id) = self.request_id()
            && let Ok(id) = HeaderValue::from_bytes(id)
        {
            let answer = &mut *response;
            EditableHead { answer, more }.insert(REQUEST_ID, id);
        }
        if let Some(hsts) = &self.snapshot.plan.https.hsts
            && self.over_tls
        {
            let answer = &mut *response;
            EditableHead { answer, more }.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        let to = ClientContext {
            http_10: self.http_10,
            // The process may have begun to stop since the request came.
            closes: closes || worker.is_stopping() || (self.http_10 && response.is_unframed()),
            upgrade: self.upgrade,
        };
        worker.with_date(self.began_ms, |date| {
            head.complete(response, more, date, to)
        });
        let snapshot = &self.snapshot;
        RecordedResponse {
            follows: response.follows,
            status: response.status,
            // A client that gets the length gets no chunks.
            framed: match (
                self.http_10 || response.sized,
                self.takes_trailers && response.has_trailers(),
            ) {
                (true, _) => ClientFraming::Raw,
                (false, true) => {
                    ClientFraming::Trailers(Rc::clone(&snapshot.plan_headers.reserved))
                }
                (false, false) => ClientFraming::Chunks,
            },
            head_bytes: response.head_bytes,
            keeps: response.keeps,
            idle_for: response.idle_for,
            closes: to.closes,
            pause_max: policy::pause_max(&snapshot.plan, response.is_of_events),
            at,
        }
    }
}
