//! The file as YAML. Only this file uses the parser.

use super::diagnostic::{Diagnostic, InvalidConfig};
use super::source_map::SourceMap;
use std::io::Read;
use std::path::Path;

/// A YAML value, independent of the parser.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value.
    Nothing,
    /// `true` or `false`.
    Bool(bool),
    /// A number, and its text in the file.
    Number(f64, String),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// A map: keys and values, in the order of the file.
    Map(Vec<(String, Value)>),
}

impl Value {
    /// The same value as JSON; `None` where it holds a number that JSON does not have.
    pub fn to_json(&self) -> Option<serde_json::Value> {
        use serde_json::Value as Json;
        Some(match self {
            Value::Nothing => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Number(number, text) => match serde_json::from_str(text) {
                Ok(number) => Json::Number(number),
                Err(_) => Json::Number(serde_json::Number::from_f64(*number)?),
            },
            Value::Text(text) => Json::String(text.clone()),
            Value::List(items) => {
                let items: Option<Vec<Json>> = items.iter().map(Value::to_json).collect();
                Json::Array(items?)
            }
            Value::Map(map) => {
                let pair = |(key, value): &(String, Value)| Some((key.clone(), value.to_json()?));
                let map: Option<serde_json::Map<String, Json>> = map.iter().map(pair).collect();
                Json::Object(map?)
            }
        })
    }
}

/// The largest file, in bytes: far above any real one.
const BYTES_MAX: u64 = 1 << 20;

/// Reads the text of a file.
pub fn read(path: &Path) -> Result<String, InvalidConfig> {
    let invalid = |found: String, allowed: &str| one(path, None, found, allowed);
    let file = std::fs::File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => invalid(
            "there is no such file".to_owned(),
            "name a routes file with -c FILE; `watershed demo` needs none",
        ),
        _ => invalid(
            format!("cannot be read: {error}"),
            "make the file readable for this user",
        ),
    })?;
    let mut bytes = Vec::new();
    let read = file.take(BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| {
        invalid(
            format!("cannot be read: {error}"),
            "name a file, such as config/routes.yaml",
        )
    })?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(invalid(
            "is larger than 1 MiB".to_owned(),
            "is this the right file? a routes file has a few pages",
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        invalid(
            format!("is not UTF-8 text at byte {at}"),
            "save it as UTF-8",
        )
    })
}

/// Parses a text. The error names the position where it is not YAML.
pub fn parse(path: &Path, text: &str) -> Result<(Value, SourceMap), InvalidConfig> {
    let source_map = SourceMap::of(text);
    let parsed = serde_yaml::from_str::<serde_yaml::Value>(text).and_then(|mut value| {
        value.apply_merge()?;
        Ok(value)
    });
    match parsed {
        Ok(value) => Ok((convert(value), source_map)),
        Err(error) => {
            let place = error.location().map(|at| (at.line(), at.column()));
            // The diagnostic prints the position itself.
            let found = error.to_string();
            let found = found
                .split(" at line ")
                .next()
                .unwrap_or_default()
                .to_owned();
            let allowed = if found.contains("duplicate entry") {
                "write each key once"
            } else {
                "this is not YAML: check the indentation and the colons there"
            };
            Err(one(path, place.or(Some((1, 1))), found, allowed))
        }
    }
}

fn one(path: &Path, place: Option<(usize, usize)>, found: String, allowed: &str) -> InvalidConfig {
    let file = path.display().to_string();
    let problem = Diagnostic {
        file,
        place,
        key: String::new(),
        found,
        allowed: allowed.to_owned(),
        near: None,
    };
    InvalidConfig {
        diagnostics: vec![problem],
    }
}

fn convert(value: serde_yaml::Value) -> Value {
    match value {
        serde_yaml::Value::Null => Value::Nothing,
        serde_yaml::Value::Bool(value) => Value::Bool(value),
        serde_yaml::Value::Number(number) => {
            Value::Number(number.as_f64().unwrap_or(f64::NAN), number.to_string())
        }
        serde_yaml::Value::String(text) => Value::Text(text),
        serde_yaml::Value::Sequence(items) => Value::List(items.into_iter().map(convert).collect()),
        serde_yaml::Value::Mapping(map) => Value::Map(
            map.into_iter()
                .map(|(key, value)| (key_text(key), convert(value)))
                .collect(),
        ),
        serde_yaml::Value::Tagged(tagged) => convert(tagged.value),
    }
}

fn key_text(key: serde_yaml::Value) -> String {
    match convert(key) {
        Value::Text(text) | Value::Number(_, text) => text,
        Value::Bool(value) => value.to_string(),
        Value::Nothing => "null".to_owned(),
        Value::List(_) | Value::Map(_) => "?".to_owned(),
    }
}
