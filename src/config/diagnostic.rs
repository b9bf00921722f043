//! What is wrong with a file that people wrote: the place, what was found, what is allowed.

use std::fmt;

/// Everything that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidConfig {
    /// In the order of the file; at least one.
    pub diagnostics: Vec<Diagnostic>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, as it was named.
    pub file: String,
    /// Line and column of the place, from 1; `None` when it is the file itself.
    pub place: Option<(usize, usize)>,
    /// The key's path, such as `experiments.new-checkout.traffic`; empty for the whole file.
    pub key: String,
    /// What was found.
    pub found: String,
    /// What is allowed there, or what to do.
    pub allowed: String,
    /// What was probably meant.
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
        write!(f, "error: {}:", self.file)?;
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

/// The one of `known` that `found` is probably a slip of.
pub fn near<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let distance = |known: &&str| strsim::damerau_levenshtein(found, known);
    let close = |known: &&str| distance(known) <= (found.len().max(known.len()) + 1) / 3;
    known
        .into_iter()
        .filter(close)
        .min_by_key(distance)
        .map(str::to_owned)
}
