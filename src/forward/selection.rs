//! Which rows of records become messages for a destination. PURE.

use super::message::Message;
use crate::config::plan::{Destination, ForwardedEvents};
use crate::experiment::metric::MetricKind;
use crate::experiment::record::{Declaration, DeclaredMetric, Exposure, Served};
use crate::journal::rows::{EventRow, ExposureRow, JournaledRecord};
use crate::journal::{Chunk, OwnedRecord};

/// Returns the messages of some records, but for those of users of whom `is_gone` says that they are forgotten at a
/// time.
pub(super) fn messages<'a>(
    chunk: &'a Chunk,
    destination: &Destination,
    is_gone: impl Fn(&[u8], u64) -> bool,
) -> Vec<Message<'a>> {
    let mut messages = Vec::new();
    for (seq, record) in &chunk.records {
        let Some(declaration) = chunk.declarations.get(&record.declaration) else {
            continue;
        };
        let is_left_out = record.is_new && !destination.new_ids;
        if is_left_out || !is_of_somebody(record) || is_gone(&record.user, record.at_ms) {
            continue;
        }
        let of = JournaledRecord {
            journal: &chunk.journal,
            seq: *seq,
            record,
        };
        let before = messages.len();
        if destination.exposures {
            exposures(of, declaration, &mut messages);
        }
        events(of, declaration, &destination.events, &mut messages);
        let minted = record.minted.as_deref();
        if minted.is_some_and(|minted| is_gone(minted, record.at_ms)) {
            messages[before..]
                .iter_mut()
                .for_each(|it| it.minted = None);
        }
    }
    messages
}

/// Whether the record is of a visitor who is counted: no robot, nobody without consent, nobody who tests.
fn is_of_somebody(record: &OwnedRecord) -> bool {
    let is_other = |it: &Exposure| matches!(it.served, Served::NotCounted(_) | Served::Override);
    !record.exposures.iter().any(is_other)
}

/// The exposures that count: the user got the group's version.
fn exposures<'a>(
    of: JournaledRecord<'a>,
    declaration: &'a Declaration,
    messages: &mut Vec<Message<'a>>,
) {
    for (place, exposure) in of.record.exposures.iter().enumerate() {
        let experiment = declaration.experiments.get(exposure.experiment.0);
        let Some(experiment) = experiment.filter(|_| exposure.served == Served::Own) else {
            continue;
        };
        let row = ExposureRow {
            of,
            experiment,
            exposure,
            phase: 1,
        };
        messages.push(Message::of_exposure(&row, place));
    }
}

fn events<'a>(
    of: JournaledRecord<'a>,
    declaration: &'a Declaration,
    wanted: &ForwardedEvents,
    messages: &mut Vec<Message<'a>>,
) {
    for (ordinal, observation) in of.record.observations.iter().enumerate() {
        let metric = declaration.metrics.get(observation.metric.0);
        let Some(metric) = metric.filter(|metric| is_wanted(metric, wanted)) else {
            continue;
        };
        let row = EventRow {
            of,
            metric,
            observation,
            ordinal,
        };
        messages.push(Message::of_event(&row));
    }
}

/// All events are those of the file's metrics: no latencies, which every response has, and no harm, whose definition
/// is its name.
fn is_wanted(metric: &DeclaredMetric, wanted: &ForwardedEvents) -> bool {
    match wanted {
        ForwardedEvents::All => {
            let is_harm = metric.definition.as_ref() == Some(&metric.name);
            metric.kind != MetricKind::Latency && !is_harm
        }
        ForwardedEvents::Of(names) => names.iter().any(|name| **name == metric.name),
    }
}
