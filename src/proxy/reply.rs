//! What watershed says itself: one `match` turns a refusal into an answer.

use super::body::Answer;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No `Host`, several, or one that is none.
    Host,
    /// A target that a reverse proxy cannot forward.
    Target,
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
    /// The upstream did not accept a connection in time.
    ConnectTimedOut,
    /// The upstream did not answer in time.
    ResponseTimedOut,
    /// The upstream broke off before the head of its answer, or sent none that can be read.
    Broken,
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
            Reason::Host => (StatusCode::BAD_REQUEST, "host", Blame::Client),
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
            Reason::Broken => (StatusCode::BAD_GATEWAY, "upstream_broken", Blame::Upstream),
        }
    }
}

/// The answer to a request that was refused.
pub fn refuse(reason: Reason) -> Response<Answer> {
    let (status, token, blame) = reason.terms();
    let text = format!(
        "{} {}: {token}\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default()
    );
    let mut response = Response::new(Answer::Own(Full::new(Bytes::from(text))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(ERROR_HEADER, HeaderValue::from_static(token));
    if blame == Blame::Client {
        // What follows on its connection cannot be trusted to be where it seems.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
