//! What can be seen of single requests.

use super::upstream::EndpointAddress;
use crate::experiment::assign::Share;
use http::{HeaderMap, Uri};
use std::path::PathBuf;

/// The log of requests.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// Where it goes.
    pub to: LogTo,
    /// The share of requests that are logged; those that fail all are.
    pub sample: Share,
    /// What is told of the user.
    pub user: LogUser,
    /// Whether the query is logged with the path.
    pub query: bool,
}

/// Where a log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTo {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The end of this file, made where missing.
    File(PathBuf),
}

/// What a log tells of a user's ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogUser {
    /// A keyed hash.
    Hashed,
    /// The ID.
    Raw,
    /// Nothing.
    None,
}

/// What requests are given to be told apart by.
#[derive(Clone, Debug)]
pub struct Tracing {
    /// Whether each has an `X-Request-Id`.
    pub request_id: bool,
    /// Whether one without a sound `traceparent` is given one, and for which share it asks to be
    /// sampled. `None` passes on what came.
    pub start: Option<Share>,
    /// Where those that are sampled are exported to as spans; `None` exports none.
    pub otlp: Option<Otlp>,
}

/// A collector that speaks OTLP over HTTP.
#[derive(Clone, Debug)]
pub struct Otlp {
    /// Where spans are posted.
    pub to: Uri,
    /// The collector itself, and how it is spoken to.
    pub endpoint: EndpointAddress,
    /// What the spans' service is called; the environment says, or else `watershed`.
    pub service: Option<Box<str>>,
    /// What each post carries besides, such as a key.
    pub headers: HeaderMap,
}
