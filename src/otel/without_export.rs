//! What takes the place of the export in a program without the feature `otlp`: there, no plan has a
//! collector.

use super::queue::Inbox;
use crate::config::plan::Plan;
use crate::telemetry::Telemetry;
use std::io;
use std::sync::Arc;
use tokio::sync::{Mutex, watch};

/// Waits until it is told to stop.
pub async fn run(
    _: Arc<Mutex<Inbox>>,
    _: watch::Receiver<Arc<Plan>>,
    _: Arc<Telemetry>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    // An error means that the sender is gone, which is an end too.
    let _ = stop.wait_for(|stop| *stop).await;
    Ok(())
}
