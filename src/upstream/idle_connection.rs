//! A connection to an endpoint that waits for its next request.

use crate::upstream::stream::Stream;
use std::net::SocketAddr;
use std::time::Instant;

/// What a request needs of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocols {
    /// To carry a request.
    Any,
    /// To be upgraded, which only HTTP/1 can.
    Http1,
}

/// A connection that waits for its next request.
#[derive(Debug)]
pub(super) struct IdleConnection {
    pub stream: Stream,
    /// The address that it leads to, over TCP.
    pub peer: Option<SocketAddr>,
    /// When it is closed.
    pub until: Instant,
}
