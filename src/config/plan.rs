//! The plan: the validated, immutable meaning of `routes.yaml`. All code reads the plan and never
//! the file.

mod admin;
mod archive;
mod forward;
mod http_target;
mod limits;
mod logging;
mod route;
mod secret;
mod tls;
mod upstream;
mod webhooks;

pub use admin::{Admin, AdminTls, Origins, PRIVATE_COOKIES, SESSION_COOKIE, Token, TokenRole};
pub use archive::{Archive, ArchiveTarget, BucketPath};
pub use forward::{Destination, DestinationFormat, ForwardedEvents};
pub use http_target::HttpTarget;
pub use limits::{Limits, Timeouts};
pub use logging::{AccessLog, LogTo, LogUser, Otlp, Tracing};
pub use route::{
    ErrorPages, FixedResponse, HttpsRedirect, HttpsRules, Route, RouteAnswer, RouteIndex,
};
pub use secret::Secret;
pub use tls::{Acme, AcmeChallenge, AcmeSettings, ServerTls, TlsCertificate};
pub use upstream::{
    Balance, Ejection, EndpointAddress, EndpointBounds, EndpointId, EndpointName, Health,
    NameAnswer, ResolvedNames, Transport, Upstream, UpstreamHost, UpstreamSite, UpstreamTls,
};
pub use webhooks::{NotificationKind, SigningKey, Webhook};

use super::diagnostic::ConfigWarning;
use crate::experiment::admission::ListedIds;
use crate::experiment::assign::Portion;
use crate::experiment::consent::Consent;
use crate::experiment::http_view::RequestView;
use crate::experiment::identity::Identity;
use crate::experiment::key_ring::KeyRing;
use crate::experiment::match_index::Experiments;
use crate::experiment::matcher::Matcher;
use crate::experiment::metric::Metric;
use crate::experiment::not_counted::CountingRules;
use crate::experiment::resolve::Assignment;
use crate::experiment::segment::UserSegment;
use crate::experiment::units::Unit;
use crate::experiment::{
    Experiment, ExperimentIndex, GroupIndex, Lifecycle, MetricIndex, UpstreamIndex, implication,
};
use http::HeaderValue;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The meaning of one valid `routes.yaml`.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The public address.
    pub listen: SocketAddr,
    /// The public address with TLS, and its certificates.
    pub tls: Option<ServerTls>,
    /// The admin API.
    pub admin: Admin,
    /// The store of the counts.
    pub store: StoreConfig,
    /// The journals.
    pub journal: Journal,
    /// The number of workers.
    pub workers: usize,
    /// How users are identified.
    pub identity: Identity,
    /// At least one, in file order.
    pub upstreams: Box<[Upstream]>,
    /// The upstream of requests that match no experiment and no route.
    pub default: UpstreamIndex,
    /// What becomes of requests whose upstream no experiment chooses, in file order: the first that
    /// matches decides.
    pub routes: Box<[Route]>,
    /// What holds for the whole site where it is reached over TLS.
    pub https: HttpsRules,
    /// Own pages for errors that watershed answers.
    pub error_pages: ErrorPages,
    /// The name servers that know the addresses of endpoints; those of the system if there are none.
    pub name_servers: Box<[SocketAddr]>,
    /// In file order.
    pub experiments: Experiments,
    /// The users whom the holdout keeps out of all experiments.
    pub holdout: Option<Portion>,
    /// What experiments divide besides users.
    pub units: Box<[Unit]>,
    /// In file order.
    pub metrics: Box<[Metric]>,
    /// The segments that divide users for display, in file order.
    pub segments: Box<[UserSegment]>,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// Limits on sizes and counts.
    pub limits: Limits,
    /// Peers whose `X-Forwarded-*` headers are trusted.
    pub trust: Box<[IpNet]>,
    /// The key of QA overrides; `None` turns them off.
    pub override_secret: Option<Secret>,
    /// The cookie without which nothing is recorded; `None` records everything.
    pub consent: Option<Consent>,
    /// Who is served but not counted.
    pub counting: CountingRules,
    /// How browsers report events.
    pub beacon: Beacon,
    /// How long users are kept after their experiment ended; `None` keeps them.
    pub retention: Option<Duration>,
    /// How shared caches keep groups apart.
    pub cache: CacheConfig,
    /// Where requests are logged; `None` does not log them.
    pub access_log: Option<AccessLog>,
    /// Request IDs and traces.
    pub tracing: Tracing,
    /// Where all records are written as Parquet; `None` for nowhere.
    pub archive: Option<Archive>,
    /// Where exposures and events are sent.
    pub forward: Box<[Destination]>,
    /// Who is told of events.
    pub webhooks: Box<[Webhook]>,
    /// Whether responses carry `Watershed-Group`.
    pub show_group: bool,
    /// A digest of the file's meaning, which distinguishes replicas and reloads.
    pub digest: u64,
    /// Names of cookies that the file reads, each at least once.
    pub cookies_read: Box<[Box<str>]>,
    /// Names of experiments whose promotion ends, although it would stay in effect after they left the file.
    pub retired: Box<[Box<str>]>,
    /// By experiment of the file: what the store keeps of it ([`definition`](super::definition)).
    pub definitions: BTreeMap<String, String>,
    /// The file as it is written, with its secrets hidden.
    pub redacted_file: serde_json::Value,
    /// The same as JSON text, in the order of the file.
    pub content: Arc<str>,
    /// A digest of all secrets in the file together. It is short, so that no secret can be found by it.
    pub secrets: u16,
    /// Lists of user IDs, by the file that each was read from.
    pub id_lists: IdLists,
    /// Other files whose change is a change of the plan.
    pub watched: Box<[PathBuf]>,
    /// Patterns of other files: a new one that matches is a change of the plan.
    pub watched_patterns: Box<[String]>,
    /// What is valid in the file, but probably not meant.
    pub warnings: Box<[ConfigWarning]>,
}

/// Lists of user IDs by file.
pub type IdLists = BTreeMap<PathBuf, ListedIds>;

/// The purpose of [`Identity::keys`].
pub const IDENTITY_KEYS: &str = "identity";
/// The purpose of [`Admin::session_keys`].
pub const SESSION_KEYS: &str = "session";

impl Plan {
    /// Signs with these secrets from now on. Keys of the file stay.
    pub fn sign_by(&mut self, first: &[u8], others: &[&[u8]]) {
        let keys = |purpose| KeyRing::new(purpose, first, others.iter().copied());
        self.admin.session_keys = keys(SESSION_KEYS);
        if !self.identity.keys_from_file {
            self.identity.keys = keys(IDENTITY_KEYS);
        }
    }

    /// Lets experiments do what their schedules say of this time.
    pub fn keep_schedules(&mut self, now_ms: u64) {
        let experiments = self.experiments.iter_mut();
        for experiment in experiments.filter(|it| !it.ended_by_file) {
            experiment.lifecycle = experiment.schedule.at(now_ms);
        }
    }

    /// Whether no user can get the version of an experiment's winner, because an earlier experiment serves them all.
    pub fn is_unreachable(&self, index: ExperimentIndex) -> bool {
        let unreachable = implication::unreachable(&self.experiments);
        unreachable.iter().any(|(late, _)| *late == index)
    }

    /// Which matching users may get something else than the version of an experiment's winner: noun phrases.
    pub fn winner_is_not_for(&self, index: ExperimentIndex) -> Vec<String> {
        let own = self.experiment(index);
        let held_back = own.holdback.is_some() && own.lifecycle == Lifecycle::Promoted;
        let held_back = held_back.then(|| "users who are held back".to_owned());
        let held_out = own.admission.holdout.as_ref();
        let held_out = held_out.map(|_| "users of the holdout".to_owned());
        // One of groups that only change requests holds beside the others.
        let chooses = own.chooses_upstream();
        let earlier = implication::serve_before(&self.experiments, index).filter(|_| chooses);
        let earlier = earlier.map(|it| match it.has_left_file {
            true => format!("users of the later promotion of {}", it.name),
            false => format!("users whom {} serves before", it.name),
        });
        held_back
            .into_iter()
            .chain(held_out)
            .chain(earlier)
            .collect()
    }

    /// Returns the experiment at this index.
    pub fn experiment(&self, index: ExperimentIndex) -> &Experiment {
        &self.experiments[index.0]
    }

    /// Returns the upstream at this index.
    pub fn upstream(&self, index: UpstreamIndex) -> &Upstream {
        &self.upstreams[index.0]
    }

    /// Returns the route at this index.
    pub fn route(&self, RouteIndex(place): RouteIndex) -> &Route {
        &self.routes[place]
    }

    /// Returns the metric at this index.
    pub fn metric(&self, index: MetricIndex) -> &Metric {
        &self.metrics[index.0]
    }

    /// Finds an experiment by its name.
    pub fn experiment_named(&self, name: &str) -> Option<ExperimentIndex> {
        let place = self
            .experiments
            .iter()
            .position(|experiment| &*experiment.name == name)?;
        Some(ExperimentIndex(place))
    }

    /// Returns what stands in for the version that an assignment chose, where that fails.
    pub fn stand_in(&self, assignment: &Assignment) -> Option<OtherVersion> {
        let (index, failed, _) = assignment.chosen?;
        self.version(index, self.experiment(index).stand_in(failed)?)
    }

    /// Returns the other version of what an assignment chose, where what one does not have is looked for in
    /// the other. Where no experiment has chosen, `asked` is the upstream.
    pub fn other_version(
        &self,
        assignment: &Assignment,
        asked: UpstreamIndex,
    ) -> Option<OtherVersion> {
        let (index, group) = match assignment.chosen {
            Some((index, group, _)) => (index, group),
            None => self
                .experiments
                .iter()
                .enumerate()
                .find_map(|(place, own)| {
                    let mut groups = own.groups.iter();
                    let group = groups.position(|it| it.upstream == Some(asked))?;
                    let follows = own.versions.follows_assets;
                    follows.then_some((ExperimentIndex(place), GroupIndex(group)))
                })?,
        };
        let experiment = self.experiment(index);
        let other = experiment.other_version(group)?;
        self.version(index, other)
            .filter(|_| experiment.versions.follows_assets)
    }

    fn version(&self, experiment: ExperimentIndex, group: GroupIndex) -> Option<OtherVersion> {
        Some(OtherVersion {
            experiment,
            group,
            upstream: self.experiment(experiment).groups[group.0].upstream?,
        })
    }
}

/// A version of an experiment that serves in the place of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherVersion {
    /// The experiment.
    pub experiment: ExperimentIndex,
    /// The group whose version serves.
    pub group: GroupIndex,
    /// Its upstream.
    pub upstream: UpstreamIndex,
}

/// How browsers report events to the public port.
#[derive(Clone, Debug)]
pub struct Beacon {
    /// The path.
    pub path: Box<str>,
    /// Other origins whose pages may report events.
    pub origins: Box<[HeaderValue]>,
    /// The largest report, in bytes.
    pub body_bytes_max: usize,
    /// The most events of one user per minute, over all workers.
    pub per_minute: u32,
    /// The most events of one client address per minute, over all workers.
    pub per_minute_per_address: u32,
    /// If false, requests to the path go to the upstream.
    pub enabled: bool,
}

/// How shared caches keep apart responses that depend on the user.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// The rules for all responses that no entry of `routes` is for.
    pub rules: CacheRules,
    /// Rules for parts of the site. The first one that matches a request decides.
    pub routes: Vec<CacheRoute>,
}

/// Rules for a part of the site.
#[derive(Clone, Debug)]
pub struct CacheRoute {
    /// Which requests: it reads only what caches tell responses apart by.
    pub matcher: Matcher,
    /// The rules.
    pub rules: CacheRules,
}

impl CacheConfig {
    /// The rules for the response to a request.
    pub fn rules_of<'a>(&self, request: impl RequestView<'a>) -> CacheRules {
        let mut routes = self.routes.iter();
        let found = routes.find(|route| route.matcher.matches(request));
        found.map_or(self.rules, |route| route.rules)
    }
}

/// What keeps a shared cache from mixing groups, by what depends on the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheRules {
    /// For responses whose upstream an experiment chose.
    pub upstream: CacheRule,
    /// For responses whose upstream got the group in a header.
    pub told: CacheRule,
    /// Whether responses are said to be the same in all versions, so that they carry nothing of one user.
    pub is_shared: bool,
}

/// What keeps a shared cache from mixing groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheRule {
    /// `Vary`.
    Vary,
    /// `Vary`, and `Cache-Control: private`.
    Private,
    /// Nothing.
    Off,
}

/// The store of the counts.
#[derive(Clone, Debug)]
pub enum StoreConfig {
    /// One local file, created if missing.
    Embedded {
        /// The file.
        path: PathBuf,
    },
    /// Redis or Valkey, 6.2 or later.
    Redis {
        /// `redis://[user:password@]host:port[/db]` or a variant of it for TLS, clusters and
        /// Sentinels. It is secret because it may hold a password.
        url: Secret,
        /// The prefix of every key.
        prefix: Box<str>,
        /// For TLS: the certificates to trust; `None` for the system's roots.
        ca: Option<PathBuf>,
        /// For TLS: the client certificate and its key.
        identity: Option<(PathBuf, PathBuf)>,
    },
    /// PostgreSQL 12 or later.
    Postgres {
        /// `postgres://user[:password]@host[:port]/database`, with `?sslmode=require` for TLS. It is secret because
        /// it may hold a password.
        url: Secret,
        /// The schema of all tables.
        schema: Box<str>,
        /// For TLS: the certificates to trust; `None` for the system's roots.
        ca: Option<PathBuf>,
        /// For TLS: the client certificate and its key.
        identity: Option<(PathBuf, PathBuf)>,
    },
}

/// The journals: records stay there until the store has them.
#[derive(Clone, Debug)]
pub struct Journal {
    /// The directory, created if missing.
    pub path: PathBuf,
    /// The records of how long a power failure may lose.
    pub sync_interval: Duration,
    /// The size up to which they grow while the store is unavailable, in bytes over all workers.
    pub quota_bytes: u64,
}
