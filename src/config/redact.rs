//! The file as it is written, with its secrets hidden.

use super::file::Value;
use super::secret_text::{without_credentials, without_secret};
use serde_json::{Map, Number, Value as Json};

/// Hides the values at the paths `secrets`. A secret that is stored elsewhere (`${NAME}`,
/// `file:PATH`) shows where.
pub(super) fn redacted(value: &Value, secrets: &[Vec<String>]) -> Json {
    below(value, secrets, &mut Vec::new())
}

/// Returns the same as JSON text, in the order of the file.
pub(super) fn text(value: &Value, secrets: &[Vec<String>]) -> String {
    let mut text = String::new();
    write(value, secrets, &mut Vec::new(), &mut text);
    text
}

/// Returns a digest of the secrets together. Those of the environment and of other files are none of this file.
pub(super) fn digest(value: &Value, secrets: &[Vec<String>]) -> u16 {
    let mut paths: Vec<&[String]> = secrets.iter().map(Vec::as_slice).collect();
    paths.sort_unstable();
    paths.dedup();
    let text: String = paths
        .into_iter()
        .filter_map(|path| at(value, path).map(|text| format!("{path:?}{text:?}")))
        .collect();
    // Reading from memory cannot fail, and the crate adds no error of its own.
    murmur3::murmur3_x64_128(&mut text.as_bytes(), 0).unwrap_or_default() as u16
}

/// Returns the text at a path.
fn at<'a>(value: &'a Value, path: &[String]) -> Option<&'a str> {
    let Some((key, rest)) = path.split_first() else {
        return match value {
            Value::Text(text) | Value::Number(_, text) => Some(text),
            _ => None,
        };
    };
    let below = match value {
        Value::Map(map) => map.iter().find(|(name, _)| name == key).map(|(_, it)| it),
        Value::List(items) => key.parse().ok().and_then(|place: usize| items.get(place)),
        _ => None,
    };
    at(below?, rest)
}

fn write(value: &Value, secrets: &[Vec<String>], path: &mut Vec<String>, text: &mut String) {
    let mut at = |key: &str, value: &Value, text: &mut String| {
        path.push(key.to_owned());
        write(value, secrets, path, text);
        path.pop();
    };
    match value {
        Value::List(items) => {
            text.push('[');
            for (place, value) in items.iter().enumerate() {
                text.push_str(if place == 0 { "" } else { "," });
                at(&place.to_string(), value, text);
            }
            text.push(']');
        }
        Value::Map(map) => {
            text.push('{');
            for (place, (key, value)) in map.iter().enumerate() {
                text.push_str(if place == 0 { "" } else { "," });
                text.push_str(&Json::String(key.clone()).to_string());
                text.push(':');
                at(key, value, text);
            }
            text.push('}');
        }
        other => text.push_str(&below(other, secrets, path).to_string()),
    }
}

fn below(value: &Value, secrets: &[Vec<String>], path: &mut Vec<String>) -> Json {
    let mut at = |key: &str, value: &Value| {
        path.push(key.to_owned());
        let shown = below(value, secrets, path);
        path.pop();
        shown
    };
    match value {
        Value::Nothing => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::List(items) => {
            let items = items.iter().enumerate();
            Json::Array(
                items
                    .map(|(place, value)| at(&place.to_string(), value))
                    .collect(),
            )
        }
        Value::Map(map) => {
            let pair = |(key, value): &(String, Value)| (key.clone(), at(key, value));
            Json::Object(map.iter().map(pair).collect::<Map<_, _>>())
        }
        Value::Number(_, text) | Value::Text(text) if secrets.contains(path) => {
            Json::String(without_secret(text))
        }
        Value::Number(_, text) => {
            let number = text.parse::<Number>();
            number.map_or_else(|_| Json::String(text.clone()), Json::Number)
        }
        Value::Text(text) => Json::String(without_credentials(text).into_owned()),
    }
}
