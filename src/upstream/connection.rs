//! Connections as they are idle and acquired.

use crate::upstream::endpoint::{Endpoint, Serving};
use crate::upstream::stream::Stream;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

/// What a connection must be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocols {
    /// Carry a request.
    Any,
    /// Be upgraded: HTTP/1 only.
    Http1,
}

/// A connection that waits for its next request.
#[derive(Debug)]
pub(super) struct IdleConnection {
    pub stream: Stream,
    pub peer: SocketAddr,
    pub since: Instant,
}

/// A connection, for one request.
#[derive(Debug)]
pub struct PooledConnection {
    /// To write the request to and read the answer from, as HTTP/1 is written.
    pub stream: Stream,
    /// Whether it has carried a request before: its endpoint may be closing it just now.
    pub reused: bool,
    pub(super) peer: SocketAddr,
    pub(super) serving: Serving,
}

impl PooledConnection {
    /// Whose connection it is.
    pub fn endpoint(&self) -> &Rc<Endpoint> {
        self.serving.endpoint()
    }

    /// Keeps the connection for the next request from `now` on. Only after the answer was read to
    /// its end.
    pub fn release(self, now: Instant) {
        if self.stream.is_http2() {
            // The one that is shared has never left.
            return;
        }
        let idle = IdleConnection {
            stream: self.stream,
            peer: self.peer,
            since: now,
        };
        self.serving.endpoint().keep(idle);
    }
}
