//! A connection to an endpoint while it serves a request: how it is taken from the endpoint's idle
//! connections, and how it is released.

use crate::upstream::endpoint::{Endpoint, Serving};
use crate::upstream::http2::{Http2Stream, Sender};
use crate::upstream::idle_connection::{IdleConnection, Protocols};
use crate::upstream::stream::Stream;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A connection that serves one request.
#[derive(Debug)]
pub struct PooledConnection {
    /// Takes the request and returns the response in the format of HTTP/1.
    pub stream: Stream,
    /// Whether it has carried a request before, so that its endpoint may be closing it just now.
    pub reused: bool,
    /// How long the endpoint keeps it without a request, if it has said so.
    pub idle_for: Option<Duration>,
    pub(super) peer: Option<SocketAddr>,
    pub(super) serving: Serving,
}

impl PooledConnection {
    /// Returns its endpoint.
    pub fn endpoint(&self) -> &Rc<Endpoint> {
        self.serving.endpoint()
    }

    /// Keeps the connection for the next request from `now` on. The response must have been read to its end.
    pub fn release(self, now: Instant) {
        if self.stream.is_http2() {
            // The shared connection was never taken from the endpoint.
            return;
        }
        let endpoint = self.serving.endpoint();
        let own = endpoint.idle_for.get();
        let idle = IdleConnection {
            stream: self.stream,
            peer: self.peer,
            until: now + self.idle_for.map_or(own, |said| own.min(said)),
        };
        endpoint.keep(idle);
    }
}

impl Endpoint {
    /// Takes the connection that was used last, if it is still open.
    pub(super) async fn take_idle(self: &Rc<Self>, need: Protocols) -> Option<PooledConnection> {
        match self.take_shared(need).await {
            Some(shared) => Some(shared),
            None => self.take_idle_http1(Instant::now()),
        }
    }

    /// Makes a request on the shared connection of HTTP/2, if there is one.
    pub(super) async fn take_shared(self: &Rc<Self>, need: Protocols) -> Option<PooledConnection> {
        let shared = match need {
            Protocols::Http1 => None,
            Protocols::Any => self.shared.borrow().clone(),
        };
        if let Some((mut sender, peer)) = shared {
            if sender.is_closed() || !self.resolved.leads_to(peer) {
                // Requests on it continue.
                *self.shared.borrow_mut() = None;
            } else if sender.ready().await.is_ok() {
                return Some(self.share(sender, peer, true));
            }
        }
        None
    }

    /// Makes a request on a shared connection.
    pub(super) fn share(
        self: &Rc<Self>,
        sender: Sender,
        peer: Option<SocketAddr>,
        reused: bool,
    ) -> PooledConnection {
        let exchange = Http2Stream::new(sender, Arc::clone(&self.address));
        PooledConnection {
            stream: Stream::of_http2(exchange),
            reused,
            idle_for: None,
            peer,
            serving: Serving::new(self),
        }
    }

    /// Takes an idle connection without waiting, if there is one.
    pub fn take_idle_now(self: &Rc<Self>, now: Instant) -> Option<PooledConnection> {
        match self.shared.borrow().is_some() {
            true => None,
            false => self.take_idle_http1(now),
        }
    }

    /// Takes the HTTP/1 connection that was used last, if it is still open.
    pub(super) fn take_idle_http1(self: &Rc<Self>, now: Instant) -> Option<PooledConnection> {
        loop {
            let idle = self.pop_idle(now)?;
            if let Some(connection) = self.revive(idle) {
                return Some(connection);
            }
        }
    }

    pub(super) fn revive(self: &Rc<Self>, mut idle: IdleConnection) -> Option<PooledConnection> {
        idle.stream.is_quiet().then(|| PooledConnection {
            stream: idle.stream,
            reused: true,
            idle_for: None,
            peer: idle.peer,
            serving: Serving::new(self),
        })
    }
}
