//! The whole house, wired: sockets, journals, ledger, workers, folder, admin door, reload.

pub use super::sockets::Sockets;

use super::reload::reload;
use super::secrets::Secrets;
use super::stage::{self, Stage};
use super::{Hinted, files, folding, reports, successor};
use crate::admin::{self, look::Looks};
use crate::config;
use crate::config::plan::{Plan, Store};
use crate::journal::{self, Journals, Reader};
use crate::ledger::Ledger;
use crate::ledger::folder::Folder;
use crate::ledger::redis::{RedisLedger, TlsFiles};
use crate::ledger::sqlite::SqliteLedger;
use crate::ledger::{replicas, retention};
use crate::proxy::worker::{self, Orders};
use crate::proxy::{Shared, Worker};
use crate::spans;
use crate::upstream::probe;
use crate::vitals::Vitals;
use anyhow::{Context, anyhow};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};

/// How often what was journaled is folded.
const FOLD_INTERVAL: Duration = Duration::from_millis(500);

/// Serves until `stop` resolves, then finishes what runs and folds what is left. With a `file`,
/// its changes take effect while serving.
pub async fn run(
    plan: Plan,
    file: Option<PathBuf>,
    sockets: Sockets,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let (public, door_at) = (sockets.public_address()?, sockets.admin_address()?);
    let vitals = Arc::new(Vitals::new(plan.workers + 1));
    let ledger = open_ledger(&plan.store).await?;
    let options = journal::Options::new(plan.journal.quota_bytes, plan.workers + 1);
    let journals = journal::open(
        &plan.journal.path,
        plan.workers + 1,
        plan.journal.sync_interval,
        &options,
    );
    let Journals {
        mut writers,
        readers,
        keeper,
    } = journals.map_err(|error| {
        let hint =
            "make the folder writable and free some room, or write another at `journal.path`";
        Hinted::new(format!("{:#}", anyhow!(error)), hint)
    })?;

    // The last one is the admin door's.
    let reports = writers.pop();
    let remembered = stage::file(&plan);
    let decided = stage::recall(&*ledger, &remembered).await;
    let secrets = Secrets::open(&plan, &*ledger).await?;
    let (stage, plan_orders) = Stage::new(plan, decided, &secrets);
    let (stage, plan) = (Arc::new(stage), Arc::clone(&plan_orders.borrow()));
    let decisions = Arc::new(Notify::new());
    let following = Arc::clone(&stage).follow(
        Arc::clone(&ledger),
        remembered,
        secrets,
        Arc::clone(&decisions),
    );
    let following = tokio::spawn(following);
    let (stops, stop_orders) = watch::channel(false);
    let (stopping, is_stopping) = watch::channel(false);
    let held = Arc::clone(&sockets.held);
    let (reloads, reload_orders) = mpsc::channel(8);
    let (outbox, inbox) = spans::queue(Arc::clone(&vitals));
    let (flushes, flush_orders) = watch::channel(false);
    let exporting = spans::run(
        inbox,
        plan_orders.clone(),
        Arc::clone(&vitals),
        flush_orders,
    );
    let exporting = tokio::spawn(exporting);
    let shared = Shared {
        vitals: Arc::clone(&vitals),
        outbox: Some(outbox),
        connections_max: Some(files::room(plan.workers)),
        ..Shared::default()
    };
    let rates = Arc::clone(&shared.rates);
    let mut threads = Vec::new();
    let secure_at = sockets.secure_address();
    let mut secure = sockets.secure.into_iter();
    for (index, (journal, public)) in writers.into_iter().zip(sockets.public).enumerate() {
        let sockets = worker::Sockets {
            public,
            secure: secure.next(),
        };
        let (plan, shared) = (Arc::clone(&plan), shared.clone());
        let orders = Orders {
            plan: plan_orders.clone(),
            stop: stop_orders.clone(),
            held: Arc::clone(&held),
        };
        let thread = std::thread::Builder::new().name(format!("worker-{index}"));
        threads.push(thread.spawn(move || {
            worker::run(Worker::new(plan, journal, shared, index), sockets, orders)
        })?);
    }

    tokio::spawn(look_at_upstreams(Arc::clone(&plan)));
    let probing = tokio::spawn(probe::run(plan_orders.clone(), shared.standings));
    let folded = Arc::new(Notify::new());
    let folder = fold(&plan, readers, &ledger, &vitals, options);
    let folder = tokio::spawn(folding::keep(folder, FOLD_INTERVAL, Arc::clone(&folded)));
    let served = plan_orders.clone();
    let definition = move || config::declare::definition(&served.borrow());
    let id = uuid::Uuid::now_v7().to_string();
    let announcing = tokio::spawn(replicas::announce(
        Arc::clone(&ledger),
        id.clone(),
        definition,
    ));
    let (events, reported) = mpsc::channel(8);
    let reporting = reports.map(|journal| {
        let (plans, vitals) = (plan_orders.clone(), Arc::clone(&vitals));
        tokio::spawn(reports::keep(
            journal,
            plans,
            vitals,
            plan.workers,
            reported,
        ))
    });
    let served = plan_orders.clone();
    let retention = move || {
        let plan = served.borrow();
        let running = plan
            .experiments
            .iter()
            .filter(|experiment| experiment.winner.is_none());
        let names = running
            .map(|experiment| experiment.name.to_string())
            .collect();
        (plan.retention, names)
    };
    let retaining = tokio::spawn(retention::keep(Arc::clone(&ledger), retention));
    let reloading = tokio::spawn(reload(file, stage, Arc::clone(&vitals), reload_orders));
    let looks = Arc::new(Looks::default());
    let looked = Arc::new(Notify::new());
    let looking = Arc::clone(&looks).run(
        plan_orders.clone(),
        Arc::clone(&ledger),
        Arc::clone(&looked),
    );
    let looking = tokio::spawn(looking);
    let asked = admin::House {
        reloads,
        events,
        decided: decisions,
    };
    let orders = plan_orders.clone();
    let counters = (vitals, rates);
    let door = admin::Door::new(id, looks, plan_orders, ledger, counters, asked, is_stopping)?;
    let admin = tokio::spawn(admin::serve(door, sockets.admin));

    let store = match &plan.store {
        Store::Embedded { path } => path.display().to_string(),
        Store::Redis { .. } => "Redis".to_owned(),
    };
    tracing::info!(
        "serving on http://{public} with {} workers, results at http://{door_at}/admin/results, counts in {store}",
        plan.workers
    );
    if let Some(address) = secure_at {
        tracing::info!("serving TLS on https://{address}");
    }
    successor::tell_ready();
    stop.await;
    let held = held.load(Ordering::SeqCst);
    let _ = stopping.send(true);
    let grace = orders.borrow().timeouts.grace;
    if !held && !grace.is_zero() {
        tracing::info!("told to stop: not ready any more, serving on for {grace:?}");
        tokio::time::sleep(grace).await;
    }
    tracing::info!("stopping: finishing what runs");
    if held {
        // Whoever has the public sockets has this one, too, and answers at it.
        admin.abort();
    }
    // The receivers are gone only when the workers are.
    let _ = stops.send(true);
    let ended = tokio::task::spawn_blocking(move || {
        threads
            .into_iter()
            .map(|thread| thread.join())
            .collect::<Vec<_>>()
    });
    for ended in ended.await? {
        ended.map_err(|_| anyhow!("a worker panicked"))??;
    }
    // Meanwhile the last facts are folded.
    let _ = flushes.send(true);
    // The door closes before its journal does.
    admin.abort();
    if let Some(reporting) = reporting {
        reporting.abort();
        // An order to stop is how it ends.
        let _ = reporting.await;
    }
    drop(keeper);
    folded.notify_one();
    folder.await??;
    looked.notify_one();
    looking.await?;
    exporting.await?;
    probing.abort();
    following.abort();
    reloading.abort();
    announcing.abort();
    retaining.abort();
    Ok(())
}

/// Says at once which endpoints cannot be connected to: most often they are misspelt or not
/// running. Serving goes on, because they may come up later.
async fn look_at_upstreams(plan: Arc<Plan>) {
    for upstream in &plan.upstreams {
        for endpoint in &upstream.endpoints {
            let target = (&*endpoint.host, endpoint.port);
            let connected = tokio::time::timeout(
                plan.timeouts.connect,
                tokio::net::TcpStream::connect(target),
            )
            .await;
            let error = match connected {
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            let name = &upstream.name;
            tracing::warn!(
                "upstreams.{name}: {endpoint} cannot be connected to: {error}; start it, or correct its address"
            );
        }
    }
}

fn fold(
    plan: &Plan,
    readers: Vec<Reader>,
    ledger: &Arc<dyn Ledger>,
    vitals: &Arc<Vitals>,
    options: journal::Options,
) -> Folder {
    let path = plan.journal.path.clone();
    let adopt = move || {
        journal::adopt(&path, &options).unwrap_or_else(|error| {
            tracing::warn!("journals that others left cannot be looked for: {error}");
            Vec::new()
        })
    };
    Folder::new(readers, Arc::clone(ledger), Arc::clone(vitals), adopt)
}

/// Opens the ledger that the plan names.
pub async fn open_ledger(store: &Store) -> anyhow::Result<Arc<dyn Ledger>> {
    match store {
        Store::Embedded { path } => Ok(Arc::new(SqliteLedger::open(path).map_err(|error| {
            let hint = "make the file's folder writable and free some room, or write another place at `store`";
            Hinted::new(format!("cannot open the embedded store {}: {:#}", path.display(), anyhow!(error)), hint)
        })?)),
        Store::Redis { url, prefix, ca, identity } => {
            let tls = TlsFiles { ca: ca.clone(), identity: identity.clone() };
            let ledger = RedisLedger::connect(url.reveal(), tls, prefix).await;
            Ok(Arc::new(ledger.map_err(|error| {
                let hint = "correct the address at `store` (redis://[user:password@]host:port), or leave `store` out to keep counts in a file";
                Hinted::new(format!("cannot use the Redis store: {:#}", anyhow!(error)), hint)
            })?))
        }
    }
}

/// What resolves when the process is told to stop: by SIGTERM or Ctrl-C. Listens from now on.
pub fn told_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // Who says it twice does not want to wait: what was answered is in the journal.
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::warn!("told to stop once more: what runs is cut");
            std::process::exit(1);
        });
    })
}
