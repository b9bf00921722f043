//! The access log, request IDs and traces.

use super::upstream::EndpointAddress;
use crate::experiment::assign::Share;
use http::{HeaderMap, Uri};
use std::path::PathBuf;

/// The access log.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// Where it is written.
    pub to: LogTo,
    /// The share of successful requests that are logged; failed requests are always logged.
    pub sample: Share,
    /// How the user ID is logged.
    pub user: LogUser,
    /// Whether the query is logged with the path.
    pub query: bool,
}

/// Where a log is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTo {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to this file, which is created if missing.
    File(PathBuf),
}

/// How a log shows a user ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogUser {
    /// A keyed hash.
    Hashed,
    /// The ID.
    Raw,
    /// Nothing.
    None,
}

/// Request IDs and traces.
#[derive(Clone, Debug)]
pub struct Tracing {
    /// Whether each request gets an `X-Request-Id`.
    pub request_id: bool,
    /// The sampled share of the traces that start here, for requests without a valid `traceparent`.
    /// `None` starts no traces.
    pub start: Option<Share>,
    /// The collector of sampled spans; `None` exports none.
    pub otlp: Option<Otlp>,
}

/// A collector that speaks OTLP over HTTP.
#[derive(Clone, Debug)]
pub struct Otlp {
    /// The URL of spans.
    pub to: Uri,
    /// The address and protocol of the collector.
    pub endpoint: EndpointAddress,
    /// The service name of the spans; `None` for that of the environment, or `watershed`.
    pub service: Option<Box<str>>,
    /// Further headers of each post, such as a key.
    pub headers: HeaderMap,
}
