//! Takes the place of the archive in a program without the feature `archive`, whose plans have none.

use super::question::ReplayQuestion;
use super::swept::Swept;
use crate::config::plan::{Archive, ArchiveTarget};
use crate::journal::Chunk;
use crate::journal::FoundJournals;
use crate::store::Store;
use crate::telemetry::Telemetry;
use std::future::Future;
use std::sync::Arc;

/// An archiver of nothing.
pub struct NoArchiver;

/// There are none.
#[derive(Debug, thiserror::Error)]
#[error("there is no archive")]
pub struct NoArchiveError;

impl NoArchiveError {
    /// Returns the error.
    pub fn with_advice(&self) -> String {
        self.to_string()
    }
}

impl NoArchiver {
    /// Makes an archiver of nothing.
    pub fn new(_: Archive, _: Arc<dyn Store>, _: Arc<Telemetry>, _: FoundJournals) -> NoArchiver {
        NoArchiver
    }

    /// Waits for `stop`.
    pub async fn run(&mut self, stop: impl Future<Output = ()>) {
        stop.await;
    }
}

/// The records of no archive.
pub struct NoArchivedPast;

impl NoArchivedPast {
    /// Fails.
    pub async fn open(
        _: &ArchiveTarget,
        _: ReplayQuestion,
    ) -> Result<NoArchivedPast, NoArchiveError> {
        Err(NoArchiveError)
    }

    /// Returns nothing.
    pub async fn next(&mut self) -> Result<Option<Chunk>, NoArchiveError> {
        Ok(None)
    }
}

/// Does nothing.
pub async fn forget(_: &Archive, _: &dyn Store, _: (&[u8], u64)) -> Result<Swept, NoArchiveError> {
    Ok(Swept::default())
}
