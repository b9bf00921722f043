//! The archive: every exposure and event as Parquet, in a directory or an object store.
//!
//! A [`Follower`](crate::journal::Follower) reads each journal a second time. Some records of one journal are a
//! *batch*. Each batch is claimed first: an object names its first and its last record, and is created only if there
//! is none. Its files are named by the journal, the first and the last record, and are created only if they are
//! missing, too. So a batch that is written again, after a crash or with another program's copy of the journal, has the
//! same bounds and the same names, and adds nothing. The position in a journal is not kept locally: it is the last
//! claim.
//!
//! ```text
//! TO/exposures/dt=2026-11-30/hour=03/JOURNAL-FIRST-LAST.parquet      likewise events and identities
//! TO/definitions/DIGEST.parquet                                      what records refer to, by its digest
//! TO/_batches/JOURNAL/FIRST.json                                     {"last": LAST}
//! ```
//!
//! A user who is forgotten is removed from files in place: they keep their names.

#[cfg(feature = "archive")]
mod archiver;
#[cfg(feature = "archive")]
mod batch;
#[cfg(feature = "archive")]
mod claims;
#[cfg(feature = "archive")]
mod columns;
#[cfg(feature = "archive")]
mod connector;
#[cfg(feature = "archive")]
mod declared;
#[cfg(feature = "archive")]
mod definitions;
#[cfg(feature = "archive")]
mod encode;
#[cfg(feature = "archive")]
mod error;
#[cfg(feature = "archive")]
mod forgotten;
#[cfg(feature = "archive")]
mod journal;
#[cfg(feature = "archive")]
mod location;
#[cfg(feature = "archive")]
mod past;
mod question;
#[cfg(feature = "archive")]
mod rows;
#[cfg(feature = "archive")]
mod rows_back;
#[cfg(feature = "archive")]
mod sweep;
mod swept;
#[cfg(feature = "archive")]
mod tables;
#[cfg(not(feature = "archive"))]
mod without_archive;

#[cfg(feature = "archive")]
pub use archiver::Archiver;
#[cfg(feature = "archive")]
pub use error::ArchiveError;
#[cfg(feature = "archive")]
pub use past::ArchivedPast;
pub use question::{EventSource, ReplayBase, ReplayQuestion};
#[cfg(feature = "archive")]
pub use sweep::forget;
pub use swept::Swept;
#[cfg(not(feature = "archive"))]
pub use without_archive::{
    NoArchiveError as ArchiveError, NoArchivedPast as ArchivedPast, NoArchiver as Archiver, forget,
};
