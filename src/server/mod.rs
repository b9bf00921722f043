//! The process: [`run`] opens files, starts workers and tasks, waits, and drains.

mod active_plan;
mod background;
mod decided_plan;
#[cfg(feature = "dns")]
mod dns;
mod error_with_hint;
pub mod fd_limit;
mod file_decisions;
mod following;
mod frequent_ids;
pub mod handoff;
mod history;
mod ingest_scheduler;
mod journals;
mod listeners;
pub mod logging;
mod low_priority;
mod opened;
mod promotions;
mod reload;
mod secrets;
mod server_events;
mod signals;
mod stores;
mod workers;

pub use decided_plan::{DecidedPlan, KnownDecisions};
pub use error_with_hint::ErrorWithHint;
pub use listeners::Listeners;
pub use promotions::{KeptPromotion, LostPromotion};
pub use signals::{stop_requested, survive};
pub use stores::open_store;

use crate::config::plan::{Plan, StoreConfig};
use crate::otel;
use crate::proxy::SharedState;
use crate::proxy::log_lines::Sink;
use crate::tasks::{Drain, Phase};
use anyhow::anyhow;
use background::{AdminListeners, Background};
use handoff::Handover;
use listeners::OtherHolder;
use opened::Opened;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use workers::{PublicListeners, Workers};

/// What a server may have besides its plan and its listeners.
#[derive(Default)]
pub struct RunOptions {
    /// The routes file: its changes take effect while serving.
    pub file: Option<PathBuf>,
    /// Receives the lines of the access log.
    pub log: Option<Arc<dyn Sink>>,
    /// Starts successors.
    pub handover: Option<Handover>,
}

/// Serves until `stop` resolves or a part fails; then finishes requests in flight and ingests the last
/// records.
pub async fn run(
    plan: Plan,
    listeners: Listeners,
    options: RunOptions,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let addresses = addresses(&plan, &listeners)?;
    let holder = listeners.holder.subscribe();
    let mut opened = Opened::open(plan, options.file.as_deref()).await?;
    let (supervisor, plans) = (opened.supervisor.clone(), opened.plans.clone());
    let (outbox, inbox) = otel::queue(Arc::clone(&opened.telemetry));
    let shared = SharedState {
        telemetry: Arc::clone(&opened.telemetry),
        outbox: Some(outbox),
        log: options.log,
        connections_max: Some(fd_limit::room(opened.plan().workers).clients),
        ..SharedState::default()
    };
    let (public, admin) = divide(listeners);
    let workers = Workers::spawn(&mut opened, public, &shared)?;
    let background = Background::spawn(opened, shared, inbox, admin, options.file);
    let handover = options
        .handover
        .map(|it| background::handover(&supervisor, it));

    for line in addresses {
        tracing::info!("{line}");
    }
    supervisor.enter(Phase::Ready);
    handoff::report_ready();
    tokio::select! {
        () = stop => {}
        // The supervisor has logged why.
        _ = supervisor.failed() => {}
    }

    supervisor.enter(Phase::Leaving);
    if let Some(handover) = handover {
        handover.ended().await;
    }
    let drain = leave(&holder, &plans).await;
    supervisor.enter(Phase::Draining(drain));
    tracing::info!("stopping: finishing requests in flight");
    workers.ended().await?;
    background.end(&supervisor).await;
    supervisor.failure().map_or(Ok(()), |why| Err(anyhow!(why)))
}

/// Gives load balancers time to notice that this process stops. Returns how the workers finish.
async fn leave(holder: &watch::Receiver<OtherHolder>, plans: &watch::Receiver<Arc<Plan>>) -> Drain {
    let grace = plans.borrow().timeouts.grace;
    if *holder.borrow() == OtherHolder::Nobody && !grace.is_zero() {
        tracing::info!("stopping: not ready, still serving for {grace:?}");
        tokio::time::sleep(grace).await;
    }
    let holder = *holder.borrow();
    // A client with an open connection may send another request. Nobody waits for a process that was
    // replaced, so it waits for such requests.
    let quiet = match holder {
        OtherHolder::Successor => plans.borrow().timeouts.shutdown / 2,
        OtherHolder::Nobody | OtherHolder::ServiceManager => Duration::ZERO,
    };
    Drain {
        quiet_until: Instant::now() + quiet,
        others_listen: holder != OtherHolder::Nobody,
    }
}

/// Describes where the process serves, for the log.
fn addresses(plan: &Plan, listeners: &Listeners) -> anyhow::Result<Vec<String>> {
    let (public, admin) = (listeners.public_address()?, listeners.admin_address()?);
    let store = match &plan.store {
        StoreConfig::Embedded { path } => path.display().to_string(),
        StoreConfig::Redis { .. } => "Redis".to_owned(),
        StoreConfig::Postgres { .. } => "PostgreSQL".to_owned(),
    };
    let workers = plan.workers;
    let mut lines = vec![format!(
        "serving on http://{public} with {workers} workers, results at {}, counts in {store}",
        plan.admin.results_url(admin)
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
    };
    let admin = AdminListeners {
        admin: listeners.admin,
        health: listeners.health,
    };
    (public, admin)
}
