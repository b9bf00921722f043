//! Metrics of those who read journals beside ingestion: the archive, and destinations of exposures and events.

use super::{Metrics, read, with};
use crate::telemetry::{ArchiveCounters, ForwardCounters};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

impl Metrics {
    /// Adds the metrics of the archive.
    pub(super) fn archive(&mut self, archive: &ArchiveCounters) {
        let one = |number| [(vec![], read(number))];
        self.counter(
            "archive_records",
            "Records that were archived",
            one(&archive.records),
        );
        self.counter(
            "archive_files",
            "Files that were written to the archive",
            one(&archive.files),
        );
        self.counter(
            "archive_attempts_failed",
            "Attempts to write to the archive that failed",
            one(&archive.failed),
        );
        self.counter(
            "archive_records_dropped",
            "Records that were deleted before they were archived",
            one(&archive.dropped),
        );
        let gauge = |number| [(vec![], read(number) as f64)];
        self.gauge(
            "archive_records_waiting",
            "Records that wait for the archive",
            gauge(&archive.waiting),
        );
        self.gauge(
            "archive_held_bytes",
            "Bytes of the journal that are kept for the archive alone",
            gauge(&archive.held_bytes),
        );
    }

    /// Adds the metrics of destinations of exposures and events.
    pub(super) fn forward(&mut self, destinations: &[(String, Arc<ForwardCounters>)]) {
        if destinations.is_empty() {
            return;
        }
        type Of = fn(&ForwardCounters) -> &AtomicU64;
        let label = |name: &String| vec![("destination", name.clone())];
        let each = |of: Of| {
            let all = destinations.iter();
            all.map(move |(name, counters)| (label(name), read(of(counters))))
        };
        self.counter(
            "forward_records",
            "Records all of whose messages are settled, by destination",
            each(|it| &it.records),
        );
        self.counter(
            "forward_messages",
            "Messages that a destination accepted",
            each(|it| &it.messages),
        );
        self.counter(
            "forward_attempts_failed",
            "Attempts to send to a destination that failed",
            each(|it| &it.failed),
        );
        let reason = |of: Of, reason: &'static str| {
            each(of).map(move |(labels, count)| (with(labels, "reason", reason), count))
        };
        let dropped = reason(|it| &it.expired, "age");
        self.counter(
            "forward_messages_dropped",
            "Messages that a destination does not get: too old, or refused by it",
            dropped.chain(reason(|it| &it.refused, "refused")),
        );
        self.counter(
            "forward_records_dropped",
            "Records that were deleted before they were sent to a destination",
            each(|it| &it.dropped),
        );
        let gauge = |of: Of| each(of).map(|(labels, number)| (labels, number as f64));
        self.gauge(
            "forward_records_waiting",
            "Records that wait for a destination",
            gauge(|it| &it.waiting),
        );
        self.gauge(
            "forward_held_bytes",
            "Bytes of the journal that are kept because a destination needs them",
            gauge(|it| &it.held_bytes),
        );
    }
}
