//! A connection to an endpoint that waits for its next request.

use crate::upstream::stream::Stream;
use std::net::SocketAddr;
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
