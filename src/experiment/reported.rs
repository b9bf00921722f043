//! Events that a browser or a server reports as JSON: `{"event": "purchase", "amount": 19.9, "id":
//! "…"}` or a list of them, where a server adds `"user"`. Numbers are the event's parameters.

use super::metric::Event;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// The most events in one report of a browser.
pub const EVENTS_MAX: usize = 100;
/// The longest name or ID of an event, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Reported {
    /// Its name and parameters.
    pub event: Event<'static>,
    /// What it is known again by; `None` where it counts each time.
    pub id: Option<String>,
    /// Who did it, where the report says so.
    pub user: Option<String>,
}

/// Why a report cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is not JSON.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// It is neither an event nor a list of events.
    #[error("neither an event, such as {{\"event\": \"purchase\"}}, nor a list of them")]
    NoEvent,
    /// One of its events is unsound.
    #[error("event {place}: {what}")]
    Event {
        /// Which one, counted from 0.
        place: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// There are too many.
    #[error("more than {0} events")]
    TooMany(usize),
}

impl Reported {
    /// What this event is known again by, as a number; of the ID alone, because it is compared
    /// with the same user's only.
    pub fn id_digest(&self) -> Option<u64> {
        let id = self.id.as_ref()?;
        // Reading from memory cannot fail, and the crate adds no error of its own.
        Some(murmur3::murmur3_x64_128(&mut id.as_bytes(), 0).unwrap_or_default() as u64)
    }
}

/// Reads a report of at most `most` events.
pub fn read(bytes: &[u8], most: usize) -> Result<Vec<Reported>, Unreadable> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Report {
        Many(Vec<Value>),
        One(Map<String, Value>),
        Other(IgnoredAny),
    }
    let report =
        serde_json::from_slice(bytes).map_err(|error| Unreadable::NotJson(error.to_string()))?;
    let events = match report {
        Report::Many(events) => events,
        Report::One(event) => vec![Value::Object(event)],
        Report::Other(_) => return Err(Unreadable::NoEvent),
    };
    if events.len() > most {
        return Err(Unreadable::TooMany(most));
    }
    let numbered = events.into_iter().enumerate();
    numbered
        .map(|(place, event)| one(event).map_err(|what| Unreadable::Event { place, what }))
        .collect()
}

fn one(event: Value) -> Result<Reported, &'static str> {
    let Value::Object(mut event) = event else {
        return Err("is not an object");
    };
    let mut text = |key: &str, wrong| match event.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.is_empty() && text.len() <= NAME_BYTES_MAX => {
            Ok(Some(text))
        }
        Some(_) => Err(wrong),
    };
    let name = text("event", "`event` must be a name of 1 to 256 bytes")?;
    let id = text("id", "`id` must be a text of 1 to 256 bytes")?;
    let user = text("user", "`user` must be a text of 1 to 256 bytes")?;
    let name = name.ok_or("has no `event`")?;
    let number = |(key, value): (String, Value)| Some((Cow::Owned(key), value.as_f64()?));
    Ok(Reported {
        event: Event {
            name: Cow::Owned(name),
            parameters: event.into_iter().filter_map(number).take(16).collect(),
        },
        id,
        user,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Result<Vec<Reported>, String> {
        read(text.as_bytes(), 3).map_err(|error| error.to_string())
    }

    #[test]
    fn one_or_many() {
        let one = told(r#"{"event":"purchase","amount":19.9,"id":"x","note":"n"}"#).unwrap();
        assert_eq!(one[0].event.name, "purchase");
        assert_eq!(
            &one[0].event.parameters[..],
            [(Cow::Borrowed("amount"), 19.9)]
        );
        assert_eq!(
            (one[0].id.as_deref(), one[0].user.as_deref()),
            (Some("x"), None)
        );
        assert_eq!(
            told(r#"[{"event":"a","user":"u"},{"event":"b"}]"#)
                .unwrap()
                .len(),
            2
        );
        assert_eq!(told("[]").unwrap(), []);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, said) in [
            ("", "not JSON: EOF while parsing a value at line 1 column 0"),
            (
                "7",
                "neither an event, such as {\"event\": \"purchase\"}, nor a list of them",
            ),
            ("[{}]", "event 0: has no `event`"),
            (r#"[{"event":"a"},7]"#, "event 1: is not an object"),
            (
                r#"{"event":""}"#,
                "event 0: `event` must be a name of 1 to 256 bytes",
            ),
            (
                r#"{"event":"a","id":7}"#,
                "event 0: `id` must be a text of 1 to 256 bytes",
            ),
            (
                r#"[{"event":"a"},{"event":"a"},{"event":"a"},{"event":"a"}]"#,
                "more than 3 events",
            ),
        ] {
            assert_eq!(told(text), Err(said.to_owned()), "{text}");
        }
    }
}
