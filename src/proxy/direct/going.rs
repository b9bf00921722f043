//! What a plain request means, and what its answer counts for.

use super::answer::{self, Answer, Edited, Follows, Head, More, Read};
use super::request::{self, Ours};
use crate::experiment::asked::Asked;
use crate::experiment::identity::{self, Visitor};
use crate::experiment::metric;
use crate::experiment::record::Exposure;
use crate::experiment::visit::{self, Visit, visit};
use crate::experiment::{ExperimentIndex, UpstreamIndex};
use crate::journal;
use crate::proxy::edit::Edit;
use crate::proxy::event_faults;
use crate::proxy::framing::Bounds;
use crate::proxy::handle;
use crate::proxy::headers;
use crate::proxy::record::{self, Answered, Unfinished};
use crate::proxy::reply::{self, Blame, Reason};
use crate::proxy::snapshot::{Snapshot, Worker};
use http::{Method, Version};
use smallvec::SmallVec;
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
}

/// An answer whose head is written and recorded.
pub struct Finished {
    /// What follows the head.
    pub follows: Follows,
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
    /// More than the client may ask.
    TooMany,
    /// A request.
    Go(Going<'b>),
}

/// Reads a request, finds what it means, and writes what the upstream gets.
pub fn find<'b>(
    worker: &Worker,
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
    if let Some(rate) = plan.limits.rate
        && !std::mem::replace(by.admitted, true)
    {
        let asker = headers::asker(plan, &request, by.peer);
        if !worker.rates.admit(asker, began, rate) {
            return Found::TooMany;
        }
    }
    let over_tls = by.secure || (by.ours.trusted && headers::over_tls(&request));
    let visitor = match handle::consents(plan, &request) {
        true => identity::find(&plan.identity, &request).or_else(|| handle::mint(plan, now_ms)),
        false => None,
    };
    let visit = match &visitor {
        Some(visitor) => visit(&plan.experiments, &request, visitor.assigned_by(), None),
        None => visit::unrecorded(&plan.experiments, &request),
    };
    let words = &snapshot.words;
    request.write(out, by.ours, over_tls, words, visitor.as_ref(), &visit);
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
        snapshot,
    })
}

impl Going<'_> {
    /// Where it goes, if all is well.
    pub fn wanted(&self) -> UpstreamIndex {
        let chosen = self.visit.chosen.map(|(_, _, upstream)| upstream);
        chosen.unwrap_or(self.snapshot.plan.default)
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
        let Ok(Read::Final(answer)) = answer::read(said, self.method == Method::HEAD) else {
            return None;
        };
        let at = Instant::now();
        let exposures = self.record(worker, &answer, fallback, at);
        let closes = self.closes || reason.terms().2 == Blame::Client;
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
            edited.append(headers::FALLBACK, words.group(experiment, control));
        }
        worker.with_date(self.now_ms, |date| {
            head.complete(&answer, &more, date, closes)
        });
        Finished {
            follows: answer.follows,
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
