//! What all workers know together of one endpoint: whether it is well, and whether there is room.
//! Written seldom: when a check's verdict turns, and when a connection is made or ends.

use crate::config::plan::{Endpoint, EndpointBounds, EndpointId, Upstream};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// What is known of an endpoint.
#[derive(Debug)]
pub struct Standing {
    well: AtomicBool,
    room: Option<Room>,
}

#[derive(Debug)]
struct Room {
    slots: Arc<Semaphore>,
    waiting: AtomicU32,
    waiting_max: u32,
    wanted: Notify,
}

/// The right to one connection, for as long as it lasts.
pub type Slot = Option<OwnedSemaphorePermit>;

/// No room, and too many wait for it already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// One who waits; counted until dropped.
struct Waiting<'a>(&'a Room);

impl Standing {
    fn new(bounds: EndpointBounds) -> Standing {
        let room = |slots: u32| Room {
            slots: Arc::new(Semaphore::new(slots as usize)),
            waiting: AtomicU32::new(0),
            waiting_max: bounds.pending,
            wanted: Notify::new(),
        };
        Standing {
            well: AtomicBool::new(true),
            room: bounds.connections.map(room),
        }
    }

    /// False while its checks say that it is not well.
    pub fn is_well(&self) -> bool {
        self.well.load(Ordering::Relaxed)
    }

    /// What its checks say; whether that is news.
    pub fn set_well(&self, well: bool) -> bool {
        self.well.swap(well, Ordering::Relaxed) != well
    }

    /// Whether its connections are counted.
    pub fn is_bounded(&self) -> bool {
        self.room.is_some()
    }

    /// Whether one more connection may be made now.
    pub fn has_room(&self) -> bool {
        let room = self.room.as_ref();
        room.is_none_or(|room| room.slots.available_permits() > 0)
    }

    /// How many wait for a connection, at all workers.
    pub fn waiting(&self) -> u32 {
        let room = self.room.as_ref();
        room.map_or(0, |room| room.waiting.load(Ordering::Relaxed))
    }

    /// The right to a connection, if there is one without waiting.
    pub fn enter_now(&self) -> Option<Slot> {
        match &self.room {
            None => Some(None),
            Some(room) => Arc::clone(&room.slots).try_acquire_owned().ok().map(Some),
        }
    }

    /// Waits for the right to a connection; who comes first is served first.
    pub async fn enter(&self) -> Result<Slot, Full> {
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

type Named = (Box<str>, EndpointId, EndpointBounds);

/// The standings of all endpoints, which last over reloads.
#[derive(Debug, Default)]
pub struct Standings(Mutex<HashMap<Named, Weak<Standing>>>);

impl Standings {
    /// The standing of an endpoint of an upstream: the same for all who ask while one of them
    /// holds it.
    pub fn of(&self, upstream: &Upstream, endpoint: &Endpoint) -> Arc<Standing> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (upstream.name.clone(), endpoint.id(), upstream.bounds);
        if let Some(standing) = all.get(&name).and_then(Weak::upgrade) {
            return standing;
        }
        all.retain(|_, standing| standing.strong_count() > 0);
        let standing = Arc::new(Standing::new(upstream.bounds));
        all.insert(name, Arc::downgrade(&standing));
        standing
    }
}
