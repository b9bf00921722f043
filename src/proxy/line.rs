//! What the parts of one client connection tell each other: the gate below hyper, the handler
//! above it, and the task that runs both.

use super::reply::Reason;
use crate::upstream::Upgraded;
use http::Method;
use http::request::Parts;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

/// How long a connection may at least begin another request when the process stops. Less would
/// cut off who has just connected, or got the response before.
const LAST_CALL: Duration = Duration::from_secs(1);

/// How long a connection without a request may still begin one, when those that are quiet are
/// closed from then on.
pub fn last_call(quiet_until: Instant) -> Duration {
    let left = quiet_until.saturating_duration_since(Instant::now());
    left.max(LAST_CALL)
}

/// One HTTP/1 connection of a client.
pub struct Line {
    /// Whose connection it is: the peer, or whom a trusted peer speaks for.
    pub client: IpAddr,
    /// Whether the next request was let through by the rate limit already.
    pub admitted: Cell<bool>,
    /// Of each request `OPTIONS http://…` that was read and not begun, whether its target is only a
    /// host: the parser above makes `/` of it.
    pub bare: RefCell<VecDeque<bool>>,
    /// Requests that were answered or are being answered.
    pub requests: Cell<u32>,
    /// Set when the process stops: how long another request may begin.
    pub quiet_until: Cell<Option<Instant>>,
    /// Why the connection must end, once what came before is answered.
    pub fault: Cell<Option<Reason>>,
    /// Whether the running request asks to upgrade and is not refused yet.
    pub upgrading: Cell<bool>,
    /// Whether only the end of the connection can tell the client where its answer ends.
    pub delimited: Cell<bool>,
    /// When the answer that runs must have been given.
    pub deadline: Cell<Option<Instant>>,
    /// The upstream's side of an upgrade that was agreed to.
    pub tunnel: Cell<Option<Upgraded>>,
    /// Interim answers that wait for their turn.
    interim: RefCell<Vec<u8>>,
    waker: RefCell<Option<Waker>>,
}

impl Line {
    /// A connection without requests yet.
    pub fn new(client: IpAddr) -> Line {
        Line {
            client,
            admitted: Cell::new(false),
            bare: RefCell::default(),
            requests: Cell::new(0),
            quiet_until: Cell::new(None),
            fault: Cell::new(None),
            upgrading: Cell::new(false),
            delimited: Cell::new(false),
            deadline: Cell::new(None),
            tunnel: Cell::new(None),
            interim: RefCell::default(),
            waker: RefCell::default(),
        }
    }

    /// Whether the target of the request that begins is only a host; asked once of each request.
    pub fn takes_bare(&self, head: &Parts) -> bool {
        let asks = head.method == Method::OPTIONS && head.uri.authority().is_some();
        asks && self.bare.borrow_mut().pop_front() == Some(true)
    }

    /// How long a write may wait for the client from now on: for `max`, and not past the deadline.
    pub fn patience(&self, max: Duration) -> Duration {
        match self.deadline.get() {
            Some(deadline) => max.min(deadline.saturating_duration_since(Instant::now())),
            None => max,
        }
    }

    /// Sends a whole interim answer to the client before whatever comes next.
    pub fn say(&self, interim: &[u8]) {
        self.interim.borrow_mut().extend_from_slice(interim);
        self.wake();
    }

    /// Whether interim answers wait.
    pub fn has_interim(&self) -> bool {
        !self.interim.borrow().is_empty()
    }

    /// Gives interim answers to `write`, which says how many bytes it took.
    pub fn give_interim<T>(&self, write: impl FnOnce(&[u8]) -> (usize, T)) -> T {
        let mut interim = self.interim.borrow_mut();
        let (taken, result) = write(&interim);
        interim.drain(..taken);
        result
    }

    /// Remembers whom to wake when there is something to say.
    pub fn listen(&self, context: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(context.waker()))
        {
            *waker = Some(context.waker().clone());
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line")
            .field("client", &self.client)
            .field("requests", &self.requests)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}
