//! Posts the payloads of one destination, and reads its responses.

use super::payload::Payload;
use crate::config::plan::{Destination, DestinationFormat};
use crate::notify::sign;
use crate::store::chain;
use crate::upstream::{PostClient, PostError, PostResponse, retry_after};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::Value;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long one request may take, from the connection to the end of the response.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(10);
/// The longest delay that a destination can ask for with `Retry-After`.
const ASKED_MAX: Duration = Duration::from_secs(3600);
/// The longest text of a destination's that is shown, in characters.
const SHOWN_MAX: usize = 200;

/// A client of one destination.
pub(super) struct DestinationClient {
    destination: Destination,
    client: PostClient,
}

/// What became of a payload.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Posted {
    /// The destination has it.
    Accepted(PartlyRefused),
    /// The destination says that something in it is wrong or too large.
    Refused(String),
    /// It may be sent again.
    Failed(PostFailure),
}

/// Messages of an accepted payload that the destination did not take.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PartlyRefused {
    /// How many.
    pub count: u64,
    /// Why.
    pub why: String,
}

/// Why a payload was not delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PostFailure {
    /// Why, with the fix.
    pub why: String,
    /// How long the destination asks to wait.
    pub asked: Duration,
}

impl PostFailure {
    /// A destination that refuses whatever it gets.
    pub(super) fn of_refusal(why: &str) -> PostFailure {
        PostFailure {
            why: format!("{why}; correct its `address` and its key"),
            asked: Duration::ZERO,
        }
    }
}

impl DestinationClient {
    /// Makes a client, which connects when it is used.
    pub(super) fn of(destination: &Destination) -> DestinationClient {
        DestinationClient {
            destination: destination.clone(),
            client: PostClient::to(destination.target.endpoint.clone()),
        }
    }

    /// Returns the destination.
    pub(super) fn destination(&self) -> &Destination {
        &self.destination
    }

    /// Posts a payload.
    pub(super) async fn post(&self, payload: &Payload) -> Posted {
        let sent = tokio::time::timeout(ATTEMPT_WITHIN, self.send(payload)).await;
        match sent {
            Ok(Ok(response)) if response.status.is_success() => {
                Posted::Accepted(self.partly_refused(&response))
            }
            Ok(Ok(response)) => refused(&response),
            Ok(Err(error)) => failed(format!(
                "{}; start it, or correct its `address`",
                chain(&*error)
            )),
            Err(_) => failed(format!("no response within {ATTEMPT_WITHIN:?}")),
        }
    }

    async fn send(&self, payload: &Payload) -> Result<PostResponse, PostError> {
        let Destination {
            target,
            headers,
            format,
            ..
        } = &self.destination;
        let body = payload.body();
        let mut request = Request::post(target.path.as_str())
            .header(HOST, &target.host)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("watershed/", env!("CARGO_PKG_VERSION")));
        if let Some(login) = &target.authorization {
            request = request.header(AUTHORIZATION, login);
        }
        if let DestinationFormat::Webhook { key } = format {
            let (id, now_s) = (payload.id(), now_s());
            request = request
                .header("webhook-id", &id)
                .header("webhook-timestamp", now_s);
            let signature = key.as_ref().and_then(|key| sign(key, &id, now_s, &body));
            if let Some(signature) = signature {
                request = request.header("webhook-signature", signature);
            }
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        self.client
            .send(request.body(Full::new(body.into()))?)
            .await
    }

    /// A collector may accept a request, and keep only a part of it.
    fn partly_refused(&self, response: &PostResponse) -> PartlyRefused {
        let body = response.body.as_ref().ok();
        let answer: Option<Value> = body.and_then(|body| serde_json::from_slice(body).ok());
        let partial = answer.map(|mut answer| answer["partialSuccess"].take());
        let Some(partial) = partial.filter(|_| self.is_collector()) else {
            return PartlyRefused::default();
        };
        // A number of 64 bits is a text in the JSON of Protocol Buffers.
        let rejected = &partial["rejectedLogRecords"];
        let count = rejected.as_str().and_then(|text| text.parse().ok());
        PartlyRefused {
            count: count.or(rejected.as_u64()).unwrap_or(0),
            why: shown(partial["errorMessage"].as_str().unwrap_or_default()),
        }
    }

    fn is_collector(&self) -> bool {
        let format = &self.destination.format;
        matches!(format, DestinationFormat::OpenTelemetry { .. })
    }
}

fn failed(why: String) -> Posted {
    Posted::Failed(PostFailure {
        why,
        asked: Duration::ZERO,
    })
}

fn refused(response: &PostResponse) -> Posted {
    let status = response.status;
    let advice = match status {
        StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNPROCESSABLE_ENTITY => {
            let body = response.body.as_deref().unwrap_or_default();
            let text = shown(&String::from_utf8_lossy(body));
            return Posted::Refused(match text.is_empty() {
                true => format!("it responds {status}"),
                false => format!("it responds {status}: {text}"),
            });
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "; correct its key",
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::GONE => {
            "; correct its `address`"
        }
        status if status.is_redirection() => "; write the final address at `address`",
        _ => "",
    };
    let asked = retry_after(&response.headers, SystemTime::now());
    Posted::Failed(PostFailure {
        why: format!("it responds {status}{advice}"),
        asked: asked.unwrap_or_default().min(ASKED_MAX),
    })
}

/// The beginning of a text, on one line.
fn shown(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().take(SHOWN_MAX).collect()
}

fn now_s() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}
