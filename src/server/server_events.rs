//! Journals the events that servers report to the admin API.

use crate::admin::{AcceptedEvents, EventsRequest, FlagExposure};
use crate::config::declaration::declaration;
use crate::config::plan::Plan;
use crate::experiment::UserId;
use crate::experiment::client_event::ClientEvent;
use crate::experiment::event::{EventFault, EventFaultReason};
use crate::experiment::metric;
use crate::experiment::minted;
use crate::experiment::record::{Exposure, Record, Served};
use crate::journal::{DeclaredPlan, Writer};
use crate::telemetry::{Telemetry, WorkerTelemetry};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, watch};

/// How often the journal is repaired while no events are reported.
const REPAIR_INTERVAL: Duration = Duration::from_secs(1);

/// The state that survives a panic: the journal, and the requests that wait.
#[derive(Debug)]
pub(super) struct ServerEvents {
    /// The journal.
    pub journal: Writer,
    /// The index of its counters in `telemetry`.
    pub slot: usize,
    /// Requests to journal events.
    pub asked: mpsc::Receiver<EventsRequest>,
    /// Exposures by flags.
    pub exposed: mpsc::Receiver<Vec<FlagExposure>>,
}

/// Journals events until no sender of requests is left.
pub(super) async fn keep(
    reports: Arc<Mutex<ServerEvents>>,
    mut plans: watch::Receiver<Arc<Plan>>,
    telemetry: Arc<Telemetry>,
) {
    let mut reports = reports.lock().await;
    let ServerEvents {
        journal,
        slot,
        asked,
        exposed,
    } = &mut *reports;
    let (imports, telemetry) = (&telemetry.imports, &telemetry.workers[*slot]);
    let served = |plans: &mut watch::Receiver<Arc<Plan>>| {
        let plan = Arc::clone(&plans.borrow_and_update());
        let declared = DeclaredPlan::new(&declaration(&plan));
        (plan, declared)
    };
    let (mut plan, mut declared) = served(&mut plans);
    let mut repairing = tokio::time::interval(REPAIR_INTERVAL);
    loop {
        let request = tokio::select! {
            request = asked.recv() => request,
            Some(exposures) = exposed.recv() => {
                if plans.has_changed().unwrap_or(false) {
                    (plan, declared) = served(&mut plans);
                }
                expose(journal, &plan, &declared, telemetry, &exposures);
                continue;
            }
            _ = repairing.tick() => {
                journal.restore();
                continue;
            }
        };
        let Some(EventsRequest { events, done }) = request else {
            while let Ok(exposures) = exposed.try_recv() {
                expose(journal, &plan, &declared, telemetry, &exposures);
            }
            return;
        };
        if plans.has_changed().unwrap_or(false) {
            (plan, declared) = served(&mut plans);
        }
        let mut taken = AcceptedEvents {
            accepted: 0,
            unknown: Vec::new(),
            refused: Vec::new(),
            unused: BTreeSet::new(),
            dropped: 0,
        };
        // A single event is counted in one step.
        let import = (events.len() > 1).then(|| imports.begin());
        for (place, event) in events.iter().enumerate() {
            match append(journal, &plan, &declared, telemetry, event) {
                Became::Journaled => {
                    taken.accepted += 1;
                    metric::note_unused(&plan.metrics, &event.event, &mut taken.unused);
                }
                Became::Unknown => taken.unknown.push(event.event.name.to_string()),
                Became::Refused(fault) => taken.refused.push(event.refused(place, &fault)),
                Became::Dropped => taken.dropped += 1,
            }
        }
        drop(import);
        // The client may have left.
        let _ = done.send(taken);
    }
}

/// Journals exposures by flags: requests without a status and a latency. One to an experiment or a group that has
/// left the file in the meantime is none.
fn expose(
    journal: &mut Writer,
    plan: &Plan,
    declared: &DeclaredPlan,
    telemetry: &WorkerTelemetry,
    exposures: &[FlagExposure],
) {
    for exposure in exposures {
        let found = plan
            .experiment_named(&exposure.experiment)
            .and_then(|index| {
                let experiment = plan.experiment(index);
                let is_running = experiment.is_running();
                let group = experiment.group_named(&exposure.group);
                Some((
                    index,
                    group.filter(|_| is_running)?,
                    UserId::new(&exposure.id)?,
                ))
            });
        let Some((experiment, group, id)) = found else {
            continue;
        };
        let kept = plan.identity.keep.of(id);
        let unit = plan.experiment(experiment).unit;
        let exposures = [Exposure {
            experiment,
            group,
            served: Served::Own,
            epoch: None,
        }];
        let record = Record {
            exposures: &exposures,
            unit: unit.map_or("", |unit| &plan.units[unit.0].name),
            ..Record::new(journal.clock().now_ms(), kept.id(), declared.digest)
        };
        write(journal, declared, telemetry, &record);
    }
}

/// Whether the journal had room.
fn write(
    journal: &mut Writer,
    declared: &DeclaredPlan,
    telemetry: &WorkerTelemetry,
    record: &Record<'_>,
) -> bool {
    let has_room = journal.append(declared, record).is_ok();
    match has_room {
        true => telemetry.journaled.set(journal.written()),
        false => telemetry.dropped.add(),
    }
    has_room
}

enum Became {
    Journaled,
    Unknown,
    Refused(EventFault),
    Dropped,
}

/// The name of what an event belongs to, empty for a user; `None` if no experiment divides it.
fn unit_named<'a>(plan: &'a Plan, named: Option<&str>) -> Option<&'a str> {
    let Some(named) = named else {
        return Some("");
    };
    let mut units = plan.units.iter().map(|unit| &*unit.name);
    units.find(|unit| unit.eq_ignore_ascii_case(named))
}

fn append(
    journal: &mut Writer,
    plan: &Plan,
    declared: &DeclaredPlan,
    telemetry: &WorkerTelemetry,
    reported: &ClientEvent,
) -> Became {
    let at_ms = journal.clock().now_ms();
    let (observations, mut faults) = metric::observe_event(&plan.metrics, &reported.event, at_ms);
    let unit = unit_named(plan, reported.bucket_by.as_deref());
    if unit.is_none() {
        faults.push(EventFault {
            event: reported.event.name.to_string(),
            parameter: "bucket_by".to_owned(),
            reason: EventFaultReason::UnknownUnit,
        });
    }
    for fault in faults {
        telemetry.event_faults.add(fault.reason.name());
        if fault.reason.refuses() {
            return Became::Refused(fault);
        }
    }
    let user = reported.user.as_deref().unwrap_or_default();
    let user = minted::id_of(&plan.identity.keys, user.as_bytes());
    let (false, Some(user)) = (observations.is_empty(), UserId::new(user)) else {
        return Became::Unknown;
    };
    let kept = plan.identity.keep.of(user);
    let record = Record {
        observations: &observations,
        unit: unit.unwrap_or_default(),
        ..Record::new(at_ms, kept.id(), declared.digest)
    };
    match write(journal, declared, telemetry, &record) {
        true => Became::Journaled,
        false => Became::Dropped,
    }
}
