//! The connection pool of a worker: chooses an endpoint, and takes a connection of it for a request.

use crate::config::plan::{self, Balance, Ejection, Plan};
use crate::experiment::{UpstreamIndex, UserId};
use crate::telemetry::Traffic;
use crate::upstream::acquire_error::AcquireError;
use crate::upstream::balancer::{self, Candidate};
use crate::upstream::connection::PooledConnection;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::health_state::HealthRegistry;
use crate::upstream::idle_connection::Protocols;
use smallvec::SmallVec;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The upstreams of one plan at one worker.
#[derive(Debug)]
pub struct Upstreams {
    upstreams: Vec<Upstream>,
    connect: Duration,
}

#[derive(Debug)]
struct Upstream {
    name: Box<str>,
    endpoints: Vec<Rc<Endpoint>>,
    balance: Balance,
    ejection: Option<Ejection>,
    turn: Cell<usize>,
    budget: balancer::Budget,
}

/// A request for a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionRequest<'a> {
    /// The upstream.
    pub upstream: UpstreamIndex,
    /// What the connection must support.
    pub need: Protocols,
    /// The user, if known.
    pub user: Option<UserId<'a>>,
}

impl Upstreams {
    /// Makes the upstreams of a plan. Endpoints of `before` keep their connections, except over TLS, because
    /// certificates may have changed.
    pub fn new(
        plan: &Plan,
        health_registry: &HealthRegistry,
        traffic: &Traffic,
        before: Option<&Upstreams>,
    ) -> Upstreams {
        let upstream = |upstream: &plan::Upstream| {
            let before = before.and_then(|before| {
                let mut all = before.upstreams.iter();
                all.find(|it| it.name == upstream.name)
            });
            let endpoint = |address: &plan::EndpointAddress| {
                let health = health_registry.of(upstream, address);
                let known = before.and_then(|before| {
                    before.endpoints.iter().find(|it| {
                        it.address.id() == address.id()
                            && !address.is_secure()
                            && Arc::ptr_eq(&it.health, &health)
                    })
                });
                let new = || {
                    let requests = traffic.endpoint(&upstream.name, &address.to_string());
                    Endpoint::new(address, health.clone(), requests)
                };
                let endpoint = known.cloned().unwrap_or_else(|| Rc::new(new()));
                endpoint.idle_for.set(upstream.keep_alive);
                endpoint
            };
            Upstream {
                name: upstream.name.clone(),
                endpoints: upstream.endpoints.iter().map(endpoint).collect(),
                balance: upstream.balance,
                ejection: upstream.ejection,
                turn: Cell::new(0),
                budget: balancer::Budget::default(),
            }
        };
        Upstreams {
            upstreams: plan.upstreams.iter().map(upstream).collect(),
            connect: plan.timeouts.connect,
        }
    }

    /// Acquires a connection to an endpoint of an upstream: an idle one if there is one, or a new one to the
    /// first endpoint that accepts it.
    pub async fn acquire(
        &self,
        wanted: ConnectionRequest<'_>,
    ) -> Result<PooledConnection, AcquireError> {
        let upstream = &self.upstreams[wanted.upstream.0];
        upstream.budget.deposit();
        if let [only] = &upstream.endpoints[..]
            && only.health.is_healthy()
        {
            // The usual case needs no order.
            return self.take(only, wanted.need).await;
        }
        let acquired = self.acquire_in_order(wanted, None).await;
        acquired.unwrap_or_else(|| {
            Err(AcquireError::Down {
                upstream: upstream.name.clone(),
            })
        })
    }

    /// Acquires a connection without waiting, if the upstream has one endpoint, which is healthy and has an
    /// idle connection.
    pub fn acquire_idle(
        &self,
        wanted: ConnectionRequest<'_>,
        now: Instant,
    ) -> Option<PooledConnection> {
        let upstream = &self.upstreams[wanted.upstream.0];
        let [only] = &upstream.endpoints[..] else {
            return None;
        };
        let bare = only
            .health
            .is_healthy()
            .then(|| only.take_idle_now(now))??;
        upstream.budget.deposit();
        Some(bare)
    }

    /// Acquires another connection for a request that got no response. If the first one was `reused` and may
    /// have been closed meanwhile, it is a new one to the same endpoint; otherwise one to another endpoint,
    /// within the budget of retries. `None` if nothing is left to try.
    pub async fn acquire_for_retry(
        &self,
        wanted: ConnectionRequest<'_>,
        endpoint: &Rc<Endpoint>,
        reused: bool,
    ) -> Option<Result<PooledConnection, AcquireError>> {
        let upstream = &self.upstreams[wanted.upstream.0];
        let others = self.has_others(wanted.upstream);
        if reused {
            let again = endpoint.connect(self.connect, wanted.need).await;
            if again.is_ok() || !others {
                return Some(again);
            }
        }
        if !others || !upstream.budget.withdraw() {
            return None;
        }
        self.acquire_in_order(wanted, Some(endpoint)).await
    }

    /// Acquires a connection for a copy of a request, which must not harm requests: it waits for no other
    /// one, does not take the last connection that an endpoint allows, and no failure counts against the endpoint.
    pub async fn acquire_for_copy(
        &self,
        wanted: ConnectionRequest<'_>,
    ) -> Option<PooledConnection> {
        let upstream = &self.upstreams[wanted.upstream.0];
        for place in order(upstream, fastrand::u16(..).into(), wanted.user) {
            let endpoint = &upstream.endpoints[place];
            if endpoint.state(Instant::now()) == balancer::EndpointState::Ready {
                return endpoint.take_for_copy(self.connect, wanted.need).await;
            }
        }
        None
    }

    /// Records a response of an endpoint. One that answers with errors repeatedly is ejected for a while,
    /// as long as enough of the upstream's endpoints are left.
    pub fn responded(&self, upstream: UpstreamIndex, endpoint: &Endpoint, status: u16) {
        let upstream = &self.upstreams[upstream.0];
        let is_error = status >= 500 && status != 501 && upstream.endpoints.len() > 1;
        let Some(ejection) = upstream.ejection.filter(|_| is_error) else {
            return endpoint.served();
        };
        let now = Instant::now();
        let Some(pause) = endpoint.erred(ejection.errors) else {
            return;
        };
        // Responses to requests that began before the ejection do not lengthen it.
        let ejected = upstream.endpoints.iter().filter(|it| it.is_paused(now));
        let is_full = ejected.count() >= ejection.endpoints_max(upstream.endpoints.len());
        if !endpoint.is_paused(now) && !is_full {
            endpoint.eject(pause, now);
        }
    }

    /// Closes connections that have been idle for too long or were closed by their endpoint.
    pub fn sweep(&self) {
        let upstreams = self.upstreams.iter();
        for endpoint in upstreams.flat_map(|upstream| &upstream.endpoints) {
            endpoint.sweep();
        }
    }

    /// Whether the upstream has several endpoints.
    pub fn has_others(&self, upstream: UpstreamIndex) -> bool {
        self.upstreams[upstream.0].endpoints.len() > 1
    }

    async fn acquire_in_order(
        &self,
        wanted: ConnectionRequest<'_>,
        but: Option<&Rc<Endpoint>>,
    ) -> Option<Result<PooledConnection, AcquireError>> {
        let upstream = &self.upstreams[wanted.upstream.0];
        let turn = upstream.turn.replace(upstream.turn.get().wrapping_add(1));
        let mut failed = None;
        for place in order(upstream, turn, wanted.user) {
            let endpoint = &upstream.endpoints[place];
            if but.is_some_and(|but| Rc::ptr_eq(but, endpoint)) {
                continue;
            }
            match self.take(endpoint, wanted.need).await {
                Ok(acquired) => return Some(Ok(acquired)),
                Err(error) => failed = Some(Err(error)),
            }
        }
        failed
    }

    async fn take(
        &self,
        endpoint: &Rc<Endpoint>,
        need: Protocols,
    ) -> Result<PooledConnection, AcquireError> {
        match endpoint.take_idle(need).await {
            Some(acquired) => Ok(acquired),
            None => endpoint.connect(self.connect, need).await,
        }
    }
}

/// The places of the endpoints that get a request of this user, the first one first.
fn order(upstream: &Upstream, turn: usize, user: Option<UserId<'_>>) -> balancer::Order {
    let now = Instant::now();
    let candidate = |endpoint: &Rc<Endpoint>| Candidate {
        state: endpoint.state(now),
        load: endpoint.load.get(),
        seed: endpoint.seed,
    };
    let candidates: SmallVec<[_; 8]> = upstream.endpoints.iter().map(candidate).collect();
    let chance = fastrand::usize(..);
    balancer::order(upstream.balance, &candidates, turn, chance, user)
}
