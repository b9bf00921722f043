//! Messages in the formats of destinations, as bodies of requests. PURE.

mod google_analytics;
mod opentelemetry;
mod posthog;
mod segment;
mod snowplow;
mod webhook;

use super::message::Message;
use crate::config::plan::DestinationFormat;
use serde_json::Value;
use std::ops::Range;
use uuid::Uuid;

/// The most bytes of the messages of one request: below what all vendors take.
const BYTES_MAX: usize = 400 << 10;
/// The most messages of one request.
const MESSAGES_MAX: usize = 500;

/// The name and the version that messages carry.
const LIBRARY: &str = "watershed";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Messages that go in one request.
#[derive(Debug)]
pub struct Payload {
    /// What stands before and after the messages.
    frame: (String, String),
    /// Each message, with its ID.
    items: Vec<(Uuid, String)>,
}

impl Payload {
    /// Returns the IDs of its messages.
    pub fn ids(&self) -> impl Iterator<Item = Uuid> {
        self.items.iter().map(|(id, _)| *id)
    }

    /// Returns the body.
    pub fn body(&self) -> String {
        let (before, after) = &self.frame;
        let items: Vec<&str> = self.items.iter().map(|(_, item)| &**item).collect();
        format!("{before}{}{after}", items.join(","))
    }

    /// Returns an ID that the same messages always have together.
    pub fn id(&self) -> String {
        let first = self.ids().next().unwrap_or_default();
        let last = self.ids().last().unwrap_or_default();
        format!("{}-{}-{}", first.simple(), last.simple(), self.items.len())
    }

    /// Divides it into halves; `None` for a single message.
    pub fn halves(mut self) -> Result<(Payload, Payload), Payload> {
        if self.items.len() < 2 {
            return Err(self);
        }
        let second = Payload {
            frame: self.frame.clone(),
            items: self.items.split_off(self.items.len() / 2),
        };
        Ok((self, second))
    }
}

/// Returns the requests of some messages, in order.
pub fn payloads(format: &DestinationFormat, messages: &[Message<'_>]) -> Vec<Payload> {
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
    let parts = parts(&items, MESSAGES_MAX);
    let payload = |part: Range<usize>| Payload {
        frame: frame.clone(),
        items: items[part].to_vec(),
    };
    parts.into_iter().map(payload).collect()
}

/// Divides items so that no part has too many or too large ones. A single item may be larger.
fn parts(items: &[(Uuid, String)], items_max: usize) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let (mut first, mut bytes) = (0, 0);
    for (place, (_, item)) in items.iter().enumerate() {
        let is_full = place - first == items_max || bytes + item.len() > BYTES_MAX;
        if is_full && place > first {
            parts.push(first..place);
            (first, bytes) = (place, 0);
        }
        bytes += item.len() + 1;
    }
    if first < items.len() {
        parts.push(first..items.len());
    }
    parts
}

/// Unix milliseconds as RFC 3339, with milliseconds.
fn rfc3339(ms: u64) -> String {
    let time = i64::try_from(ms).ok();
    let time = time.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(String::new, |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_bounded_in_number_and_bytes() {
        let of = |sizes: &[usize]| -> Vec<(Uuid, String)> {
            let items = sizes.iter().map(|size| (Uuid::nil(), "x".repeat(*size)));
            items.collect()
        };
        assert!(parts(&of(&[]), 3).is_empty());
        assert_eq!(parts(&of(&[1; 7]), 3), [0..3, 3..6, 6..7]);
        let large = BYTES_MAX * 2 / 3;
        assert_eq!(parts(&of(&[large, large, 1, 1]), 3), [0..1, 1..4]);
        // One that is too large goes alone.
        assert_eq!(parts(&of(&[1, 2 * BYTES_MAX, 1]), 3), [0..1, 1..2, 2..3]);
    }

    #[test]
    fn halves_have_all_messages_in_order() {
        let ids: Vec<Uuid> = (0..5).map(Uuid::from_u128).collect();
        let payload = Payload {
            frame: ("[".to_owned(), "]".to_owned()),
            items: ids
                .iter()
                .map(|id| (*id, id.as_u128().to_string()))
                .collect(),
        };
        let name = payload.id();
        let (first, second) = payload.halves().unwrap();
        assert_ne!(first.id(), name);
        assert_eq!((&*first.body(), &*second.body()), ("[0,1]", "[2,3,4]"));
        let (one, _) = first.halves().unwrap();
        assert!(one.halves().is_err());
    }

    #[test]
    fn times_have_milliseconds() {
        assert_eq!(rfc3339(1_700_000_000_120), "2023-11-14T22:13:20.120Z");
        assert_eq!(rfc3339(1_700_000_000_000), "2023-11-14T22:13:20.000Z");
        assert_eq!(rfc3339(u64::MAX), "");
    }
}
