//! The positions of keys and values in YAML texts. The parser of values returns no positions, so each
//! text is parsed a second time for them.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

/// A position in one of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The index of the file; 0 is the routes file.
    pub file: usize,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

/// The position of a key and of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyLocation {
    /// The start of the key; for an item of a list, the start of the item.
    pub key: Position,
    /// The start of the value.
    pub value: Position,
}

/// A key, or a value that is neither a list nor a map.
#[derive(Clone, Debug)]
pub struct ScalarToken {
    /// The path of the value, or of the key's value.
    pub path: Vec<String>,
    /// Its first character.
    pub start: Position,
    /// The line and column after its last character.
    pub end: (usize, usize),
    /// Whether it is a key.
    pub is_key: bool,
    /// Whether it has neither quotation marks nor a block of its own.
    pub is_plain: bool,
    /// Whether it is neither a number nor a boolean.
    pub is_text: bool,
}

impl ScalarToken {
    /// Returns its part on a line of this length, as indices of the line's characters.
    pub fn columns(&self, line: usize, length: usize) -> Range<usize> {
        let start = match self.start.line == line {
            true => self.start.column - 1,
            false => 0,
        };
        let end = match self.end.0 == line {
            true => self.end.1 - 1,
            false => length,
        };
        let end = end.min(length);
        start.min(end)..end
    }
}

/// The positions of keys and values, by path.
#[derive(Debug, Default)]
pub struct SourceMap {
    places: HashMap<Vec<String>, KeyLocation>,
    /// In the order of the files.
    tokens: Vec<ScalarToken>,
    /// The first key that stands twice in its map: where it stands again, and where first.
    duplicate: Option<(Position, Position)>,
    /// The line where this reader finds an error, with which it ends.
    stopped: Option<usize>,
}

impl SourceMap {
    /// Reads the positions in the text of the file with this index. If the text is not YAML, it reads
    /// those before the error.
    pub fn of(text: &str, file: usize) -> SourceMap {
        let mut walk = Walk {
            file,
            ..Walk::default()
        };
        for event in Parser::new_from_str(text) {
            match event {
                Ok((event, span)) => walk.event(event, &span),
                Err(error) => {
                    walk.map.stopped = Some(error.marker().line());
                    break;
                }
            }
        }
        walk.map
    }

    /// Adds the positions of another file. Where both have a path, the first one stays.
    pub fn include(&mut self, other: SourceMap) {
        for (path, place) in other.places {
            self.places.entry(path).or_insert(place);
        }
        self.tokens.extend(other.tokens);
        self.stopped = self.stopped.or(other.stopped);
    }

    /// Returns the position of a path, or of its nearest parent: values from an anchor have no position
    /// of their own.
    pub fn find(&self, path: &[String]) -> KeyLocation {
        let around = (0..=path.len())
            .rev()
            .find_map(|end| self.places.get(&path[..end]));
        let start = Position {
            file: 0,
            line: 1,
            column: 1,
        };
        around.copied().unwrap_or(KeyLocation {
            key: start,
            value: start,
        })
    }

    /// Whether the value at a path is written without quotation marks.
    pub fn is_plain(&self, path: &[String]) -> bool {
        let mut values = self.tokens.iter().filter(|token| !token.is_key);
        values.any(|token| token.is_plain && token.path == path)
    }

    /// Returns the line where reading ended with an error: what follows has no positions.
    pub fn stopped(&self) -> Option<usize> {
        self.stopped
    }

    /// Returns where a key stands again in its map, and where it stands first, if there is one.
    pub fn duplicate(&self) -> Option<(Position, Position)> {
        self.duplicate
    }

    /// Returns the keys and values of which a part stands on a line of a file.
    pub fn tokens_of_line(&self, file: usize, line: usize) -> impl Iterator<Item = &ScalarToken> {
        let on_line = move |token: &&ScalarToken| {
            token.start.file == file && (token.start.line..=token.end.0).contains(&line)
        };
        self.tokens.iter().filter(on_line)
    }

    /// Whether a line is inside a value of several lines, whose layout is its own, after its first line.
    pub fn is_within_value(&self, line: usize) -> bool {
        let within = |token: &ScalarToken| {
            // A block ends where the next line begins.
            let last = token.end.0 - usize::from(token.end.1 == 1);
            !token.is_plain && token.start.line < line && line <= last
        };
        self.tokens.iter().any(within)
    }
}

#[derive(Default)]
struct Walk {
    map: SourceMap,
    file: usize,
    path: Vec<String>,
    open: Vec<Open>,
}

enum Open {
    /// A mapping that waits for a key, or for the value of this key.
    Map { key: Option<Position> },
    /// A list, and the number of its items so far.
    List { items: usize },
}

impl Walk {
    fn event(&mut self, event: Event<'_>, span: &Span) {
        let at = self.position(&span.start);
        match event {
            Event::Scalar(text, style, ..) => match self.open.last_mut() {
                Some(Open::Map { key: key @ None }) => {
                    *key = Some(at);
                    self.path.push(text.clone().into_owned());
                    self.token(span, &text, style, true);
                }
                _ => {
                    self.begin(at);
                    self.token(span, &text, style, false);
                    self.end();
                }
            },
            Event::Alias(_) => {
                self.begin(at);
                self.end();
            }
            Event::MappingStart(..) => {
                self.begin(at);
                self.open.push(Open::Map { key: None });
            }
            Event::SequenceStart(..) => {
                self.begin(at);
                self.open.push(Open::List { items: 0 });
            }
            Event::MappingEnd | Event::SequenceEnd => {
                self.open.pop();
                self.end();
            }
            _ => {}
        }
    }

    fn position(&self, marker: &Marker) -> Position {
        Position {
            file: self.file,
            line: marker.line(),
            column: marker.col() + 1,
        }
    }

    fn token(&mut self, span: &Span, text: &str, style: ScalarStyle, is_key: bool) {
        let end = self.position(&span.end);
        let is_plain = style == ScalarStyle::Plain;
        let is_number = text.parse::<f64>().is_ok();
        self.map.tokens.push(ScalarToken {
            path: self.path.clone(),
            start: self.position(&span.start),
            end: (end.line, end.column),
            is_key,
            is_plain,
            is_text: !is_plain || !(is_number || matches!(text, "true" | "false")),
        });
    }

    /// Begins a value.
    fn begin(&mut self, at: Position) {
        let key = match self.open.last_mut() {
            Some(Open::Map { key: Some(key) }) => *key,
            Some(Open::Map { key }) => {
                // A key that is not a scalar has no name for a path.
                *key = Some(at);
                self.path.push("?".to_owned());
                at
            }
            Some(Open::List { items }) => {
                self.path.push(items.to_string());
                *items += 1;
                at
            }
            None => at,
        };
        let location = KeyLocation { key, value: at };
        match self.map.places.entry(self.path.clone()) {
            Entry::Vacant(place) => drop(place.insert(location)),
            Entry::Occupied(first) if self.map.duplicate.is_none() => {
                self.map.duplicate = Some((key, first.get().key));
            }
            Entry::Occupied(_) => {}
        }
    }

    /// Ends a value.
    fn end(&mut self) {
        match self.open.last_mut() {
            Some(Open::Map { key }) => {
                *key = None;
                self.path.pop();
            }
            Some(Open::List { .. }) => drop(self.path.pop()),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(path: &[&str]) -> Vec<String> {
        path.iter().map(|part| (*part).to_owned()).collect()
    }

    #[track_caller]
    fn check(text: &str, at: &[&str], key: (usize, usize), value: (usize, usize)) {
        let position = |(line, column): (usize, usize)| Position {
            file: 0,
            line,
            column,
        };
        assert_eq!(
            SourceMap::of(text, 0).find(&path(at)),
            KeyLocation {
                key: position(key),
                value: position(value)
            },
            "{at:?}"
        );
    }

    #[test]
    fn keys_and_values_are_found() {
        let text = "a: 1\nb:\n  c: [x, y]\n  d: { e: 2 }\nf: g\n";
        check(text, &["a"], (1, 1), (1, 4));
        check(text, &["b", "c"], (3, 3), (3, 6));
        check(text, &["b", "c", "1"], (3, 10), (3, 10));
        check(text, &["b", "d", "e"], (4, 8), (4, 11));
        check(text, &["f"], (5, 1), (5, 4));
    }

    #[test]
    fn unknown_path_has_the_position_of_its_parent() {
        check("a:\n  b: 1\n", &["a", "b", "c"], (2, 3), (2, 6));
        check("a: &x { b: 1 }\nc: *x\n", &["c", "b"], (2, 1), (2, 4));
        check("", &["a"], (1, 1), (1, 1));
    }

    #[test]
    fn key_that_stands_twice_is_found() {
        let found = |text| {
            let duplicate = SourceMap::of(text, 0).duplicate();
            duplicate.map(|(again, first)| (again.line, first.line))
        };
        assert_eq!(found("a: 1\nb: { c: 1 }\nb:\n  d: 1\n"), Some((3, 2)));
        assert_eq!(found("a:\n  b: 1\n  b: 2\n"), Some((3, 2)));
        assert_eq!(found("a: { b: 1 }\nc: { b: 1 }\nd: [1, 1]\n"), None);
    }

    #[test]
    fn tokens_have_their_ends_and_quotation_marks_are_known() {
        let map = SourceMap::of(
            "key: value # why\nq: 'yes'\nb: |\n  1\n  2\nlast: { a: x }\n",
            0,
        );
        let ends = |line| -> Vec<_> {
            let tokens = map.tokens_of_line(0, line);
            tokens
                .map(|token| (token.start.column, token.end.1))
                .collect()
        };
        assert_eq!(ends(1), [(1, 4), (6, 11)]);
        assert_eq!(ends(2), [(1, 2), (4, 9)]);
        assert!(map.is_plain(&path(&["key"])) && !map.is_plain(&path(&["q"])));
        assert!(map.is_within_value(5) && !map.is_within_value(4));
        assert!(!map.is_within_value(2) && !map.is_within_value(6));
        assert_eq!(map.tokens_of_line(1, 1).count(), 0);
    }
}
