//! What is wrong with reported events: counted by reason, and logged a few times a minute.

use crate::experiment::UpstreamIndex;
use crate::experiment::event::{EventFault, EventFaultReason};
use crate::proxy::snapshot::{Snapshot, Worker};
use std::net::IpAddr;
use std::time::Instant;

/// Counts and logs what is wrong with the event header of an upstream's response.
#[cold]
pub(crate) fn of_header(
    worker: &Worker,
    snapshot: &Snapshot,
    upstream: UpstreamIndex,
    faults: &[EventFault],
) {
    let telemetry = worker.telemetry();
    let is_lost = |fault: &EventFault| {
        matches!(
            fault.reason,
            EventFaultReason::Unreadable | EventFaultReason::TooMany
        )
    };
    if faults.iter().any(is_lost) {
        telemetry.unreadable_events.add();
    }
    for fault in faults {
        telemetry.event_faults.add(fault.reason.name());
    }
    let Some(fault) = faults.first() else { return };
    let name = &snapshot.plan.upstream(upstream).name;
    let what = format_args!(
        "Watershed-Event of upstream {name}: {fault}; only this is lost. Correct the site, or `value` and `max` of the metric"
    )
    .to_string();
    worker.event_log.log(Instant::now(), faults.len(), what);
}

/// Logs that an address reports more events than it may.
pub(crate) fn too_many(
    worker: &Worker,
    address: IpAddr,
    per_minute: u32,
    events: usize,
    now: Instant,
) {
    let what = format!(
        "events from {address} are refused: more than events.per_minute_per_address ({per_minute}); if this is a proxy in front of watershed, list it in `trust`"
    );
    worker.event_log.log(now, events, what);
}
