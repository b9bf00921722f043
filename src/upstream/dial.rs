//! New connections to an endpoint.

use super::LendError;
use super::endpoint::{Endpoint, Lease, Serving};
use super::lent::{Bare, Held, Kept, Lent, Need};
use super::sender::Sender;
use super::standing::{Full, Slot};
use super::stream::Stream;
use super::tap::{Ear, Tap, Turned};
use bytes::Bytes;
use http_body::Body;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// How often an HTTP/2 connection is asked whether it is still there, and how long it may take.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_WITHIN: Duration = Duration::from_secs(10);

impl<B: Body<Data = Bytes> + Unpin + 'static> Endpoint<B>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// A new connection; where there may be no more, one that another request gives back.
    pub(super) async fn connect(
        self: &Rc<Self>,
        within: Duration,
        need: Need,
    ) -> Result<Lent<B>, LendError> {
        let slot = match self.standing.enter_now() {
            Some(slot) => slot,
            None => {
                if need == Need::Bare {
                    // Those that are kept are of no use here: one gives its place.
                    self.kept.borrow_mut().pop();
                }
                match self.wait(within, need).await? {
                    Waited::Slot(slot) => slot,
                    Waited::Connection(lent) => return Ok(*lent),
                }
            }
        };
        self.give_way();
        let dialled = tokio::time::timeout(within, self.dial(need, slot)).await;
        let dialled = dialled.unwrap_or_else(|_| {
            Err(LendError::TimedOut {
                endpoint: self.address.clone(),
            })
        });
        self.accepted(dialled.as_ref().err());
        dialled
    }

    async fn wait(self: &Rc<Self>, within: Duration, need: Need) -> Result<Waited<B>, LendError> {
        let busy = || LendError::Busy {
            endpoint: self.address.clone(),
        };
        let waited = async {
            let (sender, given) = oneshot::channel();
            // Counted before it is listed, which is what `keep` goes by.
            let slot = self.standing.enter();
            let mut slot = std::pin::pin!(slot);
            if let Some(entered) = futures_util::FutureExt::now_or_never(slot.as_mut()) {
                return entered.map(Waited::Slot);
            }
            self.list(sender);
            tokio::select! {
                slot = &mut slot => slot.map(Waited::Slot),
                Ok(kept) = given => match self.revive_for(kept, need).await {
                    Some(lent) => Ok(Waited::Connection(Box::new(lent))),
                    // It has closed, or is dropped here, and its place is free.
                    None => slot.await.map(Waited::Slot),
                },
            }
        };
        match tokio::time::timeout(within, waited).await {
            Ok(Ok(waited)) => Ok(waited),
            Ok(Err(Full)) | Err(_) => Err(busy()),
        }
    }

    async fn revive_for(self: &Rc<Self>, kept: Kept<B>, need: Need) -> Option<Lent<B>> {
        match (need, &kept.held) {
            (Need::Bare, Held::Spoken(..)) => None,
            _ => self.revive(kept).await,
        }
    }

    fn list(&self, sender: oneshot::Sender<Kept<B>>) {
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|waiting| !waiting.is_closed());
        waiting.push_back(sender);
    }

    /// Gives up a connection that nobody uses whenever another worker waits for one.
    fn give_way(self: &Rc<Self>) {
        if !self.standing.is_bounded() || self.alive.borrow().is_some() {
            return;
        }
        let (alive, mut gone) = oneshot::channel();
        *self.alive.borrow_mut() = Some(alive);
        let standing = self.standing.clone();
        let endpoint = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            loop {
                tokio::select! {
                    () = standing.wanted() => {}
                    _ = &mut gone => return,
                }
                let Some(endpoint) = endpoint.upgrade() else {
                    return;
                };
                // The one that has been idle for longest.
                let mut kept = endpoint.kept.borrow_mut();
                if !kept.is_empty() {
                    kept.remove(0);
                }
            }
        });
    }

    async fn dial(self: &Rc<Self>, need: Need, slot: Slot) -> Result<Lent<B>, LendError> {
        let refused = |source| LendError::Refused {
            endpoint: self.address.clone(),
            source,
        };
        let addresses = self.resolved.addresses().await;
        let addresses = addresses.map_err(|source| LendError::Unresolved {
            endpoint: self.address.clone(),
            source,
        })?;
        let stream = TcpStream::connect(&addresses[..]).await.map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        let peer = stream.peer_addr().map_err(refused)?;
        let opened = Stream::open(stream, &self.address, need == Need::Http1, slot).await;
        let stream = opened.map_err(|source| LendError::Distrusted {
            endpoint: self.address.clone(),
            source,
        })?;
        if stream.is_http2() {
            let lease = self.speak_http2(stream, peer).await;
            let lease = lease.map_err(|error| refused(io::Error::other(error)))?;
            return Ok(Lent::Spoken(lease));
        }
        Ok(Lent::Bare(Bare::new(
            Serving::new(self),
            stream,
            peer,
            false,
        )))
    }
}

impl<B: Body<Data = Bytes> + Unpin + 'static> Bare<B>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Lets hyper speak on it.
    pub(super) async fn speak(self) -> Result<Lease<B>, LendError> {
        let Bare {
            stream,
            reused,
            peer,
            serving,
        } = self;
        let address = serving.endpoint().address.clone();
        let ear = Rc::new(Ear::default());
        let tap = Tap::new(stream, Rc::clone(&ear));
        let (sender, mut connection) = http1::Builder::new()
            .preserve_header_case(true)
            .handshake(TokioIo::new(tap))
            .await
            .map_err(|error| LendError::Refused {
                endpoint: address,
                source: io::Error::other(error),
            })?;
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
        let sender = Sender::Http1(sender);
        Ok(Lease::new(serving, sender, Some(ear), peer, reused))
    }
}

impl<B: Body<Data = Bytes> + Unpin + 'static> Endpoint<B>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    async fn speak_http2(
        self: &Rc<Self>,
        stream: Stream,
        peer: SocketAddr,
    ) -> hyper::Result<Lease<B>> {
        let (sender, connection) = http2::Builder::new(Here)
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_WITHIN)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        *self.shared.borrow_mut() = Some((sender.clone(), peer));
        let sender = Sender::Http2(sender, self.address.clone());
        Ok(Lease::new(Serving::new(self), sender, None, peer, false))
    }
}

/// What waiting has brought.
enum Waited<B> {
    Slot(Slot),
    Connection(Box<Lent<B>>),
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
