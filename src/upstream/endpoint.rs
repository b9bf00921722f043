//! The state of one endpoint at one worker: its idle connections, its failures, and its requests.

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

/// The most idle connections of one worker to one endpoint.
const IDLE_MAX: usize = 256;
/// One in this many released connections goes to other workers, although requests of this one wait.
const OWN_FIRST: u32 = 8;

/// An endpoint.
#[derive(Debug)]
pub struct Endpoint {
    /// Its address and protocol.
    pub address: Arc<plan::EndpointAddress>,
    /// Its host and port, as logs name it.
    pub name: Box<str>,
    /// The state that all workers share.
    pub health: Arc<EndpointHealth>,
    /// The counts of this worker's requests.
    pub requests: Arc<RequestCounts>,
    /// Its hash, for balancing by user.
    pub seed: u32,
    /// The requests in flight of this worker.
    pub load: Cell<u32>,
    /// How long a connection may be idle.
    pub idle_for: Cell<Duration>,
    /// The end of its ejection.
    pub paused_until: Cell<Option<Instant>>,
    pub(super) resolved: Rc<Resolved>,
    pub(super) idle: RefCell<Vec<IdleConnection>>,
    /// The shared connection of HTTP/2.
    pub(super) shared: RefCell<Option<(Sender, Option<SocketAddr>)>>,
    /// Requests of this worker that wait for a connection.
    pub(super) waiting: RefCell<VecDeque<oneshot::Sender<IdleConnection>>>,
    /// Ends the task that closes idle connections, when it is dropped with the endpoint.
    pub(super) alive: RefCell<Option<oneshot::Sender<Infallible>>>,
    handed: Cell<u32>,
    /// Failures since its last response.
    failures: Cell<u32>,
    /// Responses with 5xx since the last one without.
    errors: Cell<u32>,
}

/// Counts a request in flight until it is dropped.
#[derive(Debug)]
pub(super) struct Serving(Rc<Endpoint>);

impl Serving {
    pub(super) fn new(endpoint: &Rc<Endpoint>) -> Serving {
        endpoint.load.set(endpoint.load.get() + 1);
        Serving(Rc::clone(endpoint))
    }

    pub(super) fn endpoint(&self) -> &Rc<Endpoint> {
        &self.0
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.load.set(self.0.load.get() - 1);
    }
}

impl Endpoint {
    /// Makes an endpoint without connections.
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
            idle_for: Cell::default(),
            paused_until: Cell::default(),
            resolved: Rc::new(Resolved::new(address)),
            idle: RefCell::default(),
            shared: RefCell::default(),
            waiting: RefCell::default(),
            alive: RefCell::default(),
            handed: Cell::default(),
            failures: Cell::default(),
            errors: Cell::default(),
        }
    }

    /// Returns whether it gets requests.
    pub fn state(&self, now: Instant) -> balancer::EndpointState {
        let paused = self.is_paused(now);
        let full = || !self.health.has_room() && self.idle.borrow().is_empty();
        match self.health.is_healthy() {
            false => balancer::EndpointState::Down,
            true if paused || full() => balancer::EndpointState::Last,
            true => balancer::EndpointState::Ready,
        }
    }

    /// Whether it is ejected.
    pub(super) fn is_paused(&self, now: Instant) -> bool {
        self.paused_until.get().is_some_and(|until| until > now)
    }

    /// Takes the last idle connection, if it is young enough and to a current address of the name.
    pub(super) fn pop_idle(&self, now: Instant) -> Option<IdleConnection> {
        loop {
            let mut all = self.idle.borrow_mut();
            let idle = all.pop()?;
            drop(all);
            if now >= idle.until {
                continue;
            }
            if self.resolved.leads_to(idle.peer) {
                return Some(idle);
            }
        }
    }

    /// Closes connections that have been idle for too long or were closed by the endpoint.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        let is_sound = |idle: &mut IdleConnection| now < idle.until && idle.stream.is_quiet();
        self.idle.borrow_mut().retain_mut(is_sound);
    }

    /// Keeps a connection, or passes it to a waiting request.
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
                    // That request has stopped waiting.
                    Err(back) => idle = back,
                }
            }
            if !only_own {
                // Closed, so that another worker may make a connection.
                return;
            }
        }
        let mut all = self.idle.borrow_mut();
        if all.len() < IDLE_MAX {
            all.push(idle);
        }
    }

    /// Records a request without a response. An endpoint that fails repeatedly is ejected for a while, unless
    /// all others are ejected.
    pub fn failed(&self) {
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        if let Some(pause) = balancer::pause(failures) {
            self.paused_until.set(Some(Instant::now() + pause));
            self.health.eject(pause, || {
                format!("{failures} requests in a row got no response")
            });
            tracing::warn!(
                "{} failed {failures} times in a row: ejected for {pause:?} if there are other endpoints",
                self.address
            );
        }
    }

    /// Records a response that is no error.
    pub(super) fn served(&self) {
        let bad = self.failures.replace(0) | self.errors.replace(0);
        if bad > 0 && self.paused_until.take().is_some() {
            self.health.restore();
        }
    }

    /// Records a response with 5xx. Returns for how long the endpoint is to be ejected, if it answers so
    /// repeatedly.
    pub(super) fn erred(&self, errors_max: u32) -> Option<Duration> {
        self.failures.set(0);
        let errors = self.errors.get().saturating_add(1);
        self.errors.set(errors);
        balancer::pause_of_errors(errors, errors_max)
    }

    /// Ejects an endpoint that answers with errors.
    pub(super) fn eject(&self, pause: Duration, now: Instant) {
        let errors = self.errors.get();
        self.paused_until.set(Some(now + pause));
        self.health
            .eject(pause, || format!("{errors} responses in a row were 5xx"));
        tracing::warn!(
            "{} answered {errors} times in a row with 5xx: ejected for {pause:?}",
            self.address
        );
    }

    /// Records an attempt to connect. A failure ejects the endpoint briefly.
    pub(super) fn accepted(&self, failed: Option<&AcquireError>) {
        if matches!(failed, Some(AcquireError::Busy { .. })) {
            return;
        }
        self.log_change(failed);
        self.health.connected(failed.is_none());
        if let Some(error) = failed {
            self.paused_until
                .set(Some(Instant::now() + balancer::PAUSE));
            self.health.eject(balancer::PAUSE, || chain(error));
            self.resolved.doubt();
        } else if self.failures.get() == 0
            && self.errors.get() == 0
            && self.paused_until.take().is_some()
        {
            self.health.restore();
        }
    }

    /// Logs once when the endpoint becomes unavailable, and once when it is available again.
    fn log_change(&self, failed: Option<&AcquireError>) {
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

/// Returns an error with its cause.
fn chain(error: &AcquireError) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
