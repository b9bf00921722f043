//! The state of one endpoint that all workers share: whether it is healthy, and whether it has a free
//! connection. It is written rarely: when a health check changes it, and when a connection is made or ends.

use crate::config::plan::{EndpointAddress, EndpointBounds, EndpointId, Upstream};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The shared state of an endpoint.
#[derive(Debug)]
pub struct EndpointHealth {
    well: AtomicBool,
    room: Option<Room>,
    /// The end of the latest ejection by any worker, in Unix milliseconds; 0 for none.
    ejected_until_ms: AtomicU64,
    turns: Mutex<Turns>,
    history: Arc<EndpointHistory>,
}

/// Counts of an endpoint since the process started.
#[derive(Debug, Default)]
pub struct EndpointHistory {
    /// A worker ejected it, because connections or requests failed.
    pub ejections: AtomicU64,
    /// It got requests again after an ejection.
    pub returns: AtomicU64,
    /// Its health checks began to fail.
    pub failed_checks: AtomicU64,
    /// Its health checks succeeded again.
    pub passed_checks: AtomicU64,
    /// A connection was made.
    pub connections: AtomicU64,
    /// A connection could not be made.
    pub failed_connections: AtomicU64,
}

fn count(number: &AtomicU64) {
    number.fetch_add(1, Ordering::Relaxed);
}

/// The time and reason of its last change, for people.
#[derive(Debug, Default)]
struct Turns {
    checks: Option<Turn>,
    ejection: Option<Turn>,
}

#[derive(Clone, Debug)]
struct Turn {
    at_ms: u64,
    reason: Option<String>,
}

/// Whether an endpoint gets requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointCondition {
    /// It gets requests.
    Healthy,
    /// It gets none for a while, unless all others are ejected, too: requests or connections failed.
    Ejected,
    /// It gets none: its health checks fail.
    Unhealthy,
}

/// The condition of an endpoint, since when, and why.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whether it gets requests.
    pub condition: EndpointCondition,
    /// Since when, in Unix milliseconds; `None` if it has never changed.
    pub since_ms: Option<u64>,
    /// Why it is not healthy, or in doubt.
    pub reason: Option<String>,
    /// How often workers have ejected it since the process started.
    pub ejections: u64,
    /// Whether it was ejected, and the worker that did so has had no success with it since.
    pub is_in_doubt: bool,
}

#[derive(Debug)]
struct Room {
    slots: Arc<Semaphore>,
    waiting: AtomicU32,
    waiting_max: u32,
    wanted: Notify,
}

/// The permit of one connection.
pub(super) type ConnectionSlot = Option<OwnedSemaphorePermit>;

/// There is no free connection, and too many requests wait for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Counts a waiting request until it is dropped.
struct Waiting<'a>(&'a Room);

impl EndpointHealth {
    fn new(bounds: EndpointBounds, history: Arc<EndpointHistory>) -> EndpointHealth {
        let room = |slots: u32| Room {
            slots: Arc::new(Semaphore::new(slots as usize)),
            waiting: AtomicU32::new(0),
            waiting_max: bounds.pending,
            wanted: Notify::new(),
        };
        EndpointHealth {
            well: AtomicBool::new(true),
            room: bounds.connections.map(room),
            ejected_until_ms: AtomicU64::new(0),
            turns: Mutex::default(),
            history,
        }
    }

    /// Records an ejection by a worker. `reason` is called if the endpoint was not ejected already.
    pub fn eject(&self, pause: Duration, reason: impl FnOnce() -> String) {
        let now_ms = now_ms();
        let until_ms = now_ms + pause.as_millis() as u64;
        let before_ms = self.ejected_until_ms.fetch_max(until_ms, Ordering::Relaxed);
        if before_ms < now_ms {
            count(&self.history.ejections);
            self.turns().ejection = Some(Turn {
                at_ms: now_ms,
                reason: Some(reason()),
            });
        }
    }

    /// Records the end of an ejection by a worker.
    pub fn restore(&self) {
        if self.ejected_until_ms.swap(0, Ordering::Relaxed) > 0 {
            count(&self.history.returns);
        }
    }

    /// Records an attempt to connect.
    pub fn connected(&self, made: bool) {
        count(match made {
            true => &self.history.connections,
            false => &self.history.failed_connections,
        });
    }

    /// Returns its condition now.
    pub fn report(&self) -> Report {
        let turns = self.turns();
        let until_ms = self.ejected_until_ms.load(Ordering::Relaxed);
        let (condition, turn) = match (self.is_healthy(), until_ms > now_ms()) {
            (false, _) => (EndpointCondition::Unhealthy, turns.checks.clone()),
            (true, true) => (EndpointCondition::Ejected, turns.ejection.clone()),
            // It was ejected, and nothing has succeeded since.
            (true, false) if until_ms > 0 => (EndpointCondition::Healthy, turns.ejection.clone()),
            (true, false) => (EndpointCondition::Healthy, turns.checks.clone()),
        };
        Report {
            condition,
            since_ms: turn.as_ref().map(|turn| turn.at_ms),
            reason: turn.and_then(|turn| turn.reason),
            ejections: self.history.ejections.load(Ordering::Relaxed),
            is_in_doubt: until_ms > 0,
        }
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        // No code that holds this lock can leave the state half-changed.
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its health checks succeed.
    pub fn is_healthy(&self) -> bool {
        self.well.load(Ordering::Relaxed)
    }

    /// Records the result of its health checks. Returns whether it has changed.
    pub fn set_healthy(&self, well: bool, reason: Option<String>) -> bool {
        let is_news = self.well.swap(well, Ordering::Relaxed) != well;
        if is_news {
            count(match well {
                true => &self.history.passed_checks,
                false => &self.history.failed_checks,
            });
            self.turns().checks = Some(Turn {
                at_ms: now_ms(),
                reason,
            });
        }
        is_news
    }

    /// Whether its connections are limited.
    pub fn is_bounded(&self) -> bool {
        self.room.is_some()
    }

    /// Whether a connection may be made now.
    pub fn has_room(&self) -> bool {
        let room = self.room.as_ref();
        room.is_none_or(|room| room.slots.available_permits() > 0)
    }

    /// Whether a connection may be made now, and another one beside it.
    pub fn has_spare_room(&self) -> bool {
        let room = self.room.as_ref();
        room.is_none_or(|room| room.slots.available_permits() > 1)
    }

    /// Returns how many requests wait for a connection, at all workers.
    pub fn waiting(&self) -> u32 {
        let room = self.room.as_ref();
        room.map_or(0, |room| room.waiting.load(Ordering::Relaxed))
    }

    /// Takes the permit of a connection, if there is one without waiting.
    pub fn enter_now(&self) -> Option<ConnectionSlot> {
        match &self.room {
            None => Some(None),
            Some(room) => Arc::clone(&room.slots).try_acquire_owned().ok().map(Some),
        }
    }

    /// Waits for the right to a connection; who comes first is served first.
    pub async fn enter(&self) -> Result<ConnectionSlot, Full> {
        let Some(room) = &self.room else {
            return Ok(None);
        };
        let _waiting = Waiting::new(room)?;
        room.wanted.notify_waiters();
        // The semaphore is never closed.
        Ok(Arc::clone(&room.slots).acquire_owned().await.ok())
    }

    /// Resolves when somebody begins to wait for room.
    pub async fn wanted(&self) {
        match &self.room {
            Some(room) => room.wanted.notified().await,
            None => std::future::pending().await,
        }
    }
}

impl<'a> Waiting<'a> {
    fn new(room: &'a Room) -> Result<Waiting<'a>, Full> {
        let more = |waiting| (waiting < room.waiting_max).then_some(waiting + 1);
        let counted = room
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        counted.map(|_| Waiting(room)).map_err(|_| Full)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}

type Named = (Box<str>, EndpointId, EndpointBounds);

/// By upstream and address.
type EndpointHistories = BTreeMap<(Box<str>, Box<str>), Arc<EndpointHistory>>;

/// The health of all endpoints, which lasts over reloads.
#[derive(Debug, Default)]
pub struct HealthRegistry {
    current: Mutex<HashMap<Named, Weak<EndpointHealth>>>,
    histories: Mutex<EndpointHistories>,
}

impl HealthRegistry {
    /// The health of an endpoint of an upstream: the same for all who ask while one of them
    /// holds it.
    pub fn of(&self, upstream: &Upstream, endpoint: &EndpointAddress) -> Arc<EndpointHealth> {
        let mut all = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (upstream.name.clone(), endpoint.id(), upstream.bounds);
        if let Some(health) = all.get(&name).and_then(Weak::upgrade) {
            return health;
        }
        all.retain(|_, health| health.strong_count() > 0);
        let history = self.history(&upstream.name, endpoint);
        let health = Arc::new(EndpointHealth::new(upstream.bounds, history));
        all.insert(name, Arc::downgrade(&health));
        health
    }

    fn history(&self, upstream: &str, endpoint: &EndpointAddress) -> Arc<EndpointHistory> {
        let key = (upstream.into(), endpoint.to_string().into());
        Arc::clone(self.histories().entry(key).or_default())
    }

    /// What happened to each endpoint. Kept until the process ends, so that no count goes back
    /// when a reload takes an endpoint out of the file.
    pub fn histories(&self) -> MutexGuard<'_, EndpointHistories> {
        self.histories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
