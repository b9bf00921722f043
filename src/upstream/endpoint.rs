//! One endpoint, as one worker sees it: its idle connections, and whether it can be relied on.

use crate::config::plan;
use crate::telemetry::RequestCounts;
use crate::upstream::acquire_error::AcquireError;
use crate::upstream::balancer;
use crate::upstream::health_state::EndpointHealth;
use crate::upstream::http2::Sender;
use crate::upstream::idle_connection::IdleConnection;
use crate::upstream::resolver::Resolved;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The most connections idle to one endpoint by one worker.
const IDLE_MAX: usize = 256;
/// How long a connection is idle without a request; below what servers usually allow.
const IDLE_FOR: Duration = Duration::from_secs(50);
/// Who waits here for a connection goes before who waits at other workers, but not for ever.
const OWN_FIRST: u32 = 8;

/// An endpoint.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it is, and how it is spoken to.
    pub address: Arc<plan::EndpointAddress>,
    /// Its host and port, as logs name it.
    pub name: Box<str>,
    /// What all workers know of it.
    pub health: Arc<EndpointHealth>,
    /// The requests that this worker gave it.
    pub requests: Arc<RequestCounts>,
    /// Its place among others, where users choose.
    pub seed: u32,
    /// What runs for requests at this worker.
    pub load: Cell<u32>,
    /// When it may be asked again, after it failed.
    pub paused_until: Cell<Option<Instant>>,
    pub(super) resolved: Rc<Resolved>,
    pub(super) idle: RefCell<Vec<IdleConnection>>,
    /// The connection that HTTP/2 requests share.
    pub(super) shared: RefCell<Option<(Sender, SocketAddr)>>,
    /// Requests of this worker that wait for a connection.
    pub(super) waiting: RefCell<VecDeque<oneshot::Sender<IdleConnection>>>,
    /// Dropped with it, which ends what looks after it.
    pub(super) alive: RefCell<Option<oneshot::Sender<Infallible>>>,
    handed: Cell<u32>,
    /// Failures since it last answered.
    failures: Cell<u32>,
}

/// A request is being served; counted until dropped.
#[derive(Debug)]
pub(super) struct Serving(Rc<Endpoint>);

impl Serving {
    pub fn new(endpoint: &Rc<Endpoint>) -> Serving {
        endpoint.load.set(endpoint.load.get() + 1);
        Serving(Rc::clone(endpoint))
    }

    pub fn endpoint(&self) -> &Rc<Endpoint> {
        &self.0
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.load.set(self.0.load.get() - 1);
    }
}

impl Endpoint {
    /// Without connections yet.
    pub fn new(
        address: &plan::EndpointAddress,
        health: Arc<EndpointHealth>,
        requests: Arc<RequestCounts>,
    ) -> Endpoint {
        let name = address.to_string().into_boxed_str();
        Endpoint {
            address: Arc::new(address.clone()),
            health,
            requests,
            seed: balancer::seed(&name),
            name,
            load: Cell::default(),
            paused_until: Cell::default(),
            resolved: Rc::new(Resolved::new(address)),
            idle: RefCell::default(),
            shared: RefCell::default(),
            waiting: RefCell::default(),
            alive: RefCell::default(),
            handed: Cell::default(),
            failures: Cell::default(),
        }
    }

    /// Whether it would be asked if all were equal.
    pub fn state(&self, now: Instant) -> balancer::EndpointState {
        let paused = self.paused_until.get().is_some_and(|until| until > now);
        let full = || !self.health.has_room() && self.idle.borrow().is_empty();
        match self.health.is_healthy() {
            false => balancer::EndpointState::Down,
            true if paused || full() => balancer::EndpointState::Last,
            true => balancer::EndpointState::Ready,
        }
    }

    /// The last one idle, if it is young enough and still goes where the name leads.
    pub(super) fn pop_idle(&self, now: Instant) -> Option<IdleConnection> {
        loop {
            let mut all = self.idle.borrow_mut();
            let idle = all.pop()?;
            if now.saturating_duration_since(idle.since) > IDLE_FOR {
                // Those below it are older still.
                all.clear();
                return None;
            }
            drop(all);
            if self.resolved.leads_to(idle.peer) {
                return Some(idle);
            }
        }
    }

    /// Lets go of what has been idle for too long or was closed.
    pub(super) fn sweep(&self) {
        let is_sound =
            |idle: &mut IdleConnection| idle.since.elapsed() <= IDLE_FOR && idle.stream.is_quiet();
        self.idle.borrow_mut().retain_mut(is_sound);
    }

    /// Keeps a connection, or gives it to who waits for one.
    pub(super) fn keep(&self, mut idle: IdleConnection) {
        let all_waiting = self.health.waiting();
        if all_waiting > 0 {
            let turn = self.handed.replace(self.handed.get().wrapping_add(1));
            let mut own = self.waiting.borrow_mut();
            let only_own = all_waiting as usize <= own.len();
            while (only_own || !turn.is_multiple_of(OWN_FIRST))
                && let Some(waiting) = own.pop_front()
            {
                match waiting.send(idle) {
                    Ok(()) => return,
                    // It has waited long enough, or has one.
                    Err(back) => idle = back,
                }
            }
            if !only_own {
                // Closed, so that another worker may make one.
                return;
            }
        }
        let mut all = self.idle.borrow_mut();
        if all.len() < IDLE_MAX {
            all.push(idle);
        }
    }

    /// A request that it was given found no answer. One that fails again and again is passed over
    /// for a while, unless all others are.
    pub fn failed(&self) {
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        if let Some(pause) = balancer::pause(failures) {
            self.paused_until.set(Some(Instant::now() + pause));
            self.health.eject(pause, || {
                format!("{failures} requests in a row got no response")
            });
            tracing::warn!(
                "{} failed {failures} times in a row: it is passed over for {pause:?} where there are others",
                self.address
            );
        }
    }

    /// It answered.
    pub fn served(&self) {
        if self.failures.replace(0) > 0 && self.paused_until.take().is_some() {
            self.health.restore();
        }
    }

    /// Whether a connection was made: it is passed over for a moment if not.
    pub(super) fn accepted(&self, failed: Option<&AcquireError>) {
        if matches!(failed, Some(AcquireError::Busy { .. })) {
            return;
        }
        self.tell(failed);
        self.health.connected(failed.is_none());
        if let Some(error) = failed {
            self.paused_until
                .set(Some(Instant::now() + balancer::PAUSE));
            self.health.eject(balancer::PAUSE, || chain(error));
            self.resolved.doubt();
        } else if self.failures.get() == 0 && self.paused_until.take().is_some() {
            self.health.restore();
        }
    }

    /// Says once when the endpoint goes away, and once when it is back: not for every request.
    fn tell(&self, failed: Option<&AcquireError>) {
        let address = &self.address;
        match (failed, self.paused_until.get()) {
            (Some(error), None) => tracing::warn!(
                "{}; is it running, and is its address right in `upstreams`?",
                chain(error)
            ),
            (None, Some(_)) => tracing::info!("{address} accepts connections again"),
            _ => {}
        }
    }
}

/// An error with its cause.
fn chain(error: &AcquireError) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
