//! Connections to endpoints, acquired to one request at a time and idle for the next.

use crate::config::plan::{self, Balance, Plan};
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

/// All upstreams of one plan, as one worker holds them.
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
    turn: Cell<usize>,
    budget: balancer::Budget,
}

/// For whom a connection is acquired.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionRequest<'a> {
    /// Of which upstream.
    pub upstream: UpstreamIndex,
    /// What it must be able to do.
    pub need: Protocols,
    /// Whose request it is, where that is known.
    pub user: Option<UserId<'a>>,
}

impl Upstreams {
    /// The upstreams of a plan. Endpoints that `before` knew keep their connections, but for those
    /// over TLS, whose certificates may be others now.
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
                known.cloned().unwrap_or_else(|| Rc::new(new()))
            };
            Upstream {
                name: upstream.name.clone(),
                endpoints: upstream.endpoints.iter().map(endpoint).collect(),
                balance: upstream.balance,
                turn: Cell::new(0),
                budget: balancer::Budget::default(),
            }
        };
        Upstreams {
            upstreams: plan.upstreams.iter().map(upstream).collect(),
            connect: plan.timeouts.connect,
        }
    }

    /// A connection to an endpoint of this upstream: a idle one if there is one, or else a new
    /// one to the first endpoint that accepts it.
    pub async fn acquire(
        &self,
        wanted: ConnectionRequest<'_>,
    ) -> Result<PooledConnection, AcquireError> {
        let upstream = &self.upstreams[wanted.upstream.0];
        upstream.budget.deposit();
        if let [only] = &upstream.endpoints[..]
            && only.health.is_healthy()
        {
            // The usual case, without an order to make.
            return self.take(only, wanted.need).await;
        }
        let acquired = self.acquire_in_order(wanted, None).await;
        acquired.unwrap_or_else(|| {
            Err(AcquireError::Down {
                upstream: upstream.name.clone(),
            })
        })
    }

    /// The same where nothing has to be waited for: the upstream has one endpoint, which is well
    /// and of which a connection is idle.
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

    /// A connection for a request that found no answer on the one `before`: where that was idle
    /// and closed meanwhile, a new one to the same endpoint; or else one to another endpoint, as
    /// far as the budget for that goes. `None` where there is nothing else to try.
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

    /// Lets go of idle connections that have been idle for too long or were closed.
    pub fn sweep(&self) {
        let upstreams = self.upstreams.iter();
        for endpoint in upstreams.flat_map(|upstream| &upstream.endpoints) {
            endpoint.sweep();
        }
    }

    /// Whether a request may find another endpoint when this one fails.
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
        let now = Instant::now();
        let candidate = |endpoint: &Rc<Endpoint>| Candidate {
            state: endpoint.state(now),
            load: endpoint.load.get(),
            seed: endpoint.seed,
        };
        let candidates: SmallVec<[_; 8]> = upstream.endpoints.iter().map(candidate).collect();
        let chance = fastrand::usize(..);
        let order = balancer::order(upstream.balance, &candidates, turn, chance, wanted.user);
        let mut failed = None;
        for place in order {
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
