//! Requests from the admin API to the server that runs it.

use crate::experiment::client_event::{self, ClientEvent};
use crate::upstream::HealthRegistry;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, oneshot};

/// Asks the server to reload its routes file.
#[derive(Debug)]
pub struct ReloadRequest {
    /// What became of it: what was done, or all that is wrong with the file.
    pub done: oneshot::Sender<Result<String, String>>,
}

/// What the server does for the admin API.
#[derive(Clone, Debug)]
pub struct ServerHandle {
    /// Loads the file again.
    pub reloads: mpsc::Sender<ReloadRequest>,
    /// Journals events.
    pub events: mpsc::Sender<EventsRequest>,
    /// Goes by what was decided just now.
    pub decided: Arc<Notify>,
    /// When the latest fact was journaled.
    pub latest_record: LatestRecord,
    /// What is known of endpoints.
    pub health_registry: Arc<HealthRegistry>,
}

/// Says when the latest fact was journaled here, in Unix milliseconds: journals' clocks can be ahead
/// of the system's.
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
    /// Each with its user.
    pub events: Vec<ClientEvent>,
    /// What became of them.
    pub done: oneshot::Sender<AcceptedEvents>,
}

/// What became of reported events.
#[derive(Debug)]
pub struct AcceptedEvents {
    /// How many count for a metric and are journaled.
    pub accepted: usize,
    /// The names of those that count for none.
    pub unknown: Vec<String>,
    /// Those that are not counted, and why.
    pub refused: Vec<client_event::RejectedEvent>,
    /// How many the journal had no room for.
    pub dropped: usize,
}
