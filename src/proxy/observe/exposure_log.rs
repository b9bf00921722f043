//! What is journaled of a request, before its answer leaves.

use crate::config::plan::Plan;
use crate::experiment::client_event::ClientEvent;
use crate::experiment::event::EventFault;
use crate::experiment::guardrail;
use crate::experiment::identity::{StoredId, Visitor};
use crate::experiment::metric::{self, Observations};
use crate::experiment::not_counted::UncountedRequest;
use crate::experiment::record::{Exposure, Record, Served};
use crate::experiment::resolve::{AssignedBy, Assignment, Inside};
use crate::experiment::units::{UnitIndex, Units};
use crate::experiment::{ExperimentIndex, UserId};
use crate::journal::JournalFull;
use crate::proxy::snapshot::{Snapshot, Worker};
use crate::tasks;
use smallvec::SmallVec;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The user of records that belong to none.
const NOBODY: &[u8] = b"-";

/// An answer and what led to it.
pub(crate) struct Answered<'a> {
    /// When the request came, by the system's clock, in Unix milliseconds.
    pub now_ms: u64,
    /// When the head of the answer came.
    pub ended: Instant,
    /// How long that took.
    pub latency: Duration,
    /// Who asked.
    pub visitor: &'a Visitor<'a>,
    /// What the request names besides the user.
    pub units: Option<&'a Units<'a>>,
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
pub(crate) fn answered(
    worker: &Worker,
    snapshot: &Snapshot,
    mut answered: Answered<'_>,
) -> SmallVec<[Exposure; 2]> {
    tasks::failpoint("request");
    let plan = &*snapshot.plan;
    let exposures = exposures(plan, &answered);
    let latency = answered.latency;
    let observations = with_harm(plan, &mut answered, latency);
    let of_user = |exposure: &Exposure| plan.experiment(exposure.experiment).unit.is_none();
    let nothing_of_user = observations.is_empty() && !exposures.iter().any(of_user);
    let comes_back = comes_back(worker, &answered);
    if exposures.is_empty() && nothing_of_user && !comes_back {
        return exposures;
    }
    let system_ms = answered.now_ms + latency.as_millis() as u64;
    let clock = worker.journal.borrow();
    let at_ms = clock.clock().read(answered.ended, system_ms);
    drop(clock);
    let keep = &plan.identity.keep;
    let minted = answered.visitor.minted_beside().map(|id| keep.of(id));
    let who = (answered.visitor, answered.units);
    for_each_unit(plan, who, &exposures, |user, unit, exposures| {
        // Only users are minted.
        let is_user = unit.is_empty();
        let kept = keep.of(user);
        let of_user = Record {
            minted: minted.as_ref().filter(|_| is_user).map(StoredId::id),
            is_new: is_user && answered.visitor.is_new(),
            unit,
            ..Record::new(at_ms, kept.id(), snapshot.declared.digest)
        };
        if is_user && comes_back {
            append_return(worker, snapshot, &of_user);
        }
        if exposures.is_empty() && observations.is_empty() {
            return;
        }
        let record = Record {
            status: answered.status,
            latency_us: latency.as_micros() as u64,
            exposures,
            segments: answered.segments,
            observations: &observations,
            ..of_user
        };
        append(worker, snapshot, &record);
    });
    exposures
}

/// The groups that the user was exposed to, and which version served them.
fn exposures(plan: &Plan, answered: &Answered<'_>) -> SmallVec<[Exposure; 2]> {
    let exposing = answered.assignment.inside.iter();
    let exposing = exposing.filter(|inside| inside.exposes && !inside.by.is_over());
    exposing
        .map(|inside| exposure(plan, inside, answered.served == Some(inside.experiment)))
        .collect()
}

/// The exposure of a user in a group, whom control's version served in the group's place if `is_fallback`.
fn exposure(plan: &Plan, inside: &Inside, is_fallback: bool) -> Exposure {
    let experiment = plan.experiment(inside.experiment);
    let counts = match inside.by {
        AssignedBy::Override => experiment.count_overrides && experiment.is_running(),
        by => by.is_random(),
    };
    Exposure {
        experiment: inside.experiment,
        group: inside.group,
        served: match (is_fallback, counts) {
            (true, _) => Served::Fallback,
            (false, true) => Served::Own,
            (false, false) => Served::Override,
        },
        epoch: match inside.by {
            AssignedBy::Sticky(epoch) if epoch != experiment.epoch => Some(epoch),
            _ => None,
        },
    }
}

/// An exposure that is known only after the response: a comparison has found a difference.
#[derive(Debug)]
pub(crate) struct LateExposure {
    /// When the head of the response came, in Unix milliseconds, as records say it.
    pub at_ms: u64,
    /// The user.
    pub visitor: Visitor<'static>,
    /// What the request names besides the user.
    pub units: Option<Box<Units<'static>>>,
    /// The user's group.
    pub inside: Inside,
    /// The response's status.
    pub status: u16,
    /// The time to the head of the response.
    pub latency: Duration,
    /// Which segments the user is in.
    pub segments: Box<str>,
}

/// Journals an exposure that is known only now. What the response counts for was journaled before.
pub(crate) fn late(worker: &Worker, snapshot: &Snapshot, late: LateExposure) {
    let plan = &*snapshot.plan;
    let exposures = [exposure(plan, &late.inside, false)];
    let who = (&late.visitor, late.units.as_deref());
    for_each_unit(plan, who, &exposures, |user, unit, exposures| {
        if exposures.is_empty() {
            return;
        }
        let kept = plan.identity.keep.of(user);
        let record = Record {
            status: late.status,
            latency_us: late.latency.as_micros() as u64,
            exposures,
            segments: &late.segments,
            is_new: unit.is_empty() && late.visitor.is_new(),
            unit,
            ..Record::new(late.at_ms, kept.id(), snapshot.declared.digest)
        };
        append(worker, snapshot, &record);
    });
}

/// What the answer counted for, and the harm that guardrails of the user's experiments see in it, exposed
/// by it or before.
fn with_harm(plan: &Plan, answered: &mut Answered<'_>, latency: Duration) -> Observations {
    let mut observations = std::mem::take(&mut answered.observations);
    for inside in &answered.assignment.inside {
        // Before the exposure, what control served in the group's place counts as no harm.
        let is_fallback = answered.served == Some(inside.experiment);
        // The user of a pinned request may be in another group, which did no harm.
        let is_pinned = inside.by == AssignedBy::Pinned;
        if !inside.by.is_over() && !is_pinned && (inside.exposes || !is_fallback) {
            let bounds = &plan.experiment(inside.experiment).guardrails;
            guardrail::observe(bounds, answered.status, latency, &mut observations);
        }
    }
    observations
}

/// Calls `each` for the user of a request, and for each unit that it names, with the unit's name (empty for
/// the user) and the exposures that concern it.
fn for_each_unit(
    plan: &Plan,
    (visitor, units): (&Visitor<'_>, Option<&Units<'_>>),
    exposures: &[Exposure],
    mut each: impl FnMut(UserId<'_>, &str, &[Exposure]),
) {
    let Some(units) = units else {
        each(visitor.user(), "", exposures);
        return;
    };
    let of = |unit: Option<UnitIndex>| -> SmallVec<[Exposure; 2]> {
        let exposures = exposures.iter().copied();
        exposures
            .filter(|exposure| plan.experiment(exposure.experiment).unit == unit)
            .collect()
    };
    each(visitor.user(), "", &of(None));
    for (place, unit) in plan.units.iter().enumerate() {
        if let Some(id) = units.id(UnitIndex(place)) {
            each(id, &unit.name, &of(Some(UnitIndex(place))));
        }
    }
}

/// Whether the journal must know that this visitor's minted ID came back: the visitor may wait to be counted in some
/// experiment.
fn comes_back(worker: &Worker, answered: &Answered<'_>) -> bool {
    let visitor = answered.visitor;
    visitor.may_have_been_seen_once(answered.now_ms) && worker.returned.note(visitor.assigned_by())
}

/// Journals a request that is not counted, for the experiments that it would have taken part in.
pub(crate) fn not_counted(
    worker: &Worker,
    snapshot: &Snapshot,
    request: &UncountedRequest,
    (status, at_ms): (u16, u64),
) {
    let exposure = |&experiment: &ExperimentIndex| Exposure {
        experiment,
        group: snapshot.plan.experiment(experiment).control,
        served: Served::NotCounted(request.why),
        epoch: None,
    };
    let exposures: SmallVec<[Exposure; 2]> = request.experiments.iter().map(exposure).collect();
    worker.telemetry().not_counted.add(request.why as usize);
    let Some(nobody) = UserId::new(NOBODY).filter(|_| !exposures.is_empty()) else {
        return;
    };
    let record = Record {
        status,
        exposures: &exposures,
        ..Record::new(at_ms, nobody, snapshot.declared.digest)
    };
    append(worker, snapshot, &record);
}

/// An answer that was recorded when its head came, until its body has reached its end.
#[derive(Debug)]
pub(crate) struct UnfinishedExposures {
    worker: Rc<Worker>,
    snapshot: Rc<Snapshot>,
    visitor: Visitor<'static>,
    units: Option<Box<Units<'static>>>,
    exposures: SmallVec<[Exposure; 2]>,
}

impl UnfinishedExposures {
    /// Of an answer that counts for some group; `None` where it counts for none.
    pub(crate) fn of(
        worker: &Rc<Worker>,
        snapshot: &Rc<Snapshot>,
        (visitor, units): (Visitor<'static>, Option<Box<Units<'static>>>),
        mut exposures: SmallVec<[Exposure; 2]>,
    ) -> Option<Box<UnfinishedExposures>> {
        exposures.retain(|exposure| exposure.served == Served::Own);
        (!exposures.is_empty()).then(|| {
            Box::new(UnfinishedExposures {
                worker: Rc::clone(worker),
                snapshot: Rc::clone(snapshot),
                visitor,
                units,
                exposures,
            })
        })
    }

    /// Journals that it did not reach its end.
    pub(crate) fn record(mut self) {
        for exposure in &mut self.exposures {
            exposure.served = Served::Unfinished;
        }
        let snapshot = &*self.snapshot;
        let at_ms = self.worker.journal.borrow().clock().now_ms();
        let plan = &*snapshot.plan;
        let who = (&self.visitor, self.units.as_deref());
        for_each_unit(plan, who, &self.exposures, |user, unit, exposures| {
            if exposures.is_empty() {
                return;
            }
            let kept = plan.identity.keep.of(user);
            let record = Record {
                exposures,
                unit,
                ..Record::new(at_ms, kept.id(), snapshot.declared.digest)
            };
            append(&self.worker, snapshot, &record);
        });
    }
}

/// What became of an event that a browser reports.
pub(crate) enum EventOutcome {
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
pub(crate) fn event(
    worker: &Worker,
    snapshot: &Snapshot,
    (visitor, units): (&Visitor<'_>, Option<&Units<'_>>),
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
    let mut has_room = true;
    for_each_unit(plan, (visitor, units), &[], |user, unit, _| {
        let kept = keep.of(user);
        let minted = minted.as_ref().filter(|_| unit.is_empty());
        let record = Record {
            observations: &observations,
            minted: minted.map(StoredId::id),
            unit,
            ..Record::new(at_ms, kept.id(), snapshot.declared.digest)
        };
        has_room &= append(worker, snapshot, &record);
    });
    match has_room {
        true => EventOutcome::Journaled,
        false => EventOutcome::Dropped,
    }
}

/// Journals that a minted ID came back. What else its request is recorded for says nothing about other experiments, in
/// which the visitor may wait.
#[cold]
fn append_return(worker: &Worker, snapshot: &Snapshot, of_user: &Record<'_>) {
    append(worker, snapshot, of_user);
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
