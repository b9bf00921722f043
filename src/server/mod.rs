//! The process: opens what it needs, starts workers and tasks, waits, and drains.

mod active_plan;
mod background;
mod error_with_hint;
pub mod fd_limit;
pub mod handoff;
mod ingest_scheduler;
mod journals;
mod listeners;
pub mod logging;
mod opened;
mod reload;
mod secrets;
mod server_events;
mod signals;
mod stores;
mod workers;

pub use error_with_hint::ErrorWithHint;
pub use listeners::Listeners;
pub use signals::{stop_requested, survive};
pub use stores::open_store;

use crate::config::plan::{Plan, StoreConfig};
use crate::otel;
use crate::proxy::SharedState;
use crate::proxy::log_lines::Sink;
use anyhow::anyhow;
use background::{AdminListeners, Background};
use opened::Opened;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use workers::{PublicListeners, Workers};

/// Serves until `stop` resolves, then finishes requests in flight and ingests the last records. With
/// a `file`, its changes take effect while serving. Lines of the access log go to `log`.
pub async fn run(
    plan: Plan,
    file: Option<PathBuf>,
    listeners: Listeners,
    log: Option<Arc<dyn Sink>>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let serving = serving(&plan, &listeners)?;
    let mut opened = Opened::open(plan).await?;
    let (plans, supervisor) = (opened.plans.clone(), opened.supervisor.clone());
    let (held, succeeded) = (
        Arc::clone(&listeners.held),
        Arc::clone(&listeners.succeeded),
    );
    let (outbox, inbox) = otel::queue(Arc::clone(&opened.telemetry));
    let shared = SharedState {
        telemetry: Arc::clone(&opened.telemetry),
        outbox: Some(outbox),
        log,
        connections_max: Some(fd_limit::room(opened.plan().workers).clients),
        ..SharedState::default()
    };
    let (public, admin) = divide(listeners);
    let workers = Workers::spawn(&mut opened, public, &shared)?;
    let mut background = Background::spawn(opened, shared, inbox, admin, file);

    serving
        .into_iter()
        .for_each(|line| tracing::info!("{line}"));
    handoff::report_ready();
    tokio::select! {
        () = stop => {}
        // It is logged.
        _ = supervisor.failed() => {}
    }

    let is_replaced = held.load(Ordering::SeqCst);
    background.report_stopping();
    let grace = plans.borrow().timeouts.grace;
    if !is_replaced && !grace.is_zero() {
        tracing::info!("stopping: not ready, serving for another {grace:?}");
        tokio::time::sleep(grace).await;
    }
    tracing::info!("stopping: finishing requests in flight");
    supervisor.stop();
    if is_replaced {
        background.end_admin();
    }
    // A client whose connection is open may send another request. Nobody waits for a process that
    // was replaced, so it waits for that request.
    let quiet = match succeeded.load(Ordering::SeqCst) {
        true => plans.borrow().timeouts.shutdown / 2,
        false => Duration::ZERO,
    };
    workers.drain(quiet).await?;
    background.end().await;
    supervisor.failure().map_or(Ok(()), |why| Err(anyhow!(why)))
}

/// Lines that say where the process serves.
fn serving(plan: &Plan, listeners: &Listeners) -> anyhow::Result<Vec<String>> {
    let (public, admin) = (listeners.public_address()?, listeners.admin_address()?);
    let store = match &plan.store {
        StoreConfig::Embedded { path } => path.display().to_string(),
        StoreConfig::Redis { .. } => "Redis".to_owned(),
    };
    let workers = plan.workers;
    let mut lines = vec![format!(
        "serving on http://{public} with {workers} workers, results at http://{admin}/admin/results, counts in {store}"
    )];
    if let Some(address) = listeners.secure_address() {
        lines.push(format!("serving TLS on https://{address}"));
    }
    if let Some(address) = listeners.health_address() {
        lines.push(format!(
            "health checks and metrics at http://{address}/healthz, /readyz, /metrics"
        ));
    }
    Ok(lines)
}

fn divide(listeners: Listeners) -> (PublicListeners, AdminListeners) {
    let public = PublicListeners {
        public: listeners.public,
        secure: listeners.secure,
        held: listeners.held,
    };
    let admin = AdminListeners {
        admin: listeners.admin,
        health: listeners.health,
    };
    (public, admin)
}
