//! Where in a YAML text each key stands. The parser of values keeps no places, so the text is
//! read once more for them.

use saphyr_parser::{Event, Marker, Parser};
use std::collections::HashMap;

/// The places of a text's keys and values, by path.
#[derive(Debug, Default)]
pub struct SourceMap(HashMap<Vec<String>, KeyLocation>);

/// Lines and columns from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyLocation {
    /// Where the key stands (for an item of a list: the item).
    pub key: (usize, usize),
    /// Where the value begins.
    pub value: (usize, usize),
}

impl SourceMap {
    /// The places of a text. A text that is not YAML has those before the fault.
    pub fn of(text: &str) -> SourceMap {
        let mut walk = Walk::default();
        for event in Parser::new_from_str(text) {
            let Ok((event, span)) = event else { break };
            walk.event(event, &span.start);
        }
        SourceMap(walk.places)
    }

    /// The place of a path, or of the nearest thing around it: what an anchor brought in stands
    /// elsewhere.
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
    /// A mapping that awaits a key, or the value of this one.
    Map { key: Option<(usize, usize)> },
    /// A list, and how many items it has had.
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

    /// A value begins here.
    fn begin(&mut self, at: (usize, usize)) {
        let key = match self.open.last_mut() {
            Some(Open::Map { key: Some(key) }) => *key,
            Some(Open::Map { key }) => {
                // A key that is not a scalar: it has no name that a path could hold.
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

    /// A value has ended.
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
    fn what_is_not_there_is_near_what_is() {
        check("a:\n  b: 1\n", &["a", "b", "c"], (2, 3), (2, 6));
        check("a: &x { b: 1 }\nc: *x\n", &["c", "b"], (2, 1), (2, 4));
        check("", &["a"], (1, 1), (1, 1));
    }
}
