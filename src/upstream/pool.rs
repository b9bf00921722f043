//! Connections to endpoints, lent to one request at a time and kept for the next.

use super::balance;
use super::tap::{Ear, Listener, Tap, Turned, Upgraded};
use crate::config::plan::{self, Plan};
use crate::experiment::UpstreamIndex;
use bytes::Bytes;
use http_body::Body;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// The most connections kept to one endpoint by one worker.
const KEPT_MAX: usize = 256;
/// How long a connection is kept without a request; below what servers usually allow.
const KEPT_FOR: Duration = Duration::from_secs(50);

/// All upstreams of one plan, as one worker holds them.
#[derive(Debug)]
pub struct Upstreams<B> {
    upstreams: Vec<Vec<Rc<Endpoint<B>>>>,
    turn: Cell<usize>,
    connect: Duration,
}

#[derive(Debug)]
struct Endpoint<B> {
    address: plan::Endpoint,
    kept: RefCell<Vec<Kept<B>>>,
    paused_until: Cell<Option<Instant>>,
}

#[derive(Debug)]
struct Kept<B> {
    sender: SendRequest<B>,
    ear: Rc<Ear>,
    since: Instant,
}

/// A connection, for one request.
#[derive(Debug)]
pub struct Lease<B> {
    /// Takes the request.
    pub sender: SendRequest<B>,
    /// Whether it has carried a request before: its endpoint may be closing it just now.
    pub reused: bool,
    ear: Rc<Ear>,
    upgraded: Option<Upgraded>,
    endpoint: Rc<Endpoint<B>>,
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
    /// It did not answer in time.
    #[error("{endpoint} did not accept a connection in time")]
    TimedOut {
        /// Which.
        endpoint: plan::Endpoint,
    },
}

impl<B: Body<Data = Bytes> + 'static> Upstreams<B>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// The upstreams of a plan. Endpoints that `before` knew keep their connections.
    pub fn new(plan: &Plan, before: Option<&Upstreams<B>>) -> Upstreams<B> {
        let known = |address: &plan::Endpoint| {
            let mut all = before?.upstreams.iter().flatten();
            all.find(|endpoint| endpoint.address == *address).cloned()
        };
        let endpoint = |address: &plan::Endpoint| {
            known(address).unwrap_or_else(|| Rc::new(Endpoint::new(address)))
        };
        let upstream =
            |upstream: &plan::Upstream| upstream.endpoints.iter().map(endpoint).collect();
        Upstreams {
            upstreams: plan.upstreams.iter().map(upstream).collect(),
            turn: Cell::new(0),
            connect: plan.timeouts.connect,
        }
    }

    /// A connection to an endpoint of this upstream: a kept one if there is one, or else a new
    /// one to the first endpoint that accepts it.
    pub async fn lend(&self, upstream: UpstreamIndex) -> Result<Lease<B>, LendError> {
        let endpoints = &self.upstreams[upstream.0];
        if let [only] = &endpoints[..] {
            // The usual case, without an order to make.
            return match only.take_kept().await {
                Some(lease) => Ok(lease),
                None => only.connect(self.connect).await,
            };
        }
        let turn = self.turn.replace(self.turn.get().wrapping_add(1));
        let paused: Vec<_> = endpoints
            .iter()
            .map(|endpoint| endpoint.paused_until.get())
            .collect();
        let mut failed = None;
        for place in balance::order(&paused, turn, Instant::now()) {
            if let Some(lease) = endpoints[place].take_kept().await {
                return Ok(lease);
            }
            match endpoints[place].connect(self.connect).await {
                Ok(lease) => return Ok(lease),
                Err(error) => failed = Some(error),
            }
        }
        // The plan has at least one endpoint for each upstream, so that one has failed here.
        Err(failed.expect("an upstream has an endpoint"))
    }

    /// A new connection, after a kept one turned out to be closed.
    pub async fn lend_new(&self, before: &Lease<B>) -> Result<Lease<B>, LendError> {
        before.endpoint.connect(self.connect).await
    }
}

impl<B: Body<Data = Bytes> + 'static> Lease<B>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Keeps the connection for the next request. Only after the answer was read to its end.
    pub fn give_back(self) {
        self.ear.forget();
        let mut kept = self.endpoint.kept.borrow_mut();
        if kept.len() < KEPT_MAX && !self.sender.is_closed() {
            kept.push(Kept {
                sender: self.sender,
                ear: self.ear,
                since: Instant::now(),
            });
        }
    }

    /// An answer is awaited; interim ones are told to this listener.
    pub fn await_answer(&self, listener: Option<Rc<dyn Listener>>) {
        self.ear.await_answer(listener);
    }

    /// The request asks to upgrade.
    pub fn await_upgrade(&mut self) {
        self.upgraded = Some(self.ear.await_upgrade());
    }

    /// The connection itself, after the endpoint agreed to upgrade.
    pub fn into_upgraded(self) -> Option<Upgraded> {
        self.upgraded
    }

    /// The endpoint that serves.
    pub fn endpoint(&self) -> &plan::Endpoint {
        &self.endpoint.address
    }
}

impl<B: Body<Data = Bytes> + 'static> Endpoint<B>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    fn new(address: &plan::Endpoint) -> Endpoint<B> {
        Endpoint {
            address: address.clone(),
            kept: RefCell::default(),
            paused_until: Cell::default(),
        }
    }

    /// The connection used last, if it is still open.
    async fn take_kept(self: &Rc<Self>) -> Option<Lease<B>> {
        loop {
            let Kept {
                mut sender,
                ear,
                since,
            } = self.kept.borrow_mut().pop()?;
            if since.elapsed() > KEPT_FOR {
                // Those below it are older still.
                self.kept.borrow_mut().clear();
                return None;
            }
            if sender.ready().await.is_ok() {
                return Some(Lease {
                    sender,
                    reused: true,
                    ear,
                    upgraded: None,
                    endpoint: Rc::clone(self),
                });
            }
        }
    }

    async fn connect(self: &Rc<Self>, within: Duration) -> Result<Lease<B>, LendError> {
        let connected = tokio::time::timeout(within, self.dial()).await;
        let connected = connected.unwrap_or_else(|_| {
            Err(LendError::TimedOut {
                endpoint: self.address.clone(),
            })
        });
        self.tell(connected.as_ref().err());
        self.paused_until
            .set(connected.is_err().then(|| Instant::now() + balance::PAUSE));
        connected
    }

    /// Says once when the endpoint goes away, and once when it is back: not for every request.
    fn tell(&self, failed: Option<&LendError>) {
        let address = &self.address;
        match (failed, self.paused_until.get()) {
            (Some(error), None) => {
                let cause = error
                    .source()
                    .map_or(String::new(), |cause| format!(": {cause}"));
                tracing::warn!(
                    "{error}{cause}; is it running, and is its address right in `upstreams`?"
                );
            }
            (None, Some(_)) => tracing::info!("{address} accepts connections again"),
            _ => {}
        }
    }

    async fn dial(self: &Rc<Self>) -> Result<Lease<B>, LendError> {
        let refused = |source| LendError::Refused {
            endpoint: self.address.clone(),
            source,
        };
        let target = (&*self.address.host, self.address.port);
        let addresses = tokio::net::lookup_host(target).await;
        let addresses: Vec<_> = addresses
            .map_err(|source| LendError::Unresolved {
                endpoint: self.address.clone(),
                source,
            })?
            .collect();
        let stream = TcpStream::connect(&addresses[..]).await.map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        let ear = Rc::new(Ear::default());
        let tap = Tap::new(stream, Rc::clone(&ear));
        let handshake = http1::Builder::new()
            .preserve_header_case(true)
            .handshake(TokioIo::new(tap))
            .await;
        let (sender, connection) = handshake.map_err(|error| refused(io::Error::other(error)))?;
        // Ends when either side closes; what went wrong is told to the request that met it.
        let turning = Rc::clone(&ear);
        tokio::task::spawn_local(async move {
            let mut connection = connection;
            if (&mut connection).await.is_ok() {
                let parts = connection.into_parts();
                turning.turn(Turned {
                    stream: parts.io.into_inner(),
                    first: parts.read_buf,
                });
            }
        });
        Ok(Lease {
            sender,
            reused: false,
            ear,
            upgraded: None,
            endpoint: Rc::clone(self),
        })
    }
}
