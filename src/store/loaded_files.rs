//! The routes files that replicas have loaded.

use super::decisions::DecidedBy;
use serde::{Deserialize, Serialize};

/// A routes file that was loaded. A file that several replicas load is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedFile {
    /// Its number in this store, from 1.
    pub number: u64,
    /// A digest of what replicas share of it.
    pub digest: String,
    /// When the first replica loaded it, in Unix milliseconds.
    pub at_ms: u64,
    /// Who loaded it: the name of a token, `file` for a changed file, `SIGHUP`, or `start`.
    pub by: String,
    /// What decides: a person through the admin API, or the file.
    pub source: DecidedBy,
    /// The lines that differ from the file before, each with `+` or `-` before it. Secrets are hidden.
    pub diff: Vec<String>,
    /// What it changes for users, by experiment; `None` if the file before cannot be read any more.
    pub effects: Option<Vec<FileEffect>>,
}

/// What a file changes for the users of one experiment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEffect {
    /// The name of the experiment.
    pub experiment: String,
    /// What the change means for its counts.
    pub meaning: String,
    /// What changes for its metrics and verdicts.
    pub changes: Vec<String>,
    /// How many users move where, of a sample of user IDs.
    pub moves: Vec<String>,
}

/// The most loaded files in a store; older ones are deleted.
pub const LOADED_FILES_MAX: usize = 1000;
