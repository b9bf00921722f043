//! Events that a browser or a server reports as JSON: `{"event": "purchase", "amount": 19.9, "id":
//! "…", "at": "2026-11-23T10:00:00Z"}` or a list of them, where a server adds `"user"`, and `"bucket_by"` where
//! that is the ID of another unit than a user. Other keys are the
//! event's parameters.

use super::event::{
    Event, EventFault, EventTime, NAME_BYTES_MAX, ParameterValue, Parameters, event_id,
};
use http::header::HeaderName;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The header that names a report: sent again under the same key, its events count once.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The most events in one report of a browser.
pub const EVENTS_MAX: usize = 100;
/// The most parameters of one event.
pub const PARAMETERS_MAX: usize = 64;

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientEvent {
    /// Its name, parameters and ID.
    pub event: Event<'static>,
    /// Who did it, where the report says so.
    pub user: Option<String>,
    /// The unit that `user` identifies, such as `header:x-account`, where the report names one.
    pub bucket_by: Option<String>,
}

/// An event of a report that is not counted, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedEvent {
    /// Its place in the report, counted from 0.
    pub place: usize,
    /// Its name.
    pub name: String,
    /// What is wrong with it, in a sentence.
    pub why: String,
}

impl ClientEvent {
    /// This event, refused for what is wrong with it.
    pub fn refused(&self, place: usize, fault: &EventFault) -> RejectedEvent {
        RejectedEvent {
            place,
            name: self.event.name.to_string(),
            why: fault.to_string(),
        }
    }
}

/// Why a report cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientEventError {
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

impl fmt::Display for RejectedEvent {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "event {}: {}", self.place, self.why)
    }
}

/// Reads a report of at most `most` events. Those without an `id` are given one by their place
/// under the `key` that the report was sent with.
pub fn read(
    bytes: &[u8],
    key: Option<&[u8]>,
    most: usize,
) -> Result<Vec<ClientEvent>, ClientEventError> {
    let not_json = |error: serde_json::Error| ClientEventError::NotJson(error.to_string());
    let events: Vec<&RawValue> = match bytes.trim_ascii().first() {
        Some(b'[') => serde_json::from_slice(bytes).map_err(not_json)?,
        Some(b'{') => vec![serde_json::from_slice(bytes).map_err(not_json)?],
        _ => {
            let _: IgnoredAny = serde_json::from_slice(bytes).map_err(not_json)?;
            return Err(ClientEventError::NoEvent);
        }
    };
    if events.len() > most {
        return Err(ClientEventError::TooMany(most));
    }
    let numbered = events.into_iter().enumerate();
    let reported = numbered.map(|(place, event)| {
        let mut reported = one(event).map_err(|what| ClientEventError::Event { place, what })?;
        if let (None, Some(key)) = (reported.event.id, key) {
            let id = [key, b"/", place.to_string().as_bytes()].concat();
            reported.event.id = Some(event_id(&reported.event.name, &id));
        }
        Ok(reported)
    });
    reported.collect()
}

fn one(event: &RawValue) -> Result<ClientEvent, &'static str> {
    if !event.get().starts_with('{') {
        return Err("is not an object");
    }
    // It was read once as JSON, so that only its keys can be wrong.
    let Keys(keys) = serde_json::from_str(event.get()).map_err(|_| "has a key that is no text")?;
    let (mut name, mut id, mut user, mut bucket_by) = (None, None, None, None);
    let mut at = EventTime::Reported;
    let mut parameters = Parameters::new();
    for (key, value) in keys {
        match &*key {
            "event" => name = text(value).ok_or("`event` must be a name of 1 to 256 bytes")?,
            "id" => id = text(value).ok_or("`id` must be a text of 1 to 256 bytes")?,
            "user" => user = text(value).ok_or("`user` must be a text of 1 to 256 bytes")?,
            "bucket_by" => {
                bucket_by = text(value).ok_or("`bucket_by` must be a text of 1 to 256 bytes")?;
            }
            "at" => at = time(value).ok_or("`at` must be a time as text")?,
            _ if parameters.len() == PARAMETERS_MAX => return Err("has more than 64 parameters"),
            _ => parameters.push((Cow::Owned(key), parameter(value))),
        }
    }
    let name = name.ok_or("has no `event`")?;
    Ok(ClientEvent {
        event: Event {
            id: id.map(|id| event_id(&name, id.as_bytes())),
            name: Cow::Owned(name),
            parameters,
            at,
        },
        user,
        bucket_by,
    })
}

/// A text, `null` as none; the outer `None` for anything else.
fn text(value: &RawValue) -> Option<Option<String>> {
    match serde_json::from_str(value.get()).ok()? {
        Some(text) => {
            let text: String = text;
            (1..=NAME_BYTES_MAX)
                .contains(&text.len())
                .then_some(Some(text))
        }
        None => Some(None),
    }
}

/// The event's own time; `null` as none. `None` for what is no text.
fn time(value: &RawValue) -> Option<EventTime> {
    let text: Option<String> = serde_json::from_str(value.get()).ok()?;
    Some(text.map_or(EventTime::Reported, |text| {
        EventTime::of_text(text.as_bytes())
    }))
}

fn parameter(value: &RawValue) -> ParameterValue {
    match value.get().as_bytes().first() {
        Some(b'n') => ParameterValue::Other("null"),
        Some(b't' | b'f') => ParameterValue::Other("a boolean"),
        Some(b'[') => ParameterValue::Other("a list"),
        Some(b'{') => ParameterValue::Other("an object"),
        Some(b'"') => match serde_json::from_str::<String>(value.get()) {
            Ok(text) => ParameterValue::of_text(text.as_bytes()),
            Err(_) => ParameterValue::Other("not a number"),
        },
        _ => ParameterValue::of_text(value.get().as_bytes()),
    }
}

/// The keys of an object and what stands there, as it is written: numbers keep all their digits.
struct Keys<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Keys<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Keys<'de>;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(to, "an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys<'de>, A::Error> {
                let mut keys = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    keys.push(entry);
                }
                Ok(Keys(keys))
            }
        }
        from.deserialize_map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Result<Vec<ClientEvent>, String> {
        read(text.as_bytes(), None, 3).map_err(|error| error.to_string())
    }

    #[test]
    fn one_or_many() {
        let one = told(r#"{"event":"purchase","amount":19.9,"id":"x","note":"n"}"#).unwrap();
        assert_eq!(one[0].event.name, "purchase");
        assert_eq!(
            one[0].event.parameter("amount"),
            Some(ParameterValue::of_text(b"19.9"))
        );
        assert_eq!(
            one[0].event.parameter("note"),
            Some(ParameterValue::Other("not a number"))
        );
        assert_eq!(
            (one[0].event.id, one[0].user.as_deref()),
            (Some(event_id("purchase", b"x")), None)
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
    fn names_and_times_are_read() {
        let read = |text: &str| told(text).unwrap()[0].event.clone();
        for name in ["Order Completed", "$pageview", "購入", "a, b"] {
            assert_eq!(read(&format!(r#"{{"event":"{name}"}}"#)).name, name);
        }
        let at = |text: &str| read(&format!(r#"{{"event":"a","at":{text}}}"#)).at;
        assert_eq!(at("null"), EventTime::Reported);
        assert_eq!(
            at("\"1970-01-01T00:00:01Z\""),
            EventTime::of_text(b"1970-01-01T00:00:01Z")
        );
        assert_eq!(at("\"soon\""), EventTime::Unreadable);
        assert_eq!(
            told(r#"{"event":"a","at":1800000000}"#),
            Err("event 0: `at` must be a time as text".to_owned())
        );
    }

    #[test]
    fn a_parameter_is_a_number_or_says_what_it_is() {
        for (written, expected) in [
            ("5", ParameterValue::of_text(b"5")),
            ("\"5\"", ParameterValue::of_text(b"5")),
            ("\" 19.90 \"", ParameterValue::of_text(b"19.9")),
            ("1e2", ParameterValue::of_text(b"100")),
            ("null", ParameterValue::Other("null")),
            ("true", ParameterValue::Other("a boolean")),
            ("\"\"", ParameterValue::Other("empty")),
            ("\"abc\"", ParameterValue::Other("not a number")),
            ("\"NaN\"", ParameterValue::Other("not a number")),
            ("[1]", ParameterValue::Other("a list")),
            ("{\"a\":1}", ParameterValue::Other("an object")),
        ] {
            let report = format!("{{\"event\":\"a\",\"v\":0,\"v\":{written}}}");
            let read = told(&report).unwrap();
            let found = read[0].event.parameter("v").unwrap();
            let units = |value| match value {
                ParameterValue::Number(number) => Ok(number.units(6)),
                ParameterValue::Other(what) => Err(what),
            };
            assert_eq!(units(found), units(expected), "{written}");
        }
        let exact = told(r#"{"event":"a","v":1.00499999999999999999999}"#).unwrap();
        let Some(ParameterValue::Number(number)) = exact[0].event.parameter("v") else {
            panic!("{exact:?}");
        };
        assert_eq!(number.units(2), Some(100));
    }

    #[test]
    fn a_key_gives_events_without_an_id_one_by_their_place() {
        let report = br#"[{"event":"a"},{"event":"a","id":"x"},{"event":"a","id":null}]"#;
        let ids = |key: Option<&[u8]>| {
            let events = read(report, key, 3).unwrap();
            [0, 1, 2].map(|place| events[place].event.id)
        };
        let own = Some(event_id("a", b"x"));
        assert_eq!(ids(None), [None, own, None]);
        let keyed = [
            Some(event_id("a", b"k/0")),
            own,
            Some(event_id("a", b"k/2")),
        ];
        assert_eq!(ids(Some(b"k")), keyed);
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
