//! A line of a file with a marker, for an error.

use super::secret_text::{without_credentials, without_secret};
use super::source_map::{Position, ScalarToken, SourceMap};
use std::fmt;
use std::ops::Range;

/// The longest part of a line that is shown, in characters.
const WIDTH: usize = 120;
/// So much of it may be in front of the marker.
const BEFORE: usize = 60;
/// A line that is not YAML is not shown if it has one of these words: it may hold a secret.
const MAY_BE_SECRET: &[&str] = &["secret", "token", "password", "key", "hash", "header", "@"];

/// How a value is shown in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShownAs {
    /// As it is written.
    Written,
    /// Not at all: nobody has read it, so it may be a secret.
    Unread,
    /// As a secret.
    Secret,
}

/// A line of a file, and which part of it is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snippet {
    line: usize,
    text: String,
    /// The marked characters of `text`.
    marked: Range<usize>,
}

impl Snippet {
    /// Shows the line of a position, with each value as `shown_as` says.
    pub fn of(
        text: &str,
        at: Position,
        map: &SourceMap,
        shown_as: impl Fn(&ScalarToken) -> ShownAs,
    ) -> Option<Snippet> {
        let line: Vec<char> = text.lines().nth(at.line.checked_sub(1)?)?.chars().collect();
        let tokens: Vec<&ScalarToken> = map.tokens_of_line(at.file, at.line).collect();
        let starts_there = tokens.iter().find(|token| token.start == at);
        let marked = match starts_there {
            Some(token) => token.columns(at.line, line.len()),
            None => at.column - 1..at.column,
        };
        let mut shown = ShownLine::default();
        let mut next = 0;
        for token in tokens {
            let shown_as = match token.is_key {
                true => ShownAs::Written,
                false => shown_as(token),
            };
            let hidden = token.columns(at.line, line.len());
            if hidden.is_empty() {
                continue;
            }
            let written: String = line[hidden.clone()].iter().collect();
            let shown_of_it = without_credentials(&written);
            if shown_as == ShownAs::Written && shown_of_it == written {
                continue;
            }
            shown.push(&line, next..hidden.start, &marked);
            let instead = match shown_as {
                ShownAs::Written => shown_of_it.into_owned(),
                ShownAs::Unread => "…".to_owned(),
                ShownAs::Secret => without_secret(written.trim_matches(['"', '\''])),
            };
            shown.replace(&instead, &hidden, &marked);
            next = hidden.end;
        }
        shown.push(&line, next..line.len(), &marked);
        Some(shown.cut(at.line))
    }

    /// Shows the line of a position in a text that is not YAML, unless it may hold a secret.
    pub fn of_unparsed(text: &str, (line, column): (usize, usize)) -> Option<Snippet> {
        let small = text.lines().nth(line.checked_sub(1)?)?.to_lowercase();
        if MAY_BE_SECRET.iter().any(|word| small.contains(word)) {
            return None;
        }
        let at = Position {
            file: 0,
            line,
            column,
        };
        Snippet::of(text, at, &SourceMap::default(), |_| ShownAs::Written)
    }
}

/// A line of which parts were replaced, and which of its characters are marked.
#[derive(Default)]
struct ShownLine {
    text: Vec<char>,
    marked: Option<Range<usize>>,
}

impl ShownLine {
    fn push(&mut self, line: &[char], part: Range<usize>, marked: &Range<usize>) {
        for n in part {
            if marked.contains(&n) {
                self.mark(1);
            }
            let letter = line[n];
            self.text
                .push(if letter.is_control() { ' ' } else { letter });
        }
    }

    fn replace(&mut self, instead: &str, hidden: &Range<usize>, marked: &Range<usize>) {
        if hidden.contains(&marked.start) {
            self.mark(instead.chars().count());
        }
        self.text.extend(instead.chars());
    }

    /// Marks so many characters that follow.
    fn mark(&mut self, length: usize) {
        let here = self.text.len();
        let start = self.marked.as_ref().map_or(here, |marked| marked.start);
        self.marked = Some(start..here + length);
    }

    /// Cuts a long line around the marker.
    fn cut(self, line: usize) -> Snippet {
        let length = self.text.len();
        let marked = self.marked.unwrap_or(length..length + 1);
        let start = match length > WIDTH {
            true => marked.start.saturating_sub(BEFORE),
            false => 0,
        };
        let end = length.min(start + WIDTH);
        let mut text: String = self.text[start..end].iter().collect();
        let mut first = marked.start - start;
        if start > 0 {
            text.insert(0, '…');
            first += 1;
        }
        if end < length {
            text.push('…');
        }
        let marks = marked
            .len()
            .clamp(1, (end + 1).saturating_sub(marked.start).max(1));
        Snippet {
            line,
            text: text.trim_end().to_owned(),
            marked: first..first + marks,
        }
    }
}

impl fmt::Display for Snippet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let blank = " ".repeat(self.marked.start);
        let marks = "^".repeat(self.marked.len());
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {}", self.text)?;
        writeln!(f, "{margin} | {blank}{marks}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, line: usize, column: usize, shown: &str) {
        let at = Position {
            file: 0,
            line,
            column,
        };
        let map = SourceMap::of(text, 0);
        let snippet = Snippet::of(text, at, &map, |token| match token.path.last() {
            Some(key) if key == "s" => ShownAs::Secret,
            Some(key) if key == "u" => ShownAs::Unread,
            _ => ShownAs::Written,
        });
        assert_eq!(snippet.unwrap().to_string(), shown);
    }

    #[test]
    fn the_token_is_marked() {
        check(
            "a: b\nkey: value\n",
            2,
            6,
            "  |\n2 | key: value\n  |      ^^^^^\n",
        );
        check(
            "a: { wieght: 50 }",
            1,
            6,
            "  |\n1 | a: { wieght: 50 }\n  |      ^^^^^^\n",
        );
        check("a: [ 1 ]", 1, 4, "  |\n1 | a: [ 1 ]\n  |    ^\n");
        check("a: \"\"", 1, 4, "  |\n1 | a: \"\"\n  |    ^^\n");
        assert_eq!(Snippet::of_unparsed("", (1, 1)), None);
    }

    #[test]
    fn secrets_are_hidden_and_the_marker_moves() {
        check(
            "{ s: \"long secret here\", b: 1 }",
            1,
            26,
            "  |\n1 | { s: (secret), b: 1 }\n  |                ^\n",
        );
        check("u: hunter2", 1, 1, "  |\n1 | u: …\n  | ^\n");
        check("s: ${NAME}", 1, 4, "  |\n1 | s: ${NAME}\n  |    ^^^^^^^\n");
        check(
            "s: hunter2",
            1,
            4,
            "  |\n1 | s: (secret)\n  |    ^^^^^^^^\n",
        );
        check(
            "s: |\n  hunter2\n  x",
            2,
            3,
            "  |\n2 |   (secret)\n  |   ^^^^^^^^\n",
        );
        assert_eq!(Snippet::of_unparsed("token: a: b", (1, 9)), None);
    }

    #[test]
    fn a_long_line_is_cut_around_the_marker() {
        let text = format!("a: {} b", "x".repeat(500));
        let at = Position {
            file: 0,
            line: 1,
            column: 400,
        };
        let map = SourceMap::default();
        let snippet = Snippet::of(&text, at, &map, |_| ShownAs::Written).unwrap();
        assert_eq!(snippet.text.chars().count(), WIDTH + 2);
        assert_eq!(snippet.marked, BEFORE + 1..BEFORE + 2);
    }
}
