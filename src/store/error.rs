//! Errors of a store, and their fixes.

use rusqlite::ErrorCode;
use std::io;
use std::path::PathBuf;

/// Why an operation of a store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Redis did not reply, or replied with an error.
    #[error("Redis")]
    #[cfg(feature = "redis")]
    Redis(#[from] redis::RedisError),
    /// PostgreSQL did not reply, or replied with an error.
    #[error(transparent)]
    #[cfg(feature = "postgres")]
    Postgres(#[from] super::postgres::PostgresError),
    /// The embedded file could not be read or written.
    #[error("the embedded store")]
    Sqlite(#[from] rusqlite::Error),
    /// The embedded file cannot be opened.
    #[error("{} cannot be opened", path.display())]
    File {
        /// The place.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The embedded file is not a database.
    #[error("{place} is not an SQLite database")]
    NotDatabase {
        /// The place.
        place: String,
    },
    /// A newer version of this program wrote it.
    #[error("{place} has version {found}, and this program reads up to {known}")]
    Newer {
        /// The place.
        place: String,
        /// Its version.
        found: String,
        /// The newest version that this program knows.
        known: i64,
    },
    /// It did not reply in time.
    #[error("no reply within {0:?}")]
    Slow(std::time::Duration),
    /// Users are forgotten faster than records can be added.
    #[error("many users are being forgotten: ingestion continues after that")]
    Forgetting,
    /// The system has no random bytes for a key.
    #[error("no random bytes for a key")]
    Random(#[from] getrandom::Error),
    /// Another program's data is there.
    #[error("{place} belongs to another program: it has {found}")]
    Foreign {
        /// The place.
        place: String,
        /// What shows that.
        found: String,
    },
    /// The store holds a value that this version does not understand.
    #[error("{place} holds {found:?}, which this version does not understand")]
    Unreadable {
        /// The key or column.
        place: String,
        /// The value.
        found: String,
    },
}

impl StoreError {
    /// Returns the error, its causes and its fix on one line.
    pub fn with_advice(&self) -> String {
        let text = chain(self);
        match self.advice() {
            Some(advice) => format!("{text}; {advice}"),
            None => text,
        }
    }

    /// Whether the keys or records of one experiment caused it, so that other experiments still work.
    pub fn is_of_one_experiment(&self) -> bool {
        match self {
            StoreError::Unreadable { .. } => true,
            #[cfg(feature = "redis")]
            StoreError::Redis(error) => match error.code() {
                Some("WRONGTYPE") => true,
                // Redis 6 has no code for an error inside a script, only a text.
                Some("ERR") => error.detail().is_some_and(|it| it.contains("user_script")),
                _ => false,
            },
            _ => false,
        }
    }

    /// Returns the fix; `None` if one can only wait.
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            StoreError::Newer { .. } => Some(
                "it is left unchanged: run the version that wrote it, or name another place at `store`",
            ),
            StoreError::Foreign { .. } => {
                Some("it is left unchanged: name another place at `store`")
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
                ErrorCode::DiskFull => Some("free some space on its disk"),
                ErrorCode::SystemIoFailure => Some("check the disk: it fails to read or write"),
                _ => None,
            },
            #[cfg(feature = "redis")]
            StoreError::Redis(error) => match error.code() {
                Some("WRONGTYPE") => Some(
                    "another program has written a key there: rename or delete the key, or give `store` a prefix of its own",
                ),
                Some("OOM") => Some("give Redis more memory (maxmemory)"),
                Some("MISCONF") => Some("Redis cannot save to its disk: free some space there"),
                Some("NOAUTH" | "WRONGPASS") => Some("correct the user and password at `store`"),
                Some("NOPERM") => Some("give its user the rights in docs/redis.md"),
                _ => Some("start it, or correct `store`"),
            },
            #[cfg(feature = "postgres")]
            StoreError::Postgres(error) => error.advice(),
            StoreError::Slow(_)
            | StoreError::Unreadable { .. }
            | StoreError::Forgetting
            | StoreError::Random(_) => None,
        }
    }
}

const DAMAGED: &str = "the file is damaged: replace it by a backup, or move it away to start with an empty one (the records of the last minutes are ingested again)";
const UNREADABLE: &str = "make the file and its folder readable and writable for this user, or name another place at `store`";

/// Returns an error and its causes on one line. A cause that the error repeats is left out.
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
