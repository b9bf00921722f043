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
    /// For HTTP/2 and HTTP/1.1.
    pub any: Arc<rustls::ClientConfig>,
    /// For HTTP/1.1 only, which upgrades need.
    pub http1: Arc<rustls::ClientConfig>,
    /// The name in its certificate; `None` for the endpoint's host.
    pub name: Option<ServerName<'static>>,
    /// The client certificate, if any.
    pub certificate: Option<TlsCertificate>,
}

/// An upstream: one version of the site.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its name in the file; unique.
    pub name: Box<str>,
    /// At least one.
    pub endpoints: Box<[EndpointAddress]>,
    /// How the endpoint for a request is chosen.
    pub balance: Balance,
    /// Health checks; `None` for none.
    pub health: Option<Arc<Health>>,
    /// Limits of each endpoint.
    pub bounds: EndpointBounds,
}

/// How the endpoint for a request is chosen among the healthy ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// The less busy of two: the next in turn, and a random one.
    LeastLoaded,
    /// Each in turn.
    RoundRobin,
    /// By the user ID: the same endpoint for the same user while it is healthy.
    User,
}

/// Health checks of endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Health {
    /// The path of the check.
    pub path: PathAndQuery,
    /// The `Host` of the check; `None` for the endpoint's host.
    pub host: Option<HeaderValue>,
    /// The time between two checks.
    pub interval: Duration,
    /// The time from the start of the connection to the head of the response.
    pub timeout: Duration,
    /// The first and the last status of a healthy endpoint.
    pub status: (u16, u16),
    /// Failures in a row that make a healthy endpoint unhealthy.
    pub failures: u32,
    /// Successes in a row that make an unhealthy endpoint healthy.
    pub successes: u32,
}

/// Limits of an endpoint, over all workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndpointBounds {
    /// Connections; `None` for no limit.
    pub connections: Option<u32>,
    /// Requests that wait for a connection.
    pub pending: u32,
}

/// The protocol to an endpoint, with its configuration.
#[derive(Clone, Debug)]
pub enum Transport {
    /// HTTP/1.1.
    Http,
    /// HTTP/2 without TLS.
    H2c,
    /// HTTP/2 or HTTP/1.1 over TLS, as the endpoint prefers.
    Https(Arc<UpstreamTls>),
}

/// The address of an endpoint.
#[derive(Clone, Debug)]
pub struct EndpointAddress {
    /// The protocol.
    pub transport: Transport,
    /// A DNS name or an IP address, without brackets.
    pub host: Box<str>,
    /// The port; by default, 443 for `https` and 80 otherwise.
    pub port: u16,
}

impl EndpointAddress {
    /// Whether the connection uses TLS.
    pub fn is_secure(&self) -> bool {
        matches!(self.transport, Transport::Https(_))
    }

    /// Returns the scheme of its URLs.
    pub fn scheme(&self) -> &'static str {
        match self.transport {
            Transport::Https(_) => "https",
            Transport::Http | Transport::H2c => "http",
        }
    }

    /// Returns its identity.
    pub fn id(&self) -> EndpointId {
        EndpointId {
            transport: mem::discriminant(&self.transport),
            host: self.host.clone(),
            port: self.port,
        }
    }
}

/// The identity of an endpoint. Certificates are not part of it, because they may be renewed.
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
