//! What is told of requests when the last byte of their answers has gone: a line of the log for
//! each, spans, or both.

use crate::config::plan::{self, AccessLog, LogUser};
use crate::experiment::http_view::HeaderView;
use crate::experiment::identity::{IdStorage, Visitor};
use crate::experiment::resolve::{AssignedBy, Assignment};
use crate::experiment::{ExperimentIndex, UpstreamIndex};
use crate::proxy::error_response::{self, ErrorCode};
use crate::proxy::observe::logged_request::{LoggedRequest, TEXT_BYTES_MAX, bounded};
use crate::proxy::observe::spans::SpanRecorder;
use crate::proxy::observe::trace_context::{self, Correlation, RequestId};
use crate::proxy::policy;
use crate::proxy::snapshot::{Snapshot, Worker};
use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, Method, Version};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::io::Write as _;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What most lines need, in bytes.
const LINE_BYTES: usize = 1024;
/// What a line begins with; the time is known when it ends.
const BEGIN: &[u8] = b"{\"timestamp\":\"___________________.______Z\"";
/// Where the time stands in it.
const TIME: std::ops::Range<usize> = 14..BEGIN.len() - 2;

/// How the way of an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseEnd {
    /// Its last byte was given to the client's connection.
    Complete,
    /// The upstream broke off.
    Broken,
    /// The client left before.
    Left,
    /// It had all the time of `timeouts.total`.
    Late,
}

impl ResponseEnd {
    fn word(self) -> &'static str {
        match self {
            ResponseEnd::Complete => "complete",
            ResponseEnd::Broken => "upstream_broke_off",
            ResponseEnd::Left => "client_left",
            ResponseEnd::Late => "total_timeout",
        }
    }
}

/// A request that will be logged or exported: when it is dropped, whichever way it ended.
#[derive(Debug)]
pub struct LogEntry {
    worker: Rc<Worker>,
    snapshot: Rc<Snapshot>,
    began: Instant,
    is_head: bool,
    /// The line as far as it is known, where there will be one.
    line: Vec<u8>,
    logged: bool,
    sampled: bool,
    upstream: Option<UpstreamIndex>,
    endpoint: SmallVec<[u8; 32]>,
    attempts: u32,
    fallback: Option<ExperimentIndex>,
    status: Option<u16>,
    error: Option<Cow<'static, str>>,
    head_after: Option<Duration>,
    bytes_in: u64,
    bytes_out: u64,
    end: ResponseEnd,
    trail: Option<Box<SpanRecorder>>,
}

impl LogEntry {
    /// Begins with what the client asked and what it is told apart by; `None` where the file asks
    /// for no log, nor to export it.
    pub fn of<'a, F: HeaderView<'a>>(
        worker: &Rc<Worker>,
        snapshot: &Rc<Snapshot>,
        asked: &LoggedRequest<'a, F>,
        tags: &Correlation,
        began: Instant,
    ) -> Option<Box<LogEntry>> {
        let log = snapshot.plan.access_log.as_ref();
        if log.is_none() && snapshot.outbox.is_none() {
            return None;
        }
        let target = match log.is_some_and(|log| log.query) {
            true => asked.target,
            false => asked.path,
        };
        let trail = SpanRecorder::of(snapshot, asked, target, tags, began);
        if log.is_none() && trail.is_none() {
            return None;
        }
        let mut entry = Box::new(LogEntry::empty(worker, snapshot, began));
        entry.is_head = asked.method == Method::HEAD;
        entry.trail = trail;
        if let Some(log) = log {
            entry.begin(log, asked, target, tags);
        }
        Some(entry)
    }

    fn empty(worker: &Rc<Worker>, snapshot: &Rc<Snapshot>, began: Instant) -> LogEntry {
        let log = snapshot.plan.access_log.as_ref();
        LogEntry {
            worker: Rc::clone(worker),
            snapshot: Rc::clone(snapshot),
            began,
            is_head: false,
            line: Vec::new(),
            logged: log.is_some(),
            sampled: log.is_some_and(|log| lot(log, fastrand::f64)),
            upstream: None,
            endpoint: SmallVec::new(),
            attempts: 0,
            fallback: None,
            status: None,
            error: None,
            head_after: None,
            bytes_in: 0,
            bytes_out: 0,
            end: ResponseEnd::Left,
            trail: None,
        }
    }

    /// Writes the part of the line that is known first. Whether the request is sampled follows
    /// from what it is told apart by, so that all who log it agree.
    fn begin<'a, F: HeaderView<'a>>(
        &mut self,
        log: &AccessLog,
        asked: &LoggedRequest<'a, F>,
        target: &str,
        tags: &Correlation,
    ) {
        let made = tags.id.as_ref().filter(|id| id.made);
        let id = match made {
            Some(id) => std::str::from_utf8(id.as_bytes()).ok(),
            None => trace_context::request_id(asked.fields),
        };
        let begun = tags.begins.map(|parent| parent.text());
        let begun = begun.as_ref().and_then(|text| text.get(3..35));
        let trace = match begun {
            Some(trace) => std::str::from_utf8(trace).ok(),
            None => trace_context::trace_id(asked.fields),
        };
        if let Some(place) = trace_context::lot(trace, id) {
            self.sampled = lot(log, || place);
        }
        self.line = begun_line(asked.client);
        let line = &mut self.line;
        let said = |name| asked.fields.first(name);
        text(line, ",\"request_id\":", id);
        text(line, ",\"trace_id\":", trace);
        text(line, ",\"method\":", Some(asked.method.as_str()));
        match asked.authority {
            Some(authority) => text(line, ",\"host\":", Some(authority)),
            None => bytes(line, ",\"host\":", said(&HOST)),
        }
        text(
            line,
            ",\"path\":",
            Some(target).filter(|path| !path.is_empty()),
        );
        text(line, ",\"protocol\":", Some(protocol(asked.version)));
        bytes(line, ",\"user_agent\":", said(&USER_AGENT));
    }

    /// Who asked, and what that meant.
    pub fn assigned(&mut self, visitor: Option<&Visitor<'_>>, visit: &Assignment) {
        let plan = &*self.snapshot.plan;
        let chosen = visit.chosen.map(|(experiment, _, _)| experiment);
        let mut inside = visit.inside.iter();
        let by = inside.find(|(experiment, _, _)| chosen.is_none_or(|it| it == *experiment));
        let assigned_by = by.map(|(_, _, by)| match by {
            AssignedBy::Hash => "hash",
            AssignedBy::Override => "override",
            AssignedBy::Winner => "winner",
        });
        let mut groups = Vec::new();
        for &(experiment, group, _) in &visit.inside {
            if !groups.is_empty() {
                groups.push(b',');
            }
            let value = self.snapshot.plan_headers.group(experiment, group);
            groups.extend_from_slice(value.as_bytes());
        }
        let groups = Some(&*groups).filter(|groups| !groups.is_empty());
        if let Some(trail) = &mut self.trail {
            let group = by.map(|&(experiment, group, _)| {
                let experiment = plan.experiment(experiment);
                let group = &experiment.groups[group.0].name;
                (experiment.name.to_string(), group.to_string())
            });
            trail.assigned(groups.map(bounded), group, assigned_by);
        }
        let Some(log) = plan.access_log.as_ref() else {
            return;
        };
        let line = &mut self.line;
        if let Some(visitor) = visitor {
            let id = visitor.user();
            match log.user {
                LogUser::None => {}
                LogUser::Raw => bytes(line, ",\"user\":", Some(id.as_bytes())),
                LogUser::Hashed => match &plan.identity.keep {
                    // The hash that the store has, too.
                    keep @ IdStorage::Hashed(_) => {
                        bytes(line, ",\"user\":", Some(keep.of(id).id().as_bytes()));
                    }
                    IdStorage::Raw => bytes(line, ",\"user\":", Some(&hashed(id.as_bytes()))),
                },
            }
        }
        bytes(line, ",\"experiments\":", groups);
        text(line, ",\"assigned_by\":", assigned_by);
    }

    /// Where it is noted how it goes, if it is exported.
    pub fn spans(&self) -> Option<&SpanRecorder> {
        self.trail.as_deref()
    }

    /// Where it was sent, how often, and who answers it.
    pub fn sent(
        &mut self,
        upstream: UpstreamIndex,
        endpoint: Option<&plan::EndpointAddress>,
        attempts: u32,
        fallback: Option<ExperimentIndex>,
    ) {
        (self.upstream, self.attempts) = (Some(upstream), attempts);
        self.fallback = fallback;
        self.endpoint.clear();
        if let Some(endpoint) = endpoint {
            let is_v6 = endpoint.host.contains(':');
            let (before, behind) = if is_v6 { ("[", "]:") } else { ("", ":") };
            for part in [before, &*endpoint.host, behind] {
                self.endpoint.extend_from_slice(part.as_bytes());
            }
            digits(&mut self.endpoint, endpoint.port.into());
        }
    }

    /// So many bytes of the request's body have come.
    pub fn received(&mut self, bytes: u64) {
        self.bytes_in = bytes;
    }

    /// The head of the answer is ready: its status, and why watershed itself refuses.
    pub fn answered(&mut self, status: u16, error: Option<Cow<'static, str>>) {
        self.status = Some(status);
        self.error = error;
        self.head_after = Some(self.began.elapsed());
    }

    /// So many bytes of the answer's body were given to the client's connection.
    pub fn gave(&mut self, bytes: u64) {
        self.bytes_out += bytes;
    }

    /// The answer's body is watershed's own, of so many bytes.
    pub fn own(&mut self, bytes: u64) {
        if !self.is_head {
            self.bytes_out = bytes;
        }
        self.end = ResponseEnd::Complete;
    }

    /// How it ends.
    pub fn ends(&mut self, end: ResponseEnd) {
        self.end = end;
    }

    /// Nobody has taken the answer's body yet.
    pub fn untaken(&mut self) {
        (self.bytes_out, self.end) = (0, ResponseEnd::Left);
    }
}

/// Logs what was refused before it could be read, and gives what is said of it.
pub fn refused(worker: &Rc<Worker>, client: IpAddr, code: ErrorCode) -> Vec<u8> {
    let snapshot = worker.snapshot();
    let (status, token) = (code.status(), code.token());
    let tags = policy::correlation(
        &snapshot.plan,
        &HeaderMap::new(),
        false,
        crate::journal::system_ms(),
    );
    let id = tags.id.as_ref().map(RequestId::as_bytes);
    let id = id.and_then(|id| std::str::from_utf8(id).ok());
    if snapshot.plan.access_log.is_some() {
        let mut entry = LogEntry::empty(worker, &snapshot, Instant::now());
        entry.line = begun_line(client);
        text(&mut entry.line, ",\"request_id\":", id);
        (entry.status, entry.error) = (Some(status.as_u16()), Some(token.into()));
        entry.bytes_out = error_response::text(status, token).len() as u64;
        entry.end = ResponseEnd::Complete;
    }
    error_response::response(code, id)
}

impl Drop for LogEntry {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        self.log(took);
        if let Some(trail) = self.trail.take() {
            self.export(trail, took);
        }
    }
}

impl LogEntry {
    fn log(&mut self, took: Duration) {
        let failed = self.error.is_some() || self.status.is_some_and(|status| status >= 500);
        let broken = matches!(self.end, ResponseEnd::Broken | ResponseEnd::Late);
        if !self.logged || !(self.sampled || failed || broken) {
            return;
        }
        let Some(lines) = &self.worker.log else {
            return;
        };
        let plan = &*self.snapshot.plan;
        let line = &mut self.line;
        if let Some(experiment) = self.fallback {
            text(
                line,
                ",\"fallback\":",
                Some(&plan.experiment(experiment).name),
            );
        }
        if let Some(upstream) = self.upstream {
            text(line, ",\"upstream\":", Some(&plan.upstream(upstream).name));
        }
        bytes(
            line,
            ",\"endpoint\":",
            Some(&*self.endpoint).filter(|it| !it.is_empty()),
        );
        number(line, ",\"attempts\":", self.attempts.into());
        if let Some(status) = self.status {
            number(line, ",\"status\":", status.into());
        }
        text(line, ",\"error\":", self.error.as_deref());
        text(line, ",\"end\":", Some(self.end.word()));
        number(line, ",\"bytes_in\":", self.bytes_in);
        number(line, ",\"bytes_out\":", self.bytes_out);
        if let Some(after) = self.head_after {
            milliseconds(line, ",\"head_ms\":", after);
        }
        milliseconds(line, ",\"total_ms\":", took);
        line.extend_from_slice(b"}\n");
        self.worker.write_time(&mut line[TIME]);
        lines.push(line);
    }

    /// Gives away all that is known.
    fn export(&mut self, mut trail: Box<SpanRecorder>, took: Duration) {
        let plan = &*self.snapshot.plan;
        let exchange = &mut trail.exchange;
        exchange.took = took;
        exchange.status = self.status;
        exchange.error = self.error.take().map(Cow::into_owned);
        exchange.end = self.end.word();
        let fallback = self.fallback.map(|it| plan.experiment(it).name.to_string());
        exchange.fallback = fallback;
        let upstream = self.upstream.map(|it| plan.upstream(it).name.to_string());
        exchange.upstream = upstream;
        trail.give();
    }
}

/// Whether a request that lies here among all is logged.
fn lot(log: &AccessLog, place: impl FnOnce() -> f64) -> bool {
    let share = log.sample.get();
    share >= 1.0 || place() < share
}

fn begun_line(client: IpAddr) -> Vec<u8> {
    let mut line = Vec::with_capacity(LINE_BYTES);
    line.extend_from_slice(BEGIN);
    line.extend_from_slice(b",\"client\":\"");
    match client {
        IpAddr::V4(address) => {
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    line.push(b'.');
                }
                digits(&mut line, octet.into());
            }
        }
        // A vector takes all that is written.
        IpAddr::V6(address) => drop(write!(line, "{address}")),
    }
    line.push(b'"');
    line
}

/// Adds a number, behind its key as it is written: `,"status":`.
fn number(line: &mut Vec<u8>, key: &str, number: u64) {
    line.extend_from_slice(key.as_bytes());
    digits(line, number);
}

fn digits(line: &mut impl Extend<u8>, number: u64) {
    let (mut text, mut rest, mut first) = ([0; 20], number, 20);
    loop {
        first -= 1;
        text[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    line.extend(text[first..].iter().copied());
}

/// To the microsecond.
fn milliseconds(line: &mut Vec<u8>, key: &str, time: Duration) {
    let us = time.as_micros() as u64;
    number(line, key, us / 1000);
    let rest = us % 1000;
    if rest > 0 {
        let digit = |value: u64| b'0' + (value % 10) as u8;
        line.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
    }
}

fn text(line: &mut Vec<u8>, key: &str, text: Option<&str>) {
    bytes(line, key, text.map(str::as_bytes));
}

/// Adds a text of a client's, cut where it is too long; what is no UTF-8 is marked.
fn bytes(line: &mut Vec<u8>, key: &str, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else {
        return;
    };
    let bytes = &bytes[..bytes.len().min(TEXT_BYTES_MAX)];
    line.reserve(key.len() + bytes.len() + 2);
    line.extend_from_slice(key.as_bytes());
    if is_plain(bytes) {
        line.push(b'"');
        line.extend_from_slice(bytes);
        line.push(b'"');
    } else {
        // A vector takes all that is written.
        let _ = serde_json::to_writer(&mut *line, &String::from_utf8_lossy(bytes));
    }
}

/// Whether these are visible characters and spaces that JSON has as they are.
fn is_plain(bytes: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGH: u64 = ONES * 0x80;
    // The high bit of each byte that is zero, of eight that have none: a sum of seven bits carries
    // nothing into the next byte.
    let zeros = |eight: u64| !(eight + ONES * 0x7f) & HIGH;
    let special = |eight: u64| {
        let seven = eight & !HIGH;
        let control = !(seven + ONES * 0x60);
        let is = |byte: u8| zeros(seven ^ (ONES * u64::from(byte)));
        (control | eight) & HIGH | is(b'"') | is(b'\\') | is(0x7f)
    };
    let (chunks, rest) = bytes.as_chunks::<8>();
    let mut last = [b' '; 8];
    last[..rest.len()].copy_from_slice(rest);
    let chunks = chunks.iter().chain([&last]);
    chunks.fold(0, |found, eight| {
        found | special(u64::from_le_bytes(*eight))
    }) == 0
}

/// A user's ID, hashed with keys of this process's own (SipHash, 128 bits) where the file gives
/// none: so its lines tell users apart, and nobody can tell who they are.
fn hashed(id: &[u8]) -> [u8; 32] {
    static KEYS: OnceLock<[RandomState; 2]> = OnceLock::new();
    let keys = KEYS.get_or_init(|| [RandomState::new(), RandomState::new()]);
    let mut text = [0; 32];
    for (text, key) in text.chunks_exact_mut(16).zip(keys) {
        let mut rest = key.hash_one(id);
        for digit in text {
            *digit = b"0123456789abcdef"[(rest & 15) as usize];
            rest >>= 4;
        }
    }
    text
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_11 => "HTTP/1.1",
        _ => "HTTP/1.0",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(value: &[u8]) -> Vec<u8> {
        let mut line = Vec::new();
        bytes(&mut line, "", Some(value));
        line
    }

    proptest! {
        #[test]
        fn text_is_written_as_json_writes_it(text in any::<String>()) {
            let read: String = serde_json::from_slice(&written(text.as_bytes())).unwrap();
            let end = text.len().min(TEXT_BYTES_MAX);
            prop_assert_eq!(read, String::from_utf8_lossy(&text.as_bytes()[..end]));
        }
    }

    #[test]
    fn only_plain_bytes_are_copied() {
        for byte in 0..=255_u8 {
            let expected = (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
            for place in 0..11 {
                let mut text = *b"0123456789a";
                text[place] = byte;
                assert_eq!(is_plain(&text), expected, "{byte} at {place}");
            }
        }
    }

    #[test]
    fn numbers_are_written_whole() {
        for (us, expected) in [
            (0, "0"),
            (999, "0.999"),
            (1000, "1"),
            (12_030, "12.030"),
            (u64::MAX, "18446744073709551.615"),
        ] {
            let mut line = Vec::new();
            milliseconds(&mut line, "", Duration::from_micros(us));
            assert_eq!(String::from_utf8(line).unwrap(), expected);
        }
    }

    #[test]
    fn hashes_tell_users_apart() {
        assert_eq!(hashed(b"a"), hashed(b"a"));
        assert_ne!(hashed(b"a"), hashed(b"b"));
        assert!(hashed(b"a").iter().all(u8::is_ascii_hexdigit));
    }
}
