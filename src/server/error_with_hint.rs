//! An error of starting the program, with a hint.

/// What could not be done, and what to type instead.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct ErrorWithHint {
    /// What went wrong.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

impl ErrorWithHint {
    /// An error with a hint.
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> ErrorWithHint {
        ErrorWithHint {
            what: what.into(),
            hint: hint.into(),
        }
    }
}
