//! Errors of a configuration file: the position, what was found, and what is allowed.

use super::snippet::Snippet;
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

/// All errors of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidConfig {
    /// At least one, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// The files that were read or could not be read: one of them has to change.
    pub files: Vec<PathBuf>,
}

/// One error of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The path of the file, as the user named it.
    pub file: String,
    /// Line and column, from 1; `None` for an error of the whole file.
    pub place: Option<(usize, usize)>,
    /// The path of the key, such as `experiments.new-checkout.traffic`; empty for the whole file.
    pub key: String,
    /// What was found.
    pub found: String,
    /// What is allowed there, or the fix.
    pub allowed: String,
    /// The known name that was probably meant.
    pub near: Option<String>,
    /// The line, with a marker; secrets are hidden in it.
    pub snippet: Option<Snippet>,
}

impl std::error::Error for InvalidConfig {}

impl InvalidConfig {
    /// Makes the error of one file.
    pub fn of(problem: Diagnostic, path: &Path) -> InvalidConfig {
        InvalidConfig {
            diagnostics: vec![problem],
            files: vec![path.to_owned()],
        }
    }

    /// Returns all errors with their lines of the file, for a terminal.
    pub fn with_lines(&self) -> String {
        let all = self.diagnostics.iter();
        let texts: Vec<String> = all.map(|problem| problem.with_line("error")).collect();
        texts.join("\n")
    }
}

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.diagnostics.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, "error")
    }
}

/// What is valid in a file, but probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigWarning(pub Diagnostic);

impl ConfigWarning {
    /// Returns the warning in one line.
    pub fn line(&self) -> String {
        let warning = &self.0;
        format!("{}: {}; {}", warning.key, warning.found, warning.allowed)
    }

    /// Returns the warning with its line of the file, for a terminal.
    pub fn with_line(&self) -> String {
        self.0.with_line("warning")
    }
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f, "warning")
    }
}

impl Diagnostic {
    /// Makes an error of a whole file.
    pub fn of_file(
        path: &Path,
        found: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Diagnostic {
        Diagnostic {
            file: path.display().to_string(),
            place: None,
            key: String::new(),
            found: found.into(),
            allowed: allowed.into(),
            near: None,
            snippet: None,
        }
    }

    fn write(&self, f: &mut impl Write, kind: &str) -> fmt::Result {
        self.write_head(f, kind)?;
        self.write_hint(f)
    }

    fn with_line(&self, kind: &str) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_head(&mut text, kind);
        if let Some(snippet) = &self.snippet {
            let _ = writeln!(text, "{snippet}");
        }
        let _ = self.write_hint(&mut text);
        text
    }

    fn write_head(&self, f: &mut impl Write, kind: &str) -> fmt::Result {
        write!(f, "{kind}: {}:", self.file)?;
        if let Some((line, column)) = self.place {
            write!(f, "{line}:{column}:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        writeln!(f, " {}\n", self.found)
    }

    fn write_hint(&self, f: &mut impl Write) -> fmt::Result {
        match &self.near {
            None if self.allowed.is_empty() => Ok(()),
            Some(near) => writeln!(f, "hint: did you mean `{near}`? ({})", self.allowed),
            None => writeln!(f, "hint: {}", self.allowed),
        }
    }
}

/// Returns the name in `known` that `found` is probably a misspelling of.
pub(super) fn near<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let distance = |known: &&str| strsim::damerau_levenshtein(found, known);
    let close = |known: &&str| distance(known) <= (found.len().max(known.len()) + 1) / 3;
    known
        .into_iter()
        .filter(close)
        .min_by_key(distance)
        .map(str::to_owned)
}
