//! The plan: what `routes.yaml` means, checked and immutable. Everything that runs reads this,
//! never the file.

mod admin;
mod logging;

pub use admin::{Admin, Role, SESSION_COOKIE, Token};
pub use logging::{AccessLog, LogTo, LogUser, Otlp, Tracing};

use crate::experiment::consent::Consent;
use crate::experiment::identity::Identity;
use crate::experiment::key_ring::KeyRing;
use crate::experiment::match_index::Experiments;
use crate::experiment::metric::Metric;
use crate::experiment::{Experiment, ExperimentIndex, GroupIndex, MetricIndex, UpstreamIndex};
use http::HeaderValue;
use http::uri::PathAndQuery;
use ipnet::IpNet;
use rustls::pki_types::ServerName;
use std::fmt;
use std::mem::{self, Discriminant};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What one sound `routes.yaml` means.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the public is listened to.
    pub listen: SocketAddr,
    /// Where and how TLS is listened to.
    pub tls: Option<ServerTls>,
    /// Where people look: results, metrics, controls.
    pub admin: Admin,
    /// Where the counts live.
    pub store: StoreConfig,
    /// Where facts are kept until the store has them.
    pub journal: Journal,
    /// How many workers; one per core when left out.
    pub workers: usize,
    /// Who the visitor is.
    pub identity: Identity,
    /// The versions of the site, in file order; at least one.
    pub upstreams: Box<[Upstream]>,
    /// Where requests go that no experiment claims.
    pub default: UpstreamIndex,
    /// In file order.
    pub experiments: Experiments,
    /// In file order.
    pub metrics: Box<[Metric]>,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How large and many things may be.
    pub limits: Limits,
    /// Peers whose `X-Forwarded-*` are believed.
    pub trust: Box<[IpNet]>,
    /// The key of QA overrides; `None` turns them off.
    pub override_secret: Option<Secret>,
    /// What must say so before anything is recorded; `None` asks nobody.
    pub consent: Option<Consent>,
    /// How browsers report events.
    pub beacon: Beacon,
    /// How long users are kept after their experiment ended; `None` keeps them.
    pub retention: Option<Duration>,
    /// What shared caches are told.
    pub cache: Cache,
    /// Where requests are logged; `None` does not log them.
    pub access_log: Option<AccessLog>,
    /// What requests are given to be told apart by.
    pub tracing: Tracing,
    /// Whether responses carry `Watershed-Group`.
    pub show_group: bool,
    /// A digest of the file's meaning, to tell replicas and reloads apart.
    pub digest: u64,
    /// The file as it is written, without its secrets.
    pub redacted_file: serde_json::Value,
    /// Files beside `routes.yaml` whose change is a change of the plan.
    pub watched: Box<[PathBuf]>,
}

/// What the keys of [`Identity::keys`] are for.
pub const IDENTITY_KEYS: &str = "identity";
/// What the keys of [`Admin::session_keys`] are for.
pub const SESSION_KEYS: &str = "session";

impl Plan {
    /// Signs by these secrets from now on; where the file has keys of its own, they stay.
    pub fn sign_by(&mut self, first: &[u8], others: &[&[u8]]) {
        let keys = |purpose| KeyRing::new(purpose, first, others.iter().copied());
        self.admin.session_keys = keys(SESSION_KEYS);
        if !self.identity.keys_from_file {
            self.identity.keys = keys(IDENTITY_KEYS);
        }
    }

    /// The experiment at this place.
    pub fn experiment(&self, index: ExperimentIndex) -> &Experiment {
        &self.experiments[index.0]
    }

    /// The upstream at this place.
    pub fn upstream(&self, index: UpstreamIndex) -> &Upstream {
        &self.upstreams[index.0]
    }

    /// The metric at this place.
    pub fn metric(&self, index: MetricIndex) -> &Metric {
        &self.metrics[index.0]
    }

    /// The experiment with this name.
    pub fn experiment_named(&self, name: &str) -> Option<ExperimentIndex> {
        let place = self
            .experiments
            .iter()
            .position(|experiment| &*experiment.name == name)?;
        Some(ExperimentIndex(place))
    }

    /// The upstream of the control group of an experiment, where it has one.
    pub fn control_upstream(&self, index: ExperimentIndex) -> Option<UpstreamIndex> {
        let experiment = self.experiment(index);
        let GroupIndex(control) = experiment.control;
        experiment.groups[control].upstream
    }
}

/// How browsers report events to the public port.
#[derive(Clone, Debug)]
pub struct Beacon {
    /// Where.
    pub path: Box<str>,
    /// Other sites' pages that may.
    pub origins: Box<[HeaderValue]>,
    /// The most bytes of one report.
    pub body_bytes_max: usize,
    /// The most events of one user in a minute, over all workers.
    pub per_minute: u32,
    /// The most events of one address in a minute, over all workers.
    pub per_minute_per_address: u32,
    /// False sends the path's requests upstream, like any other.
    pub enabled: bool,
}

/// What shared caches are told of answers that may be others for other visitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Where an experiment chose the upstream.
    pub upstream: CacheRule,
    /// Where it told the upstream the group.
    pub told: CacheRule,
}

/// How a cache is kept from mixing versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheRule {
    /// By `Vary`.
    Vary,
    /// By `Vary`, and `Cache-Control: private`.
    Private,
    /// Not at all.
    Off,
}

/// TLS to clients.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// Where it is listened to.
    pub listen: SocketAddr,
    /// Certificates, versions and protocols.
    pub config: Arc<rustls::ServerConfig>,
    /// The certificates, in the order of the file.
    pub certificates: Box<[Certificate]>,
}

/// A certificate that is shown.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// Its PEM file, as the routes file names it.
    pub file: Box<str>,
    /// When it expires, in Unix seconds; `None` where that cannot be read.
    pub expires_s: Option<i64>,
}

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
    pub certificate: Option<Certificate>,
}

/// One version of the site.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its name in the file; unique.
    pub name: Box<str>,
    /// Where it runs; at least one.
    pub endpoints: Box<[Endpoint]>,
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
pub struct Endpoint {
    /// What it is spoken to in.
    pub transport: Transport,
    /// A DNS name or an IP address, without brackets.
    pub host: Box<str>,
    /// The port; where the file gives none 443 for `https`, or else 80.
    pub port: u16,
}

impl Endpoint {
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

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Where the counts live.
#[derive(Clone, Debug)]
pub enum StoreConfig {
    /// One local file, made where missing.
    Embedded {
        /// The file.
        path: PathBuf,
    },
    /// Redis or Valkey, 6.2 or later.
    Redis {
        /// `redis://[user:password@]host:port[/db]` and its kin for TLS, clusters and Sentinels;
        /// kept secret because it may hold a password.
        url: Secret,
        /// What every key begins with; `ws` unless told otherwise.
        prefix: Box<str>,
        /// For TLS: who signed its certificate; the system's roots when `None`.
        ca: Option<PathBuf>,
        /// For TLS: the certificate and key that it is shown.
        identity: Option<(PathBuf, PathBuf)>,
    },
}

/// Where and how facts are kept until the store has them.
#[derive(Clone, Debug)]
pub struct Journal {
    /// The directory, made where missing.
    pub path: PathBuf,
    /// The most that a power cut may cost.
    pub sync_interval: Duration,
    /// The most it may grow to while the store is away, in bytes over all workers.
    pub quota_bytes: u64,
}

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

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Keeps a text from being printed.
    pub fn new(text: impl Into<Box<str>>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for where it is needed.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}
