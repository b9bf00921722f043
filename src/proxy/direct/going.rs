//! What a plain request means, and what its answer counts for.

use super::answer::{self, Answer, Edited, Follows, Head, More, Read};
use super::request::{self, Ours};
use crate::config::plan::Endpoint;
use crate::experiment::asked::Asked as _;
use crate::experiment::identity::{self, Visitor};
use crate::experiment::metric;
use crate::experiment::record::Exposure;
use crate::experiment::visit::{self, Visit, visit};
use crate::experiment::{ExperimentIndex, UpstreamIndex};
use crate::journal;
use crate::proxy::access::{Asked, Entry};
use crate::proxy::edit::Edit;
use crate::proxy::event_faults;
use crate::proxy::framing::Bounds;
use crate::proxy::handle;
use crate::proxy::headers;
use crate::proxy::record::{self, Answered, Unfinished};
use crate::proxy::reply::{self, Blame, Reason};
use crate::proxy::snapshot::{Snapshot, Worker};
use crate::proxy::trace::{PARENT_BYTES, REQUEST_ID, Tags};
use crate::proxy::trail::Trail;
use http::{HeaderValue, Method, Version};
use smallvec::SmallVec;
use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Who asks, and how.
pub struct By<'a> {
    /// What is said of the client.
    pub ours: &'a Ours,
    /// The peer, or whom a trusted peer speaks for.
    pub peer: IpAddr,
    /// Whether it came over TLS.
    pub secure: bool,
    /// The client's HTTP.
    pub version: Version,
    /// Requests before this one on the connection.
    pub requests: u32,
    /// Whether the rate limit was asked already, and let it through.
    pub admitted: &'a mut bool,
}

/// A request on its way.
pub struct Going<'b> {
    /// By which plan it goes.
    pub snapshot: Rc<Snapshot>,
    /// Its method.
    pub method: Method,
    /// Whether it has a body.
    pub has_body: bool,
    /// What it means.
    pub visit: Visit,
    /// How many bytes of what the client sent it takes.
    pub taken: usize,
    visitor: Option<Visitor<'b>>,
    path: &'b str,
    pub began: Instant,
    now_ms: u64,
    over_tls: bool,
    closes: bool,
    /// When the last byte of the answer must have gone.
    pub deadline: Option<Instant>,
    /// Why it is refused without asking anyone.
    pub refused: Option<Reason>,
    marks: Option<Box<Marks>>,
    /// What is logged and exported of it.
    entry: Option<RefCell<Box<Entry>>>,
}

/// What few requests have: on the heap, so that the others need not carry it.
#[derive(Default)]
struct Marks {
    tags: Tags,
    /// Where in the request the span stands that sends it.
    parent_at: Option<usize>,
}

/// An answer whose head is written and recorded.
pub struct Finished {
    /// What follows the head.
    pub follows: Follows,
    /// Its status.
    pub status: u16,
    /// Whether the upstream's answer is of HTTP/1.0.
    pub http_10: bool,
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

/// What stands at the beginning of what a client has sent.
#[expect(
    clippy::large_enum_variant,
    reason = "never kept: moved once, on the stack"
)]
pub enum Found<'b> {
    /// Something that is not complete.
    More,
    /// Something that is not plain.
    Other,
    /// A request.
    Go(Going<'b>),
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
    let (bounds, reserved) = (Bounds::from(&plan.limits), &snapshot.words.reserved);
    let mut request = match request::read(held, &bounds, reserved, by.ours.trusted) {
        request::Read::More => return Found::More,
        request::Read::Other => return Found::Other,
        request::Read::Plain(request) => request,
    };
    let taken = request.head_bytes + request.body_bytes;
    let max = plan.limits.body_bytes.unwrap_or(u64::MAX);
    let beacon = plan.beacon.enabled && (&request).path() == &*plan.beacon.path;
    if beacon || taken > held.len() || request.body_bytes as u64 > max {
        return Found::Other;
    }
    let (began, now_ms) = (Instant::now(), journal::system_ms());
    let mut marks = snapshot.marks.then(|| {
        let tags = handle::tags(plan, &request, by.ours.trusted, now_ms);
        Box::new(Marks {
            tags,
            parent_at: None,
        })
    });
    let mut entry = marks.as_ref().and_then(|marks| {
        let (path, target) = request.target();
        let asked = Asked {
            client: by.peer,
            secure: by.secure,
            method: &request.method,
            authority: None,
            path,
            target,
            version: by.version,
            fields: &request,
        };
        Entry::of(worker, &snapshot, &asked, &marks.tags, began)
    });
    let mut refused = None;
    if let Some(rate) = plan.limits.rate
        && !std::mem::replace(by.admitted, true)
    {
        let asker = headers::asker(plan, &request, by.peer);
        let admitted = worker.rates.admit(asker, began, rate);
        refused = (!admitted).then_some(Reason::TooMany);
    }
    let over_tls = by.secure || (by.ours.trusted && headers::over_tls(&request));
    let visitor = match refused.is_none() && handle::consents(plan, &request) {
        true => identity::find(&plan.identity, &request).or_else(|| handle::mint(plan, now_ms)),
        false => None,
    };
    let visit = match (&visitor, refused) {
        (Some(visitor), _) => visit(&plan.experiments, &request, visitor.assigned_by(), None),
        (None, None) => visit::unrecorded(&plan.experiments, &request),
        // Nobody is asked.
        (None, Some(_)) => Visit::default(),
    };
    let mut parent = marks.as_ref().and_then(|marks| marks.tags.begins);
    if let Some(entry) = &mut entry {
        entry.visited(visitor.as_ref(), &visit);
        entry.brought(request.body_bytes as u64);
        // Each attempt puts its own span there.
        parent = parent.or(entry.trail().map(Trail::parent));
    }
    let tags = marks.as_ref().map(|marks| &marks.tags);
    let (words, tagged) = (&snapshot.words, (tags, parent));
    let by_whom = (by.ours, over_tls);
    let parent_at = request.write(out, by_whom, words, tagged, visitor.as_ref(), &visit);
    if let Some(marks) = &mut marks {
        marks.parent_at = parent_at;
    }
    out.extend_from_slice(&held[request.head_bytes..taken]);
    let closes = request.closes || by.requests + 1 >= plan.limits.requests;
    Found::Go(Going {
        path: (&request).path(),
        has_body: request.body_bytes > 0,
        method: request.method,
        visit,
        taken,
        visitor,
        began,
        now_ms,
        over_tls,
        closes,
        deadline: plan.timeouts.total.map(|total| began + total),
        refused,
        marks,
        entry: entry.map(RefCell::new),
        snapshot,
    })
}

impl Going<'_> {
    /// Where it goes, if all is well.
    pub fn wanted(&self) -> UpstreamIndex {
        let chosen = self.visit.chosen.map(|(_, _, upstream)| upstream);
        chosen.unwrap_or(self.snapshot.plan.default)
    }

    /// Adds to what is logged and exported of it, if it is.
    pub fn note(&self, add: impl FnOnce(&mut Entry)) {
        if let Some(entry) = &self.entry {
            add(&mut entry.borrow_mut());
        }
    }

    /// Notes how it goes, if it is exported.
    pub fn trail(&self, note: impl FnOnce(&Trail)) {
        if let Some(entry) = &self.entry
            && let Some(trail) = entry.borrow().trail()
        {
            note(trail);
        }
    }

    /// It is sent to this endpoint: the request names the attempt that sends it.
    pub fn goes(&self, endpoint: &Endpoint, request: &mut [u8]) {
        self.trail(|trail| {
            if let Some(parent) = trail.goes(endpoint)
                && let Some(at) = self.marks.as_ref().and_then(|marks| marks.parent_at)
                && let Some(place) = request.get_mut(at..at + PARENT_BYTES)
            {
                place.copy_from_slice(&parent.text());
            }
        });
    }

    /// How long may be waited, if not longer than this.
    pub fn within(&self, longest: Duration) -> Duration {
        let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
        self.deadline
            .map_or(longest, |deadline| longest.min(left(deadline)))
    }

    /// Whether it has had all its time.
    pub fn is_late(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// What is logged of it, to be finished elsewhere.
    pub fn take_entry(&mut self) -> Option<Box<Entry>> {
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
        mut answer: Answer<'_>,
        fallback: Option<ExperimentIndex>,
        head: &mut impl Head,
    ) -> Finished {
        let at = Instant::now();
        let exposures = self.record(worker, &answer, fallback, at);
        self.note(|entry| entry.answered(answer.status, None));
        answer.strip();
        let how = (fallback, self.closes, at);
        self.complete(worker, answer, how, exposures, head)
    }

    /// The same with watershed's own answer, which is written into `said`. `None` never comes.
    pub fn refuse(
        &self,
        worker: &Worker,
        reason: Reason,
        fallback: Option<ExperimentIndex>,
        said: &mut Vec<u8>,
        head: &mut impl Head,
    ) -> Option<Finished> {
        said.extend_from_slice(&reply::words(reason));
        let said_bytes = said.len();
        let Ok(Read::Final(answer)) = answer::read(said, self.method == Method::HEAD) else {
            return None;
        };
        let at = Instant::now();
        let exposures = self.record(worker, &answer, fallback, at);
        let (_, token, blame) = reason.terms();
        self.note(|entry| {
            entry.answered(answer.status, Some(token.into()));
            entry.own((said_bytes - answer.head_bytes) as u64);
        });
        let closes = self.closes || blame == Blame::Client;
        let how = (fallback, closes, at);
        Some(self.complete(worker, answer, how, exposures, head))
    }

    fn record(
        &self,
        worker: &Worker,
        answer: &Answer<'_>,
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
        record::answered(worker, snapshot, answered)
    }

    fn complete(
        &self,
        worker: &Worker,
        mut answer: Answer<'_>,
        (fallback, closes, at): (Option<ExperimentIndex>, bool, Instant),
        exposures: SmallVec<[Exposure; 2]>,
        head: &mut impl Head,
    ) -> Finished {
        let (plan, words) = (&*self.snapshot.plan, &self.snapshot.words);
        // The process may have begun to stop since the request came.
        let closes = closes || worker.is_stopping();
        let version = match answer.http_10 {
            true => Version::HTTP_10,
            false => Version::HTTP_11,
        };
        let mut more = More::new();
        let mut edited = Edited {
            answer: &mut answer,
            more: &mut more,
        };
        headers::finish(
            (plan, words),
            (version, &mut edited),
            self.visitor.as_ref(),
            &self.visit,
            None,
            self.over_tls,
        );
        if let Some(experiment) = fallback {
            let control = plan.experiment(experiment).control;
            edited.append(headers::FALLBACK, words.group(experiment, control).clone());
        }
        if let Some(marks) = &self.marks
            && let Some(id) = &marks.tags.id
            && let Ok(id) = HeaderValue::from_bytes(id.as_bytes())
        {
            edited.insert(REQUEST_ID, id);
        }
        worker.with_date(self.now_ms, |date| {
            head.complete(&answer, &more, date, closes)
        });
        Finished {
            follows: answer.follows,
            status: answer.status,
            http_10: answer.http_10,
            head_bytes: answer.head_bytes,
            keeps: answer.keeps,
            closes,
            quiet_max: handle::quiet_max(plan, headers::is_of_events(&answer)),
            at,
            exposures,
        }
    }

    /// What is recorded unless the answer reaches its end.
    pub fn unfinished(&self, worker: &Rc<Worker>, finished: &Finished) -> Option<Box<Unfinished>> {
        let visitor = self.visitor.clone()?.into_owned();
        let exposures = finished.exposures.clone();
        Unfinished::of(worker, &self.snapshot, visitor, exposures)
    }
}
