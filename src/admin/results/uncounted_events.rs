//! Events that are not counted, in the results. docs/results.md says what each field is.

use crate::store::event_ids::EventCounts;
use serde::Serialize;
use utoipa::ToSchema;

/// Events that are not counted, of all replicas and for good.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct UncountedEvents {
    pub refused_ids: u64,
    pub dropped_waiting: u64,
}

impl From<EventCounts> for UncountedEvents {
    fn from(counts: EventCounts) -> UncountedEvents {
        UncountedEvents {
            refused_ids: counts.refused_ids,
            dropped_waiting: counts.dropped_waiting,
        }
    }
}
