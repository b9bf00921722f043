//! Connections to endpoints, lent to one request at a time and kept for the next.

use super::balance;
use super::endpoint::{Endpoint, Lease};
use crate::config::plan::{self, Plan, Scheme};
use crate::experiment::UpstreamIndex;
use bytes::Bytes;
use http_body::Body;
use std::cell::Cell;
use std::error::Error;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// All upstreams of one plan, as one worker holds them.
#[derive(Debug)]
pub struct Upstreams<B> {
    upstreams: Vec<Vec<Rc<Endpoint<B>>>>,
    turn: Cell<usize>,
    connect: Duration,
    budget: balance::Budget,
}

/// Why no endpoint of an upstream could be connected to. What the last one tried said.
#[derive(Debug, thiserror::Error)]
pub enum LendError {
    /// Its name has no address.
    #[error("{endpoint} does not resolve")]
    Unresolved {
        /// Which.
        endpoint: plan::Endpoint,
        /// What the resolver said.
        source: io::Error,
    },
    /// It refused, or is out of reach.
    #[error("{endpoint} does not accept connections")]
    Refused {
        /// Which.
        endpoint: plan::Endpoint,
        /// What the system said.
        source: io::Error,
    },
    /// It speaks no TLS, or shows no certificate that is trusted.
    #[error("{endpoint} cannot be trusted")]
    Distrusted {
        /// Which.
        endpoint: plan::Endpoint,
        /// What was wrong.
        source: io::Error,
    },
    /// It did not answer in time.
    #[error("{endpoint} did not accept a connection in time")]
    TimedOut {
        /// Which.
        endpoint: plan::Endpoint,
    },
}

impl<B: Body<Data = Bytes> + Unpin + 'static> Upstreams<B>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// The upstreams of a plan. Endpoints that `before` knew keep their connections, but for those
    /// over TLS, whose certificates may be others now.
    pub fn new(plan: &Plan, before: Option<&Upstreams<B>>) -> Upstreams<B> {
        let known = |address: &plan::Endpoint| {
            let mut all = before?.upstreams.iter().flatten();
            all.find(|endpoint| endpoint.address == *address && address.scheme != Scheme::Https)
                .cloned()
        };
        let upstream = |upstream: &plan::Upstream| {
            let endpoint = |address: &plan::Endpoint| {
                known(address)
                    .unwrap_or_else(|| Rc::new(Endpoint::new(address, upstream.tls.clone())))
            };
            upstream.endpoints.iter().map(endpoint).collect()
        };
        Upstreams {
            upstreams: plan.upstreams.iter().map(upstream).collect(),
            turn: Cell::new(0),
            connect: plan.timeouts.connect,
            budget: balance::Budget::default(),
        }
    }

    /// A connection to an endpoint of this upstream: a kept one if there is one, or else a new
    /// one to the first endpoint that accepts it. For `http1_only`, one that can be upgraded.
    pub async fn lend(
        &self,
        upstream: UpstreamIndex,
        http1_only: bool,
    ) -> Result<Lease<B>, LendError> {
        self.budget.deposit();
        if let [only] = &self.upstreams[upstream.0][..] {
            // The usual case, without an order to make.
            return self.take(only, http1_only).await;
        }
        // The plan has at least one endpoint for each upstream, so that one has failed here.
        let lent = self.lend_of(upstream, None, http1_only).await;
        lent.expect("an upstream has an endpoint")
    }

    /// A connection for a request that found no answer on the one `before`: where that was kept
    /// and closed meanwhile, a new one to the same endpoint; or else one to another endpoint, as
    /// far as the budget for that goes. `None` where there is nothing else to try.
    pub async fn lend_again(
        &self,
        upstream: UpstreamIndex,
        before: &Lease<B>,
        http1_only: bool,
    ) -> Option<Result<Lease<B>, LendError>> {
        if before.reused {
            let again = before.endpoint.connect(self.connect, http1_only).await;
            if again.is_ok() || self.upstreams[upstream.0].len() == 1 {
                return Some(again);
            }
        }
        if self.upstreams[upstream.0].len() == 1 || !self.budget.withdraw() {
            return None;
        }
        self.lend_of(upstream, Some(&before.endpoint), http1_only)
            .await
    }

    /// Whether a request may find another endpoint when this one fails.
    pub fn has_others(&self, upstream: UpstreamIndex) -> bool {
        self.upstreams[upstream.0].len() > 1
    }

    async fn lend_of(
        &self,
        upstream: UpstreamIndex,
        but: Option<&Rc<Endpoint<B>>>,
        http1_only: bool,
    ) -> Option<Result<Lease<B>, LendError>> {
        let endpoints = &self.upstreams[upstream.0];
        let turn = self.turn.replace(self.turn.get().wrapping_add(1));
        let paused: Vec<_> = endpoints
            .iter()
            .map(|endpoint| endpoint.paused_until.get())
            .collect();
        let mut failed = None;
        for place in balance::order(&paused, turn, Instant::now()) {
            let endpoint = &endpoints[place];
            if but.is_some_and(|but| Rc::ptr_eq(but, endpoint)) {
                continue;
            }
            match self.take(endpoint, http1_only).await {
                Ok(lease) => return Some(Ok(lease)),
                Err(error) => failed = Some(Err(error)),
            }
        }
        failed
    }

    async fn take(
        &self,
        endpoint: &Rc<Endpoint<B>>,
        http1_only: bool,
    ) -> Result<Lease<B>, LendError> {
        match endpoint.take_kept(http1_only).await {
            Some(lease) => Ok(lease),
            None => endpoint.connect(self.connect, http1_only).await,
        }
    }
}
