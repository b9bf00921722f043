//! An exchange as spans, by OpenTelemetry's semantic conventions for HTTP
//! (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>). PURE.

use super::sampled_request::{Attempt, SampledRequest, Trace};
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
pub(super) fn spans(exchange: SampledRequest, scope: &InstrumentationScope) -> Vec<SpanData> {
    let mut all = Vec::with_capacity(1 + exchange.attempts.len());
    for (index, attempt) in exchange.attempts.iter().enumerate() {
        all.push(client(&exchange, attempt, index, scope));
    }
    all.push(server(exchange, scope));
    all
}

fn server(exchange: SampledRequest, scope: &InstrumentationScope) -> SpanData {
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
    exchange: &SampledRequest,
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
fn failure(exchange: &SampledRequest) -> Option<String> {
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
fn broken(exchange: &SampledRequest, attempt: &Attempt) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;
    use std::time::Duration;

    fn exchange() -> SampledRequest {
        SampledRequest {
            trace: Trace {
                id: 1,
                parent: Some(2),
                flags: 1,
                state: Some("a=1".to_owned()),
            },
            span: 3,
            began: Duration::from_secs(10),
            took: Duration::from_secs(4),
            secure: true,
            client: IpAddr::from([192, 0, 2, 1]),
            method: "GET".to_owned(),
            host: Some("a.example:81".to_owned()),
            path: "/a?b=c".to_owned(),
            version: "2",
            user_agent: None,
            experiments: Some("x=y,z=w".to_owned()),
            group: Some(("z".to_owned(), "w".to_owned())),
            assigned_by: Some("hash"),
            fallback: None,
            upstream: Some("one".to_owned()),
            status: Some(200),
            error: None,
            end: "complete",
            attempts: Vec::new(),
        }
    }

    fn attempt(status: Option<u16>, error: Option<&'static str>) -> Attempt {
        Attempt {
            span: 4,
            after: Duration::from_secs(1),
            took: error.map(|_| Duration::from_secs(1)),
            upstream: "one".to_owned(),
            endpoint: Some(("http", "::1".to_owned(), 81)),
            version: status.map(|_| "1.1"),
            status,
            error,
        }
    }

    fn made(exchange: SampledRequest) -> Vec<SpanData> {
        spans(exchange, &InstrumentationScope::builder("test").build())
    }

    fn value(span: &SpanData, name: &str) -> Option<String> {
        let mut found = span.attributes.iter().filter(|it| it.key.as_str() == name);
        let (first, None) = (found.next(), found.next()) else {
            panic!("{name} stands there twice");
        };
        first.map(|it| it.value.to_string())
    }

    /// What the last attempt's span and the request's own say went wrong.
    #[track_caller]
    fn wrong(exchange: SampledRequest, client: Option<&str>, server: Option<&str>) {
        let spans = made(exchange);
        let [.., last, own] = &spans[..] else {
            panic!("{spans:?}");
        };
        for (span, expected) in [(last, client), (own, server)] {
            assert_eq!(value(span, "error.type").as_deref(), expected);
            let failed = span.status != Status::Unset;
            assert_eq!(failed, expected.is_some(), "{span:?}");
        }
    }

    #[test]
    fn spans_hang_together_in_time_and_by_name() {
        let mut exchange = exchange();
        exchange.attempts = vec![
            attempt(None, Some("upstream_broken")),
            attempt(Some(200), None),
        ];
        exchange.attempts[1].after = Duration::from_secs(2);
        let spans = made(exchange);
        let at = |span: &SpanData| {
            let since =
                |time: std::time::SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_secs();
            (since(span.start_time), since(span.end_time))
        };
        assert_eq!(
            spans.iter().map(at).collect::<Vec<_>>(),
            [(11, 12), (12, 14), (10, 14)]
        );
        let parents: Vec<_> = spans.iter().map(|span| span.parent_span_id).collect();
        assert_eq!(parents, [3, 3, 2].map(SpanId::from));
        assert!(spans[2].parent_span_is_remote && !spans[0].parent_span_is_remote);
        for span in &spans {
            assert_eq!(span.span_context.trace_id(), TraceId::from(1));
            assert_eq!(span.span_context.trace_state().header(), "a=1");
        }
        assert_eq!(value(&spans[0], "http.request.resend_count"), None);
        assert_eq!(
            value(&spans[1], "http.request.resend_count").as_deref(),
            Some("1")
        );
        assert_eq!(
            value(&spans[1], "url.full").as_deref(),
            Some("http://[::1]:81/a?b=c")
        );
        let own = |name: &str| value(&spans[2], name);
        assert_eq!(own("url.path").as_deref(), Some("/a"));
        assert_eq!(own("url.query").as_deref(), Some("b=c"));
        assert_eq!(own("server.port").as_deref(), Some("81"));
        assert_eq!(
            own("watershed.experiments").as_deref(),
            Some("[\"x=y\",\"z=w\"]")
        );
        assert_eq!(own("watershed.experiment").as_deref(), Some("z"));
    }

    #[test]
    fn what_went_wrong_is_whose_fault_it_is() {
        let with = |status: Option<u16>, error: Option<&str>, end, attempt| {
            let mut exchange = exchange();
            (exchange.status, exchange.end) = (status, end);
            exchange.error = error.map(str::to_owned);
            exchange.attempts = vec![attempt];
            exchange
        };
        let fine = with(Some(200), None, "complete", attempt(Some(200), None));
        wrong(fine, None, None);
        let missing = with(Some(404), None, "complete", attempt(Some(404), None));
        wrong(missing, Some("404"), None);
        let failing = with(Some(500), None, "complete", attempt(Some(500), None));
        wrong(failing, Some("500"), Some("500"));
        let down = with(
            Some(502),
            Some("upstream_refused"),
            "complete",
            attempt(None, Some("upstream_refused")),
        );
        wrong(down, Some("upstream_refused"), Some("upstream_refused"));
        let late = with(
            Some(504),
            Some("total_timeout"),
            "complete",
            attempt(None, None),
        );
        wrong(late, Some("total_timeout"), Some("total_timeout"));
        let broken = with(
            Some(200),
            None,
            "upstream_broke_off",
            attempt(Some(200), None),
        );
        wrong(
            broken,
            Some("upstream_broke_off"),
            Some("upstream_broke_off"),
        );
        let left = with(None, None, "client_left", attempt(None, None));
        wrong(left, Some("client_left"), None);
        let own = with(
            Some(413),
            Some("body_too_long"),
            "complete",
            attempt(None, Some("body_too_long")),
        );
        wrong(own, Some("body_too_long"), None);
    }

    #[test]
    fn what_clients_make_up_names_no_span() {
        let mut exchange = exchange();
        exchange.method = "get".to_owned();
        exchange.host = Some("a b".to_owned());
        exchange.trace.state = Some("no state".to_owned());
        let own = made(exchange).pop().unwrap();
        assert_eq!(own.name, "HTTP");
        assert_eq!(
            value(&own, "http.request.method").as_deref(),
            Some("_OTHER")
        );
        assert_eq!(
            value(&own, "http.request.method_original").as_deref(),
            Some("get")
        );
        assert_eq!(value(&own, "server.address"), None);
        assert_eq!(own.span_context.trace_state().header(), "");
    }
}
