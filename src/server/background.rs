//! The tasks that run beside the workers, and the order in which they end.

use super::active_plan::ActivePlan;
use super::opened::Opened;
use super::reload::{Reloads, reload};
use super::server_events::{self, ServerEvents};
use super::{fd_limit, ingest_scheduler, journals};
use crate::admin::{self, results::evaluator::Evaluator};
use crate::config;
use crate::config::declaration;
use crate::config::plan::Plan;
use crate::experiment::record::Declaration;
use crate::journal;
use crate::otel;
use crate::proxy::SharedState;
use crate::store::Store;
use crate::store::{replicas, retention};
use crate::tasks::{self, Policy, Supervisor, Task};
use crate::telemetry::Telemetry;
use crate::upstream::health_check;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};

/// How often records are ingested.
const INGEST_INTERVAL: Duration = Duration::from_millis(500);

/// Ends a task, in this order: told by the sender or the notification, then awaited.
struct Ending<S> {
    task: Task,
    tell: S,
}

/// What runs beside the workers.
pub struct Background {
    telemetry: Arc<Telemetry>,
    /// Those that ask the store of their own accord.
    store_readers: [Task; 3],
    ingestion: Ending<Arc<Notify>>,
    results: Ending<Arc<Notify>>,
    spans: Ending<watch::Sender<bool>>,
    server_events: Option<Task>,
    admin: Option<Task>,
    keeper: journal::JournalMaintenance,
    /// Whether the admin API reports that the process stops.
    stopping: watch::Sender<bool>,
    _health_checks: Task,
    _reload: Task,
}

/// Where the admin API listens.
pub struct AdminListeners {
    /// The whole API.
    pub admin: TcpListener,
    /// Health and metrics only.
    pub health: Option<TcpListener>,
}

/// What starts and ends tasks, and what all of them share.
struct Start<'a> {
    supervisor: &'a Supervisor,
    plans: &'a watch::Receiver<Arc<Plan>>,
    store: &'a Arc<dyn Store>,
    telemetry: &'a Arc<Telemetry>,
}

impl Background {
    /// Starts all of them. `inbox` gives sampled spans; `file` is watched for changes.
    pub fn spawn(
        opened: Opened,
        shared: SharedState,
        inbox: otel::Inbox,
        listeners: AdminListeners,
        file: Option<PathBuf>,
    ) -> Background {
        let plan = opened.plan();
        let start = Start {
            supervisor: &opened.supervisor,
            plans: &opened.plans,
            store: &opened.store,
            telemetry: &opened.telemetry,
        };
        tokio::spawn(tasks::named(
            "first-connections",
            look_at_upstreams(Arc::clone(&plan)),
        ));
        let replica = uuid::Uuid::now_v7().to_string();
        let decided = Arc::new(Notify::new());
        let decisions = start.decisions(&opened, &decided);
        let (events, asked) = mpsc::channel(8);
        let server_events = opened.server_events.map(|journal| {
            let slot = plan.workers;
            start.server_events(ServerEvents {
                journal,
                slot,
                asked,
            })
        });
        let (reloads, asked) = mpsc::channel(8);
        let reload = start.reload(file, &opened.active, asked);
        let evaluator = Arc::new(Evaluator::new(Arc::clone(&opened.telemetry)));
        let results = start.results(&evaluator);
        let (stopping, is_stopping) = watch::channel(false);
        let path = plan.journal.path.clone();
        let admin_server = admin::ServerHandle {
            reloads,
            events,
            decided,
            latest_record: admin::LatestRecord(Arc::new(move || journal::latest_ms(&path))),
            health_registry: Arc::clone(&shared.health_registry),
        };
        let admin_state = admin::AdminState {
            replica: replica.as_str().into(),
            evaluator,
            plans: opened.plans.clone(),
            store: Arc::clone(&opened.store),
            telemetry: Arc::clone(&opened.telemetry),
            rates: shared.rates,
            server: admin_server,
            stopping: is_stopping,
            ended: Arc::default(),
        };
        let ingestor = journals::ingestion(
            &plan,
            opened.readers,
            &opened.store,
            &opened.telemetry,
            opened.options,
        );
        Background {
            store_readers: [decisions, start.announcement(replica), start.retention()],
            ingestion: start.ingestion(ingestor),
            results,
            spans: start.spans(inbox),
            server_events,
            admin: Some(start.admin(admin_state, listeners, fd_limit::room(plan.workers).admin)),
            stopping,
            _health_checks: start.health_checks(shared.health_registry),
            _reload: reload,
            keeper: opened.keeper,
            telemetry: opened.telemetry,
        }
    }

    /// The process is not ready for new clients any more.
    pub fn report_stopping(&self) {
        let _ = self.stopping.send(true);
    }

    /// A successor has the listeners, and answers at them.
    pub fn end_admin(&mut self) {
        self.admin = None;
    }

    /// Ends all of them after the workers: the store gets the last records.
    pub async fn end(self) {
        // What asks the store from now on is what ends here: on one that hangs, each waits in turn.
        drop(self.store_readers);
        // Meanwhile the last records are ingested.
        let _ = self.spans.tell.send(true);
        // The admin API ends before the journal of events that it takes.
        drop(self.admin);
        if let Some(server_events) = self.server_events {
            server_events.abort().await;
        }
        drop(self.keeper);
        self.ingestion.tell.notify_one();
        self.ingestion.task.ended().await;
        // A store that does not answer shows nothing.
        if !self.telemetry.ingestion.failing.load(Ordering::Relaxed) {
            self.results.tell.notify_one();
            self.results.task.ended().await;
        }
        self.spans.task.ended().await;
    }
}

impl Start<'_> {
    fn decisions(&self, opened: &Opened, decided: &Arc<Notify>) -> Task {
        let (active, store) = (Arc::clone(&opened.active), Arc::clone(self.store));
        let (file, secrets) = (opened.decisions_file.clone(), opened.secrets.clone());
        let decided = Arc::clone(decided);
        self.supervisor
            .spawn("decisions", Policy::Restart, move || {
                let (store, decided) = (Arc::clone(&store), Arc::clone(&decided));
                Arc::clone(&active).follow(store, file.clone(), secrets.clone(), decided)
            })
    }

    fn spans(&self, inbox: otel::Inbox) -> Ending<watch::Sender<bool>> {
        let (tell, stop) = watch::channel(false);
        let (inbox, plans) = (Arc::new(inbox.into()), self.plans.clone());
        let telemetry = Arc::clone(self.telemetry);
        let task = self.supervisor.spawn("spans", Policy::Restart, move || {
            otel::run(
                Arc::clone(&inbox),
                plans.clone(),
                Arc::clone(&telemetry),
                stop.clone(),
            )
        });
        Ending { task, tell }
    }

    fn health_checks(&self, health_registry: Arc<crate::upstream::HealthRegistry>) -> Task {
        let plans = self.plans.clone();
        self.supervisor
            .spawn("health-checks", Policy::Restart, move || {
                health_check::run(plans.clone(), Arc::clone(&health_registry))
            })
    }

    fn ingestion(&self, ingestor: crate::store::ingest::Ingestor) -> Ending<Arc<Notify>> {
        let tell = Arc::new(Notify::new());
        let (ingestor, stop) = (Arc::new(ingestor.into()), Arc::clone(&tell));
        let mut restarted = false;
        let task = self
            .supervisor
            .spawn("ingestion", Policy::Restart, move || {
                let restarted = std::mem::replace(&mut restarted, true);
                let (ingestor, stop) = (Arc::clone(&ingestor), Arc::clone(&stop));
                ingest_scheduler::keep(ingestor, INGEST_INTERVAL, stop, restarted)
            });
        Ending { task, tell }
    }

    fn announcement(&self, replica: String) -> Task {
        let (store, plans) = (Arc::clone(self.store), self.plans.clone());
        self.supervisor
            .spawn("announcement", Policy::Restart, move || {
                let plans = plans.clone();
                let definition = move || config::declaration::definition(&plans.borrow());
                replicas::announce(Arc::clone(&store), replica.clone(), definition)
            })
    }

    fn server_events(&self, events: ServerEvents) -> Task {
        let (events, plans) = (Arc::new(events.into()), self.plans.clone());
        let telemetry = Arc::clone(self.telemetry);
        self.supervisor
            .spawn("server-events", Policy::Restart, move || {
                server_events::keep(Arc::clone(&events), plans.clone(), Arc::clone(&telemetry))
            })
    }

    fn retention(&self) -> Task {
        let (store, plans) = (Arc::clone(self.store), self.plans.clone());
        self.supervisor
            .spawn("retention", Policy::Restart, move || {
                let plans = plans.clone();
                retention::keep(Arc::clone(&store), move || retained(&plans.borrow()))
            })
    }

    fn reload(
        &self,
        file: Option<PathBuf>,
        active: &Arc<ActivePlan>,
        asked: mpsc::Receiver<admin::ReloadRequest>,
    ) -> Task {
        let watched = Reloads::new(file.as_deref(), &active.plan(), asked);
        let (watched, telemetry) = (Arc::new(watched.into()), Arc::clone(self.telemetry));
        let active = Arc::clone(active);
        self.supervisor.spawn("reload", Policy::Restart, move || {
            let (active, watched) = (Arc::clone(&active), Arc::clone(&watched));
            reload(file.clone(), active, Arc::clone(&telemetry), watched)
        })
    }

    fn results(&self, evaluator: &Arc<Evaluator>) -> Ending<Arc<Notify>> {
        let tell = Arc::new(Notify::new());
        let (evaluator, plans) = (Arc::clone(evaluator), self.plans.clone());
        let (store, stop) = (Arc::clone(self.store), Arc::clone(&tell));
        let task = self.supervisor.spawn("results", Policy::Restart, move || {
            let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
            Arc::clone(&evaluator).run(plans.clone(), store, stop)
        });
        Ending { task, tell }
    }

    fn admin(
        &self,
        state: admin::AdminState,
        listeners: AdminListeners,
        connections: usize,
    ) -> Task {
        self.supervisor.spawn("admin", Policy::Restart, move || {
            let (state, admin) = (state.clone(), listeners.admin.try_clone());
            let health = listeners.health.as_ref().map(TcpListener::try_clone);
            async move { admin::serve(state, admin?, health.transpose()?, connections).await }
        })
    }
}

/// How long users are kept, and which experiments there are.
fn retained(plan: &Plan) -> (Option<Duration>, Declaration) {
    (plan.retention, declaration::declaration(plan))
}

/// Logs at once which endpoints cannot be connected to: most often they are misspelt or not
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
