//! The positions of keys and values in a YAML text. The parser of values returns no positions, so the
//! text is parsed a second time for them.

use saphyr_parser::{Event, Marker, Parser};
use std::collections::HashMap;

/// The positions of keys and values, by path.
#[derive(Debug, Default)]
pub struct SourceMap(HashMap<Vec<String>, KeyLocation>);

/// The position of a key and of its value: line and column, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyLocation {
    /// The start of the key; for an item of a list, the start of the item.
    pub key: (usize, usize),
    /// The start of the value.
    pub value: (usize, usize),
}

impl SourceMap {
    /// Reads the positions in a text. If the text is not YAML, it reads those before the error.
    pub fn of(text: &str) -> SourceMap {
        let mut walk = Walk::default();
        for event in Parser::new_from_str(text) {
            let Ok((event, span)) = event else { break };
            walk.event(event, &span.start);
        }
        SourceMap(walk.places)
    }

    /// Returns the position of a path, or of its nearest parent: values from an anchor have no position
    /// of their own.
    pub fn find(&self, path: &[String]) -> KeyLocation {
        let around = (0..=path.len())
            .rev()
            .find_map(|end| self.0.get(&path[..end]));
        around.copied().unwrap_or(KeyLocation {
            key: (1, 1),
            value: (1, 1),
        })
    }
}

#[derive(Default)]
struct Walk {
    places: HashMap<Vec<String>, KeyLocation>,
    path: Vec<String>,
    open: Vec<Open>,
}

enum Open {
    /// A mapping that waits for a key, or for the value of this key.
    Map { key: Option<(usize, usize)> },
    /// A list, and the number of its items so far.
    List { items: usize },
}

impl Walk {
    fn event(&mut self, event: Event<'_>, start: &Marker) {
        let at = (start.line(), start.col() + 1);
        match event {
            Event::Scalar(text, ..) => match self.open.last_mut() {
                Some(Open::Map { key: key @ None }) => {
                    *key = Some(at);
                    self.path.push(text.into_owned());
                }
                _ => {
                    self.begin(at);
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

    /// Begins a value.
    fn begin(&mut self, at: (usize, usize)) {
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
        self.places
            .entry(self.path.clone())
            .or_insert(KeyLocation { key, value: at });
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

    #[track_caller]
    fn check(text: &str, path: &[&str], key: (usize, usize), value: (usize, usize)) {
        let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
        assert_eq!(
            SourceMap::of(text).find(&path),
            KeyLocation { key, value },
            "{path:?}"
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
}
