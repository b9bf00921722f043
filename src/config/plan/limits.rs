//! Timeouts and limits.

use std::time::Duration;

/// Timeouts.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// For the head of a request.
    pub head: Duration,
    /// For a connection without a request.
    pub idle: Duration,
    /// Between two pieces of a body.
    pub body: Duration,
    /// For a connection to an endpoint.
    pub connect: Duration,
    /// To the head of the upstream's response.
    pub response: Duration,
    /// From the head of a request to the end of its response; `None` for no limit.
    pub total: Option<Duration>,
    /// Without data on an upgraded connection.
    pub tunnel: Duration,
    /// For load balancers to notice by `readyz` that this process stops.
    pub grace: Duration,
    /// For finishing requests after a stop.
    pub shutdown: Duration,
}

/// Limits on sizes and counts.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The head of a request, in bytes.
    pub head_bytes: usize,
    /// The header fields of a request.
    pub headers: usize,
    /// The head of an upstream's response, in bytes.
    pub response_head_bytes: usize,
    /// The header fields of a response.
    pub response_headers: usize,
    /// The target of a request, in bytes.
    pub target_bytes: usize,
    /// The body of a request, in bytes; `None` for no limit.
    pub body_bytes: Option<u64>,
    /// The lowest rate of a request body, in bytes per second; `None` for no limit.
    pub body_rate: Option<u64>,
    /// Client connections over all workers.
    pub connections: usize,
    /// Client connections of one address; `None` for half of `connections`.
    pub connections_per_address: Option<usize>,
    /// Requests after which a connection is closed; `u32::MAX` for no limit.
    pub requests: u32,
    /// Requests of one client per second; `None` for no limit.
    pub rate: Option<f64>,
}
