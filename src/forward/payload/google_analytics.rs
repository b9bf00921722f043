//! Events of the Measurement Protocol of Google Analytics 4. Exposures are its `experience_impression`. A request is
//! of one user.

use super::requests::Payload;
use crate::forward::message::{Message, MessageKind};
use serde_json::{Value, json};
use std::collections::HashMap;

/// The most events of a request.
const EVENTS_MAX: usize = 25;
/// The longest name of an event.
const NAME_MAX: usize = 40;
/// The longest text of a parameter.
const TEXT_MAX: usize = 100;

/// Returns the requests of some messages: users in the order of their first message.
pub(super) fn payloads(messages: &[Message<'_>]) -> Vec<Payload> {
    let mut places = HashMap::new();
    let mut users: Vec<(&Message<'_>, Vec<_>)> = Vec::new();
    for message in messages {
        let key = (&message.user, &message.minted);
        let place = *places.entry(key).or_insert_with(|| {
            users.push((message, Vec::new()));
            users.len() - 1
        });
        users[place].1.push((message.id, item(message).to_string()));
    }
    let of_user = |(first, items): (&Message<'_>, Vec<_>)| -> Vec<Payload> {
        let client = first.minted.as_ref().unwrap_or(&first.user);
        let (client, user) = (json!(client), json!(first.user));
        let before = format!("{{\"client_id\":{client},\"user_id\":{user},\"events\":[");
        Payload::divided(&(before, "]}".to_owned()), &items, EVENTS_MAX)
    };
    users.into_iter().flat_map(of_user).collect()
}

fn item(message: &Message<'_>) -> Value {
    let mut all = message.properties();
    let event = match message.what {
        MessageKind::Exposure { experiment, group } => {
            let variant = format!("watershed-{experiment}-{group}");
            all.insert("exp_variant_string".to_owned(), json!(variant));
            "experience_impression".to_owned()
        }
        MessageKind::Event { metric, .. } => name(metric),
    };
    all.insert("event_id".to_owned(), json!(message.id.to_string()));
    // Without it, reports do not show the user as active.
    all.insert("engagement_time_msec".to_owned(), json!(1));
    // An event has at most 25 parameters, and segments are the last that are missed.
    let mut parameters = serde_json::Map::new();
    let (segments, others): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|(key, _)| key.starts_with("segment_"));
    for (key, value) in others.into_iter().chain(segments).take(EVENTS_MAX) {
        parameters.insert(name(&key), shortened(value));
    }
    json!({
        "name": event,
        "timestamp_micros": 1000 * message.at_ms,
        "params": parameters,
    })
}

/// A name of letters, digits and underscores that begins with a letter.
fn name(text: &str) -> String {
    let sound = |letter: char| match letter.is_ascii_alphanumeric() {
        true => letter,
        false => '_',
    };
    let name: String = text.chars().map(sound).take(NAME_MAX).collect();
    match name.starts_with(|first: char| first.is_ascii_alphabetic()) {
        true => name,
        false => format!("e_{name}").chars().take(NAME_MAX).collect(),
    }
}

fn shortened(value: Value) -> Value {
    match value {
        Value::String(text) => text.chars().take(TEXT_MAX).collect::<String>().into(),
        // A parameter is a text or a number.
        Value::Bool(truth) => json!(i32::from(truth)),
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_google_takes() {
        for (text, expected) in [
            ("purchase", "purchase"),
            ("sign-up.done", "sign_up_done"),
            ("_x", "e__x"),
            ("3d", "e_3d"),
            ("", "e_"),
        ] {
            assert_eq!(name(text), expected);
        }
        assert_eq!(name(&"ä".repeat(60)).len(), NAME_MAX);
    }
}
