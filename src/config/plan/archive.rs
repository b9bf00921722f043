//! The archive: every exposure and event, as Parquet.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Where and how often records are archived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Where files are written.
    pub to: ArchiveTarget,
    /// How often.
    pub every: Duration,
    /// The most bytes of the journal that are kept only because the archive does not have them yet.
    pub backlog_bytes: u64,
}

/// Where an archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchiveTarget {
    /// A local directory, created if missing.
    Folder(PathBuf),
    /// A bucket of Amazon S3, or of a store with its API.
    S3(BucketPath),
    /// A bucket of Google Cloud Storage.
    GoogleCloud(BucketPath),
    /// A container of Azure Blob Storage.
    Azure(BucketPath),
}

/// A place in an object store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketPath {
    /// The bucket or container.
    pub bucket: Box<str>,
    /// The prefix of all keys, without slashes at its ends; may be empty.
    pub prefix: Box<str>,
}

impl ArchiveTarget {
    /// Returns the scheme of its address and its place in the bucket; `None` for a directory.
    pub fn bucket(&self) -> Option<(&'static str, &BucketPath)> {
        match self {
            ArchiveTarget::Folder(_) => None,
            ArchiveTarget::S3(place) => Some(("s3", place)),
            ArchiveTarget::GoogleCloud(place) => Some(("gs", place)),
            ArchiveTarget::Azure(place) => Some(("az", place)),
        }
    }
}

impl fmt::Display for ArchiveTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.bucket()) {
            (ArchiveTarget::Folder(path), _) => write!(f, "{}", path.display()),
            (_, Some((scheme, BucketPath { bucket, prefix }))) if prefix.is_empty() => {
                write!(f, "{scheme}://{bucket}")
            }
            (_, Some((scheme, BucketPath { bucket, prefix }))) => {
                write!(f, "{scheme}://{bucket}/{prefix}")
            }
            (_, None) => Ok(()),
        }
    }
}
