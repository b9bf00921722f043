//! One attempt to deliver a message.

use super::signature::sign;
use crate::config::plan::Webhook;
use crate::store::chain;
use crate::store::messages::PendingMessage;
use crate::upstream::{PostClient, PostError, PostResponse, retry_after};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::Value;
use std::time::{Duration, SystemTime};

/// How long one attempt may take, from the connection to the end of the response.
pub(super) const ATTEMPT_WITHIN: Duration = Duration::from_secs(10);
/// The outcome of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Delivery {
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

/// Sends a message.
pub(super) async fn post(webhook: &Webhook, message: &PendingMessage, now_s: u64) -> Delivery {
    match tokio::time::timeout(ATTEMPT_WITHIN, send(webhook, message, now_s)).await {
        Ok(Ok(response)) if response.status.is_success() => {
            // The status says that the receiver has the message, whatever becomes of the body.
            let body = response.body.ok();
            let answer: Option<Value> = body.and_then(|it| serde_json::from_slice(&it).ok());
            let confirms = answer.is_some_and(|answer| answer["confirm"] == true);
            Delivery::Delivered { confirms }
        }
        Ok(Ok(response)) => refused(&response),
        Ok(Err(error)) => failed(chain(&*error)),
        Err(_) => failed(format!("no response within {ATTEMPT_WITHIN:?}")),
    }
}

fn failed(why: String) -> Delivery {
    let asked = None;
    Delivery::Failed { why, asked }
}

fn refused(response: &PostResponse) -> Delivery {
    let status = response.status;
    if status == StatusCode::GONE {
        return Delivery::Unwanted;
    }
    let why = match status.is_redirection() {
        true => format!("it redirects ({status}): write the final address at `webhooks`"),
        false => format!("it responds {status}"),
    };
    let asked = retry_after(&response.headers, SystemTime::now());
    Delivery::Failed { why, asked }
}

async fn send(
    webhook: &Webhook,
    message: &PendingMessage,
    now_s: u64,
) -> Result<PostResponse, PostError> {
    let target = &webhook.target;
    let mut request = Request::post(target.path.as_str())
        .header(HOST, &target.host)
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("watershed/", env!("CARGO_PKG_VERSION")))
        .header("webhook-id", &message.id)
        .header("webhook-timestamp", now_s);
    if let Some(login) = &target.authorization {
        request = request.header(AUTHORIZATION, login);
    }
    let key = webhook.key.as_ref();
    if let Some(signature) = key.and_then(|key| sign(key, &message.id, now_s, &message.body)) {
        request = request.header("webhook-signature", signature);
    }
    let request = request.body(Full::new(Bytes::from(message.body.clone())))?;
    PostClient::to(target.endpoint.clone()).send(request).await
}
