//! Errors of a store, each with its fix.

use rusqlite::ErrorCode;
use std::io;
use std::path::PathBuf;

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Redis did not answer, or answered with an error.
    #[error("Redis")]
    Redis(#[from] redis::RedisError),
    /// The embedded file could not be read or written.
    #[error("the embedded store")]
    Sqlite(#[from] rusqlite::Error),
    /// The embedded file cannot be opened.
    #[error("{} cannot be opened", path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The embedded file is no database, or is one no more.
    #[error("{place} is not an SQLite database")]
    NotDatabase {
        /// Where.
        place: String,
    },
    /// A newer version of this program wrote it.
    #[error("{place} has version {found}, and this program reads up to {known}")]
    Newer {
        /// Where.
        place: String,
        /// Its version.
        found: String,
        /// The newest that is known.
        known: i64,
    },
    /// Users are forgotten faster than facts can be added.
    #[error("many users are being forgotten: it goes on when that is done")]
    Forgetting,
    /// The system has no random bytes for a key.
    #[error("no random bytes for a key")]
    Random(#[from] getrandom::Error),
    /// Another program's data stand there.
    #[error("{place} is another program's: it has {found}")]
    Foreign {
        /// Where.
        place: String,
        /// What shows it.
        found: String,
    },
    /// Something stands in the house that this version does not understand.
    #[error("{place} holds {found:?}, which this version does not understand")]
    Unreadable {
        /// The key or column.
        place: String,
        /// What stands there.
        found: String,
    },
}

impl StoreError {
    /// The error with its causes, and what to do about it, on one line.
    pub fn with_advice(&self) -> String {
        let text = chain(self);
        match self.advice() {
            Some(advice) => format!("{text}; {advice}"),
            None => text,
        }
    }

    /// Whether what stands in the keys or records of one experiment caused it. Others can be
    /// asked for all the same.
    pub fn is_of_one_experiment(&self) -> bool {
        match self {
            StoreError::Unreadable { .. } => true,
            StoreError::Redis(error) => match error.code() {
                Some("WRONGTYPE") => true,
                // An error inside a script: Redis 6 has no code for it, only a text.
                Some("ERR") => error.detail().is_some_and(|it| it.contains("user_script")),
                _ => false,
            },
            _ => false,
        }
    }

    /// What a person can do; `None` where waiting is all there is.
    fn advice(&self) -> Option<&'static str> {
        match self {
            StoreError::Newer { .. } => Some(
                "it is left as it is: run the version that wrote it, or name another place at `store`",
            ),
            StoreError::Foreign { .. } => {
                Some("it is left as it is: name another place at `store`")
            }
            StoreError::NotDatabase { .. } => Some(DAMAGED),
            StoreError::File { .. } => Some(UNREADABLE),
            StoreError::Sqlite(error) => match error.sqlite_error_code()? {
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Some(DAMAGED),
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Some(
                    "another program holds the file locked: find it with `fuser FILE` and end it",
                ),
                ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly => {
                    Some(UNREADABLE)
                }
                ErrorCode::DiskFull => Some("free some room on its disk"),
                ErrorCode::SystemIoFailure => Some("look at the disk: it fails to read or write"),
                _ => None,
            },
            StoreError::Redis(error) => match error.code() {
                Some("WRONGTYPE") => Some(
                    "another program has written a key there: rename or delete the key, or give `store` a prefix of its own",
                ),
                Some("OOM") => Some("give Redis more memory (maxmemory)"),
                Some("MISCONF") => Some("Redis cannot save to its disk: free some room there"),
                Some("NOAUTH" | "WRONGPASS") => Some("correct the user and password at `store`"),
                Some("NOPERM") => Some("give its user the rights in docs/redis.md"),
                _ => Some("if it should be there, start it or correct `store`"),
            },
            StoreError::Unreadable { .. } | StoreError::Forgetting | StoreError::Random(_) => None,
        }
    }
}

const DAMAGED: &str = "the file is damaged: put a copy of it in its place, or move it away to begin with an empty one (facts of the last minutes are given again)";
const UNREADABLE: &str = "make the file and its folder readable and writable for this user, or name another place at `store`";

/// An error and its causes on one line. Some say what their causes say: that is said once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
