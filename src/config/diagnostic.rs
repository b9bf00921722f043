//! Errors of a configuration file: the position, what was found, and what is allowed.

use std::fmt;

/// All errors of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidConfig {
    /// At least one, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
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
}

impl std::error::Error for InvalidConfig {}

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
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f, "warning")
    }
}

impl Diagnostic {
    fn write(&self, f: &mut fmt::Formatter<'_>, kind: &str) -> fmt::Result {
        write!(f, "{kind}: {}:", self.file)?;
        if let Some((line, column)) = self.place {
            write!(f, "{line}:{column}:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        writeln!(f, " {}\n", self.found)?;
        match &self.near {
            Some(near) => writeln!(f, "hint: did you mean `{near}`? ({})", self.allowed),
            None => writeln!(f, "hint: {}", self.allowed),
        }
    }
}

/// Returns the name in `known` that `found` is probably a misspelling of.
pub fn near<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let distance = |known: &&str| strsim::damerau_levenshtein(found, known);
    let close = |known: &&str| distance(known) <= (found.len().max(known.len()) + 1) / 3;
    known
        .into_iter()
        .filter(close)
        .min_by_key(distance)
        .map(str::to_owned)
}
