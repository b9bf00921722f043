//! Makes new connections to an endpoint.

use crate::upstream::acquire_error::AcquireError;
use crate::upstream::connection::PooledConnection;
use crate::upstream::dial::RawConnection;
use crate::upstream::endpoint::{Endpoint, Serving};
use crate::upstream::health_state::{ConnectionSlot, Full};
use crate::upstream::idle_connection::{IdleConnection, Protocols};
use crate::upstream::stream::Stream;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The interval of pings on an HTTP/2 connection, and the time for a reply.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_WITHIN: Duration = Duration::from_secs(10);

/// The largest response head over HTTP/2: the largest that the file can allow, with the overhead that
/// HTTP/2 counts for each field (RFC 9113, 6.5.2).
const HEADER_LIST_BYTES_MAX: u32 = (16 << 20) + 10_000 * 32;

impl Endpoint {
    /// Makes a new connection or, at the limit of connections, waits for one that another request releases.
    pub(super) async fn connect(
        self: &Rc<Self>,
        within: Duration,
        need: Protocols,
    ) -> Result<PooledConnection, AcquireError> {
        let slot = match self.health.enter_now() {
            Some(slot) => slot,
            None => match self.wait(within).await? {
                Waited::Slot(slot) => slot,
                Waited::Connection(bare) => return Ok(*bare),
            },
        };
        self.give_way();
        let dialled = tokio::time::timeout(within, self.dial(need, slot)).await;
        let dialled = dialled.unwrap_or_else(|_| {
            Err(AcquireError::TimedOut {
                endpoint: self.address.clone(),
            })
        });
        self.accepted(dialled.as_ref().err());
        dialled
    }

    /// Takes or makes a connection for a copy of a request. Where connections are limited, an idle one may be needed
    /// before the copy is done, and so may the last one that is free. A failure ejects nobody.
    pub(super) async fn take_for_copy(
        self: &Rc<Self>,
        within: Duration,
        need: Protocols,
    ) -> Option<PooledConnection> {
        if let Some(shared) = self.take_shared(need).await {
            return Some(shared);
        }
        if !self.health.is_bounded()
            && let Some(idle) = self.take_idle_http1(Instant::now())
        {
            return Some(idle);
        }
        if !self.health.has_spare_room() {
            return None;
        }
        let slot = self.health.enter_now()?;
        self.give_way();
        let dialled = tokio::time::timeout(within, self.dial(need, slot)).await;
        let connection = dialled.ok()?.ok()?;
        self.health.connected(true);
        Some(connection)
    }

    async fn wait(self: &Rc<Self>, within: Duration) -> Result<Waited, AcquireError> {
        let busy = || AcquireError::Busy {
            endpoint: self.address.clone(),
        };
        let waited = async {
            let (sender, given) = oneshot::channel();
            // Counted before it is listed, because `keep` relies on the count.
            let slot = self.health.enter();
            let mut slot = std::pin::pin!(slot);
            if let Some(entered) = futures_util::FutureExt::now_or_never(slot.as_mut()) {
                return entered.map(Waited::Slot);
            }
            self.list(sender);
            tokio::select! {
                slot = &mut slot => slot.map(Waited::Slot),
                Ok(idle) = given => match self.revive(idle) {
                    Some(bare) => Ok(Waited::Connection(Box::new(bare))),
                    // The endpoint has closed it, and its slot is free.
                    None => slot.await.map(Waited::Slot),
                },
            }
        };
        match tokio::time::timeout(within, waited).await {
            Ok(Ok(waited)) => Ok(waited),
            Ok(Err(Full)) | Err(_) => Err(busy()),
        }
    }

    fn list(&self, sender: oneshot::Sender<IdleConnection>) {
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|waiting| !waiting.is_closed());
        waiting.push_back(sender);
    }

    /// Closes an idle connection whenever another worker waits for one.
    fn give_way(self: &Rc<Self>) {
        if !self.health.is_bounded() || self.alive.borrow().is_some() {
            return;
        }
        let (alive, mut gone) = oneshot::channel();
        *self.alive.borrow_mut() = Some(alive);
        let health = self.health.clone();
        let endpoint = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            loop {
                tokio::select! {
                    () = health.wanted() => {}
                    _ = &mut gone => return,
                }
                let Some(endpoint) = endpoint.upgrade() else {
                    return;
                };
                // The connection that has been idle for longest.
                let mut idle = endpoint.idle.borrow_mut();
                if !idle.is_empty() {
                    idle.remove(0);
                }
            }
        });
    }

    async fn dial(
        self: &Rc<Self>,
        need: Protocols,
        slot: ConnectionSlot,
    ) -> Result<PooledConnection, AcquireError> {
        let refused = |source| AcquireError::Refused {
            endpoint: self.address.clone(),
            source,
        };
        let raw = match &self.address.socket {
            Some(socket) => RawConnection::unix(socket).await,
            None => {
                let addresses = self.resolved.addresses().await;
                let addresses = addresses.map_err(|source| AcquireError::Unresolved {
                    endpoint: self.address.clone(),
                    source,
                })?;
                RawConnection::tcp(&addresses).await
            }
        };
        let raw = raw.map_err(refused)?;
        let peer = raw.peer().map_err(refused)?;
        let opened = Stream::open(raw, &self.address, need == Protocols::Http1, slot).await;
        let stream = opened.map_err(|source| AcquireError::Distrusted {
            endpoint: self.address.clone(),
            source,
        })?;
        if stream.is_http2() {
            let shared = self.speak_http2(stream, peer).await;
            return shared.map_err(|error| refused(io::Error::other(error)));
        }
        Ok(PooledConnection {
            stream,
            reused: false,
            idle_for: None,
            peer,
            serving: Serving::new(self),
        })
    }

    async fn speak_http2(
        self: &Rc<Self>,
        stream: Stream,
        peer: Option<SocketAddr>,
    ) -> hyper::Result<PooledConnection> {
        let (sender, connection) = http2::Builder::new(Here)
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_WITHIN)
            // The proxy enforces the limit of the plan, as over HTTP/1.
            .max_header_list_size(HEADER_LIST_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        *self.shared.borrow_mut() = Some((sender.clone(), peer));
        Ok(self.share(sender, peer, false))
    }
}

/// The result of waiting.
enum Waited {
    Slot(ConnectionSlot),
    Connection(Box<PooledConnection>),
}

/// Runs hyper's tasks on the worker's thread.
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
