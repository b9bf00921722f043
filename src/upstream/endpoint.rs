//! One endpoint, as one worker sees it: its kept connections, and whether it can be relied on.

use super::LendError;
use super::balance;
use super::sender::Sender;
use super::stream::Stream;
use super::tap::{Ear, Listener, Tap, Turned, Upgraded};
use crate::config::plan::{self, Scheme, UpstreamTls};
use bytes::Bytes;
use http_body::Body;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
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
/// How often an HTTP/2 connection is asked whether it is still there, and how long it may take.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_WITHIN: Duration = Duration::from_secs(10);

/// An endpoint.
#[derive(Debug)]
pub struct Endpoint<B> {
    /// Where it is.
    pub address: plan::Endpoint,
    tls: Option<UpstreamTls>,
    kept: RefCell<Vec<Kept<B>>>,
    /// The connection that HTTP/2 requests share.
    shared: RefCell<Option<http2::SendRequest<B>>>,
    /// When it may be asked again, after it failed.
    pub paused_until: Cell<Option<Instant>>,
    /// Failures since it last answered.
    failures: Cell<u32>,
}

#[derive(Debug)]
struct Kept<B> {
    sender: http1::SendRequest<B>,
    ear: Rc<Ear>,
    since: Instant,
}

/// A connection, for one request.
#[derive(Debug)]
pub struct Lease<B> {
    /// Takes the request.
    pub sender: Sender<B>,
    /// Whether it has carried a request before: its endpoint may be closing it just now.
    pub reused: bool,
    /// Hears what comes before the answer; HTTP/2 has none.
    ear: Option<Rc<Ear>>,
    upgraded: Option<Upgraded>,
    /// Whose connection it is.
    pub endpoint: Rc<Endpoint<B>>,
}

impl<B: Body<Data = Bytes> + Unpin + 'static> Lease<B>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Keeps the connection for the next request. Only after the answer was read to its end.
    pub fn give_back(self) {
        let (Sender::Http1(sender), Some(ear)) = (self.sender, self.ear) else {
            // The one that is shared has never left.
            return;
        };
        ear.forget();
        let mut kept = self.endpoint.kept.borrow_mut();
        if kept.len() < KEPT_MAX && !sender.is_closed() {
            kept.push(Kept {
                sender,
                ear,
                since: Instant::now(),
            });
        }
    }

    /// An answer is awaited; interim ones are told to this listener. With `upgrade`, the request
    /// asks for another protocol.
    pub fn await_answer(&mut self, listener: Option<Rc<dyn Listener>>, upgrade: bool) {
        if let Some(ear) = &self.ear {
            ear.await_answer(listener);
            self.upgraded = upgrade.then(|| ear.await_upgrade());
        }
    }

    /// The connection itself, after the endpoint agreed to upgrade.
    pub fn into_upgraded(self) -> Option<Upgraded> {
        self.upgraded
    }
}

impl<B: Body<Data = Bytes> + Unpin + 'static> Endpoint<B>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Without connections yet.
    pub fn new(address: &plan::Endpoint, tls: Option<UpstreamTls>) -> Endpoint<B> {
        Endpoint {
            address: address.clone(),
            tls,
            kept: RefCell::default(),
            shared: RefCell::default(),
            paused_until: Cell::default(),
            failures: Cell::default(),
        }
    }

    /// The connection used last, if it is still open; for `http1_only` one of HTTP/1.
    pub async fn take_kept(self: &Rc<Self>, http1_only: bool) -> Option<Lease<B>> {
        let shared = self
            .shared
            .borrow()
            .as_ref()
            .filter(|_| !http1_only)
            .cloned();
        if let Some(sender) = shared.filter(|sender| !sender.is_closed()) {
            let mut sender = Sender::Http2(sender, self.address.clone());
            if sender.is_ready().await {
                return Some(self.lease(sender, None, true));
            }
        }
        loop {
            let Kept { sender, ear, since } = self.kept.borrow_mut().pop()?;
            if since.elapsed() > KEPT_FOR {
                // Those below it are older still.
                self.kept.borrow_mut().clear();
                return None;
            }
            let mut sender = Sender::Http1(sender);
            if sender.is_ready().await {
                return Some(self.lease(sender, Some(ear), true));
            }
        }
    }

    fn lease(self: &Rc<Self>, sender: Sender<B>, ear: Option<Rc<Ear>>, reused: bool) -> Lease<B> {
        Lease {
            sender,
            reused,
            ear,
            upgraded: None,
            endpoint: Rc::clone(self),
        }
    }

    /// A new connection.
    pub async fn connect(
        self: &Rc<Self>,
        within: Duration,
        http1_only: bool,
    ) -> Result<Lease<B>, LendError> {
        let connected = tokio::time::timeout(within, self.dial(http1_only)).await;
        let connected = connected.unwrap_or_else(|_| {
            Err(LendError::TimedOut {
                endpoint: self.address.clone(),
            })
        });
        self.tell(connected.as_ref().err());
        if connected.is_err() {
            self.paused_until.set(Some(Instant::now() + balance::PAUSE));
        } else if self.failures.get() == 0 {
            self.paused_until.set(None);
        }
        connected
    }

    /// A request that it was given found no answer. One that fails again and again is passed over
    /// for a while, unless all others are.
    pub fn failed(&self) {
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        if let Some(pause) = balance::pause(failures) {
            self.paused_until.set(Some(Instant::now() + pause));
            tracing::warn!(
                "{} failed {failures} times in a row: it is passed over for {pause:?} where there are others",
                self.address
            );
        }
    }

    /// It answered.
    pub fn served(&self) {
        if self.failures.replace(0) > 0 {
            self.paused_until.set(None);
        }
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

    async fn dial(self: &Rc<Self>, http1_only: bool) -> Result<Lease<B>, LendError> {
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
        let stream = match &self.tls {
            Some(tls) if self.address.scheme == Scheme::Https => {
                Stream::over_tls(stream, &self.address, tls, http1_only)
                    .await
                    .map_err(|source| LendError::Distrusted {
                        endpoint: self.address.clone(),
                        source,
                    })?
            }
            _ => Stream::Plain(stream),
        };
        let lease = match self.address.scheme == Scheme::H2c || stream.is_http2() {
            true => self.speak_http2(stream).await,
            false => self.speak_http1(stream).await,
        };
        lease.map_err(|error| refused(io::Error::other(error)))
    }

    async fn speak_http1(self: &Rc<Self>, stream: Stream) -> hyper::Result<Lease<B>> {
        let ear = Rc::new(Ear::default());
        let tap = Tap::new(stream, Rc::clone(&ear));
        let (sender, mut connection) = http1::Builder::new()
            .preserve_header_case(true)
            .handshake(TokioIo::new(tap))
            .await?;
        // Ends when either side closes; what went wrong is told to the request that met it.
        let turning = Rc::clone(&ear);
        tokio::task::spawn_local(async move {
            if (&mut connection).await.is_ok() {
                let parts = connection.into_parts();
                turning.turn(Turned {
                    stream: parts.io.into_inner(),
                    first: parts.read_buf,
                });
            }
        });
        Ok(self.lease(Sender::Http1(sender), Some(ear), false))
    }

    async fn speak_http2(self: &Rc<Self>, stream: Stream) -> hyper::Result<Lease<B>> {
        let (sender, connection) = http2::Builder::new(Here)
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_WITHIN)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        *self.shared.borrow_mut() = Some(sender.clone());
        let sender = Sender::Http2(sender, self.address.clone());
        Ok(self.lease(sender, None, false))
    }
}

/// Runs what hyper starts on the worker's own thread.
#[derive(Clone, Copy, Debug)]
struct Here;

impl<F: Future + 'static> hyper::rt::Executor<F> for Here
where
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
