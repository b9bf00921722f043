//! What watershed says itself: one `match` turns a refusal into a response.

use http::StatusCode;
use http::header::HeaderName;

/// Names why watershed answered itself.
pub const ERROR_HEADER: HeaderName = HeaderName::from_static("watershed-error");

/// Why a request was not answered by an upstream.
#[derive(Debug, thiserror::Error)]
#[error("{reason:?}")]
pub struct Refusal {
    /// What happened.
    pub reason: Reason,
    /// What said so.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Whose fault a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The client's.
    Client,
    /// The upstream's.
    Upstream,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.terms().1)]
pub enum Reason {
    /// A head that is not one.
    Malformed,
    /// No `Host`, several, or one that is none.
    Host,
    /// A target that a reverse proxy cannot forward.
    Target,
    /// A `Content-Length` that is none, or more than one.
    Length,
    /// A `Transfer-Encoding` other than `chunked`, or beside a length.
    Coding,
    /// A chunk that is not framed as it should be.
    Chunk,
    /// The client stopped in the middle of a head.
    Incomplete,
    /// The head did not come in time.
    HeadTimedOut,
    /// The body did not come on in time.
    BodyTimedOut,
    /// More requests than one client may send.
    TooMany,
    /// No room for one more connection, of this client or of any.
    Full,
    /// The target is longer than the limit.
    TargetTooLong,
    /// The head is larger than the limit.
    HeadTooLong,
    /// The body is longer than the limit.
    BodyTooLong,
    /// The client's body broke off or is wrongly framed.
    BodyBroken,
    /// The upstream's name does not resolve.
    Unresolved,
    /// The upstream does not accept connections.
    Refused,
    /// The upstream speaks no TLS, or shows no certificate that is trusted.
    Distrusted,
    /// The upstream did not accept a connection in time.
    ConnectTimedOut,
    /// The upstream has as many connections as it may have.
    Busy,
    /// No endpoint of the upstream is well.
    Down,
    /// The answer did not end in time.
    TotalTimedOut,
    /// The upstream did not answer in time.
    ResponseTimedOut,
    /// The upstream broke off before the head of its answer, or sent none that can be read.
    Broken,
    /// The upstream's answer is unsound.
    Unsound,
}

impl Refusal {
    /// A refusal without a cause to tell.
    pub fn new(reason: Reason) -> Refusal {
        Refusal {
            reason,
            source: None,
        }
    }

    /// A refusal with its cause.
    pub fn because(
        reason: Reason,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Refusal {
        Refusal {
            reason,
            source: Some(source.into()),
        }
    }
}

impl Reason {
    /// The status, the token of `Watershed-Error`, and whose fault it is.
    pub fn terms(self) -> (StatusCode, &'static str, Blame) {
        match self {
            Reason::Malformed => (StatusCode::BAD_REQUEST, "malformed", Blame::Client),
            Reason::Host => (StatusCode::BAD_REQUEST, "host", Blame::Client),
            Reason::Full => (
                StatusCode::SERVICE_UNAVAILABLE,
                "too_many_connections",
                Blame::Client,
            ),
            Reason::Length => (StatusCode::BAD_REQUEST, "content_length", Blame::Client),
            Reason::Coding => (StatusCode::BAD_REQUEST, "transfer_encoding", Blame::Client),
            Reason::Chunk => (StatusCode::BAD_REQUEST, "chunk", Blame::Client),
            Reason::Incomplete => (StatusCode::BAD_REQUEST, "incomplete", Blame::Client),
            Reason::HeadTimedOut => (StatusCode::REQUEST_TIMEOUT, "head_timeout", Blame::Client),
            Reason::BodyTimedOut => (StatusCode::REQUEST_TIMEOUT, "body_timeout", Blame::Client),
            Reason::TooMany => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_requests",
                Blame::Client,
            ),
            Reason::Target => (StatusCode::BAD_REQUEST, "target", Blame::Client),
            Reason::TargetTooLong => (StatusCode::URI_TOO_LONG, "target_too_long", Blame::Client),
            Reason::HeadTooLong => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "head_too_long",
                Blame::Client,
            ),
            Reason::BodyTooLong => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_long",
                Blame::Client,
            ),
            Reason::BodyBroken => (StatusCode::BAD_REQUEST, "body_broken", Blame::Client),
            Reason::Unresolved => (
                StatusCode::BAD_GATEWAY,
                "upstream_unresolved",
                Blame::Upstream,
            ),
            Reason::Refused => (StatusCode::BAD_GATEWAY, "upstream_refused", Blame::Upstream),
            Reason::Distrusted => (
                StatusCode::BAD_GATEWAY,
                "upstream_distrusted",
                Blame::Upstream,
            ),
            Reason::ConnectTimedOut => (
                StatusCode::GATEWAY_TIMEOUT,
                "upstream_connect_timeout",
                Blame::Upstream,
            ),
            Reason::ResponseTimedOut => (
                StatusCode::GATEWAY_TIMEOUT,
                "upstream_response_timeout",
                Blame::Upstream,
            ),
            Reason::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream_busy",
                Blame::Upstream,
            ),
            Reason::Down => (
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream_down",
                Blame::Upstream,
            ),
            Reason::TotalTimedOut => (
                StatusCode::GATEWAY_TIMEOUT,
                "total_timeout",
                Blame::Upstream,
            ),
            Reason::Broken => (StatusCode::BAD_GATEWAY, "upstream_broken", Blame::Upstream),
            Reason::Unsound => (StatusCode::BAD_GATEWAY, "upstream_unsound", Blame::Upstream),
        }
    }
}

/// A refusal as bytes, with the request's ID. Behind one that is the client's fault the connection is closed: what follows
/// cannot be trusted to be where it seems.
pub fn words(reason: Reason, id: Option<&str>) -> Vec<u8> {
    let (status, token, blame) = reason.terms();
    let text = text(status, token);
    let phrase = status.canonical_reason().unwrap_or_default();
    let close = match blame {
        Blame::Client => "Connection: close\r\n",
        Blame::Upstream => "",
    };
    let later = match is_for_later(reason) {
        true => "Retry-After: 1\r\n",
        false => "",
    };
    let id = id.map_or(String::new(), |id| format!("X-Request-Id: {id}\r\n"));
    format!(
        "HTTP/1.1 {} {phrase}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Watershed-Error: {token}\r\n{id}{later}{close}\r\n{text}",
        status.as_u16(),
        text.len()
    )
    .into_bytes()
}

/// Whether the same request may be answered soon.
fn is_for_later(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::TooMany | Reason::Full | Reason::Busy | Reason::Down
    )
}

/// What a refusal says to people.
pub fn text(status: StatusCode, token: &str) -> String {
    let phrase = status.canonical_reason().unwrap_or_default();
    format!("{} {phrase}: {token}\n", status.as_u16())
}
