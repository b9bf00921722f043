//! What is journaled of a request, before its answer leaves.

use crate::experiment::client_event::ClientEvent;
use crate::experiment::event::EventFault;
use crate::experiment::guardrail;
use crate::experiment::identity::{StoredId, Visitor};
use crate::experiment::metric::{self, Observations};
use crate::experiment::not_counted::UncountedRequest;
use crate::experiment::record::{Exposure, Record, Served};
use crate::experiment::resolve::{AssignedBy, Assignment};
use crate::experiment::{ExperimentIndex, UserId};
use crate::journal::JournalFull;
use crate::proxy::snapshot::{Snapshot, Worker};
use crate::tasks;
use smallvec::SmallVec;
use std::rc::Rc;
use std::time::Instant;

/// The user of records that belong to none.
const NOBODY: &[u8] = b"-";

/// An answer and what led to it.
pub struct Answered<'a> {
    /// When the request came, by the system's clock, in Unix milliseconds.
    pub now_ms: u64,
    /// When the request came.
    pub began: Instant,
    /// When the head of the answer came.
    pub ended: Instant,
    /// Who asked.
    pub visitor: &'a Visitor<'a>,
    /// What the request meant.
    pub assignment: &'a Assignment,
    /// The experiment that control served in the group's place.
    pub served: Option<ExperimentIndex>,
    /// The answer's status.
    pub status: u16,
    /// Which segments the user is in.
    pub segments: &'a str,
    /// What the answer counted for.
    pub observations: Observations,
}

/// Journals what was answered.
pub fn answered(
    worker: &Worker,
    snapshot: &Snapshot,
    answered: Answered<'_>,
) -> SmallVec<[Exposure; 2]> {
    tasks::failpoint("request");
    let plan = &*snapshot.plan;
    let mut exposures = SmallVec::new();
    for &(experiment, group, by) in &answered.assignment.inside {
        if by == AssignedBy::Winner {
            continue;
        }
        let counted = by == AssignedBy::Hash || plan.experiment(experiment).count_overrides;
        let served = match (answered.served == Some(experiment), counted) {
            (true, _) => Served::Fallback,
            (false, true) => Served::Own,
            (false, false) => Served::Override,
        };
        exposures.push(Exposure {
            experiment,
            group,
            served,
        });
    }
    let is_new = answered.visitor.is_new();
    let nothing = exposures.is_empty() && answered.observations.is_empty();
    if nothing && !comes_back(worker, &answered) {
        return exposures;
    }
    let latency = answered.ended.saturating_duration_since(answered.began);
    let mut observations = answered.observations;
    for exposure in &exposures {
        let bounds = &plan.experiment(exposure.experiment).guardrails;
        guardrail::observe(bounds, answered.status, latency, &mut observations);
    }
    let system_ms = answered.now_ms + latency.as_millis() as u64;
    let clock = worker.journal.borrow();
    let at_ms = clock.clock().read(answered.ended, system_ms);
    drop(clock);
    let keep = &plan.identity.keep;
    let minted = answered.visitor.minted_beside().map(|id| keep.of(id));
    append(
        worker,
        snapshot,
        &Record {
            at_ms,
            user: keep.of(answered.visitor.user()).id(),
            declaration: snapshot.declared.digest,
            status: answered.status,
            latency_us: latency.as_micros() as u64,
            exposures: &exposures,
            segments: answered.segments,
            observations: &observations,
            minted: minted.as_ref().map(StoredId::id),
            is_new,
        },
    );
    exposures
}

/// Whether the journal must know that this visitor's minted ID came back, on a request that is recorded for
/// nothing else: the visitor may wait to be counted in some experiment.
fn comes_back(worker: &Worker, answered: &Answered<'_>) -> bool {
    let visitor = answered.visitor;
    visitor.may_have_been_seen_once(answered.now_ms) && worker.returned.note(visitor.assigned_by())
}

/// Journals a request that is not counted, for the experiments that it would have taken part in.
pub fn not_counted(
    worker: &Worker,
    snapshot: &Snapshot,
    request: &UncountedRequest,
    (status, at_ms): (u16, u64),
) {
    let exposure = |&experiment: &ExperimentIndex| Exposure {
        experiment,
        group: snapshot.plan.experiment(experiment).control,
        served: Served::NotCounted(request.why),
    };
    let exposures: SmallVec<[Exposure; 2]> = request.experiments.iter().map(exposure).collect();
    worker.telemetry().not_counted.add(request.why as usize);
    let Some(nobody) = UserId::new(NOBODY).filter(|_| !exposures.is_empty()) else {
        return;
    };
    append(
        worker,
        snapshot,
        &Record {
            at_ms,
            user: nobody,
            declaration: snapshot.declared.digest,
            status,
            latency_us: 0,
            exposures: &exposures,
            segments: "",
            observations: &[],
            minted: None,
            is_new: false,
        },
    );
}

/// An answer that was recorded when its head came, until its body has reached its end.
#[derive(Debug)]
pub struct UnfinishedExposures {
    worker: Rc<Worker>,
    snapshot: Rc<Snapshot>,
    visitor: Visitor<'static>,
    exposures: SmallVec<[Exposure; 2]>,
}

impl UnfinishedExposures {
    /// Of an answer that counts for some group; `None` where it counts for none.
    pub fn of(
        worker: &Rc<Worker>,
        snapshot: &Rc<Snapshot>,
        visitor: Visitor<'static>,
        mut exposures: SmallVec<[Exposure; 2]>,
    ) -> Option<Box<UnfinishedExposures>> {
        exposures.retain(|exposure| exposure.served == Served::Own);
        (!exposures.is_empty()).then(|| {
            Box::new(UnfinishedExposures {
                worker: Rc::clone(worker),
                snapshot: Rc::clone(snapshot),
                visitor,
                exposures,
            })
        })
    }

    /// Journals that it did not reach its end.
    pub fn record(mut self) {
        for exposure in &mut self.exposures {
            exposure.served = Served::Unfinished;
        }
        let snapshot = &*self.snapshot;
        let at_ms = self.worker.journal.borrow().clock().now_ms();
        let kept = snapshot.plan.identity.keep.of(self.visitor.user());
        let record = Record {
            at_ms,
            user: kept.id(),
            declaration: snapshot.declared.digest,
            status: 0,
            latency_us: 0,
            exposures: &self.exposures,
            segments: "",
            observations: &[],
            minted: None,
            is_new: false,
        };
        append(&self.worker, snapshot, &record);
    }
}

/// What became of an event that a browser reports.
pub enum EventOutcome {
    /// It is in the journal.
    Journaled,
    /// It counts for no metric.
    Unknown,
    /// It is not counted, because this is wrong with it.
    Refused(EventFault),
    /// The journal has no room for it.
    Dropped,
}

/// Journals an event that the visitor's browser reports.
pub fn event(
    worker: &Worker,
    snapshot: &Snapshot,
    visitor: &Visitor<'_>,
    reported: &ClientEvent,
) -> EventOutcome {
    let plan = &*snapshot.plan;
    let at_ms = worker.journal.borrow().clock().now_ms();
    let (observations, faults) = metric::observe_event(&plan.metrics, &reported.event, at_ms);
    for fault in faults {
        worker.telemetry().event_faults.add(fault.reason.name());
        if fault.reason.refuses() {
            return EventOutcome::Refused(fault);
        }
    }
    if observations.is_empty() {
        return EventOutcome::Unknown;
    }
    let keep = &plan.identity.keep;
    let minted = visitor.minted_beside().map(|id| keep.of(id));
    let appended = append(
        worker,
        snapshot,
        &Record {
            at_ms,
            user: keep.of(visitor.user()).id(),
            declaration: snapshot.declared.digest,
            status: 0,
            latency_us: 0,
            exposures: &[],
            segments: "",
            observations: &observations,
            minted: minted.as_ref().map(StoredId::id),
            is_new: false,
        },
    );
    match appended {
        true => EventOutcome::Journaled,
        false => EventOutcome::Dropped,
    }
}

/// A full journal is counted, never fatal. Whether it had room.
fn append(worker: &Worker, snapshot: &Snapshot, record: &Record<'_>) -> bool {
    let mut journal = worker.journal.borrow_mut();
    match journal.append(&snapshot.declared, record) {
        Ok(()) => {
            worker.telemetry().journaled.set(journal.written());
            true
        }
        Err(JournalFull) => {
            if worker.telemetry().dropped.get() == 0 {
                tracing::error!(
                    "the journal is full: facts are dropped, and results say how many. Bring the store back, or free room at journal.path"
                );
            }
            worker.telemetry().dropped.add();
            false
        }
    }
}
