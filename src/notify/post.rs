//! One attempt to deliver a message.

use super::signature::sign;
use crate::config::plan::{EndpointAddress, Webhook};
use crate::store::chain;
use crate::store::messages::PendingMessage;
use crate::tasks;
use crate::upstream::{RawConnection, Stream};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::error::Error;
use std::time::Duration;

/// How long one attempt may take, from the connection to the end of the response.
pub const ATTEMPT_WITHIN: Duration = Duration::from_secs(10);
/// The longest response that is read, in bytes.
const RESPONSE_BYTES_MAX: usize = 64 << 10;

/// The outcome of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The receiver has the message, and confirms it or not.
    Delivered {
        /// Whether its response is `{"confirm": true}`.
        confirms: bool,
    },
    /// The receiver wants no more messages (410).
    Unwanted,
    /// It may be tried again.
    Failed {
        /// Why.
        why: String,
        /// How long the receiver asks to wait.
        asked: Option<Duration>,
    },
}

type Failure = Box<dyn Error + Send + Sync>;

/// Sends a message. Redirects are not followed: they would send it to somebody whom the file does not name.
pub async fn post(webhook: &Webhook, message: &PendingMessage, now_s: u64) -> Delivery {
    let attempt = async {
        let response = send(webhook, message, now_s).await?;
        let status = response.status();
        if !status.is_success() {
            return Ok::<_, Failure>(refused(status, response.headers()));
        }
        let body = Limited::new(response.into_body(), RESPONSE_BYTES_MAX);
        // The status says that the receiver has the message, whatever becomes of the body.
        let body = body.collect().await.map(|body| body.to_bytes());
        let answer: Option<Value> = body.ok().and_then(|it| serde_json::from_slice(&it).ok());
        let confirms = answer.is_some_and(|answer| answer["confirm"] == true);
        Ok(Delivery::Delivered { confirms })
    };
    match tokio::time::timeout(ATTEMPT_WITHIN, attempt).await {
        Ok(Ok(attempt)) => attempt,
        Ok(Err(error)) => failed(chain(&*error)),
        Err(_) => failed(format!("no response within {ATTEMPT_WITHIN:?}")),
    }
}

fn failed(why: String) -> Delivery {
    let asked = None;
    Delivery::Failed { why, asked }
}

fn refused(status: StatusCode, headers: &HeaderMap) -> Delivery {
    if status == StatusCode::GONE {
        return Delivery::Unwanted;
    }
    let why = match status.is_redirection() {
        true => format!("it redirects ({status}): write the final address at `webhooks`"),
        false => format!("it responds {status}"),
    };
    let asked = headers.get(RETRY_AFTER).and_then(|it| it.to_str().ok());
    let asked = asked.and_then(|seconds| seconds.trim().parse().ok());
    Delivery::Failed {
        why,
        asked: asked.map(Duration::from_secs),
    }
}

async fn send(
    webhook: &Webhook,
    message: &PendingMessage,
    now_s: u64,
) -> Result<http::Response<Incoming>, Failure> {
    let mut request = Request::post(webhook.path.as_str())
        .header(HOST, &webhook.host)
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("watershed/", env!("CARGO_PKG_VERSION")))
        .header("webhook-id", &message.id)
        .header("webhook-timestamp", now_s);
    if let Some(login) = &webhook.authorization {
        request = request.header(AUTHORIZATION, login);
    }
    let key = webhook.key.as_ref();
    if let Some(signature) = key.and_then(|key| sign(key, &message.id, now_s, &message.body)) {
        request = request.header("webhook-signature", signature);
    }
    let request = request.body(Full::new(Bytes::from(message.body.clone())))?;
    let stream = connect(&webhook.endpoint).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the response, or when `sender` is dropped with this future.
    tasks::spawn("webhook-connection", connection);
    Ok(sender.send_request(request).await?)
}

async fn connect(endpoint: &EndpointAddress) -> Result<Stream, Failure> {
    let raw = RawConnection::to(endpoint).await?;
    Ok(Stream::open(raw, endpoint, true, None).await?)
}
