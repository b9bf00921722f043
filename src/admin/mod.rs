//! The admin door: results, the page, assignments, health, reload. `routes.rs` lists its paths.
//!
//! It listens on its own address, loopback unless told otherwise. With tokens, every request but
//! the health checks must carry one (`Authorization: Bearer …`), or the session of a browser that
//! has shown one.

mod csv_escape;
mod decisions;
pub(crate) mod export;
mod format;
pub(crate) mod http;
pub mod results;
mod view;

use crate::config::plan::Plan;
use crate::rate_limit::Rates;
use crate::store::{Store, StoreError};
use crate::telemetry::Telemetry;
use crate::upstream::HealthRegistry;
use axum::middleware;
use http::connections::{self, Gate};
use http::session::Ended;
use http::{auth, events, response_headers, router, timeouts};
use results::evaluator::Looks;
use results::gather::{self, Wish};
use results::schema::Results;
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use utoipa_axum::router::OpenApiRouter;

/// How long forgetting a user waits for ingestion.
const CAUGHT_UP_WITHIN_MS: u64 = 5_000;
/// How often replicas learn which sessions were ended at others.
const EXCHANGE_INTERVAL: Duration = Duration::from_secs(2);
/// How long the store may take to say so.
const EXCHANGE_WITHIN: Duration = Duration::from_secs(1);

/// Asks the house to load its file again.
#[derive(Debug)]
pub struct ReloadRequest {
    /// What became of it: what was done, or all that is wrong with the file.
    pub done: oneshot::Sender<Result<String, String>>,
}

/// Whom the door asks to do what it cannot do itself.
#[derive(Clone, Debug)]
pub struct House {
    /// Loads the file again.
    pub reloads: mpsc::Sender<ReloadRequest>,
    /// Journals events.
    pub events: mpsc::Sender<events::EventsRequest>,
    /// Goes by what was decided just now.
    pub decided: Arc<Notify>,
    /// When the latest fact was journaled.
    pub latest_fact: LatestFact,
    /// What is known of endpoints.
    pub health_registry: Arc<HealthRegistry>,
}

/// Says when the latest fact was journaled here, in Unix milliseconds: journals' clocks can be ahead
/// of the system's.
#[derive(Clone)]
pub struct LatestFact(pub Arc<dyn Fn() -> u64 + Send + Sync>);

impl std::fmt::Debug for LatestFact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LatestFact")
    }
}

/// What the door knows.
#[derive(Clone)]
pub struct Door {
    replica: Arc<str>,
    looks: Arc<Looks>,
    plan: watch::Receiver<Arc<Plan>>,
    store: Arc<dyn Store>,
    telemetry: Arc<Telemetry>,
    rates: Arc<Rates>,
    house: House,
    stopping: watch::Receiver<bool>,
    /// Sessions that were ended before their time.
    ended: Arc<Mutex<Ended>>,
}

impl Door {
    /// A door to this house; `replica` is its name among those that share its store.
    pub fn new(
        replica: String,
        looks: Arc<Looks>,
        plan: watch::Receiver<Arc<Plan>>,
        store: Arc<dyn Store>,
        (telemetry, rates): (Arc<Telemetry>, Arc<Rates>),
        house: House,
        stopping: watch::Receiver<bool>,
    ) -> Door {
        Door {
            replica: replica.into(),
            looks,
            plan,
            store,
            telemetry,
            rates,
            house,
            stopping,
            ended: Arc::default(),
        }
    }

    async fn results(&self, wish: Wish<'_>) -> Result<Results, StoreError> {
        let (plan, replica) = (self.plan(), &self.replica);
        let (store, telemetry) = (&*self.store, &*self.telemetry);
        gather::gather(&plan, store, &self.looks, telemetry, replica, wish).await
    }

    /// Waits, not for long, until the store has what was answered here up to now: which IDs are one
    /// person's is known then. Returns the time of the latest fact, in Unix milliseconds.
    async fn until_now(&self) -> u64 {
        let now_ms = || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.map_or(0, |now| now.as_millis() as u64)
        };
        let asked_ms = now_ms();
        let folding = &self.telemetry.folding;
        let is_behind = || {
            let failing = folding.failing.load(Ordering::Relaxed);
            folding.caught_up_ms.load(Ordering::Relaxed) < asked_ms && !failing
        };
        while is_behind() && now_ms() < asked_ms + CAUGHT_UP_WITHIN_MS {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        now_ms().max((self.house.latest_fact.0)())
    }

    fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plan.borrow())
    }

    fn ended(&self) -> MutexGuard<'_, Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the store the sessions that were ended here, and learns of those that were ended at
    /// other replicas or before the last start.
    async fn exchange_ended(&self) {
        let ours = {
            let mut ended = self.ended();
            ended.forget(auth::now_s());
            ended.all().cloned().collect::<Vec<_>>()
        };
        let asked = self.store.ended_sessions(&ours, auth::now_s());
        match tokio::time::timeout(EXCHANGE_WITHIN, asked).await {
            Ok(Ok(all)) => {
                let mut ended = self.ended();
                for (until_s, nonce) in all {
                    ended.add(until_s, nonce);
                }
            }
            // Ingestion reports a store that is away; what was ended here is offered again.
            Ok(Err(error)) => tracing::debug!("ended sessions are not shared: {error}"),
            Err(_) => tracing::debug!("ended sessions are not shared: the store is slow"),
        }
    }

    async fn follow_ended(&self) {
        loop {
            tokio::time::sleep(EXCHANGE_INTERVAL).await;
            self.exchange_ended().await;
        }
    }
}

/// Serves the admin API until its task is dropped, with so many connections at once; and, at a
/// `health` listener, health and metrics without a token.
pub async fn serve(
    door: Door,
    listener: TcpListener,
    health: Option<TcpListener>,
    connections: usize,
) -> std::io::Result<()> {
    let guard = || middleware::from_fn_with_state(door.clone(), auth::admit);
    let serve_routes = |routes: OpenApiRouter<Door>| {
        let (routes, _) = routes.split_for_parts();
        let routes = routes.with_state(door.clone());
        let routes = routes.layer(middleware::from_fn(timeouts::limit));
        routes.layer(middleware::from_fn(response_headers::dress))
    };
    let all = router::guarded().layer(guard()).merge(router::open());
    let usual = Gate::new(
        serve_routes(all.fallback(router::unknown)),
        connections::ADMIN.within(connections),
    );
    let few = router::numbers().layer(guard()).merge(router::probes());
    let reserve = Gate::new(
        serve_routes(few.fallback(router::full)),
        connections::RESERVE.within(connections),
    );
    let listener = tokio::net::TcpListener::from_std(listener)?;
    // A session that was ended before the last start does not come back.
    door.exchange_ended().await;
    let serving = async {
        tokio::select! {
            ended = connections::serve(listener, usual, Some(reserve)) => ended,
            () = door.follow_ended() => Ok(()),
        }
    };
    let Some(health) = health else {
        return serving.await;
    };
    let few = router::numbers().merge(router::probes());
    let few = few.merge(router::health()).fallback(router::nothing_else);
    let few = Gate::new(serve_routes(few), connections::HEALTH.within(connections));
    let health = tokio::net::TcpListener::from_std(health)?;
    tokio::try_join!(serving, connections::serve(health, few, None))?;
    Ok(())
}
