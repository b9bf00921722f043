//! Requests from the admin API to the server that runs it.

use crate::admin::results::flags::FlagExposure;
use crate::experiment::client_event::{self, ClientEvent};
use crate::upstream::HealthRegistry;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, oneshot};

/// Asks the server to reload its routes file.
#[derive(Debug)]
pub struct ReloadRequest {
    /// Who asks.
    pub by: String,
    /// Receives a sentence on what was done, or all problems of the file.
    pub done: oneshot::Sender<Result<String, String>>,
}

/// What the server does for the admin API.
#[derive(Clone, Debug)]
pub struct ServerHandle {
    /// Reloads the routes file.
    pub reloads: mpsc::Sender<ReloadRequest>,
    /// Journals events.
    pub events: mpsc::Sender<EventsRequest>,
    /// Journals exposures by flags.
    pub exposures: mpsc::Sender<Vec<FlagExposure>>,
    /// Wakes the task that applies decisions.
    pub decided: Arc<Notify>,
    /// The time of the latest journaled record.
    pub latest_record: LatestRecord,
    /// The health of every endpoint.
    pub health_registry: Arc<HealthRegistry>,
}

/// Returns the time of the latest record that this process journaled, in Unix milliseconds. It can be
/// later than the system's time because journals have clocks of their own.
#[derive(Clone)]
pub struct LatestRecord(pub Arc<dyn Fn() -> u64 + Send + Sync>);

impl std::fmt::Debug for LatestRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LatestRecord")
    }
}

/// Asks the server to journal events.
#[derive(Debug)]
pub struct EventsRequest {
    /// The events; each has a user.
    pub events: Vec<ClientEvent>,
    /// Receives the outcome.
    pub done: oneshot::Sender<AcceptedEvents>,
}

/// The outcome of reported events.
#[derive(Debug)]
pub struct AcceptedEvents {
    /// The number of events that count for a metric and are journaled.
    pub accepted: usize,
    /// The names of events that no metric counts.
    pub unknown: Vec<String>,
    /// Events that are not counted because a value is invalid.
    pub refused: Vec<client_event::RejectedEvent>,
    /// Names of parameters of counted events that no metric reads, at most
    /// [`UNUSED_MAX`](crate::experiment::metric::UNUSED_MAX).
    pub unused: BTreeSet<String>,
    /// The number of events that the journal had no room for.
    pub dropped: usize,
}
