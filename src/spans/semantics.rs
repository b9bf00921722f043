//! An exchange as spans, by OpenTelemetry's semantic conventions for HTTP
//! (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>). PURE.

use super::exchange::{Attempt, Exchange, Trace};
use http::uri::Authority;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Array, InstrumentationScope, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use std::time::UNIX_EPOCH;

/// Methods that name spans; any other could be made up by a client.
const METHODS: &[&str] = &[
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE",
];

/// The span of the request, and below it one for each time that it was sent.
pub fn spans(exchange: Exchange, scope: &InstrumentationScope) -> Vec<SpanData> {
    let mut all = Vec::with_capacity(1 + exchange.attempts.len());
    for (index, attempt) in exchange.attempts.iter().enumerate() {
        all.push(client(&exchange, attempt, index, scope));
    }
    all.push(server(exchange, scope));
    all
}

fn server(exchange: Exchange, scope: &InstrumentationScope) -> SpanData {
    let failure = failure(&exchange);
    let name = name(&exchange.method);
    let mut has = Attributes::default();
    has.method(&exchange.method);
    has.text("url.scheme", if exchange.secure { "https" } else { "http" });
    let (path, query) = parted(&exchange.path);
    has.text("url.path", path.to_owned());
    has.some("url.query", query.map(str::to_owned));
    let host: Option<Authority> = exchange.host.as_ref().and_then(|host| host.parse().ok());
    if let Some(host) = host {
        has.text("server.address", bare(host.host()).to_owned());
        has.number("server.port", host.port_u16());
    }
    has.text("client.address", exchange.client.to_string());
    has.text("network.protocol.version", exchange.version);
    has.some("user_agent.original", exchange.user_agent);
    has.number("http.response.status_code", exchange.status);
    has.some("error.type", failure.clone());
    if let Some((experiment, group)) = exchange.group {
        has.text("watershed.experiment", experiment);
        has.text("watershed.group", group);
    }
    has.list("watershed.experiments", exchange.experiments.as_deref());
    has.some("watershed.assigned_by", exchange.assigned_by);
    has.some("watershed.upstream", exchange.upstream);
    has.some("watershed.fallback", exchange.fallback);
    has.some("watershed.error", exchange.error);
    has.text("watershed.end", exchange.end);
    SpanData {
        span_context: context(&exchange.trace, exchange.span),
        parent_span_id: SpanId::from(exchange.trace.parent.unwrap_or_default()),
        parent_span_is_remote: exchange.trace.parent.is_some(),
        span_kind: SpanKind::Server,
        name: name.into(),
        start_time: UNIX_EPOCH + exchange.began,
        end_time: UNIX_EPOCH + exchange.began + exchange.took,
        attributes: has.0,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: status(failure.is_some()),
        instrumentation_scope: scope.clone(),
    }
}

fn client(
    exchange: &Exchange,
    attempt: &Attempt,
    index: usize,
    scope: &InstrumentationScope,
) -> SpanData {
    let began = UNIX_EPOCH + exchange.began + attempt.after;
    let rest = exchange.took.saturating_sub(attempt.after);
    let mut has = Attributes::default();
    has.method(&exchange.method);
    if let Some((scheme, host, port)) = &attempt.endpoint {
        let path = &exchange.path;
        let full = match host.contains(':') {
            true => format!("{scheme}://[{host}]:{port}{path}"),
            false => format!("{scheme}://{host}:{port}{path}"),
        };
        has.text("url.full", full);
        has.text("server.address", host.clone());
        has.number("server.port", Some(*port));
    }
    has.some("network.protocol.version", attempt.version);
    has.number("http.response.status_code", attempt.status);
    let again = u16::try_from(index).ok().filter(|index| *index > 0);
    has.number("http.request.resend_count", again);
    let failure = broken(exchange, attempt);
    has.some("error.type", failure.clone());
    has.text("watershed.upstream", attempt.upstream.clone());
    SpanData {
        span_context: context(&exchange.trace, attempt.span),
        parent_span_id: SpanId::from(exchange.span),
        parent_span_is_remote: false,
        span_kind: SpanKind::Client,
        name: name(&exchange.method).into(),
        start_time: began,
        end_time: began + attempt.took.unwrap_or(rest),
        attributes: has.0,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: status(failure.is_some()),
        instrumentation_scope: scope.clone(),
    }
}

/// Why the server's span failed. What is the client's fault is none of its failures.
fn failure(exchange: &Exchange) -> Option<String> {
    match exchange.status {
        Some(status) if status >= 500 => {
            let token = exchange.error.clone();
            Some(token.unwrap_or_else(|| status.to_string()))
        }
        _ if exchange.end == "upstream_broke_off" => Some(exchange.end.to_owned()),
        _ => None,
    }
}

/// Why a client's span failed: to it answers of 4xx are failures, too.
fn broken(exchange: &Exchange, attempt: &Attempt) -> Option<String> {
    match (attempt.error, attempt.status) {
        (Some(error), _) => Some(error.to_owned()),
        (None, Some(status)) if status >= 400 => Some(status.to_string()),
        // Ended with the request, in whichever way that did.
        (None, Some(_)) => {
            let broken = attempt.took.is_none() && exchange.end != "complete";
            broken.then(|| exchange.end.to_owned())
        }
        (None, None) => {
            let token = exchange.error.clone();
            Some(token.unwrap_or_else(|| exchange.end.to_owned()))
        }
    }
}

fn status(failed: bool) -> Status {
    match failed {
        true => Status::error(""),
        false => Status::Unset,
    }
}

fn context(trace: &Trace, span: u64) -> SpanContext {
    let state = trace.state.as_deref().and_then(|text| text.parse().ok());
    SpanContext::new(
        TraceId::from(trace.id),
        SpanId::from(span),
        TraceFlags::new(trace.flags),
        false,
        state.unwrap_or(TraceState::NONE),
    )
}

fn name(method: &str) -> String {
    match METHODS.contains(&method) {
        true => method.to_owned(),
        false => "HTTP".to_owned(),
    }
}

fn parted(path: &str) -> (&str, Option<&str>) {
    match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    }
}

fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn text(&mut self, name: &'static str, value: impl Into<StringValue>) {
        let value: StringValue = value.into();
        self.0.push(KeyValue::new(name, value));
    }

    fn some(&mut self, name: &'static str, value: Option<impl Into<StringValue>>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    fn number(&mut self, name: &'static str, value: Option<u16>) {
        if let Some(value) = value {
            self.0.push(KeyValue::new(name, i64::from(value)));
        }
    }

    fn list(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            let all = value.split(',').map(|one| one.to_owned().into()).collect();
            self.0
                .push(KeyValue::new(name, Value::Array(Array::String(all))));
        }
    }

    fn method(&mut self, method: &str) {
        if METHODS.contains(&method) {
            return self.text("http.request.method", method.to_owned());
        }
        self.text("http.request.method", "_OTHER");
        if !method.is_empty() {
            self.text("http.request.method_original", method.to_owned());
        }
    }
}
