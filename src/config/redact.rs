//! The file as it is written, with its secrets hidden.

use super::file::Value;
use super::secret_text::without_secret;
use serde_json::{Map, Number, Value as Json};

/// Hides the values at the paths `secrets`. A secret that is stored elsewhere (`${NAME}`,
/// `file:PATH`) shows where.
pub fn redacted(value: &Value, secrets: &[Vec<String>]) -> Json {
    below(value, secrets, &mut Vec::new())
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
        Value::Text(text) => Json::String(text.clone()),
    }
}
