//! The tasks that run beside the workers, and the order in which they end.

use super::active_plan::ActivePlan;
#[cfg(feature = "dns")]
use super::dns;
use super::handoff::Handover;
use super::history::{self, FileRecorder};
use super::journals::Followed;
use super::opened::Opened;
use super::reload::{self, Reloads, reload};
use super::server_events::{self, ServerEvents};
use super::{fd_limit, following, frequent_ids, ingest_scheduler, journals};
use crate::admin::{self, results::evaluator::Evaluator};
use crate::archive::Archiver;
use crate::config;
use crate::config::declaration;
use crate::config::plan::{Destination, Plan};
use crate::experiment::record::Declaration;
use crate::forward::Forwarder;
use crate::journal::{self, FoundJournals};
use crate::notify;
use crate::otel;
use crate::proxy::SharedState;
use crate::store::Store;
use crate::store::decisions::DecidedBy;
use crate::store::{replicas, retention};
use crate::tasks::{Phase, Policy, Supervisor, Task};
use crate::telemetry::Telemetry;
use crate::upstream::{RawConnection, health_check};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{Mutex, Notify, mpsc, watch};

/// How often records are ingested.
const INGEST_INTERVAL: Duration = Duration::from_millis(500);

/// The tasks beside the workers.
pub(super) struct Background {
    telemetry: Arc<Telemetry>,
    /// Tasks that end in [`Phase::Closing`], and nothing waits for them.
    _others: Vec<Task>,
    admin: Task,
    server_events: Option<Task>,
    journals: journal::JournalMaintenance,
    ingestion: Task,
    /// Those that read journals beside ingestion.
    followers: Vec<Task>,
    results: Task,
    spans: Task,
    webhooks: Task,
}

/// The listeners of the admin API.
pub(super) struct AdminListeners {
    /// The listener of the whole API.
    pub admin: TcpListener,
    /// The listener for health checks and metrics only.
    pub health: Option<TcpListener>,
}

/// The state that the tasks share.
struct Start<'a> {
    supervisor: &'a Supervisor,
    plans: &'a watch::Receiver<Arc<Plan>>,
    store: &'a Arc<dyn Store>,
    telemetry: &'a Arc<Telemetry>,
}

impl Background {
    /// Starts all tasks. `inbox` receives sampled spans; changes of `file` are loaded.
    pub(super) fn spawn(
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
        let board = Arc::<notify::Board>::default();
        let decided = Arc::new(Notify::new());
        let telemetry = Arc::clone(&opened.telemetry);
        let health = Arc::clone(&shared.health_registry);
        let acts = (Arc::clone(&decided), Arc::clone(&board));
        let evaluator = Arc::new(Evaluator::new(telemetry, acts, health));
        let replica = uuid::Uuid::now_v7().to_string();
        let (reloads, reload_requests) = mpsc::channel(8);
        let ((events, asked), (exposures, exposed)) = (mpsc::channel(8), mpsc::channel(64));
        let path = plan.journal.path.clone();
        let server = admin::ServerHandle {
            reloads,
            events,
            exposures,
            decided: Arc::clone(&decided),
            latest_record: admin::LatestRecord(Arc::new(move || journal::latest_ms(&path))),
            health_registry: Arc::clone(&shared.health_registry),
        };
        let admin_state = admin_state(&opened, &shared, (&replica, &evaluator), server);
        let (history, loads) = start.history(file.clone(), &opened.active);
        let mut others = vec![
            history,
            start.first_connections(&plan),
            start.decisions(&opened, &decided),
            start.announcement(replica),
            start.retention(),
            start.frequent_ids(),
            start.reload(file, &opened.active, (reload_requests, loads)),
            start.health_checks(Arc::clone(&shared.health_registry)),
        ];
        others.extend(start.of_features(&opened));
        let webhooks = start.webhooks(sources(&opened, &shared, board));
        let server_events = opened.server_events.map(|journal| {
            start.server_events(ServerEvents {
                journal,
                slot: plan.workers,
                asked,
                exposed,
            })
        });
        let followers = start.followers(&plan, &opened.followed);
        let journals = (opened.readers, opened.followed);
        Background {
            _others: others,
            admin: start.admin(admin_state, listeners, fd_limit::room(plan.workers).admin),
            server_events,
            journals: opened.keeper,
            ingestion: start.ingestion(start.ingestor(&plan, journals, opened.options)),
            followers,
            results: start.results(&evaluator),
            spans: start.spans(inbox),
            webhooks,
            telemetry: opened.telemetry,
        }
    }

    /// Ends all tasks after the workers, in the order in which records move.
    pub(super) async fn end(self, supervisor: &Supervisor) {
        supervisor.enter(Phase::Closing);
        // The admin API ends before the journal of the events that it accepts.
        self.admin.ended().await;
        if let Some(server_events) = self.server_events {
            server_events.ended().await;
        }
        drop(self.journals);
        supervisor.enter(Phase::Flushing);
        self.ingestion.ended().await;
        for follower in self.followers {
            follower.ended().await;
        }
        // A store that does not answer has nothing to analyze.
        if !self.telemetry.ingestion.failing.load(Ordering::Relaxed) {
            supervisor.enter(Phase::Concluding);
            self.results.ended().await;
        }
        self.webhooks.ended().await;
        self.spans.ended().await;
    }
}

/// Makes the state of the admin API.
fn admin_state(
    opened: &Opened,
    shared: &SharedState,
    (replica, evaluator): (&str, &Arc<Evaluator>),
    server: admin::ServerHandle,
) -> admin::AdminState {
    admin::AdminState {
        replica: replica.into(),
        evaluator: Arc::clone(evaluator),
        plans: opened.plans.clone(),
        store: Arc::clone(&opened.store),
        telemetry: Arc::clone(&opened.telemetry),
        rates: Arc::clone(&shared.rates),
        server,
        phase: opened.supervisor.phase(),
        ended: Arc::default(),
        latest: Arc::default(),
    }
}

/// Returns what the task of webhooks reads and writes.
fn sources(opened: &Opened, shared: &SharedState, board: Arc<notify::Board>) -> notify::Sources {
    notify::Sources {
        plans: opened.plans.clone(),
        board,
        store: Arc::clone(&opened.store),
        folder: opened.plan().journal.path.clone(),
        telemetry: Arc::clone(&opened.telemetry),
        health_registry: Arc::clone(&shared.health_registry),
    }
}

/// Starts successors until the process stops.
pub(super) fn handover(supervisor: &Supervisor, handover: Handover) -> Task {
    let handover = Arc::new(Mutex::new(handover));
    let start = move || Handover::run(Arc::clone(&handover));
    supervisor.spawn_until(
        |phase| phase.is_stopping(),
        "handover",
        Policy::Restart,
        start,
    )
}

/// Whether the journals of workers and events are complete.
fn is_closing(phase: &Phase) -> bool {
    *phase >= Phase::Closing
}

/// Whether the admin API has ended: with the workers' journals, or as soon as a successor answers at
/// the same address.
fn admin_is_over(phase: &Phase) -> bool {
    is_closing(phase) || phase.drain().is_some_and(|drain| drain.others_listen)
}

impl Start<'_> {
    fn decisions(&self, opened: &Opened, decided: &Arc<Notify>) -> Task {
        let (active, store) = (Arc::clone(&opened.active), Arc::clone(self.store));
        let (file, secrets) = (opened.decisions_file.clone(), opened.secrets.clone());
        let decided = Arc::clone(decided);
        self.supervisor
            .spawn_until(is_closing, "decisions", Policy::Restart, move || {
                let (store, decided) = (Arc::clone(&store), Arc::clone(&decided));
                Arc::clone(&active).follow(store, file.clone(), secrets.clone(), decided)
            })
    }

    #[cfg(feature = "dns")]
    fn names(&self, active: &Arc<ActivePlan>) -> Task {
        let (active, plans) = (Arc::clone(active), self.plans.clone());
        self.supervisor
            .spawn_until(is_closing, "dns", Policy::Restart, move || {
                dns::follow(Arc::clone(&active), plans.clone())
            })
    }

    /// Starts the tasks that a build may leave out.
    fn of_features(&self, opened: &Opened) -> Vec<Task> {
        // Without any of them it is not used.
        let _ = opened;
        vec![
            #[cfg(feature = "dns")]
            self.names(&opened.active),
            #[cfg(feature = "acme")]
            self.certificates(&opened.certificates),
        ]
    }

    /// Keeps a certificate by ACME.
    #[cfg(feature = "acme")]
    fn certificates(&self, keeper: &Arc<Mutex<crate::acme::Keeper>>) -> Task {
        let keeper = Arc::clone(keeper);
        self.supervisor
            .spawn_until(is_closing, "certificates", Policy::Restart, move || {
                crate::acme::Keeper::keep(Arc::clone(&keeper))
            })
    }

    fn first_connections(&self, plan: &Arc<Plan>) -> Task {
        let plan = Arc::clone(plan);
        self.supervisor
            .spawn_until(is_closing, "first-connections", Policy::Once, move || {
                log_unreachable_upstreams(Arc::clone(&plan))
            })
    }

    fn spans(&self, inbox: otel::Inbox) -> Task {
        let (inbox, plans) = (Arc::new(inbox.into()), self.plans.clone());
        let (telemetry, phase) = (Arc::clone(self.telemetry), self.supervisor.phase());
        self.supervisor.spawn("spans", Policy::Restart, move || {
            let telemetry = Arc::clone(&telemetry);
            otel::run(Arc::clone(&inbox), plans.clone(), telemetry, phase.clone())
        })
    }

    fn webhooks(&self, sources: notify::Sources) -> Task {
        let phase = self.supervisor.phase();
        self.supervisor.spawn("webhooks", Policy::Restart, move || {
            notify::run(sources.clone(), phase.clone())
        })
    }

    fn health_checks(&self, health_registry: Arc<crate::upstream::HealthRegistry>) -> Task {
        let plans = self.plans.clone();
        self.supervisor
            .spawn_until(is_closing, "health-checks", Policy::Restart, move || {
                health_check::run(plans.clone(), Arc::clone(&health_registry))
            })
    }

    fn ingestion(&self, ingestor: crate::store::ingest::Ingestor) -> Task {
        let (ingestor, phase) = (Arc::new(ingestor.into()), self.supervisor.phase());
        let mut restarted = false;
        self.supervisor
            .spawn("ingestion", Policy::Restart, move || {
                let restarted = std::mem::replace(&mut restarted, true);
                let ingestor = Arc::clone(&ingestor);
                ingest_scheduler::keep(ingestor, INGEST_INTERVAL, phase.clone(), restarted)
            })
    }

    fn ingestor(
        &self,
        plan: &Plan,
        journals: (Vec<journal::Reader>, Followed),
        options: journal::Options,
    ) -> crate::store::ingest::Ingestor {
        journals::ingestion(plan, journals, self.store, self.telemetry, options)
    }

    /// Starts the archive and the destinations of the plan.
    fn followers(&self, plan: &Plan, followed: &Followed) -> Vec<Task> {
        let archive = self.archive(plan, followed);
        archive
            .into_iter()
            .chain(self.forward(plan, followed))
            .collect()
    }

    fn archive(&self, plan: &Plan, followed: &Followed) -> Option<Task> {
        let (archive, found) = (plan.archive.clone()?, followed.archive.clone()?);
        let (store, telemetry) = (Arc::clone(self.store), Arc::clone(self.telemetry));
        let archiver = Archiver::new(archive, store, telemetry, found);
        let (archiver, phase) = (Arc::new(Mutex::new(archiver)), self.supervisor.phase());
        let task = self.supervisor.spawn("archive", Policy::Restart, move || {
            let (archiver, mut phase) = (Arc::clone(&archiver), phase.clone());
            let archiving = async move {
                let mut archiver = archiver.lock_owned().await;
                archiver.run(phase.reached(Phase::Flushing)).await;
            };
            following::keep("archive", [archiving])
        });
        Some(task)
    }

    /// Starts one forwarder for each destination.
    fn forward(&self, plan: &Plan, followed: &Followed) -> Option<Task> {
        let forwarder = |(destination, found): (&Destination, &FoundJournals)| {
            let (store, telemetry) = (Arc::clone(self.store), Arc::clone(self.telemetry));
            let plans = self.plans.clone();
            let forwarder = Forwarder::new(destination, plans, store, telemetry, found.clone());
            Arc::new(Mutex::new(forwarder))
        };
        let all: Vec<_> = plan
            .forward
            .iter()
            .zip(&followed.forward)
            .map(forwarder)
            .collect();
        if all.is_empty() {
            return None;
        }
        let phase = self.supervisor.phase();
        let task = self.supervisor.spawn("forward", Policy::Restart, move || {
            let forwarding = |forwarder: &Arc<Mutex<Forwarder>>| {
                let (forwarder, mut phase) = (Arc::clone(forwarder), phase.clone());
                async move {
                    let mut forwarder = forwarder.lock_owned().await;
                    forwarder.run(phase.reached(Phase::Flushing)).await;
                }
            };
            let all: Vec<_> = all.iter().map(forwarding).collect();
            following::keep("forward", all)
        });
        Some(task)
    }

    fn announcement(&self, replica: String) -> Task {
        let (store, plans) = (Arc::clone(self.store), self.plans.clone());
        self.supervisor
            .spawn_until(is_closing, "announcement", Policy::Restart, move || {
                let plans = plans.clone();
                let definition = move || config::declaration::definition(&plans.borrow());
                replicas::announce(Arc::clone(&store), replica.clone(), definition)
            })
    }

    fn server_events(&self, events: ServerEvents) -> Task {
        let (events, plans) = (Arc::new(events.into()), self.plans.clone());
        let telemetry = Arc::clone(self.telemetry);
        self.supervisor
            .spawn_until(is_closing, "server-events", Policy::Restart, move || {
                server_events::keep(Arc::clone(&events), plans.clone(), Arc::clone(&telemetry))
            })
    }

    fn retention(&self) -> Task {
        let (store, plans) = (Arc::clone(self.store), self.plans.clone());
        self.supervisor
            .spawn_until(is_closing, "retention", Policy::Restart, move || {
                let plans = plans.clone();
                retention::keep(Arc::clone(&store), move || retained(&plans.borrow()))
            })
    }

    fn frequent_ids(&self) -> Task {
        let telemetry = Arc::clone(self.telemetry);
        self.supervisor
            .spawn_until(is_closing, "frequent IDs", Policy::Restart, move || {
                frequent_ids::warn(Arc::clone(&telemetry))
            })
    }

    /// Keeps loaded files, the first of which is that of the start.
    fn history(
        &self,
        file: Option<PathBuf>,
        active: &ActivePlan,
    ) -> (Task, mpsc::Sender<history::Load>) {
        let (loads, loaded) = mpsc::channel(history::WAITING_MAX);
        reload::record(&loads, active, "start".to_owned(), DecidedBy::File);
        let recorder = Arc::new(FileRecorder::new(loaded).into());
        let (store, path) = (Arc::clone(self.store), file.unwrap_or_default());
        let task = self
            .supervisor
            .spawn_until(is_closing, "history", Policy::Restart, move || {
                history::keep(Arc::clone(&recorder), Arc::clone(&store), path.clone())
            });
        (task, loads)
    }

    fn reload(
        &self,
        file: Option<PathBuf>,
        active: &Arc<ActivePlan>,
        (asked, loads): (
            mpsc::Receiver<admin::ReloadRequest>,
            mpsc::Sender<history::Load>,
        ),
    ) -> Task {
        let watched = Reloads::new(file.as_deref(), &active.plan(), asked, loads);
        let (watched, telemetry) = (Arc::new(watched.into()), Arc::clone(self.telemetry));
        let active = Arc::clone(active);
        self.supervisor
            .spawn_until(is_closing, "reload", Policy::Restart, move || {
                let (active, watched) = (Arc::clone(&active), Arc::clone(&watched));
                reload(file.clone(), active, Arc::clone(&telemetry), watched)
            })
    }

    fn results(&self, evaluator: &Arc<Evaluator>) -> Task {
        let (evaluator, plans) = (Arc::clone(evaluator), self.plans.clone());
        let (store, phase) = (Arc::clone(self.store), self.supervisor.phase());
        self.supervisor.spawn("results", Policy::Restart, move || {
            let evaluator = Arc::clone(&evaluator);
            evaluator.run(plans.clone(), Arc::clone(&store), phase.clone())
        })
    }

    fn admin(
        &self,
        state: admin::AdminState,
        listeners: AdminListeners,
        connections: usize,
    ) -> Task {
        self.supervisor
            .spawn_until(admin_is_over, "admin", Policy::Restart, move || {
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

/// Logs the endpoints that do not accept connections at the start: most often they are misspelt or
/// not running. Serving goes on, because they may come up later.
async fn log_unreachable_upstreams(plan: Arc<Plan>) {
    for upstream in &plan.upstreams {
        for endpoint in &upstream.endpoints {
            if endpoint.is_srv {
                // DNS has not been asked yet.
                continue;
            }
            let connecting = RawConnection::to(endpoint);
            let connected = tokio::time::timeout(plan.timeouts.connect, connecting).await;
            let error = match connected {
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            let name = &upstream.name;
            tracing::warn!(
                "upstreams.{name}: cannot connect to {endpoint}: {error}; start it, or correct its address"
            );
        }
    }
}
