//! Timeouts and limits.

use std::time::Duration;

/// How long things may take.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// For a request's head.
    pub head: Duration,
    /// A kept connection without a request.
    pub idle: Duration,
    /// Between two pieces of a body.
    pub body: Duration,
    /// For a connection to an endpoint.
    pub connect: Duration,
    /// To the head of the upstream's answer.
    pub response: Duration,
    /// From a request's head to the end of its answer; `None` for no limit.
    pub total: Option<Duration>,
    /// The quiet time of an upgraded connection.
    pub tunnel: Duration,
    /// For others to notice, by `readyz`, that this process is about to stop.
    pub grace: Duration,
    /// For finishing what runs when told to stop.
    pub shutdown: Duration,
}

/// How large and many things may be.
#[derive(Clone, Debug)]
pub struct Limits {
    /// A request's head, in bytes.
    pub head_bytes: usize,
    /// A request's header fields.
    pub headers: usize,
    /// The head of an upstream's response, in bytes.
    pub response_head_bytes: usize,
    /// A response's header fields.
    pub response_headers: usize,
    /// A request's target, in bytes.
    pub target_bytes: usize,
    /// A request's body, in bytes; `None` for no limit.
    pub body_bytes: Option<u64>,
    /// Bytes in a second that a client must send of a body; `None` for no limit.
    pub body_rate: Option<u64>,
    /// Client connections over all workers.
    pub connections: usize,
    /// Client connections of one address; `None` for half of all.
    pub connections_per_address: Option<usize>,
    /// Requests on one connection, which is then closed; `u32::MAX` for no limit.
    pub requests: u32,
    /// Requests of one client in a second; `None` for no limit.
    pub rate: Option<f64>,
}
