//! The file as YAML. Only this file uses the parser.

use super::diagnostic::Diagnostic;
use super::snippet::Snippet;
use super::source_map::SourceMap;
use crate::regular_file;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
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

/// Reads the text of a routes file, which may be a pipe: `-c <(…)`.
pub(super) fn read(path: &Path) -> Result<String, Box<Diagnostic>> {
    read_opened(path, std::fs::File::open(path))
}

/// Reads the text of a file that a routes file names. It is read again and again, so it must be a regular file.
pub(super) fn read_regular(path: &Path) -> Result<String, Box<Diagnostic>> {
    read_opened(path, regular_file::open(path))
}

fn read_opened(path: &Path, file: std::io::Result<File>) -> Result<String, Box<Diagnostic>> {
    let invalid =
        |found: String, allowed: &str| Box::new(Diagnostic::of_file(path, found, allowed));
    let file = file.map_err(|error| match error.kind() {
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
    // Some editors begin a file with a byte order mark.
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        invalid(
            format!("is not UTF-8 text at byte {at}"),
            "save it as UTF-8",
        )
    })
}

/// Parses the text of the file with this index. The error names the position where it is not YAML.
pub(super) fn parse(
    path: &Path,
    text: &str,
    index: usize,
) -> Result<(Value, SourceMap), Box<Diagnostic>> {
    let source_map = SourceMap::of(text, index);
    let has_content = |line: &str| !line.is_empty() && !line.starts_with('#');
    if let Some(tab) = tab(path, text, &source_map, has_content) {
        return Err(Box::new(tab));
    }
    if let Some(control) = control(path, text) {
        return Err(Box::new(control));
    }
    let parsed = serde_yaml::from_str::<serde_yaml::Value>(text).and_then(|mut value| {
        value.apply_merge()?;
        Ok(value)
    });
    match parsed {
        Ok(value) => {
            let tab = match source_map.stopped() {
                Some(line) => separator(path, text, line),
                None => between(path, text, &source_map, index),
            };
            match tab {
                Some(tab) => Err(Box::new(tab)),
                None => Ok((convert(value), source_map)),
            }
        }
        Err(error) => {
            // A tab in front of a comment may be the reason.
            if let Some(tab) = tab(path, text, &source_map, |_| true) {
                return Err(Box::new(tab));
            }
            let place = error.location().map(|at| (at.line(), at.column()));
            // The diagnostic prints the position itself.
            let found = error.to_string();
            let found = found
                .split(" at line ")
                .next()
                .unwrap_or_default()
                .to_owned();
            if found.contains("duplicate entry")
                && let Some((again, first)) = source_map.duplicate()
            {
                let found = format!("this key also stands in line {}", first.line);
                let place = (again.line, again.column);
                return Err(Box::new(at(
                    path,
                    text,
                    place,
                    found,
                    "write each key once",
                )));
            }
            let place = place.unwrap_or((1, 1));
            let allowed = match is_in_variable(text, place) {
                true => {
                    "write quotation marks around it: \"${NAME}\" (inside braces and brackets YAML needs them)"
                }
                false => "this is not YAML: check the indentation and the colons there",
            };
            Err(Box::new(at(path, text, place, found, allowed)))
        }
    }
}

/// Whether the brace of a `${` is there.
fn is_in_variable(text: &str, (line, column): (usize, usize)) -> bool {
    let line = line.checked_sub(1).and_then(|line| text.lines().nth(line));
    let Some(before) = column.checked_sub(2) else {
        return false;
    };
    line.is_some_and(|line| line.chars().skip(before).take(2).eq("${".chars()))
}

/// Finds a character that YAML does not allow.
fn control(path: &Path, text: &str) -> Option<Diagnostic> {
    let is_allowed = |it: char| matches!(it, '\t' | '\n' | '\r' | '\u{85}') || !it.is_control();
    let lines = text.lines().enumerate();
    let mut found = lines.filter_map(|(n, line)| {
        let (column, it) = line.chars().enumerate().find(|(_, it)| !is_allowed(*it))?;
        Some((n + 1, column + 1, it))
    });
    let (line, column, it) = found.next()?;
    let found = format!("the control character U+{:04X}", u32::from(it));
    let allowed = "remove it, or write it as \\x or \\u in double quotation marks";
    Some(at(path, text, (line, column), found, allowed))
}

/// Finds the tab at which the reader of positions ended, in this line or the one before.
fn separator(path: &Path, text: &str, line: usize) -> Option<Diagnostic> {
    let mut near = [line, line.saturating_sub(1)].into_iter();
    let (line, column) = near.find_map(|line| {
        let mut letters = text.lines().nth(line.checked_sub(1)?)?.chars();
        Some((line, letters.position(|it| it == '\t')? + 1))
    })?;
    let found = "a tab between a key and its value".to_owned();
    let allowed = "write a space: readers of YAML do not agree on tabs there";
    Some(at(path, text, (line, column), found, allowed))
}

/// Finds a tab between or after keys and values. In a value and in a comment it means nothing else.
fn between(path: &Path, text: &str, source_map: &SourceMap, file: usize) -> Option<Diagnostic> {
    let lines = text.lines().enumerate().filter(|(n, line)| {
        line.contains('\t') && !line.trim().is_empty() && !source_map.is_within_value(n + 1)
    });
    let mut found = lines.filter_map(|(n, line)| {
        let number = n + 1;
        let values = source_map.tokens_of_line(file, number);
        let values: Vec<Range<usize>> = values
            .map(|token| token.columns(number, line.chars().count()))
            .collect();
        let mut before = ' ';
        for (place, letter) in line.chars().enumerate() {
            if !values.iter().any(|columns| columns.contains(&place)) {
                match letter {
                    '#' if before.is_whitespace() => return None,
                    '\t' => return Some((number, place + 1)),
                    _ => {}
                }
            }
            before = letter;
        }
        None
    });
    let allowed = "write a space: readers of YAML do not agree on tabs there";
    Some(at(path, text, found.next()?, "a tab".to_owned(), allowed))
}

/// Finds a tab in the indentation, which the parser reports as something else or takes for a space.
/// Only lines count whose rest `has_content`.
fn tab(
    path: &Path,
    text: &str,
    source_map: &SourceMap,
    has_content: impl Fn(&str) -> bool,
) -> Option<Diagnostic> {
    let indented = text.lines().enumerate().filter_map(|(n, line)| {
        let content = line.trim_start_matches([' ', '\t']);
        let indentation = &line[..line.len() - content.len()];
        let column = indentation.find('\t')? + 1;
        (has_content(content) && !source_map.is_within_value(n + 1)).then_some((n + 1, column))
    });
    let all: Vec<(usize, usize)> = indented.collect();
    let found = match all.len() {
        1 => "a tab in the indentation".to_owned(),
        lines => format!("a tab in the indentation (in {lines} lines)"),
    };
    let allowed = "indent with spaces: YAML allows no tabs there";
    Some(at(path, text, *all.first()?, found, allowed))
}

/// Makes an error at a position of a text.
fn at(
    path: &Path,
    text: &str,
    (line, column): (usize, usize),
    found: String,
    allowed: &str,
) -> Diagnostic {
    // YAML has line breaks that editors do not show, and the parser may point past the end.
    let place = (line.clamp(1, text.lines().count().max(1)), column.max(1));
    Diagnostic {
        place: Some(place),
        snippet: Snippet::of_unparsed(text, place),
        ..Diagnostic::of_file(path, found, allowed)
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
