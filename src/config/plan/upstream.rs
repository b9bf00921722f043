//! Upstreams and their endpoints.

use super::tls::TlsCertificate;
use crate::experiment::http_view::without_port;
use crate::experiment::message_edits::MessageEdits;
use http::HeaderValue;
use http::uri::{Authority, PathAndQuery};
use rustls::pki_types::ServerName;
use std::collections::BTreeMap;
use std::fmt;
use std::mem::{self, Discriminant};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
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
    /// How long its connections are kept without a request.
    pub keep_alive: Duration,
    /// Which of its endpoints get no requests for a while because of their errors; `None` for none.
    pub ejection: Option<Ejection>,
    /// How its requests differ from those of clients; `None` where they do not.
    pub site: Option<Arc<UpstreamSite>>,
}

/// When an endpoint that answers with errors gets no requests for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ejection {
    /// Responses with 5xx in a row, at one worker.
    pub errors: u32,
    /// The largest share of the endpoints, 0 to 1: at least one, and never all.
    pub share_max: f64,
}

impl Ejection {
    /// Returns how many of so many endpoints may be ejected at the same time.
    pub fn endpoints_max(&self, endpoints: usize) -> usize {
        let most = (endpoints as f64 * self.share_max) as usize;
        most.max(1).min(endpoints.saturating_sub(1))
    }
}

/// How requests of an upstream differ from those of clients, and how its responses become public.
#[derive(Clone, Debug)]
pub struct UpstreamSite {
    /// The host that it is asked for.
    pub host: UpstreamHost,
    /// Its prefixes, and changes to header fields.
    pub edits: MessageEdits,
    /// The hosts by which it may call itself: in lower case, without ports.
    pub names: Box<[Box<str>]>,
    /// The ports by which it may call itself.
    pub ports: Box<[u16]>,
}

/// The host that an upstream is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamHost {
    /// The one that the client asks for.
    Client,
    /// That of the endpoint.
    Endpoint,
    /// This one, with a port if it needs one.
    Named(Authority),
}

impl UpstreamSite {
    /// Whether a host, with or without a port, is one by which it may call itself.
    pub fn is_named(&self, authority: &str) -> bool {
        let host = without_port(authority);
        let port = authority.get(host.len() + 1..);
        let is_own = |port: &str| {
            let port: Option<u16> = port.parse().ok();
            port.is_some_and(|port| matches!(port, 80 | 443) || self.ports.contains(&port))
        };
        port.is_none_or(is_own)
            && self
                .names
                .iter()
                .any(|name| name.eq_ignore_ascii_case(host))
    }
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
    /// Whether the host is that of SRV records, which name the hosts and ports of endpoints.
    pub is_srv: bool,
    /// Its address, where DNS has been asked for that.
    pub ip: Option<IpAddr>,
    /// The Unix domain socket in place of host and port, which are `localhost` and 80 then.
    pub socket: Option<Box<Path>>,
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

    /// Returns its host, with its port unless that is the scheme's default, as `Host` names it.
    pub fn authority(&self) -> String {
        if self.socket.is_some() {
            return self.host.to_string();
        }
        let default = if self.is_secure() { 443 } else { 80 };
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.to_string(),
        };
        match self.port == default {
            true => host,
            false => format!("{host}:{}", self.port),
        }
    }

    /// Returns the name that DNS has the addresses of; `None` for an address or a socket, and for the names
    /// of this machine, which the system knows.
    pub fn name(&self) -> Option<EndpointName> {
        let host = self.host.trim_end_matches('.');
        let is_own = host == "localhost" || host.ends_with(".localhost");
        let is_known = self.ip.is_some() || host.parse::<IpAddr>().is_ok();
        let is_name = self.socket.is_none() && !is_own && !is_known;
        is_name.then(|| EndpointName {
            host: self.host.clone(),
            is_srv: self.is_srv,
        })
    }

    /// Returns the endpoints behind its name: itself where they are not known.
    fn resolved(&self, names: &ResolvedNames) -> Vec<EndpointAddress> {
        let answers = self.name().and_then(|name| names.get(&name));
        let answers = answers.into_iter().flatten();
        let endpoints = answers.map(|answer| {
            let (host, port) = match &answer.target {
                Some((host, port)) => (host.clone(), *port),
                None => (self.host.clone(), self.port),
            };
            EndpointAddress {
                host,
                port,
                ip: Some(answer.ip),
                is_srv: false,
                ..self.clone()
            }
        });
        let endpoints: Vec<_> = endpoints.collect();
        match endpoints.is_empty() {
            true => vec![self.clone()],
            false => endpoints,
        }
    }

    /// Returns its identity.
    pub fn id(&self) -> EndpointId {
        EndpointId {
            transport: mem::discriminant(&self.transport),
            host: self.host.clone(),
            port: self.port,
            socket: self.socket.clone(),
            ip: self.ip,
        }
    }
}

/// A name in DNS that stands for endpoints.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointName {
    /// The name.
    pub host: Box<str>,
    /// Whether SRV records name hosts and ports.
    pub is_srv: bool,
}

/// One address of a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameAnswer {
    /// The address.
    pub ip: IpAddr,
    /// The host and port of an SRV record.
    pub target: Option<(Box<str>, u16)>,
}

/// The addresses of names, as far as they are known.
pub type ResolvedNames = BTreeMap<EndpointName, Box<[NameAnswer]>>;

impl Upstream {
    /// Puts the addresses that names have in the place of the names.
    pub fn resolve(&mut self, names: &ResolvedNames) {
        let endpoints = self.endpoints.iter().flat_map(|it| it.resolved(names));
        self.endpoints = endpoints.collect();
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)
    }
}

impl fmt::Display for NameAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Some((_, port)) => write!(f, "{}", SocketAddr::new(self.ip, *port)),
            None => write!(f, "{}", self.ip),
        }
    }
}

/// The identity of an endpoint. Certificates are not part of it, because they may be renewed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointId {
    transport: Discriminant<Transport>,
    host: Box<str>,
    port: u16,
    socket: Option<Box<Path>>,
    ip: Option<IpAddr>,
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(socket) = &self.socket {
            write!(f, "unix:{}", socket.display())
        } else if let Some(ip) = self.ip {
            write!(f, "{}", SocketAddr::new(ip, self.port))
        } else if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
