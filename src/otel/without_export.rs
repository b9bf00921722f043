//! Takes the place of the export in a program without the feature `otlp`, whose plans have no collector.

use super::queue::Inbox;
use crate::config::plan::Plan;
use crate::tasks::{Phase, PhaseWatch};
use crate::telemetry::Telemetry;
use std::io;
use std::sync::Arc;
use tokio::sync::{Mutex, watch};

/// Waits for [`Phase::Closing`].
pub async fn run(
    _: Arc<Mutex<Inbox>>,
    _: watch::Receiver<Arc<Plan>>,
    _: Arc<Telemetry>,
    mut phase: PhaseWatch,
) -> io::Result<()> {
    phase.reached(Phase::Closing).await;
    Ok(())
}
