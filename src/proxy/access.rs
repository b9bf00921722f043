//! What is told of requests when the last byte of their answers has gone: a line of the log for
//! each, spans, or both.

use super::handle::Client;
use super::reply::{self, ERROR_HEADER, Reason};
use super::snapshot::Snapshot;
use super::trace;
use super::trail::Trail;
use super::upload::Upload;
use crate::config::plan::{AccessLog, LogUser};
use crate::experiment::identity::{HashKey, Keep, Visitor};
use crate::experiment::visit::{By, Visit};
use crate::experiment::{ExperimentIndex, UpstreamIndex};
use crate::spans::exchange::Exchange;
use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, Request, Version, response};
use std::fmt::Write as _;
use std::mem::take;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Instant;

/// What these lines are told to the log as.
pub const TARGET: &str = "watershed::access";

/// The longest text of a client's that is logged, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// How the way of an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its last byte was given to the client's connection.
    Complete,
    /// The upstream broke off.
    Broken,
    /// The client left before.
    Left,
}

impl End {
    fn word(self) -> &'static str {
        match self {
            End::Complete => "complete",
            End::Broken => "upstream_broke_off",
            End::Left => "client_left",
        }
    }
}

/// A request that will be logged or exported: when it is dropped, whichever way it ended.
#[derive(Debug)]
pub struct Entry {
    began: Instant,
    client: IpAddr,
    method: String,
    host: Option<String>,
    path: String,
    protocol: &'static str,
    user_agent: Option<String>,
    request_id: Option<String>,
    trace_id: Option<String>,
    user: Option<String>,
    experiments: Option<String>,
    assigned_by: Option<&'static str>,
    fallback: Option<String>,
    upstream: Option<String>,
    endpoint: Option<String>,
    attempts: u32,
    status: Option<u16>,
    error: Option<String>,
    head_ms: Option<f64>,
    upload: Option<Rc<Upload>>,
    bytes_out: u64,
    end: End,
    logged: bool,
    sampled: bool,
    /// The experiment and group that decided where it went.
    group: Option<(String, String)>,
    trail: Option<Box<Trail>>,
}

impl Entry {
    /// Begins with what the client asked; `None` where the file asks for no log, nor to export it.
    /// `begun` says whether its trace begins here.
    pub fn of<B>(
        snapshot: &Rc<Snapshot>,
        client: &Client,
        request: &Request<B>,
        began: Instant,
        begun: bool,
    ) -> Option<Box<Entry>> {
        let log = snapshot.plan.access_log.as_ref();
        let trail = Trail::of(snapshot, client, request, began, begun);
        if log.is_none() && trail.is_none() {
            return None;
        }
        let uri = request.uri();
        let path = match (log.is_some_and(|log| log.query), uri.path_and_query()) {
            (true, Some(both)) => both.as_str(),
            _ => uri.path(),
        };
        let said = |name| text_of(request.headers(), name);
        let authority = uri.authority().map(|it| bounded(it.as_str()));
        let mut entry = Box::new(Entry::empty(log, client.ip, began));
        entry.method = bounded(request.method().as_str());
        entry.host = authority.or_else(|| said(HOST));
        entry.path = bounded(path);
        entry.protocol = protocol(request.version());
        entry.user_agent = said(USER_AGENT);
        entry.traced(log, request.headers());
        entry.trail = trail;
        Some(entry)
    }

    fn empty(log: Option<&AccessLog>, client: IpAddr, began: Instant) -> Entry {
        Entry {
            began,
            client,
            method: String::new(),
            host: None,
            path: String::new(),
            protocol: "",
            user_agent: None,
            request_id: None,
            trace_id: None,
            user: None,
            experiments: None,
            assigned_by: None,
            fallback: None,
            upstream: None,
            endpoint: None,
            attempts: 0,
            status: None,
            error: None,
            head_ms: None,
            upload: None,
            bytes_out: 0,
            end: End::Left,
            logged: log.is_some(),
            sampled: log.is_some_and(|log| fastrand::f64() < log.sample.get()),
            group: None,
            trail: None,
        }
    }

    /// What the request is told apart by. Whether it is sampled follows from that, so that all who
    /// log it agree.
    fn traced(&mut self, log: Option<&AccessLog>, headers: &HeaderMap) {
        let Some(log) = log else {
            return;
        };
        self.request_id = trace::request_id(headers).map(str::to_owned);
        self.trace_id = trace::trace_id(headers).map(str::to_owned);
        let (trace, request) = (self.trace_id.as_deref(), self.request_id.as_deref());
        if let Some(lot) = trace::lot(trace, request) {
            self.sampled = lot < log.sample.get();
        }
    }

    /// Who asked, and what that meant.
    pub fn visited(&mut self, snapshot: &Snapshot, visitor: Option<&Visitor<'_>>, visit: &Visit) {
        let plan = &*snapshot.plan;
        let told = plan.access_log.as_ref().map(|log| log.user);
        self.user = visitor.and_then(|visitor| {
            let id = visitor.user();
            let hashed = |keep: &Keep| bytes_of(keep.of(id).id().as_bytes());
            match told? {
                LogUser::None => None,
                LogUser::Raw => Some(bytes_of(id.as_bytes())),
                LogUser::Hashed => Some(match &plan.identity.keep {
                    // The hash that the store has, too.
                    keep @ Keep::Hashed(_) => hashed(keep),
                    Keep::Raw => hashed(process_key()),
                }),
            }
        });
        let mut groups = String::new();
        for &(experiment, group, _) in &visit.inside {
            let experiment = plan.experiment(experiment);
            let comma = if groups.is_empty() { "" } else { "," };
            let group = &experiment.groups[group.0].name;
            // A `String` takes all that is written.
            let _ = write!(groups, "{comma}{}={group}", experiment.name);
        }
        self.experiments = (!groups.is_empty()).then_some(groups);
        let chosen = visit.chosen.map(|(experiment, _, _)| experiment);
        let mut inside = visit.inside.iter();
        let by = inside.find(|(experiment, _, _)| chosen.is_none_or(|it| it == *experiment));
        if let Some(&(experiment, group, _)) = by.filter(|_| self.trail.is_some()) {
            let experiment = plan.experiment(experiment);
            let group = &experiment.groups[group.0].name;
            self.group = Some((experiment.name.to_string(), group.to_string()));
        }
        self.assigned_by = by.map(|(_, _, by)| match by {
            By::Hash => "hash",
            By::Override => "override",
            By::Winner => "winner",
        });
    }

    /// Where it is noted how it goes, if it is exported.
    pub fn trail(&self) -> Option<&Trail> {
        self.trail.as_deref()
    }

    /// Where it was sent, how often, and who answers it.
    pub fn sent(
        &mut self,
        snapshot: &Snapshot,
        upstream: UpstreamIndex,
        endpoint: Option<String>,
        attempts: u32,
        fallback: Option<ExperimentIndex>,
    ) {
        let plan = &*snapshot.plan;
        self.upstream = Some(plan.upstream(upstream).name.to_string());
        (self.endpoint, self.attempts) = (endpoint, attempts);
        self.fallback = fallback.map(|it| plan.experiment(it).name.to_string());
    }

    /// The body that comes with the request.
    pub fn uploads(&mut self, upload: Option<Rc<Upload>>) {
        self.upload = upload;
    }

    /// The head of the answer is ready.
    pub fn answered(&mut self, head: &response::Parts) {
        self.status = Some(head.status.as_u16());
        self.error = text_of(&head.headers, ERROR_HEADER);
        self.head_ms = Some(milliseconds(self.began));
    }

    /// So many bytes of the answer's body were given to the client's connection.
    pub fn gave(&mut self, bytes: u64) {
        self.bytes_out += bytes;
    }

    /// The answer's body is watershed's own, of so many bytes.
    pub fn own(&mut self, bytes: u64) {
        if self.method != "HEAD" {
            self.bytes_out = bytes;
        }
        self.end = End::Complete;
    }

    /// How it ends.
    pub fn ends(&mut self, end: End) {
        self.end = end;
    }
}

/// Logs a connection that was refused before it had asked anything that can be read.
pub fn refused(snapshot: &Snapshot, client: IpAddr, reason: Reason) {
    let Some(log) = &snapshot.plan.access_log else {
        return;
    };
    let (status, token, _) = reason.terms();
    let mut entry = Entry::empty(Some(log), client, Instant::now());
    (entry.status, entry.error) = (Some(status.as_u16()), Some(token.to_owned()));
    entry.bytes_out = reply::text(status, token).len() as u64;
    entry.end = End::Complete;
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.log();
        if let Some(trail) = self.trail.take() {
            self.export(*trail);
        }
    }
}

impl Entry {
    fn log(&self) {
        let failed = self.error.is_some() || self.status.is_some_and(|status| status >= 500);
        if !self.logged || !(self.sampled || failed || self.end == End::Broken) {
            return;
        }
        let some = |text: &'static str| (!text.is_empty()).then_some(text);
        tracing::info!(
            target: TARGET,
            client = %self.client,
            request_id = self.request_id,
            trace_id = self.trace_id,
            method = (!self.method.is_empty()).then_some(&*self.method),
            host = self.host,
            path = (!self.path.is_empty()).then_some(&*self.path),
            protocol = some(self.protocol),
            user_agent = self.user_agent,
            user = self.user,
            experiments = self.experiments,
            assigned_by = self.assigned_by,
            fallback = self.fallback,
            upstream = self.upstream,
            endpoint = self.endpoint,
            attempts = self.attempts,
            status = self.status,
            error = self.error,
            end = self.end.word(),
            bytes_in = self.upload.as_ref().map_or(0, |upload| upload.bytes()),
            bytes_out = self.bytes_out,
            head_ms = self.head_ms,
            total_ms = milliseconds(self.began),
        );
    }

    /// Gives away all that is known.
    fn export(&mut self, mut trail: Trail) {
        let exchange = Exchange {
            trace: take(&mut trail.trace),
            span: trail.span,
            began: trail.began_at,
            took: self.began.elapsed(),
            secure: trail.secure,
            client: trail.client,
            method: take(&mut self.method),
            host: self.host.take(),
            path: take(&mut self.path),
            version: self.protocol.trim_start_matches("HTTP/"),
            user_agent: self.user_agent.take(),
            experiments: self.experiments.take(),
            group: self.group.take(),
            assigned_by: self.assigned_by,
            fallback: self.fallback.take(),
            upstream: self.upstream.take(),
            status: self.status,
            error: self.error.take(),
            end: self.end.word(),
            attempts: trail.take_attempts(),
        };
        trail.give(exchange);
    }
}

/// What hashes IDs where the file gives no key: this process's own, so that its lines tell users
/// apart and nobody can tell who they are.
fn process_key() -> &'static Keep {
    static KEY: OnceLock<Keep> = OnceLock::new();
    KEY.get_or_init(|| {
        let mut secret = [0; 32];
        if getrandom::fill(&mut secret).is_err() {
            secret.fill_with(|| fastrand::u8(..));
        }
        Keep::Hashed(HashKey::new(&secret))
    })
}

fn milliseconds(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 1e6).round() / 1e3
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_11 => "HTTP/1.1",
        _ => "HTTP/1.0",
    }
}

fn text_of(headers: &HeaderMap, name: http::HeaderName) -> Option<String> {
    Some(bytes_of(headers.get(name)?.as_bytes()))
}

fn bytes_of(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(TEXT_BYTES_MAX)];
    String::from_utf8_lossy(bytes).into_owned()
}

fn bounded(text: &str) -> String {
    bytes_of(text.as_bytes())
}
