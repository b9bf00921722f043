//! Reads values of the file. A value that cannot be read is reported with its position, and reading
//! continues, so that all errors are found at once.

use super::diagnostic::{Diagnostic, near};
use super::document::{RoutesDocument, SourceFile};
use super::environment::Environment;
use super::file::Value;
use super::key_recorder::{RecordedForm, ValueForm};
use super::plan::{IdLists, Secret};
use super::secret_text::without_credentials;
use super::source_map::{Position, SourceMap};
use crate::features::{Feature, MissingFeature};
use crate::regular_file;
use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What reading needs, and what it collects.
pub(super) struct ReadContext<'a> {
    /// The routes file, then the files that it includes.
    pub files: &'a [SourceFile],
    /// The positions of their keys.
    pub source_map: &'a SourceMap,
    /// The environment.
    pub environment: &'a Environment<'a>,
    /// The paths of values that come from the environment.
    pub substituted: HashSet<Vec<String>>,
    /// Whether the program has a feature.
    pub is_built: fn(Feature) -> bool,
    /// The paths of its secrets.
    pub secrets: RefCell<Vec<Vec<String>>>,
    /// The paths of values that are no secrets.
    pub public: RefCell<HashSet<Vec<String>>>,
    /// The lists of IDs that were read before, which stay in use where their file cannot be read.
    pub known_ids: &'a IdLists,
    /// The lists of IDs that are in use now.
    pub id_lists: RefCell<IdLists>,
    /// The names of cookies that it reads.
    pub cookies_read: RefCell<Vec<Box<str>>>,
    /// Its errors, each with its position.
    pub diagnostics: RefCell<Vec<(Position, Diagnostic)>>,
    /// What is valid in it, but probably not meant.
    pub warnings: RefCell<Vec<(Position, Diagnostic)>>,
    /// How its values were read, for the JSON Schema.
    pub recorded: Option<RefCell<Vec<RecordedForm>>>,
}

impl<'a> ReadContext<'a> {
    /// Makes the context of a document.
    pub(super) fn of(
        document: &'a RoutesDocument,
        environment: &'a Environment<'a>,
        known_ids: &'a IdLists,
    ) -> ReadContext<'a> {
        ReadContext {
            files: &document.files,
            source_map: &document.source_map,
            environment,
            substituted: HashSet::new(),
            is_built: |_| true,
            secrets: RefCell::default(),
            public: RefCell::default(),
            cookies_read: RefCell::default(),
            known_ids,
            id_lists: RefCell::default(),
            diagnostics: RefCell::default(),
            warnings: RefCell::default(),
            recorded: None,
        }
    }
}

/// A value and its path.
#[derive(Clone)]
pub(super) struct Node<'a> {
    /// The context.
    pub reading: &'a ReadContext<'a>,
    /// The path of the value.
    pub path: Vec<String>,
    /// The value.
    pub value: &'a Value,
}

impl<'a> Node<'a> {
    fn note(&self, seen: impl FnOnce() -> ValueForm) {
        if let Some(all) = &self.reading.recorded {
            all.borrow_mut().push((self.path.clone(), seen()));
        }
    }

    /// Reports an error of this value.
    pub(super) fn problem(&self, found: impl Into<String>, allowed: impl Into<String>) {
        self.report(
            self.reading.source_map.find(&self.path).value,
            found.into(),
            allowed.into(),
            None,
        );
    }

    /// Reports that this value names something that is not defined.
    pub(super) fn unknown<'b>(
        &self,
        what: &str,
        name: &str,
        known: impl IntoIterator<Item = &'b str> + Clone,
    ) {
        let all: Vec<&str> = known.clone().into_iter().collect();
        let allowed = match all.is_empty() {
            true => format!("no {what} is defined"),
            false => format!("known: {}", all.join(", ")),
        };
        let place = self.reading.source_map.find(&self.path).value;
        self.report(
            place,
            format!("there is no {what} {name:?}"),
            allowed,
            near(name, known),
        );
    }

    /// Reports that a key is missing in this map.
    pub(super) fn missing(&self, key: &str, allowed: &str) {
        self.report(
            self.reading.source_map.find(&self.path).key,
            format!("`{key}` is missing"),
            allowed.to_owned(),
            None,
        );
    }

    /// Reports a problem if the program was built without a feature that this value needs.
    /// `instead` is what can be written here without it.
    pub(super) fn needs(&self, feature: Feature, instead: &str) {
        if !(self.reading.is_built)(feature) {
            let missing = MissingFeature(feature);
            self.problem(
                missing.to_string(),
                format!("{}, or {instead}", missing.hint()),
            );
        }
    }

    /// Reports that this value is valid, but probably not meant.
    pub(super) fn warn(&self, found: impl Into<String>, allowed: impl Into<String>) {
        let place = self.reading.source_map.find(&self.path).value;
        let warning = self.diagnostic(place, found.into(), allowed.into(), None);
        self.reading.warnings.borrow_mut().push((place, warning));
    }

    fn report(&self, place: Position, found: String, allowed: String, near: Option<String>) {
        let error = self.diagnostic(place, found, allowed, near);
        self.reading.diagnostics.borrow_mut().push((place, error));
    }

    fn diagnostic(
        &self,
        place: Position,
        found: String,
        allowed: String,
        near: Option<String>,
    ) -> Diagnostic {
        let file = &self.reading.files[place.file];
        // YAML has line breaks that editors do not show.
        let line = place.line.clamp(1, file.text.lines().count().max(1));
        Diagnostic {
            place: Some((line, place.column)),
            key: self.path.join("."),
            near,
            ..Diagnostic::of_file(&file.path, without_credentials(&found), allowed)
        }
    }

    /// Returns the value of a key, if it has one.
    pub(super) fn get(&self, key: &str) -> Option<Node<'a>> {
        let Value::Map(map) = self.value else {
            return None;
        };
        let (_, value) = map
            .iter()
            .find(|(name, value)| name == key && *value != Value::Nothing)?;
        Some(self.below(key, value))
    }

    /// Returns the value of a key or an item.
    pub(super) fn below(&self, key: &str, value: &'a Value) -> Node<'a> {
        let path = self.path.iter().cloned().chain([key.to_owned()]).collect();
        Node {
            reading: self.reading,
            path,
            value,
        }
    }

    /// Reads a map that may have only these keys, each with a description of its value.
    pub(super) fn keys(&self, allowed: &[(&str, &str)]) -> bool {
        let Value::Map(map) = self.value else {
            let names: Vec<&str> = allowed.iter().map(|(name, _)| *name).collect();
            self.problem(
                format!("{} instead of keys", self.kind()),
                format!("write these keys: {}", names.join(", ")),
            );
            return false;
        };
        self.note(|| {
            let pair = |(key, holds): &(&str, &str)| ((*key).to_owned(), (*holds).to_owned());
            ValueForm::Keys(allowed.iter().map(pair).collect())
        });
        for (key, value) in map {
            if allowed.iter().any(|(name, _)| name == key) {
                continue;
            }
            let node = self.below(key, value);
            let meant = near(key, allowed.iter().map(|(name, _)| *name));
            let text = match meant
                .as_ref()
                .and_then(|meant| allowed.iter().find(|(name, _)| name == meant))
            {
                Some((_, holds)) => (*holds).to_owned(),
                None => format!(
                    "known keys: {}",
                    allowed
                        .iter()
                        .map(|(name, _)| *name)
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            };
            node.report(
                self.reading.source_map.find(&node.path).key,
                "unknown key".to_owned(),
                text,
                meant,
            );
        }
        true
    }

    /// Reads a map of names that the user chose.
    pub(super) fn named(&self, what: &str) -> Vec<(String, Node<'a>)> {
        match self.value {
            Value::Map(map) => {
                self.note(|| ValueForm::Named);
                let each = map.iter();
                each.map(|(name, value)| (name.clone(), self.below(name, value)))
                    .collect()
            }
            Value::Nothing => Vec::new(),
            _ => {
                self.problem(
                    format!("{} instead of names", self.kind()),
                    format!("write a name for each {what}, then what it is"),
                );
                Vec::new()
            }
        }
    }

    /// Reads a list. Any other value counts as a list of one item.
    pub(super) fn items(&self) -> Vec<Node<'a>> {
        match self.value {
            Value::List(items) => {
                self.note(|| ValueForm::List);
                let each = items.iter().enumerate();
                each.map(|(place, value)| self.below(&place.to_string(), value))
                    .collect()
            }
            _ => vec![self.clone()],
        }
    }

    /// Reads a text. A number counts as a text.
    pub(super) fn text(&self, allowed: &str) -> Option<&'a str> {
        self.note(|| ValueForm::Text);
        self.letters(allowed)
    }

    fn letters(&self, allowed: &str) -> Option<&'a str> {
        self.each_below(&|node| {
            node.reading.public.borrow_mut().insert(node.path.clone());
        });
        self.characters(allowed)
    }

    fn characters(&self, allowed: &str) -> Option<&'a str> {
        match self.value {
            Value::Text(text) | Value::Number(_, text) => Some(text),
            // In the file, quotation marks would make a text of it.
            Value::Bool(value) if self.reading.substituted.contains(&self.path) => {
                Some(if *value { "true" } else { "false" })
            }
            _ => {
                self.problem(format!("{} instead of a text", self.kind()), allowed);
                None
            }
        }
    }

    /// Reads a text with `read`.
    pub(super) fn read<T>(&self, allowed: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        self.note(|| ValueForm::Text);
        self.parse(allowed, read)
    }

    fn parse<T>(&self, allowed: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = self.letters(allowed)?;
        let value = read(text);
        if value.is_none() {
            self.problem(format!("found {text:?}"), allowed);
        }
        value
    }

    /// Reads `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        self.note(|| ValueForm::Bool);
        if let Some(meant) = self.old_boolean() {
            return Some(meant);
        }
        match self.value {
            Value::Bool(value) => Some(*value),
            _ => {
                self.problem(format!("found {}", self.kind()), "true or false");
                None
            }
        }
    }

    /// Returns `true` or `false` if the value is one of them; other values are allowed.
    pub(super) fn flag(&self) -> Option<bool> {
        let flag = match *self.value {
            Value::Bool(flag) => flag,
            _ => self.old_boolean()?,
        };
        self.note(|| ValueForm::Bool);
        Some(flag)
    }

    /// Returns `true` or `false` where a word such as `yes` is a text.
    pub(super) fn true_or_false(&self) -> Option<bool> {
        let Value::Bool(flag) = *self.value else {
            return None;
        };
        self.note(|| ValueForm::Bool);
        Some(flag)
    }

    /// Reads the path of a file or folder. A word that was a boolean in YAML 1.1 is none.
    pub(super) fn path_text(&self, allowed: &str) -> Option<&'a str> {
        match self.refuses_old_boolean(allowed) {
            true => None,
            false => self.text(allowed),
        }
    }

    /// Reports a word that was a boolean in YAML 1.1 where a path is meant. Returns whether it is one.
    pub(super) fn refuses_old_boolean(&self, allowed: &str) -> bool {
        let word = self.old_boolean_word();
        if let Some((text, _)) = word {
            // It is no secret, whatever else may stand here.
            let secrets = &self.reading.secrets;
            secrets.borrow_mut().retain(|path| *path != self.path);
            self.problem(
                format!("`{text}` is a text: only YAML 1.1 took it for a boolean"),
                format!("{allowed}; \"{text}\" in quotation marks for a file of that name"),
            );
        }
        word.is_some()
    }

    /// Warns of a word that was a boolean in YAML 1.1, where it is a valid text.
    pub(super) fn warn_of_old_boolean(&self) {
        if let Some((text, meant)) = self.old_boolean_word() {
            self.warn(
                format!("`{text}` is a text: only YAML 1.1 took it for a boolean"),
                format!("write \"{text}\" in quotation marks for the text, or {meant}"),
            );
        }
    }

    /// Reports a word that was a boolean in YAML 1.1, and returns what it meant there. In quotation marks
    /// it is a text.
    fn old_boolean(&self) -> Option<bool> {
        let (text, meant) = self.old_boolean_word()?;
        self.problem(
            format!("`{text}` is a text: only YAML 1.1 took it for a boolean"),
            format!("write {meant}, or \"{text}\" in quotation marks for the text"),
        );
        Some(meant)
    }

    fn old_boolean_word(&self) -> Option<(&'a str, bool)> {
        let Value::Text(text) = self.value else {
            return None;
        };
        let meant = match &*text.to_ascii_lowercase() {
            "yes" | "on" => true,
            "no" | "off" => false,
            _ => return None,
        };
        // The problem names it anyway.
        self.reading.public.borrow_mut().insert(self.path.clone());
        let is_plain = self.reading.source_map.is_plain(&self.path);
        (is_plain || self.reading.substituted.contains(&self.path)).then_some((text, meant))
    }

    /// Whether the value is `none`; other values are allowed.
    pub(super) fn is_none(&self) -> bool {
        self.note(|| ValueForm::Words(vec!["none".to_owned()]));
        *self.value == Value::Text("none".to_owned())
    }

    /// Whether the value is this word; other values are allowed.
    pub(super) fn is_word(&self, word: &str) -> bool {
        let is_word = *self.value == Value::Text(word.to_owned());
        if is_word {
            self.note(|| ValueForm::Words(vec![word.to_owned()]));
            self.reading.public.borrow_mut().insert(self.path.clone());
        }
        is_word
    }

    /// Reads a whole number within bounds.
    pub(super) fn whole(&self, low: u64, high: u64) -> Option<u64> {
        self.note(|| ValueForm::Whole(low, high));
        let allowed = format!("a whole number from {low} to {high}");
        self.parse(&allowed, |text| {
            text.parse()
                .ok()
                .filter(|value| (low..=high).contains(value))
        })
    }

    /// Reads a number. A text does not count as a number.
    pub(super) fn number(&self, allowed: &str, sound: impl Fn(f64) -> bool) -> Option<f64> {
        self.note(|| ValueForm::Number);
        match self.value {
            Value::Number(value, _) if sound(*value) => Some(*value),
            Value::Number(_, text) => {
                self.problem(format!("found {text}"), allowed);
                None
            }
            _ => {
                self.problem(format!("{} instead of a number", self.kind()), allowed);
                None
            }
        }
    }

    /// Reads a percentage with its sign: `10%` is 0.1.
    pub(super) fn percent(&self, allowed: &str, sound: impl Fn(f64) -> bool) -> Option<f64> {
        self.note(|| ValueForm::Percent);
        self.parse(allowed, |text| {
            let number: f64 = text.strip_suffix('%')?.trim_end().parse().ok()?;
            sound(number).then_some(number / 100.0)
        })
    }

    /// Reads a time, such as `500ms`, `10s` or `7d`.
    pub(super) fn duration(&self) -> Option<Duration> {
        self.note(|| ValueForm::Duration);
        self.parse(
            "a time with its unit, such as 500ms, 10s, 5m, 1h or 7d",
            |text| humantime::parse_duration(text).ok(),
        )
    }

    /// Reads an address to listen on: `0.0.0.0:8080`, `:8080` or `8080`.
    pub(super) fn listen_address(&self) -> Option<SocketAddr> {
        self.read(
            "an address and a port, such as 0.0.0.0:8080, [::1]:8080 or 8080",
            |text| {
                let port = text.strip_prefix(':').unwrap_or(text);
                let everywhere = || {
                    port.parse()
                        .ok()
                        .map(|port: u16| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
                };
                text.parse().ok().or_else(everywhere)
            },
        )
    }

    /// Reads a size, such as `64KiB`.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.note(|| ValueForm::Bytes);
        self.parse("a size with its unit, such as 64KiB or 1GiB", |text| {
            text.parse::<bytesize::ByteSize>()
                .ok()
                .map(|size| size.as_u64())
        })
    }

    /// Reads any value, as JSON. What JSON does not have is a problem.
    pub(super) fn json(&self) -> Option<serde_json::Value> {
        self.note(|| ValueForm::Anything);
        let json = self.value.to_json();
        if json.is_none() {
            self.problem("a number that JSON does not have", "a finite number");
        }
        json
    }

    /// Reads one of these words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.note(|| ValueForm::Words(all.iter().map(|&word| word.to_owned()).collect()));
        let allowed = format!("one of: {}", all.join(", "));
        let text = self.letters(&allowed)?;
        let found = words
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value);
        if found.is_none() {
            let place = self.reading.source_map.find(&self.path).value;
            self.report(place, format!("found {text:?}"), allowed, near(text, all));
        }
        found
    }

    /// Reads a secret text. `file:PATH` is read from a file, whose path is relative to this one. A line
    /// end after it is removed.
    pub(super) fn secret(&self, allowed: &str) -> Option<Secret> {
        self.reading.secrets.borrow_mut().push(self.path.clone());
        self.note(|| ValueForm::Text);
        let text = self.characters(allowed)?;
        let Some(path) = text.strip_prefix("file:") else {
            return Some(Secret::new(text));
        };
        let path = self.file(path);
        let text = regular_file::read(&path).and_then(|bytes| {
            String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8 text"))
        });
        match text {
            Ok(text) => Some(Secret::new(text.trim_end_matches(['\r', '\n']))),
            Err(error) => {
                self.problem(
                    format!("{} cannot be read: {error}", path.display()),
                    "make the file readable, or name another one",
                );
                None
            }
        }
    }

    /// Resolves a path that is relative to the file that has this value.
    pub(super) fn file(&self, path: &str) -> PathBuf {
        let Position { file, .. } = self.reading.source_map.find(&self.path).key;
        let file = &self.reading.files[file].path;
        file.parent().unwrap_or(Path::new("")).join(path)
    }

    /// Whether the value is a map.
    pub(super) fn is_map(&self) -> bool {
        matches!(self.value, Value::Map(_))
    }

    /// Whether the value is a list.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.value, Value::List(_))
    }

    /// Whether there is no value.
    pub(super) fn is_nothing(&self) -> bool {
        *self.value == Value::Nothing
    }

    /// Returns the key of the value; empty for the whole file.
    pub(super) fn key(&self) -> &str {
        self.path.last().map_or("", String::as_str)
    }

    /// Notes that watershed reads the cookie of this name.
    pub(super) fn reads_cookie(&self, name: &str) {
        self.reading.cookies_read.borrow_mut().push(name.into());
    }

    /// Notes that values like this one stand in several places. The JSON Schema describes them once.
    /// It must be called before the value is read.
    pub(super) fn defined(&self, name: &'static str) {
        self.note(|| ValueForm::Defined(name));
    }

    fn kind(&self) -> String {
        match self.value {
            Value::Nothing => "nothing".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Number(_, text) => format!("the number {text}"),
            Value::Text(text) => format!("the text {text:?}"),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "keys".to_owned(),
        }
    }
}
