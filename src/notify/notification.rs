//! What a message says. PURE.

use crate::config::plan::NotificationKind;
use crate::store::messages::EventMark;
use serde_json::{Value, json};

/// Something that receivers are told.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    /// What it is about.
    pub kind: NotificationKind,
    /// The experiment, unless it is about none or several.
    pub experiment: Option<String>,
    /// The event; see [`EventMark::key`].
    pub key: String,
    /// See [`EventMark::quiet_ms`].
    pub quiet_ms: u64,
    /// When it was found, in Unix milliseconds.
    pub at_ms: u64,
    /// The details, by kind.
    pub data: Value,
    /// The same in a sentence for people.
    pub text: String,
}

impl Notification {
    /// Returns the body of its messages.
    pub fn body(&self) -> String {
        let body = json!({
            "type": self.kind.name(),
            "experiment": self.experiment,
            "timestamp": rfc3339(self.at_ms),
            "data": self.data,
            "text": self.text,
        });
        body.to_string()
    }

    /// Returns its mark in the store.
    pub fn mark(&self) -> EventMark<'_> {
        EventMark {
            key: &self.key,
            at_ms: self.at_ms,
            quiet_ms: self.quiet_ms,
        }
    }

    /// Whether the event goes on, and is new again after a quiet time.
    pub fn is_lasting(&self) -> bool {
        self.quiet_ms != EventMark::ONCE
    }
}

/// Returns the key of a winner: a group in a phase of an experiment, which is named by its key in the store.
pub fn winner_key(phase: &str, group: &str) -> String {
    format!("winner|{phase}|{group}")
}

/// Returns the key under which the store remembers that a receiver has confirmed an event.
pub fn confirmation_key(event: &str) -> String {
    format!("confirmed|{event}")
}

/// Returns Unix milliseconds as RFC 3339; `null` beyond its range.
pub(super) fn rfc3339(ms: u64) -> Value {
    let ms = i64::try_from(ms).ok();
    let time = ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or(Value::Null, |time| Value::String(time.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_has_type_experiment_timestamp_data_and_text() {
        let notification = Notification {
            kind: NotificationKind::NoPlannedLift,
            experiment: Some("site".to_owned()),
            key: "no_planned_lift|site".to_owned(),
            quiet_ms: EventMark::ONCE,
            at_ms: 1_700_000_000_123,
            data: json!({ "verdict": "no_difference" }),
            text: "site: \"nothing\"".to_owned(),
        };
        let body: Value = serde_json::from_str(&notification.body()).unwrap();
        let expected = json!({
            "type": "no_planned_lift",
            "experiment": "site",
            "timestamp": "2023-11-14T22:13:20.123Z",
            "data": { "verdict": "no_difference" },
            "text": "site: \"nothing\"",
        });
        assert_eq!(body, expected);
        assert!(!notification.is_lasting());
        assert_eq!(rfc3339(u64::MAX), Value::Null);
    }
}
