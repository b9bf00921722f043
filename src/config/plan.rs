//! The plan: what `routes.yaml` means, checked and immutable. Everything that runs reads this,
//! never the file.

mod admin;
mod limits;
mod logging;
mod secret;
mod tls;
mod upstream;

pub use admin::{Admin, SESSION_COOKIE, Token, TokenRole};
pub use limits::{Limits, Timeouts};
pub use logging::{AccessLog, LogTo, LogUser, Otlp, Tracing};
pub use secret::Secret;
pub use tls::{ServerTls, TlsCertificate};
pub use upstream::{
    Balance, EndpointAddress, EndpointBounds, EndpointId, Health, Transport, Upstream, UpstreamTls,
};

use crate::experiment::consent::Consent;
use crate::experiment::identity::Identity;
use crate::experiment::key_ring::KeyRing;
use crate::experiment::match_index::Experiments;
use crate::experiment::metric::Metric;
use crate::experiment::segment::UserSegment;
use crate::experiment::{Experiment, ExperimentIndex, GroupIndex, MetricIndex, UpstreamIndex};
use http::HeaderValue;
use ipnet::IpNet;
use std::net::SocketAddr;
use std::path::PathBuf;
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
    /// How users are divided for display, in file order.
    pub segments: Box<[UserSegment]>,
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
