//! An error with a hint for the user.

/// What failed, and how to fix it.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct ErrorWithHint {
    /// The error.
    pub what: String,
    /// The fix.
    pub hint: String,
}

impl ErrorWithHint {
    /// Makes an error with a hint.
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> ErrorWithHint {
        ErrorWithHint {
            what: what.into(),
            hint: hint.into(),
        }
    }
}
