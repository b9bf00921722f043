//! The state that all handlers of the admin API share.

use crate::admin::clock::{now_ms, now_s};
use crate::admin::http::session::EndedSessions;
use crate::admin::results::evaluator::Evaluator;
use crate::admin::results::gather::{self, ResultsRequest};
use crate::admin::results::schema::Results;
use crate::admin::server_handle::ServerHandle;
use crate::config::plan::Plan;
use crate::rate_limit::RateLimiter;
use crate::store::{Store, StoreError};
use crate::tasks::PhaseWatch;
use crate::telemetry::Telemetry;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// The time that deleting a user waits for ingestion.
const CAUGHT_UP_WITHIN_MS: u64 = 5_000;
/// How often results are kept for when the store is unavailable.
const KEEP_INTERVAL: Duration = Duration::from_secs(60);
/// The same after the store was unavailable.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// How often replicas exchange ended sessions through the store.
const EXCHANGE_INTERVAL: Duration = Duration::from_secs(2);
/// The time limit of one exchange.
const EXCHANGE_WITHIN: Duration = Duration::from_secs(1);

/// The state that all handlers share. Clones are cheap and refer to the same state.
#[derive(Clone)]
pub struct AdminState {
    /// The name of this process among those that share its store.
    pub replica: Arc<str>,
    /// Evaluates experiments and keeps what earlier evaluations found.
    pub evaluator: Arc<Evaluator>,
    /// The active plan.
    pub plans: watch::Receiver<Arc<Plan>>,
    /// The store of all replicas.
    pub store: Arc<dyn Store>,
    /// Counters of this process.
    pub telemetry: Arc<Telemetry>,
    /// Limits wrong tokens per client address.
    pub rates: Arc<RateLimiter>,
    /// The server that runs this API.
    pub server: ServerHandle,
    /// The phase of the process.
    pub phase: PhaseWatch,
    /// Sessions that were ended before they expired.
    pub ended: Arc<Mutex<EndedSessions>>,
    /// The results that pages showed last.
    pub latest: Arc<LatestResults>,
}

/// The results of before, for when the store is unavailable: those that pages showed last, and all of the last
/// minute. By experiment, `None` for all.
#[derive(Debug, Default)]
pub struct LatestResults(Mutex<BTreeMap<Option<String>, Arc<Results>>>);

impl LatestResults {
    /// Keeps results.
    pub fn keep(&self, only: Option<&str>, results: &Arc<Results>) {
        self.lock()
            .insert(only.map(str::to_owned), Arc::clone(results));
    }

    /// Returns the results that were kept last.
    pub fn of(&self, only: Option<&str>) -> Option<Arc<Results>> {
        self.lock().get(&only.map(str::to_owned)).cloned()
    }

    /// Returns the newest results that have this experiment; any for `None`.
    pub fn newest(&self, only: Option<&str>) -> Option<Arc<Results>> {
        let has =
            |name: &str, results: &Results| results.experiments.iter().any(|it| it.name == name);
        let of_all = self.of(None);
        let of_all = of_all.filter(|all| only.is_none_or(|name| has(name, all)));
        // Times in UTC are in the order of their texts.
        let kept = self.of(only).into_iter().chain(of_all);
        kept.max_by(|one, other| one.generated_at.cmp(&other.generated_at))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Option<String>, Arc<Results>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AdminState {
    /// Computes the requested results.
    pub async fn results(&self, wish: ResultsRequest<'_>) -> Result<Results, StoreError> {
        let (plan, replica) = (self.plan(), &self.replica);
        let (store, telemetry) = (&*self.store, &*self.telemetry);
        gather::gather(&plan, store, &self.evaluator, telemetry, replica, wish).await
    }

    /// Waits at most 5 s until the store has every record that was journaled here before the call. The
    /// store then knows all IDs that belong to one user. Returns the time of the latest record in Unix
    /// milliseconds.
    pub async fn wait_for_ingestion(&self) -> u64 {
        let called_ms = now_ms();
        let ingestion = &self.telemetry.ingestion;
        let is_behind = || {
            let failing = ingestion.failing.load(Ordering::Relaxed);
            ingestion.caught_up_ms.load(Ordering::Relaxed) < called_ms && !failing
        };
        while is_behind() && now_ms() < called_ms + CAUGHT_UP_WITHIN_MS {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        now_ms().max((self.server.latest_record.0)())
    }

    /// Returns the active plan.
    pub fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plans.borrow())
    }

    /// Locks the sessions that were ended before they expired.
    pub fn ended(&self) -> MutexGuard<'_, EndedSessions> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Saves the sessions that were ended here in the store, and loads those that were ended at other
    /// replicas or before the last start.
    pub async fn exchange_ended(&self) {
        let ours = {
            let mut ended = self.ended();
            ended.remove_expired(now_s());
            ended.all().cloned().collect::<Vec<_>>()
        };
        let exchange = self.store.ended_sessions(&ours, now_s());
        match tokio::time::timeout(EXCHANGE_WITHIN, exchange).await {
            Ok(Ok(all)) => {
                let mut ended = self.ended();
                for (until_s, nonce) in all {
                    ended.add(until_s, nonce);
                }
            }
            // Ingestion reports a store that is unavailable; the next exchange tries again.
            Ok(Err(error)) => tracing::debug!("ended sessions could not be exchanged: {error}"),
            Err(_) => tracing::debug!("ended sessions could not be exchanged: the store is slow"),
        }
    }

    /// Keeps the results of all experiments for when the store is unavailable, until its future is dropped.
    pub async fn keep_results_repeatedly(&self) {
        loop {
            let interval = match self.results(ResultsRequest::default()).await {
                Ok(results) => {
                    self.latest.keep(None, &Arc::new(results));
                    KEEP_INTERVAL
                }
                // Ingestion reports a store that is unavailable.
                Err(_) => RETRY_INTERVAL,
            };
            tokio::time::sleep(interval).await;
        }
    }

    /// Exchanges ended sessions with the store until its future is dropped.
    pub async fn exchange_ended_repeatedly(&self) {
        loop {
            tokio::time::sleep(EXCHANGE_INTERVAL).await;
            self.exchange_ended().await;
        }
    }
}
