//! Messages in the formats of destinations, as bodies of requests. PURE.

mod google_analytics;
mod library;
mod opentelemetry;
mod posthog;
mod requests;
mod segment;
mod snowplow;
mod webhook;

pub(super) use requests::Payload;

use super::message::Message;
use crate::config::plan::DestinationFormat;
use serde_json::Value;

/// The most messages of one request.
const MESSAGES_MAX: usize = 500;

/// Returns the requests of some messages, in order.
pub(super) fn payloads(format: &DestinationFormat, messages: &[Message<'_>]) -> Vec<Payload> {
    match format {
        DestinationFormat::Segment => {
            let frame = ("{\"batch\":[".to_owned(), "]}".to_owned());
            divided(&frame, messages, segment::item)
        }
        DestinationFormat::PostHog { api_key } => {
            let key = Value::from(api_key.reveal());
            let frame = (format!("{{\"api_key\":{key},\"batch\":["), "]}".to_owned());
            divided(&frame, messages, posthog::item)
        }
        DestinationFormat::GoogleAnalytics => google_analytics::payloads(messages),
        DestinationFormat::Snowplow { app_id } => {
            let schema = Value::from(snowplow::SCHEMA);
            let frame = (format!("{{\"schema\":{schema},\"data\":["), "]}".to_owned());
            divided(&frame, messages, |message| snowplow::item(app_id, message))
        }
        DestinationFormat::Webhook { .. } => {
            let frame = ("{\"batch\":[".to_owned(), "]}".to_owned());
            divided(&frame, messages, webhook::item)
        }
        DestinationFormat::OpenTelemetry { service } => {
            let frame = opentelemetry::frame(service);
            divided(&frame, messages, opentelemetry::item)
        }
    }
}

fn divided<'a>(
    frame: &(String, String),
    messages: &[Message<'a>],
    item: impl Fn(&Message<'a>) -> Value,
) -> Vec<Payload> {
    let items = messages.iter();
    let items: Vec<_> = items.map(|it| (it.id, item(it).to_string())).collect();
    Payload::divided(frame, &items, MESSAGES_MAX)
}
