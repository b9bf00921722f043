//! Responses of watershed's own when a request cannot be answered by an upstream.

use crate::config::plan::FixedResponse;
use http::StatusCode;
use http::header::{HeaderName, RETRY_AFTER};

/// The response header that names the error.
pub(super) const ERROR_HEADER: HeaderName = HeaderName::from_static("watershed-error");

/// Why a request was not answered by an upstream.
#[derive(Debug, thiserror::Error)]
#[error("{code}")]
pub(super) struct ProxyError {
    /// What happened.
    pub code: ErrorCode,
    /// The error that caused it, for the log.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Who caused an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The client. Its connection is closed after the response: where the next request begins
    /// cannot be trusted.
    Client,
    /// The upstream.
    Upstream,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.token())]
pub enum ErrorCode {
    /// A request head that cannot be parsed.
    Malformed,
    /// `Host` is missing, repeated or invalid.
    Host,
    /// A target that a reverse proxy cannot forward.
    Target,
    /// `Content-Length` is invalid or repeated.
    Length,
    /// A `Transfer-Encoding` other than `chunked`, or beside a length.
    Coding,
    /// An invalid chunk.
    Chunk,
    /// The client closed in the middle of a head.
    Incomplete,
    /// The request's head did not arrive in time.
    HeadTimedOut,
    /// The request's body paused for too long.
    BodyTimedOut,
    /// The client exceeds `limits.rate`.
    TooMany,
    /// The limit of connections, of this client or of all, is reached.
    Full,
    /// The client speaks HTTP without TLS where TLS is spoken.
    PlainHttp,
    /// The target is longer than `limits.target`.
    TargetTooLong,
    /// The head is larger than `limits.head`, or has more fields than `limits.headers`.
    HeadTooLong,
    /// The body is longer than `limits.body`.
    BodyTooLong,
    /// The client's body ended early or is wrongly framed.
    BodyBroken,
    /// The endpoint's name does not resolve.
    Unresolved,
    /// The endpoint does not accept connections.
    Refused,
    /// The endpoint speaks no TLS, or shows a certificate that is not trusted.
    Distrusted,
    /// The endpoint did not accept a connection in time.
    ConnectTimedOut,
    /// The endpoint has as many connections as it may have.
    Busy,
    /// The upstream has no healthy endpoint.
    Down,
    /// The exchange exceeded `timeouts.total`.
    TotalTimedOut,
    /// The head of the response did not arrive in time.
    ResponseTimedOut,
    /// The upstream closed before the head of its response was complete.
    Broken,
    /// The upstream's response is invalid.
    Unsound,
    /// The upstream accepted a request for a WebSocket without switching protocols.
    NotUpgraded,
    /// The head of the response is larger than `limits.response_head`.
    ResponseHeadTooLong,
    /// The response has more header fields than `limits.response_headers`.
    TooManyResponseHeaders,
}

impl ProxyError {
    /// An error without a source.
    pub(super) fn new(code: ErrorCode) -> ProxyError {
        ProxyError { code, source: None }
    }

    /// An error with its source.
    pub(super) fn because(
        code: ErrorCode,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> ProxyError {
        ProxyError {
            code,
            source: Some(source.into()),
        }
    }
}

impl ErrorCode {
    /// The status of the response.
    pub fn status(self) -> StatusCode {
        self.terms().0
    }

    /// The value of `Watershed-Error`, which logs and metrics use, too.
    pub fn token(self) -> &'static str {
        self.terms().1
    }

    /// Who caused it.
    pub fn blame(self) -> Blame {
        self.terms().2
    }

    fn terms(self) -> (StatusCode, &'static str, Blame) {
        use Blame::{Client, Upstream};
        use ErrorCode::*;
        match self {
            Malformed => (StatusCode::BAD_REQUEST, "malformed", Client),
            Host => (StatusCode::BAD_REQUEST, "host", Client),
            Full => (
                StatusCode::SERVICE_UNAVAILABLE,
                "too_many_connections",
                Client,
            ),
            PlainHttp => (StatusCode::BAD_REQUEST, "plain_http", Client),
            Length => (StatusCode::BAD_REQUEST, "content_length", Client),
            Coding => (StatusCode::BAD_REQUEST, "transfer_encoding", Client),
            Chunk => (StatusCode::BAD_REQUEST, "chunk", Client),
            Incomplete => (StatusCode::BAD_REQUEST, "incomplete", Client),
            HeadTimedOut => (StatusCode::REQUEST_TIMEOUT, "head_timeout", Client),
            BodyTimedOut => (StatusCode::REQUEST_TIMEOUT, "body_timeout", Client),
            TooMany => (StatusCode::TOO_MANY_REQUESTS, "too_many_requests", Client),
            Target => (StatusCode::BAD_REQUEST, "target", Client),
            TargetTooLong => (StatusCode::URI_TOO_LONG, "target_too_long", Client),
            HeadTooLong => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "head_too_long",
                Client,
            ),
            BodyTooLong => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_long", Client),
            BodyBroken => (StatusCode::BAD_REQUEST, "body_broken", Client),
            Unresolved => (StatusCode::BAD_GATEWAY, "upstream_unresolved", Upstream),
            Refused => (StatusCode::BAD_GATEWAY, "upstream_refused", Upstream),
            Distrusted => (StatusCode::BAD_GATEWAY, "upstream_distrusted", Upstream),
            ConnectTimedOut => (
                StatusCode::GATEWAY_TIMEOUT,
                "upstream_connect_timeout",
                Upstream,
            ),
            ResponseTimedOut => (
                StatusCode::GATEWAY_TIMEOUT,
                "upstream_response_timeout",
                Upstream,
            ),
            Busy => (StatusCode::SERVICE_UNAVAILABLE, "upstream_busy", Upstream),
            Down => (StatusCode::SERVICE_UNAVAILABLE, "upstream_down", Upstream),
            TotalTimedOut => (StatusCode::GATEWAY_TIMEOUT, "total_timeout", Upstream),
            Broken => (StatusCode::BAD_GATEWAY, "upstream_broken", Upstream),
            Unsound => (StatusCode::BAD_GATEWAY, "upstream_unsound", Upstream),
            NotUpgraded => (StatusCode::BAD_GATEWAY, "upstream_not_upgraded", Upstream),
            ResponseHeadTooLong => (StatusCode::BAD_GATEWAY, "upstream_head_too_long", Upstream),
            TooManyResponseHeaders => (
                StatusCode::BAD_GATEWAY,
                "upstream_too_many_headers",
                Upstream,
            ),
        }
    }

    /// Whether the same request may succeed a moment later.
    fn is_temporary(self) -> bool {
        use ErrorCode::{Busy, Down, Full, TooMany};
        matches!(self, TooMany | Full | Busy | Down)
    }
}

/// The whole response to an error, with the request's ID. If the client is at fault, it says that
/// the connection will be closed.
pub(super) fn response(code: ErrorCode, id: Option<&str>) -> Vec<u8> {
    with_page(code, id, None)
}

/// The same with a page of the file in the place of the text.
pub(super) fn with_page(
    code: ErrorCode,
    id: Option<&str>,
    page: Option<&FixedResponse>,
) -> Vec<u8> {
    let (status, token, blame) = code.terms();
    let text = text(code);
    let body = page.map_or(text.as_bytes(), |page| &page.body);
    let fields = page.map_or(&[][..], |page| &page.fields);
    let phrase = status.canonical_reason().unwrap_or_default();
    let close = match blame {
        Blame::Client => "Connection: close\r\n",
        Blame::Upstream => "",
    };
    let says_when = fields.iter().any(|(name, _)| name == RETRY_AFTER);
    let retry = match code.is_temporary() && !says_when {
        true => "Retry-After: 1\r\n",
        false => "",
    };
    let id = id.map_or(String::new(), |id| format!("X-Request-Id: {id}\r\n"));
    let mut response = format!(
        "HTTP/1.1 {} {phrase}\r\nContent-Length: {}\r\nWatershed-Error: {token}\r\n{id}{retry}{close}",
        status.as_u16(),
        body.len()
    )
    .into_bytes();
    if page.is_none() {
        response.extend_from_slice(b"Content-Type: text/plain; charset=utf-8\r\n");
    }
    for (name, value) in fields {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        response.extend_from_slice(&[name, b": ", value, b"\r\n"].concat());
    }
    response.extend_from_slice(b"\r\n");
    response.extend_from_slice(body);
    response
}

/// The body of an error response.
pub(super) fn text(code: ErrorCode) -> String {
    let (status, token) = (code.status(), code.token());
    let phrase = status.canonical_reason().unwrap_or_default();
    let advice = match code {
        // People read it in a browser.
        ErrorCode::PlainHttp => {
            "This port speaks TLS only: use an address that begins with https://\n"
        }
        _ => "",
    };
    format!("{} {phrase}: {token}\n{advice}", status.as_u16())
}
