//! The whole house, wired: sockets, journals, ledger, workers, folder, admin door, reload.

pub use super::sockets::Sockets;
use super::{Hinted, reports};
use crate::admin;
use crate::config;
use crate::config::plan::{Plan, Store};
use crate::journal::{self, Journals, Reader};
use crate::ledger::Ledger;
use crate::ledger::folder::Folder;
use crate::ledger::redis::{RedisLedger, TlsFiles};
use crate::ledger::sqlite::SqliteLedger;
use crate::ledger::{replicas, retention};
use crate::proxy::worker::{self, Orders};
use crate::proxy::{Rates, Worker};
use crate::vitals::Vitals;
use anyhow::{Context, anyhow};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};

/// How often what was journaled is folded, and the file is looked at for changes.
const FOLD_INTERVAL: Duration = Duration::from_millis(500);
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Serves until `stop` resolves, then finishes what runs and folds what is left. With a `file`,
/// its changes take effect while serving.
pub async fn run(
    plan: Plan,
    file: Option<PathBuf>,
    sockets: Sockets,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let plan = Arc::new(plan);
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
    let (plans, plan_orders) = watch::channel(Arc::clone(&plan));
    let (stops, stop_orders) = watch::channel(false);
    let (reloads, reload_orders) = mpsc::channel(8);
    let rates = Arc::new(Rates::default());
    let mut threads = Vec::new();
    let secure_at = sockets.secure_address();
    let mut secure = sockets.secure.into_iter();
    for (index, (journal, public)) in writers.into_iter().zip(sockets.public).enumerate() {
        let sockets = worker::Sockets {
            public,
            secure: secure.next(),
        };
        let (plan, vitals) = (Arc::clone(&plan), Arc::clone(&vitals));
        let rates = Arc::clone(&rates);
        let orders = Orders {
            plan: plan_orders.clone(),
            stop: stop_orders.clone(),
        };
        let thread = std::thread::Builder::new().name(format!("worker-{index}"));
        threads.push(thread.spawn(move || {
            worker::run(
                Worker::new(plan, journal, vitals, rates, index),
                sockets,
                orders,
            )
        })?);
    }

    tokio::spawn(look_at_upstreams(Arc::clone(&plan)));
    let folded = Arc::new(Notify::new());
    let folder = fold(&plan, readers, &ledger, &vitals, options);
    let folder = tokio::spawn(folder.run(FOLD_INTERVAL, notified(&folded)));
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
    let reloading = tokio::spawn(reload(file, plans, Arc::clone(&vitals), reload_orders));
    let door = admin::Door::new(
        id,
        plan_orders,
        ledger,
        vitals,
        reloads,
        events,
        stop_orders,
    );
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
    stop.await;
    tracing::info!("stopping: finishing what runs");
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
    // The door closes before its journal does.
    admin.abort();
    if let Some(reporting) = reporting {
        reporting.abort();
        // An order to stop is how it ends.
        let _ = reporting.await;
    }
    drop(keeper);
    folded.notify_one();
    folder.await?;
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

fn notified(notify: &Arc<Notify>) -> impl Future<Output = ()> + use<> {
    let notify = Arc::clone(notify);
    async move { notify.notified().await }
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

/// Loads the file again when it changes, on SIGHUP and when the admin door asks. A file that is
/// unsound changes nothing.
async fn reload(
    file: Option<PathBuf>,
    plans: watch::Sender<Arc<Plan>>,
    vitals: Arc<Vitals>,
    mut asked: mpsc::Receiver<admin::ReloadRequest>,
) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = signal(SignalKind::hangup())?;
    let Some(file) = file else {
        while let Some(request) = asked.recv().await {
            let _ = request
                .done
                .send(Err("this watershed serves no file".to_owned()));
        }
        return Ok(());
    };
    let mut seen = contents(&file, &plans.borrow().watched);
    loop {
        let request = tokio::select! {
            request = asked.recv() => Some(request.ok_or_else(|| anyhow!("the admin door is gone"))?),
            _ = hangup.recv() => None,
            () = tokio::time::sleep(WATCH_INTERVAL) => {
                let now = contents(&file, &plans.borrow().watched);
                // A file that is away for a moment is being replaced.
                if now.contains(&None) || now == seen {
                    continue;
                }
                None
            }
        };
        // Read before it is loaded, so that what changes meanwhile is seen next time.
        let read = contents(&file, &plans.borrow().watched);
        let done = reload_once(&file, &plans);
        let watched = contents(&file, &plans.borrow().watched);
        seen = if read.len() == watched.len() {
            read
        } else {
            watched
        };
        match &done {
            Ok(what) => {
                vitals.reload.done.fetch_add(1, Ordering::Relaxed);
                tracing::info!("{what}");
            }
            Err(problems) => {
                vitals.reload.refused.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    "the changed file is unsound; the running configuration stays:\n{problems}"
                );
            }
        }
        if let Ok(mut error) = vitals.reload.error.lock() {
            *error = done.as_ref().err().cloned();
        }
        if let Some(request) = request {
            // Who asked may have left.
            let _ = request.done.send(done);
        }
    }
}

/// The file and those beside it, such as certificates.
fn contents(file: &Path, watched: &[PathBuf]) -> Vec<Option<Vec<u8>>> {
    let all = std::iter::once(file).chain(watched.iter().map(PathBuf::as_path));
    all.map(|file| std::fs::read(file).ok()).collect()
}

fn reload_once(file: &Path, plans: &watch::Sender<Arc<Plan>>) -> Result<String, String> {
    let mut next = config::load(file).map_err(|unsound| unsound.to_string())?;
    let old = Arc::clone(&plans.borrow());
    let mut kept = Vec::new();
    if next.listen != old.listen {
        kept.push("listen");
    }
    let secure = |plan: &Plan| plan.tls.as_ref().map(|tls| tls.listen);
    if secure(&next) != secure(&old) {
        kept.push("tls.listen");
    }
    if next.admin.listen != old.admin.listen {
        kept.push("admin.listen");
    }
    if next.workers != old.workers {
        kept.push("workers");
    }
    if next.journal.path != old.journal.path {
        kept.push("journal.path");
    }
    (next.listen, next.workers) = (old.listen, old.workers);
    (next.journal, next.store) = (old.journal.clone(), old.store.clone());
    next.admin.listen = old.admin.listen;
    let text = match &kept[..] {
        [] => format!("reloaded {}", file.display()),
        kept => format!(
            "reloaded {}; changes of {} need a restart",
            file.display(),
            kept.join(", ")
        ),
    };
    plans.send_replace(Arc::new(next));
    Ok(text)
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
    })
}
