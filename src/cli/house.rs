//! The whole house, wired: sockets, journals, ledger, workers, folder, admin door, reload.

pub use super::sockets::Sockets;

use super::reload::{Reloads, reload};
use super::reports::{self, Reports};
use super::secrets::Secrets;
use super::stage::{self, Stage};
use super::{Hinted, files, folding, successor};
use crate::admin::{self, look::Looks};
use crate::config;
use crate::config::plan::{Plan, Store};
use crate::journal::{self, Journals, LeftAlone, Reader};
use crate::ledger::Ledger;
use crate::ledger::folder::Folder;
use crate::ledger::redis::{RedisLedger, TlsFiles};
use crate::ledger::sqlite::SqliteLedger;
use crate::ledger::{replicas, retention};
use crate::proxy::log_lines::Sink;
use crate::proxy::worker::{self, Orders};
use crate::proxy::{Shared, Worker};
use crate::spans;
use crate::tasks::{self, Policy, Supervisor};
use crate::upstream::probe;
use crate::vitals::Vitals;
use anyhow::{Context, anyhow};
use std::future::Future;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};

/// How often what was journaled is folded.
const FOLD_INTERVAL: Duration = Duration::from_millis(500);

/// Serves until `stop` resolves, then finishes what runs and folds what is left. With a `file`,
/// its changes take effect while serving. Lines of the access log go to `log`.
pub async fn run(
    plan: Plan,
    file: Option<PathBuf>,
    sockets: Sockets,
    log: Option<Arc<dyn Sink>>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let (public, door_at) = (sockets.public_address()?, sockets.admin_address()?);
    let vitals = Arc::new(Vitals::new(plan.workers + 1));
    let ledger = ledger_of(&plan.store)?;
    let problems = Arc::clone(&vitals);
    let options = journal::Options {
        problems: journal::Problems(Arc::new(move |problem| {
            problems.problems.set("journal", problem);
        })),
        ..journal::Options::new(plan.journal.quota_bytes, plan.workers + 1)
    };
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
        left_alone,
    } = journals.map_err(|error| {
        let hint = error.advice();
        Hinted::new(format!("{:#}", anyhow!(error)), hint)
    })?;

    let supervisor = Supervisor::new(&vitals);
    report_left_alone(&vitals, &left_alone);

    // The last one is the admin door's.
    let reports = writers.pop();
    let remembered = stage::file(&plan);
    let decided = stage::recall(&*ledger, &remembered, &vitals.problems).await;
    let secrets = Secrets::open(&plan, &*ledger, &vitals).await?;
    let (stage, plan_orders) = Stage::new(plan, decided, &secrets);
    let (stage, plan) = (Arc::new(stage), Arc::clone(&plan_orders.borrow()));
    let (stops, stop_orders) = watch::channel(None);
    let (stopping, is_stopping) = watch::channel(false);
    let (flushes, flush_orders) = watch::channel(false);
    let (outbox, inbox) = spans::queue(Arc::clone(&vitals));
    let shared = Shared {
        vitals: Arc::clone(&vitals),
        outbox: Some(outbox),
        log,
        connections_max: Some(files::room(plan.workers).clients),
        ..Shared::default()
    };
    let rates = Arc::clone(&shared.rates);
    let (held, succeeded) = (Arc::clone(&sockets.held), Arc::clone(&sockets.succeeded));
    let (secure_at, health_at) = (sockets.secure_address(), sockets.health_address());
    let mut secure = sockets.secure.into_iter();
    let mut threads = Vec::new();
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
            supervisor: supervisor.clone(),
        };
        // What a worker runs besides accepting connections is connections and their requests.
        threads.push(
            supervisor.thread(format!("worker-{index}"), "request", move || {
                worker::run(Worker::new(plan, journal, shared, index), sockets, orders)
            })?,
        );
    }

    let restart = Policy::Restart;
    let decisions = Arc::new(Notify::new());
    let following = supervisor.spawn("decisions", restart, {
        let (stage, ledger, told) = (stage.clone(), ledger.clone(), decisions.clone());
        move || {
            let stage = Arc::clone(&stage);
            let (ledger, told) = (Arc::clone(&ledger), Arc::clone(&told));
            stage.follow(ledger, remembered.clone(), secrets.clone(), told)
        }
    });
    let exporting = supervisor.spawn("spans", restart, {
        let (inbox, plans, vitals) = (Arc::new(inbox.into()), plan_orders.clone(), vitals.clone());
        move || {
            let (plans, stop) = (plans.clone(), flush_orders.clone());
            spans::run(Arc::clone(&inbox), plans, Arc::clone(&vitals), stop)
        }
    });
    tokio::spawn(tasks::named(
        "first-connections",
        look_at_upstreams(Arc::clone(&plan)),
    ));
    let _probing = supervisor.spawn("health-checks", restart, {
        let (plans, standings) = (plan_orders.clone(), shared.standings);
        move || probe::run(plans.clone(), Arc::clone(&standings))
    });
    let folded = Arc::new(Notify::new());
    let folder = fold(&plan, readers, &ledger, &vitals, options);
    let folding = supervisor.spawn("ingestion", restart, {
        let (folder, stop) = (Arc::new(folder.into()), Arc::clone(&folded));
        let mut restarted = false;
        move || {
            let restarted = std::mem::replace(&mut restarted, true);
            let (folder, stop) = (Arc::clone(&folder), Arc::clone(&stop));
            folding::keep(folder, FOLD_INTERVAL, stop, restarted)
        }
    });
    let id = uuid::Uuid::now_v7().to_string();
    let announcing = supervisor.spawn("announcement", restart, {
        let (ledger, id, served) = (ledger.clone(), id.clone(), plan_orders.clone());
        move || {
            let served = served.clone();
            let definition = move || config::declare::definition(&served.borrow());
            replicas::announce(Arc::clone(&ledger), id.clone(), definition)
        }
    });
    let (events, asked) = mpsc::channel(8);
    let reporting = reports.map(|journal| {
        let slot = plan.workers;
        let reports = Reports {
            journal,
            slot,
            asked,
        };
        let reports = Arc::new(reports.into());
        let (plans, vitals) = (plan_orders.clone(), Arc::clone(&vitals));
        supervisor.spawn("server-events", restart, move || {
            reports::keep(Arc::clone(&reports), plans.clone(), Arc::clone(&vitals))
        })
    });
    let retaining = supervisor.spawn("retention", restart, {
        let (ledger, served) = (ledger.clone(), plan_orders.clone());
        move || {
            let served = served.clone();
            retention::keep(Arc::clone(&ledger), move || retained(&served.borrow()))
        }
    });
    let (reloads, asked) = mpsc::channel(8);
    let watched = Reloads::new(file.as_deref(), &stage.plan(), asked);
    let _reloading = supervisor.spawn("reload", restart, {
        let (watched, vitals) = (Arc::new(watched.into()), Arc::clone(&vitals));
        move || {
            let (stage, watched) = (Arc::clone(&stage), Arc::clone(&watched));
            reload(file.clone(), stage, Arc::clone(&vitals), watched)
        }
    });
    let looks = Arc::new(Looks::new(Arc::clone(&vitals)));
    let looked = Arc::new(Notify::new());
    let looking = supervisor.spawn("results", restart, {
        let (looks, plans, ledger) = (looks.clone(), plan_orders.clone(), ledger.clone());
        let stop = Arc::clone(&looked);
        move || {
            let (ledger, stop) = (Arc::clone(&ledger), Arc::clone(&stop));
            Arc::clone(&looks).run(plans.clone(), ledger, stop)
        }
    });
    let asked = admin::House {
        reloads,
        events,
        decided: decisions,
        latest_fact: admin::LatestFact(Arc::new({
            let path = plan.journal.path.clone();
            move || journal::latest_ms(&path)
        })),
    };
    let orders = plan_orders.clone();
    let ingestion = Arc::clone(&vitals);
    let counters = (vitals, rates);
    let door = admin::Door::new(id, looks, plan_orders, ledger, counters, asked, is_stopping);
    let for_admin = files::room(plan.workers).admin;
    let admin = supervisor.spawn("admin", restart, move || {
        let (door, listener) = (door.clone(), sockets.admin.try_clone());
        let health = sockets.health.as_ref().map(TcpListener::try_clone);
        async move { admin::serve(door, listener?, health.transpose()?, for_admin).await }
    });

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
    if let Some(address) = health_at {
        tracing::info!("health checks and metrics at http://{address}/healthz, /readyz, /metrics");
    }
    successor::tell_ready();
    tokio::select! {
        () = stop => {}
        // It is logged.
        _ = supervisor.failed() => {}
    }
    let held = held.load(Ordering::SeqCst);
    let _ = stopping.send(true);
    let grace = orders.borrow().timeouts.grace;
    if !held && !grace.is_zero() {
        tracing::info!("told to stop: not ready any more, serving on for {grace:?}");
        tokio::time::sleep(grace).await;
    }
    tracing::info!("stopping: finishing what runs");
    supervisor.stop();
    let mut admin = Some(admin);
    if held {
        // Whoever has the public sockets has this one, too, and answers at it.
        admin = None;
    }
    // A client that has closed nothing believes that it may send its next request. Nobody waits for
    // a process that was replaced, so it waits for that request.
    let quiet = match succeeded.load(Ordering::SeqCst) {
        true => orders.borrow().timeouts.shutdown / 2,
        false => Duration::ZERO,
    };
    // The receivers are gone only when the workers are.
    let _ = stops.send(Some(Instant::now() + quiet));
    let joined = move || threads.into_iter().try_for_each(|thread| thread.join());
    // A thread catches its panic, and says so to the supervisor.
    let _ = tokio::task::spawn_blocking(joined).await?;
    // What asks the store from now on is what ends here: on one that hangs, each waits in turn.
    drop((following, announcing, retaining));
    // Meanwhile the last facts are folded.
    let _ = flushes.send(true);
    // The door closes before its journal does.
    drop(admin);
    if let Some(reporting) = reporting {
        reporting.abort().await;
    }
    drop(keeper);
    folded.notify_one();
    folding.ended().await;
    // There is nothing to be learnt from a store that does not answer.
    if !ingestion.folding.failing.load(Ordering::Relaxed) {
        looked.notify_one();
        looking.ended().await;
    }
    exporting.ended().await;
    match supervisor.failure() {
        Some(why) => Err(anyhow!(why)),
        None => Ok(()),
    }
}

/// How long users are kept, and which experiments are running.
fn retained(plan: &Plan) -> (Option<Duration>, Vec<String>) {
    let running = plan
        .experiments
        .iter()
        .filter(|experiment| experiment.winner.is_none());
    let names = running.map(|experiment| experiment.name.to_string());
    (plan.retention, names.collect())
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
    let watched = Arc::clone(vitals);
    let adopt = move || match journal::adopt(&path, &options) {
        Ok(adopted) => {
            report_left_alone(&watched, &adopted.left_alone);
            adopted.readers
        }
        Err(error) => {
            tracing::warn!("journals that others left cannot be looked for: {error}");
            Vec::new()
        }
    };
    Folder::new(readers, Arc::clone(ledger), Arc::clone(vitals), adopt)
}

/// So many journals that are not read are named.
const LEFT_ALONE_SHOWN_MAX: usize = 8;

/// Reports journals that are not read.
fn report_left_alone(vitals: &Vitals, left_alone: &[LeftAlone]) {
    let shown = left_alone.iter().take(LEFT_ALONE_SHOWN_MAX);
    let mut all: Vec<String> = shown.map(LeftAlone::to_string).collect();
    if left_alone.len() > all.len() {
        all.push(format!("and {} more", left_alone.len() - all.len()));
    }
    let problem = (!all.is_empty()).then(|| all.join("; "));
    if vitals.problems.set("journals", problem.clone())
        && let Some(problem) = problem
    {
        tracing::error!("{problem}");
    }
}

/// The ledger that the plan names. It is opened when it is used, so that a server starts without
/// it.
fn ledger_of(store: &Store) -> anyhow::Result<Arc<dyn Ledger>> {
    match store {
        Store::Embedded { path } => Ok(Arc::new(SqliteLedger::at(path))),
        Store::Redis {
            url,
            prefix,
            ca,
            identity,
        } => {
            let tls = TlsFiles {
                ca: ca.clone(),
                identity: identity.clone(),
            };
            let ledger = RedisLedger::at(url.reveal(), tls, prefix).map_err(|error| {
                let hint = "correct the address at `store` (redis://[user:password@]host:port), or leave `store` out to keep counts in a file";
                Hinted::new(format!("cannot use the Redis store: {:#}", anyhow!(error)), hint)
            })?;
            Ok(Arc::new(ledger))
        }
    }
}

/// Opens the ledger that the plan names, for a command that does nothing without it.
pub async fn open_ledger(store: &Store) -> anyhow::Result<Arc<dyn Ledger>> {
    let ledger = ledger_of(store)?;
    ledger
        .ping()
        .await
        .map_err(|error| anyhow!("cannot use the store: {}", error.with_advice()))?;
    Ok(ledger)
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
