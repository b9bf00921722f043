//! Why an archive could not be read or written, and what to do about it.

use crate::store::{StoreError, chain};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why an archive could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The directory or the object store refused.
    #[error(transparent)]
    Objects(#[from] object_store::Error),
    /// It did not reply in time.
    #[error("no reply within {0:?}")]
    Slow(Duration),
    /// The directory cannot be used.
    #[error("{} cannot be written", path.display())]
    Folder {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The store of the counts, which knows phases and forgotten users, is unavailable.
    #[error("it waits for the store")]
    Counts(#[from] StoreError),
    /// A journal cannot be read now.
    #[error("the journal {journal} cannot be read")]
    Journal {
        /// Its name.
        journal: String,
        /// The system's error.
        source: io::Error,
    },
    /// A file of the archive is damaged, or was written by something else.
    #[error("{path} is not a file of this archive: {why}")]
    Unreadable {
        /// Its path.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The archive does not have what is asked for.
    #[error("{0}")]
    Missing(String),
    /// Rows cannot be encoded.
    #[error("rows cannot be encoded")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// Rows do not have the shape of their table.
    #[error("rows do not have the columns of their table")]
    Rows(#[from] arrow_schema::ArrowError),
    /// TLS cannot be used.
    #[error("TLS cannot be used: {0}")]
    Tls(String),
}

impl ArchiveError {
    /// Returns the error, its causes and its fix on one line.
    pub fn with_advice(&self) -> String {
        let text = match self {
            // Its text has its causes already.
            ArchiveError::Objects(error) => brief(error),
            error => chain(error),
        };
        match self.advice() {
            Some(advice) => format!("{text}; {advice}"),
            None => text,
        }
    }

    fn advice(&self) -> Option<&'static str> {
        use object_store::Error as E;
        Some(match self {
            ArchiveError::Objects(E::NotFound { .. }) => "create it, or correct `archive.to`",
            ArchiveError::Objects(E::PermissionDenied { .. } | E::Unauthenticated { .. }) => {
                "give the credentials in the environment leave to list, read and write there"
            }
            ArchiveError::Objects(E::UnknownConfigurationKey { .. } | E::NotSupported { .. }) => {
                "correct `archive.to`, or the variables of the environment for it"
            }
            ArchiveError::Objects(_) | ArchiveError::Slow(_) => {
                "start it or correct `archive.to`, and check the variables of the environment for it"
            }
            ArchiveError::Folder { .. } => {
                "make the directory writable for the user that runs watershed, or write another at `archive.to`"
            }
            ArchiveError::Counts(error) => return error.advice(),
            ArchiveError::Unreadable { .. } => "move it away",
            ArchiveError::Missing(_)
            | ArchiveError::Journal { .. }
            | ArchiveError::Parquet(_)
            | ArchiveError::Rows(_)
            | ArchiveError::Tls(_) => return None,
        })
    }
}

/// The error in words that are the same each time. Those of HTTP name how long each request took, and may show whole
/// responses.
fn brief(error: &object_store::Error) -> String {
    const CHARACTERS_MAX: usize = 300;
    if matches!(error, object_store::Error::NotFound { .. }) {
        return "there is no bucket or container of this name".to_owned();
    }
    let text = error.to_string();
    let text = text.split('<').next().unwrap_or_default();
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((what, rest)) = text.split_once(" in ")
        && let Some((_, why)) = rest.split_once(" - ")
    {
        text = format!("{what}: {why}");
    }
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
