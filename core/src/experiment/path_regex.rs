//! Regular expressions of paths, compiled to an automaton that reads each byte of a path once.

use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// The longest expression, in bytes.
pub const REGEX_BYTES_MAX: usize = 1_024;
/// The nesting of an expression.
const DEPTH_MAX: u32 = 32;
/// The memory of an expression before it is made deterministic, in bytes.
const NFA_BYTES_MAX: usize = 256 << 10;
/// The memory of an automaton, in bytes.
const DFA_BYTES_MAX: usize = 512 << 10;

/// A regular expression of paths. It matches a part of the path unless it has `^` and `$`.
#[derive(Clone)]
pub struct PathRegex {
    text: Box<str>,
    automaton: Arc<dense::DFA<Vec<u32>>>,
}

/// Why a text is no regular expression of paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegexFault {
    /// It has characters that are no ASCII, which no path in normal form has.
    NotAscii,
    /// It cannot be parsed, or has parts that cannot be matched in one pass.
    Syntax(String),
    /// It or its automaton is too large.
    Size,
}

impl PathRegex {
    /// Compiles an expression. Its automaton is bounded, so that no path takes long to match.
    pub fn new(text: &str) -> Result<PathRegex, RegexFault> {
        if !text.is_ascii() {
            return Err(RegexFault::NotAscii);
        }
        if text.len() > REGEX_BYTES_MAX {
            return Err(RegexFault::Size);
        }
        // Parsed apart from compiling, because the compiler's errors do not tell syntax from size.
        let options = syntax::Config::new().unicode(false).utf8(false);
        let options = options.nest_limit(DEPTH_MAX);
        let parsed = syntax::parse_with(text, &options);
        let parsed = parsed.map_err(|error| RegexFault::Syntax(reason(&error.to_string())))?;
        let thompson = thompson::Config::new().utf8(false);
        let thompson = thompson.nfa_size_limit(Some(NFA_BYTES_MAX));
        let thompson = thompson.which_captures(thompson::WhichCaptures::None);
        let nfa = thompson::Compiler::new()
            .configure(thompson)
            .build_from_hir(&parsed)
            .map_err(|_| RegexFault::Size)?;
        let dfa = dense::Config::new()
            .start_kind(StartKind::Unanchored)
            .dfa_size_limit(Some(DFA_BYTES_MAX))
            .determinize_size_limit(Some(DFA_BYTES_MAX));
        let automaton = dense::Builder::new().configure(dfa).build_from_nfa(&nfa);
        let automaton = automaton.map_err(|_| RegexFault::Size)?;
        Ok(PathRegex {
            text: text.into(),
            automaton: Arc::new(automaton),
        })
    }

    /// Whether it can match a path at all. In normal form, a path begins with `/` and has no `//`, `?` or `#`,
    /// no space, and nothing but ASCII.
    pub fn can_match(&self) -> bool {
        let dfa = &*self.automaton;
        let Ok(start) = dfa.start_state_forward(&Input::new("").anchored(Anchored::No)) else {
            return true;
        };
        let mut seen = BTreeSet::new();
        let mut next = vec![(dfa.next_state(start, b'/'), true)];
        while let Some((state, is_behind_slash)) = next.pop() {
            // A match is known one byte later.
            let at_end = dfa.next_eoi_state(state);
            if dfa.is_match_state(state) || dfa.is_match_state(at_end) {
                return true;
            }
            if dfa.is_dead_state(state) || !seen.insert((state, is_behind_slash)) {
                continue;
            }
            let bytes = (b'!'..=b'~').filter(|byte| !b"?#".contains(byte));
            let bytes = bytes.filter(|&byte| byte != b'/' || !is_behind_slash);
            next.extend(bytes.map(|byte| (dfa.next_state(state, byte), byte == b'/')));
        }
        false
    }

    /// Returns the expression as the file writes it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it matches a path.
    pub fn matches(&self, path: &str) -> bool {
        let input = Input::new(path).anchored(Anchored::No).earliest(true);
        // It cannot fail: no byte makes this automaton give up.
        matches!(self.automaton.try_search_fwd(&input), Ok(Some(_)))
    }
}

/// The last line of an error, which says what is wrong; the lines above draw where.
fn reason(error: &str) -> String {
    let last = error.lines().last().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}

impl fmt::Debug for PathRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PathRegex({:?})", self.text)
    }
}

impl PartialEq for PathRegex {
    fn eq(&self, other: &PathRegex) -> bool {
        self.text == other.text
    }
}

impl Eq for PathRegex {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_that_no_path_matches_are_known() {
        let can_match = |text: &str| PathRegex::new(text).unwrap().can_match();
        for text in [
            "",
            "^/$",
            "a",
            "^/p/[0-9]+$",
            "/a$",
            "^/a/",
            ".",
            "[^/]$",
            "^/[?a]",
            "(?i)^/A",
        ] {
            assert!(can_match(text), "{text}");
        }
        for text in [
            "\\?",
            "[?]",
            "^/a#",
            "^/b//c",
            "^a",
            " ",
            "a^",
            "$/",
            "^/a?b\\?c=1$",
        ] {
            assert!(!can_match(text), "{text}");
        }
    }

    #[test]
    fn expressions_match_as_usual() {
        let check = |text: &str, path: &str, expected: bool| {
            let regex = PathRegex::new(text).unwrap();
            assert_eq!(regex.matches(path), expected, "{text} {path}");
        };
        check("^/p/[0-9]+$", "/p/17", true);
        check("^/p/[0-9]+$", "/p/17/x", false);
        check("^/p/[0-9]+$", "/x/p/17", false);
        check("/p/\\d+", "/x/p/17/y", true);
        check("^/(a|b)/(?:[^/]+)$", "/b/c", true);
        check("^/(?i)SHOP$", "/shop", true);
        check("^(/[a-z]+)+$", "/a/b/c", true);
        check("\\bx\\b", "/a-x-b", true);
        check("^.*%C3%A9", "/caf%C3%A9", true);
        check("", "/", true);
    }

    #[test]
    fn unbounded_expressions_are_refused() {
        let size = [
            "^/[ab]*a[ab]{60}$",
            "(x{1,100}){1,100}",
            "((a{0,100}){0,100}){0,100}",
            &"a".repeat(REGEX_BYTES_MAX + 1),
        ];
        for text in size {
            assert_eq!(PathRegex::new(text), Err(RegexFault::Size), "{text}");
        }
        for text in [
            "(",
            "[a",
            "a{2",
            "(?=x)",
            "(a)\\1",
            "*",
            "\\p{Greek}",
            "(?P<n",
            &"(".repeat(100),
        ] {
            let fault = PathRegex::new(text).unwrap_err();
            assert!(
                matches!(&fault, RegexFault::Syntax(why) if !why.is_empty()),
                "{text} {fault:?}"
            );
        }
        assert_eq!(PathRegex::new("/\u{e9}"), Err(RegexFault::NotAscii));
    }

    #[test]
    fn long_path_takes_one_pass() {
        let regex = PathRegex::new("^(/?(a+)+)+$").unwrap();
        let path = format!("/{}!", "a".repeat(64 << 10));
        // Backtracking would take longer than the age of the universe.
        assert!(!regex.matches(&path));
    }
}
