//! An error with an exit code of its own.

use serde_json::Value;

/// An error with an exit code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct ExitWith {
    /// The exit code.
    pub code: u8,
    /// The error, for people.
    pub message: String,
    /// Further fields of its JSON document.
    pub details: Value,
}
