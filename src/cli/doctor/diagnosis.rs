//! What the visits to a site found.

use serde::Serialize;

/// Something that is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Problem {
    /// What kind of problem it is.
    pub kind: &'static str,
    /// What was found.
    pub found: String,
    /// What to do.
    pub fix: String,
}

/// What the visits found.
#[derive(Debug, Default)]
pub(super) struct Diagnosis {
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What could not be checked.
    pub notes: Vec<String>,
}

impl Diagnosis {
    /// Adds a problem, once.
    pub(super) fn add(
        &mut self,
        kind: &'static str,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let (found, fix) = (found.into(), fix.into());
        let problem = Problem { kind, found, fix };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}
