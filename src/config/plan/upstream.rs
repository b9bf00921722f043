//! Upstreams and their endpoints.

use super::tls::TlsCertificate;
use http::HeaderValue;
use http::uri::PathAndQuery;
use rustls::pki_types::ServerName;
use std::fmt;
use std::mem::{self, Discriminant};
use std::sync::Arc;
use std::time::Duration;

/// TLS to an upstream.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    /// For whatever HTTP it speaks.
    pub any: Arc<rustls::ClientConfig>,
    /// For HTTP/1.1 only, which upgrades need.
    pub http1: Arc<rustls::ClientConfig>,
    /// The name that its certificate must be for, if not the endpoint's.
    pub name: Option<ServerName<'static>>,
    /// The certificate that it is shown, if any.
    pub certificate: Option<TlsCertificate>,
}

/// One version of the site.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its name in the file; unique.
    pub name: Box<str>,
    /// Where it runs; at least one.
    pub endpoints: Box<[EndpointAddress]>,
    /// Which of them is asked.
    pub balance: Balance,
    /// How they are asked whether they are well; `None` does not ask.
    pub health: Option<Arc<Health>>,
    /// How much one of them is given at once.
    pub bounds: EndpointBounds,
}

/// How the endpoint for a request is chosen among those that are up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// The less busy of the next in turn and another one by chance.
    LeastLoaded,
    /// One after the other.
    RoundRobin,
    /// By the user's ID: the same endpoint for the same user while it is up.
    User,
}

/// How endpoints are asked whether they are well.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Health {
    /// What is asked for.
    pub path: PathAndQuery,
    /// The `Host` that is asked; the endpoint's own when `None`.
    pub host: Option<HeaderValue>,
    /// From one time to the next.
    pub interval: Duration,
    /// How long the head of an answer may take, from the start of the connection.
    pub timeout: Duration,
    /// The statuses of one that is well, both included.
    pub status: (u16, u16),
    /// Bad answers in a row that make one that was well unwell.
    pub failures: u32,
    /// Good answers in a row that make one that was unwell well.
    pub successes: u32,
}

/// How much an endpoint is given at once, over all workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndpointBounds {
    /// Connections; `None` for no limit.
    pub connections: Option<u32>,
    /// Requests that wait for one of them.
    pub pending: u32,
}

/// What an endpoint is spoken to in, with all that this takes.
#[derive(Clone, Debug)]
pub enum Transport {
    /// HTTP/1.1.
    Http,
    /// HTTP/2 without TLS.
    H2c,
    /// HTTP/2 or HTTP/1.1 over TLS, as the endpoint prefers.
    Https(Arc<UpstreamTls>),
}

/// One address of an upstream.
#[derive(Clone, Debug)]
pub struct EndpointAddress {
    /// What it is spoken to in.
    pub transport: Transport,
    /// A DNS name or an IP address, without brackets.
    pub host: Box<str>,
    /// The port; where the file gives none 443 for `https`, or else 80.
    pub port: u16,
}

impl EndpointAddress {
    /// Whether it is spoken to over TLS.
    pub fn is_secure(&self) -> bool {
        matches!(self.transport, Transport::Https(_))
    }

    /// The scheme of its URLs.
    pub fn scheme(&self) -> &'static str {
        match self.transport {
            Transport::Https(_) => "https",
            Transport::Http | Transport::H2c => "http",
        }
    }

    /// What tells it from others.
    pub fn id(&self) -> EndpointId {
        EndpointId {
            transport: mem::discriminant(&self.transport),
            host: self.host.clone(),
            port: self.port,
        }
    }
}

/// What tells an endpoint from others: not its certificates, which may be renewed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointId {
    transport: Discriminant<Transport>,
    host: Box<str>,
    port: u16,
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
