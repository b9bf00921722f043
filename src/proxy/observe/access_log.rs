//! The access log: one line of JSON for each request, written when the last byte of its response has
//! gone.

use crate::config::plan::{AccessLog, LogUser};
use crate::experiment::identity::{IdStorage, Visitor};
use crate::proxy::error_response::{self, ErrorCode};
use crate::proxy::exchange::Exchange;
use crate::proxy::observe::logged_request::TEXT_BYTES_MAX;
use crate::proxy::observe::progress::{ResponseEnd, Summary, whole_us};
use crate::proxy::observe::trace_context::{self, RequestId};
use crate::proxy::policy;
use crate::proxy::snapshot::{Snapshot, Worker};
use crate::telemetry::HttpProtocol;
use http::HeaderMap;
use smallvec::SmallVec;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

/// What most lines need, in bytes.
const LINE_BYTES: usize = 1024;
/// What a line begins with; the time is written into it.
const BEGIN: &[u8] = b"{\"timestamp\":\"___________________.______Z\"";
/// Where the time stands in it.
const TIME: std::ops::Range<usize> = 14..BEGIN.len() - 2;

impl ResponseEnd {
    /// As logs and spans write it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            ResponseEnd::Complete => "complete",
            ResponseEnd::Broken => "upstream_broke_off",
            ResponseEnd::Left => "client_left",
            ResponseEnd::Late => "total_timeout",
        }
    }
}

/// Logs an exchange that ends, if it is to be logged.
pub(crate) fn log(exchange: &Exchange<'_>, summary: &Summary) {
    let snapshot = &*exchange.snapshot;
    let (Some(log), Some(lines)) = (&snapshot.plan.access_log, &exchange.worker.log) else {
        return;
    };
    let Some((request, made)) = exchange.logged() else {
        return;
    };
    let begun = exchange.begun_trace();
    let begun = begun.as_ref().and_then(|text| text.get(3..35));
    let trace = begun.or(request.trace.map(str::as_bytes));
    let id = made.or(request.id.map(str::as_bytes));
    if !is_sampled(log, (trace, id), summary) {
        return;
    }
    lines.write(|line| {
        line.reserve(LINE_BYTES);
        begin(line, exchange.worker, &request.client());
        text(line, ",\"request_id\":", id);
        text(line, ",\"trace_id\":", trace);
        plain(line, ",\"method\":", exchange.method.as_str().as_bytes());
        text(line, ",\"host\":", request.host);
        let target = match log.query {
            true => request.target,
            false => request.path,
        };
        let target = Some(target.as_bytes()).filter(|target| !target.is_empty());
        text(line, ",\"path\":", target);
        plain(line, ",\"protocol\":", summary.protocol.name().as_bytes());
        text(line, ",\"user_agent\":", request.user_agent);
        if let Some(visitor) = &exchange.visitor {
            user(line, log, snapshot, visitor);
        }
        experiments(line, exchange);
        end(line, snapshot, summary);
    });
}

/// Whether a request is logged. That follows from its trace or its ID, so that all who log it agree;
/// those that fail are all logged.
fn is_sampled(
    log: &AccessLog,
    (trace, id): (Option<&[u8]>, Option<&[u8]>),
    summary: &Summary,
) -> bool {
    let share = log.sample.get();
    let failed = summary.error.is_some() || summary.status.is_some_and(|status| status >= 500);
    if share >= 1.0 || failed || matches!(summary.end, ResponseEnd::Broken | ResponseEnd::Late) {
        return true;
    }
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let place = trace_context::lot(trace.and_then(text), id.and_then(text));
    place.unwrap_or_else(fastrand::f64) < share
}

/// Logs a request that was refused before it could be read. Returns its response.
pub(crate) fn refused(worker: &Worker, client: IpAddr, code: ErrorCode) -> Vec<u8> {
    let snapshot = worker.snapshot();
    let (status, token) = (code.status(), code.token());
    let now_ms = crate::journal::system_ms();
    let tags = policy::correlation(&snapshot.plan, &HeaderMap::new(), false, now_ms);
    let id = tags.id.as_ref().map(RequestId::as_bytes);
    if let (Some(_), Some(lines)) = (&snapshot.plan.access_log, &worker.log) {
        lines.write(|line| {
            begin(line, worker, client.to_string().as_bytes());
            text(line, ",\"request_id\":", id);
            let summary = Summary {
                protocol: HttpProtocol::Http11,
                upstream: None,
                endpoint: None,
                attempts: 0,
                fallback: None,
                status: Some(status.as_u16()),
                error: Some(token),
                head_us: None,
                took: Duration::ZERO,
                bytes_in: 0,
                bytes_out: error_response::text(code).len() as u64,
                end: ResponseEnd::Complete,
            };
            end(line, &snapshot, &summary);
        });
    }
    error_response::response(code, id.and_then(|id| std::str::from_utf8(id).ok()))
}

/// The user, as the file says that the log names users.
fn user(line: &mut Vec<u8>, log: &AccessLog, snapshot: &Snapshot, visitor: &Visitor<'_>) {
    let id = visitor.user();
    match log.user {
        LogUser::None => {}
        LogUser::Raw => text(line, ",\"user\":", Some(id.as_bytes())),
        LogUser::Hashed => match &snapshot.plan.identity.keep {
            // The hash that the store has, too.
            keep @ IdStorage::Hashed(_) => {
                text(line, ",\"user\":", Some(keep.of(id).id().as_bytes()));
            }
            IdStorage::Raw => plain(line, ",\"user\":", &hashed(id.as_bytes())),
        },
    }
}

/// The user's groups, and what put the user into the one that decided.
fn experiments(line: &mut Vec<u8>, exchange: &Exchange<'_>) {
    let mut groups = SmallVec::<[u8; 128]>::new();
    for inside in &exchange.assignment.inside {
        if !groups.is_empty() {
            groups.push(b',');
        }
        let words = &exchange.snapshot.plan_headers;
        let value = words.group(inside.experiment, inside.group);
        groups.extend_from_slice(value.as_bytes());
    }
    let groups = Some(&*groups).filter(|groups| !groups.is_empty());
    text(line, ",\"experiments\":", groups);
    if let Some(uncounted) = &exchange.uncounted {
        plain(line, ",\"not_counted\":", uncounted.why.name().as_bytes());
    }
    if let Some(inside) = exchange.assignment.deciding() {
        plain(line, ",\"assigned_by\":", inside.by.word().as_bytes());
    }
}

/// Where the request went, and what became of it.
fn end(line: &mut Vec<u8>, snapshot: &Snapshot, summary: &Summary) {
    let plan = &*snapshot.plan;
    if let Some(experiment) = summary.fallback {
        let name = plan.experiment(experiment).name.as_bytes();
        text(line, ",\"fallback\":", Some(name));
    }
    if let Some(upstream) = summary.upstream {
        let name = plan.upstream(upstream).name.as_bytes();
        text(line, ",\"upstream\":", Some(name));
    }
    if let Some(endpoint) = &summary.endpoint {
        text(line, ",\"endpoint\":", Some(endpoint.name.as_bytes()));
    }
    number(line, ",\"attempts\":", summary.attempts.into());
    if let Some(status) = summary.status {
        number(line, ",\"status\":", status.into());
    }
    if let Some(error) = summary.error {
        plain(line, ",\"error\":", error.as_bytes());
    }
    plain(line, ",\"end\":", summary.end.word().as_bytes());
    number(line, ",\"bytes_in\":", summary.bytes_in);
    number(line, ",\"bytes_out\":", summary.bytes_out);
    if let Some(head_us) = summary.head_us {
        milliseconds(line, ",\"head_ms\":", head_us);
    }
    milliseconds(line, ",\"total_ms\":", whole_us(summary.took));
    line.extend_from_slice(b"}\n");
}

/// The time, which is that of the end, and the client.
fn begin(line: &mut Vec<u8>, worker: &Worker, client: &[u8]) {
    let start = line.len();
    line.extend_from_slice(BEGIN);
    worker.write_time(&mut line[start..][TIME]);
    plain(line, ",\"client\":", client);
}

/// Adds a number, behind its key as it is written: `,"status":`. Inlined, so that the key is copied
/// without a call.
#[inline(always)]
fn number(line: &mut Vec<u8>, key: &str, number: u64) {
    line.extend_from_slice(key.as_bytes());
    digits(line, number);
}

fn digits(line: &mut Vec<u8>, number: u64) {
    if number < 10 {
        return line.push(b'0' + number as u8);
    }
    let (mut text, mut rest, mut first) = ([0; 20], number, 20);
    loop {
        first -= 1;
        text[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    line.extend_from_slice(&text[first..]);
}

/// To the microsecond.
fn milliseconds(line: &mut Vec<u8>, key: &str, us: u64) {
    number(line, key, us / 1000);
    let rest = us % 1000;
    if rest > 0 {
        let digit = |value: u64| b'0' + (value % 10) as u8;
        line.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
    }
}

/// Adds a text that JSON has as it is.
#[inline(always)]
fn plain(line: &mut Vec<u8>, key: &str, text: &[u8]) {
    line.extend_from_slice(key.as_bytes());
    line.push(b'"');
    line.extend_from_slice(text);
    line.push(b'"');
}

/// Adds a text of a client's, cut where it is too long; what is no UTF-8 is marked.
fn text(line: &mut Vec<u8>, key: &str, text: Option<&[u8]>) {
    let Some(text) = text else {
        return;
    };
    let text = &text[..text.len().min(TEXT_BYTES_MAX)];
    if is_plain(text) {
        return plain(line, key, text);
    }
    line.extend_from_slice(key.as_bytes());
    // A vector takes all that is written.
    let _ = serde_json::to_writer(&mut *line, &String::from_utf8_lossy(text));
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(value: &[u8]) -> Vec<u8> {
        let mut line = Vec::new();
        text(&mut line, "", Some(value));
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
            milliseconds(&mut line, "", us);
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
