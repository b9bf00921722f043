//! What a request means, and what its answer counts for.

mod admit;

pub use admit::{By, Found, find};

use crate::config::plan::Endpoint;
use crate::experiment::identity::Visitor;
use crate::experiment::metric;
use crate::experiment::record::Exposure;
use crate::experiment::resolve::Assignment;
use crate::experiment::{ExperimentIndex, UpstreamIndex};
use crate::proxy::error_response::{self, Blame, ErrorCode};
use crate::proxy::h1::body::ClientFraming;
use crate::proxy::h1::request_head::Request;
use crate::proxy::h1::response_head::{
    self, BodyFraming, ClientContext, EditableHead, ExtraHeaders, HeadWriter, ParsedHead,
    ResponseHead,
};
use crate::proxy::headers::edit::Edit;
use crate::proxy::headers::plan_headers;
use crate::proxy::observe::access_log::LogEntry;
use crate::proxy::observe::event_faults;
use crate::proxy::observe::exposure_log::{self, Answered, UnfinishedExposures};
use crate::proxy::observe::spans::SpanRecorder;
use crate::proxy::observe::trace_context::{Correlation, PARENT_BYTES, REQUEST_ID};
use crate::proxy::policy;
use crate::proxy::snapshot::{Snapshot, Worker};
use http::{HeaderValue, Method, Version};
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What is answered in the place of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalResponse {
    /// Why it is refused.
    Refused(ErrorCode),
    /// It may go no further: what may be asked here.
    LastHop,
    /// It reports events of a browser.
    Report,
}

/// A request on its way.
pub struct Exchange<'b> {
    /// By which plan it goes.
    pub snapshot: Rc<Snapshot>,
    /// Its method.
    pub method: Method,
    /// Whether it has a body.
    pub has_body: bool,
    /// What it means.
    pub visit: Assignment,
    /// How many bytes of what the client sent it takes.
    pub taken: usize,
    visitor: Option<Visitor<'b>>,
    path: &'b str,
    pub began: Instant,
    now_ms: u64,
    over_tls: bool,
    closes: bool,
    /// Whether the client speaks HTTP/1.0.
    pub http_10: bool,
    /// The protocols that the client asks to change to.
    pub upgrade: Option<&'b [u8]>,
    takes_trailers: bool,
    /// When the last byte of the answer must have gone.
    pub deadline: Option<Instant>,
    /// What is answered without asking anyone.
    pub instead: Option<LocalResponse>,
    /// The request, where it is not for an upstream.
    pub own: Option<Box<Request<'b>>>,
    /// Keeps an override that came in a link.
    cookie: Option<String>,
    /// Where the endpoint's name stands in the head, where the client named no host.
    host: Cell<Option<(usize, usize)>>,
    marks: Option<Box<Extras>>,
    /// What is logged and exported of it.
    entry: Option<RefCell<Box<LogEntry>>>,
}

/// What few requests have: on the heap, so that the others need not carry it.
#[derive(Default)]
struct Extras {
    tags: Correlation,
    /// Where in the request the span stands that sends it.
    parent_at: Option<usize>,
}

/// An answer whose head is written and recorded.
pub struct RecordedResponse {
    /// What follows the head.
    pub follows: BodyFraming,
    /// Its status.
    pub status: u16,
    /// How the client gets a body without a known length.
    pub framed: ClientFraming,
    /// How long the head was, in bytes.
    pub head_bytes: usize,
    /// Whether another request may follow to the upstream.
    pub keeps: bool,
    /// Whether the client's connection is to be closed behind it.
    pub closes: bool,
    /// How long the upstream may pause.
    pub quiet_max: Duration,
    /// When the head came.
    pub at: Instant,
    exposures: SmallVec<[Exposure; 2]>,
}

impl Exchange<'_> {
    /// Where it goes, if all is well.
    pub fn wanted(&self) -> UpstreamIndex {
        let chosen = self.visit.chosen.map(|(_, _, upstream)| upstream);
        chosen.unwrap_or(self.snapshot.plan.default)
    }

    /// Adds to what is logged and exported of it, if it is.
    pub fn note(&self, add: impl FnOnce(&mut LogEntry)) {
        if let Some(entry) = &self.entry {
            add(&mut entry.borrow_mut());
        }
    }

    /// Notes how it goes, if it is exported.
    pub fn trail(&self, note: impl FnOnce(&SpanRecorder)) {
        if let Some(entry) = &self.entry
            && let Some(trail) = entry.borrow().trail()
        {
            note(trail);
        }
    }

    /// The body of a request that has come whole with its head.
    pub fn inline<'h>(&self, held: &'h [u8]) -> &'h [u8] {
        let head = self.own.as_ref().map_or(self.taken, |it| it.head_bytes);
        held.get(head..self.taken).unwrap_or_default()
    }

    /// The request ID that the response carries, if there is one.
    pub fn request_id(&self) -> Option<&[u8]> {
        let id = self.marks.as_ref()?.tags.id.as_ref()?;
        Some(id.as_bytes())
    }

    /// It is sent to this endpoint: the request names the attempt that sends it, and the endpoint
    /// where the client named no host (RFC 9112, 3.2).
    pub fn goes(&self, endpoint: &Endpoint, request: &mut Vec<u8>) {
        self.trail(|trail| {
            if let Some(parent) = trail.goes(endpoint)
                && let Some(at) = self.marks.as_ref().and_then(|marks| marks.parent_at)
                && let Some(place) = request.get_mut(at..at + PARENT_BYTES)
            {
                place.copy_from_slice(&parent.text());
            }
        });
        if let Some((from, to)) = self.host.get() {
            let line = format!("host: {endpoint}\r\n");
            self.host.set(Some((from, from + line.len())));
            request.splice(from..to, line.into_bytes());
        }
    }

    /// How long may be waited, if not longer than this.
    pub fn within(&self, longest: Duration) -> Duration {
        self.deadline.map_or(longest, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            longest.min(left)
        })
    }

    /// The same from then on.
    pub fn within_from(&self, from: Instant, longest: Duration) -> Duration {
        let left = |deadline: Instant| deadline.saturating_duration_since(from);
        self.deadline
            .map_or(longest, |deadline| longest.min(left(deadline)))
    }

    /// Whether it has had all its time.
    pub fn is_late(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// What is logged of it, to be finished elsewhere.
    pub fn take_entry(&mut self) -> Option<Box<LogEntry>> {
        self.entry.take().map(RefCell::into_inner)
    }

    /// The ID that decides groups.
    pub fn user(&self) -> Option<crate::experiment::UserId<'_>> {
        self.visitor.as_ref().map(Visitor::assigned_by)
    }

    /// Records an upstream's answer and writes the head that the client gets.
    pub fn finish(
        &self,
        worker: &Worker,
        mut answer: ResponseHead<'_>,
        (fallback, version, closes): (Option<ExperimentIndex>, Version, bool),
        head: &mut impl HeadWriter,
    ) -> RecordedResponse {
        let at = Instant::now();
        let exposures = self.record(worker, &answer, fallback, at);
        self.note(|entry| entry.answered(answer.status, None));
        answer.strip();
        let how = (fallback, version, self.closes || closes, at);
        self.complete(worker, answer, how, exposures, head)
    }

    /// The same with watershed's own answer, which is written into `said`. With `unread`, a part of
    /// the request's body has not come. `None` never comes.
    pub fn refuse(
        &self,
        worker: &Worker,
        (code, fallback, unread): (ErrorCode, Option<ExperimentIndex>, bool),
        said: &mut Vec<u8>,
        head: &mut impl HeadWriter,
    ) -> Option<RecordedResponse> {
        said.clear();
        said.extend_from_slice(&error_response::response(code, None));
        let said_bytes = said.len();
        let Ok(ParsedHead::Final(answer)) =
            response_head::read(said, self.method == Method::HEAD, false)
        else {
            return None;
        };
        let at = Instant::now();
        let exposures = self.record(worker, &answer, fallback, at);
        let (token, blame) = (code.token(), code.blame());
        self.note(|entry| {
            entry.answered(answer.status, Some(token.into()));
            entry.own((said_bytes - answer.head_bytes) as u64);
        });
        let closes = self.closes || blame == Blame::Client || unread;
        let how = (fallback, Version::HTTP_11, closes, at);
        Some(self.complete(worker, answer, how, exposures, head))
    }

    /// The same with an answer of watershed's own that stands in `said` and counts for nothing;
    /// `error` says what was wrong. `None` never comes.
    pub fn own(
        &self,
        worker: &Worker,
        said: &[u8],
        (error, unread): (Option<&'static str>, bool),
        head: &mut impl HeadWriter,
    ) -> Option<RecordedResponse> {
        let Ok(ParsedHead::Final(mut answer)) =
            response_head::read(said, self.method == Method::HEAD, false)
        else {
            return None;
        };
        self.note(|entry| {
            entry.answered(answer.status, error.map(Into::into));
            entry.own((said.len() - answer.head_bytes) as u64);
        });
        let how = (self.closes || unread, Instant::now());
        let more = &mut ExtraHeaders::new();
        Some(self.give(worker, &mut answer, more, how, SmallVec::new(), head))
    }

    fn record(
        &self,
        worker: &Worker,
        answer: &ResponseHead<'_>,
        fallback: Option<ExperimentIndex>,
        at: Instant,
    ) -> SmallVec<[Exposure; 2]> {
        let snapshot = &*self.snapshot;
        let metrics = &snapshot.plan.metrics;
        let (observations, faults) = metric::observe(metrics, &self.method, self.path, answer);
        if !faults.is_empty() {
            let control = fallback.and_then(|it| snapshot.plan.control_upstream(it));
            let upstream = control.unwrap_or(self.wanted());
            event_faults::of_header(worker, snapshot, upstream, &faults);
        }
        let Some(visitor) = &self.visitor else {
            return SmallVec::new();
        };
        let answered = Answered {
            now_ms: self.now_ms,
            began: self.began,
            ended: at,
            visitor,
            visit: &self.visit,
            served: fallback,
            status: answer.status,
            observations,
        };
        exposure_log::answered(worker, snapshot, answered)
    }

    fn complete(
        &self,
        worker: &Worker,
        mut answer: ResponseHead<'_>,
        (fallback, version, closes, at): (Option<ExperimentIndex>, Version, bool, Instant),
        exposures: SmallVec<[Exposure; 2]>,
        head: &mut impl HeadWriter,
    ) -> RecordedResponse {
        let (plan, words) = (&*self.snapshot.plan, &self.snapshot.words);
        let mut more = ExtraHeaders::new();
        let mut edited = EditableHead {
            answer: &mut answer,
            more: &mut more,
        };
        plan_headers::finish(
            (plan, words),
            (version, &mut edited),
            self.visitor.as_ref(),
            &self.visit,
            self.cookie.as_deref(),
            self.over_tls,
        );
        if let Some(experiment) = fallback {
            let control = plan.experiment(experiment).control;
            edited.append(
                plan_headers::FALLBACK,
                words.group(experiment, control).clone(),
            );
        }
        self.give(
            worker,
            &mut answer,
            &mut more,
            (closes, at),
            exposures,
            head,
        )
    }

    /// Writes the head that the client gets.
    fn give(
        &self,
        worker: &Worker,
        answer: &mut ResponseHead<'_>,
        more: &mut ExtraHeaders,
        (closes, at): (bool, Instant),
        exposures: SmallVec<[Exposure; 2]>,
        head: &mut impl HeadWriter,
    ) -> RecordedResponse {
        if let Some(id) = self.request_id()
            && let Ok(id) = HeaderValue::from_bytes(id)
        {
            EditableHead { answer, more }.insert(REQUEST_ID, id);
        }
        let unframed = matches!(
            answer.follows,
            BodyFraming::Chunks | BodyFraming::UntilClose
        );
        let to = ClientContext {
            http_10: self.http_10,
            // The process may have begun to stop since the request came.
            closes: closes || worker.is_stopping() || (unframed && self.http_10),
            upgrade: self.upgrade,
        };
        worker.with_date(self.now_ms, |date| head.complete(answer, more, date, to));
        RecordedResponse {
            follows: answer.follows,
            status: answer.status,
            framed: match (self.http_10, self.takes_trailers && answer.has_trailers()) {
                (true, _) => ClientFraming::Raw,
                (false, true) => ClientFraming::Trailers(Rc::clone(&self.snapshot.words.reserved)),
                (false, false) => ClientFraming::Chunks,
            },
            head_bytes: answer.head_bytes,
            keeps: answer.keeps,
            closes: to.closes,
            quiet_max: policy::quiet_max(&self.snapshot.plan, plan_headers::is_of_events(&*answer)),
            at,
            exposures,
        }
    }

    /// What is recorded unless the answer reaches its end.
    pub fn unfinished(
        &self,
        worker: &Rc<Worker>,
        finished: &RecordedResponse,
    ) -> Option<Box<UnfinishedExposures>> {
        let visitor = self.visitor.clone()?.into_owned();
        let exposures = finished.exposures.clone();
        UnfinishedExposures::of(worker, &self.snapshot, visitor, exposures)
    }
}
