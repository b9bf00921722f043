//! What to do about an error of the store.

use super::StoreError;
use rusqlite::ErrorCode;

impl StoreError {
    /// The error with its causes, and what to do about it, on one line.
    pub fn with_advice(&self) -> String {
        let text = super::chain(self);
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
