//! Where an archive is: a directory or an object store.

use super::connector::ObjectConnector;
use super::error::ArchiveError;
use crate::config::plan::{ArchiveTarget, BucketPath};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig, UpdateVersion,
};
use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The longest time for one object.
const OBJECT_WITHIN: Duration = Duration::from_secs(120);

/// An archive that can be read and written.
#[derive(Clone, Debug)]
pub(super) struct Location {
    objects: Arc<dyn ObjectStore>,
    /// The prefix of all keys.
    base: Path,
    /// The local directory; `None` for an object store.
    folder: Option<PathBuf>,
}

/// Which version of an object was read.
#[derive(Clone, Debug)]
pub(super) struct ReadVersion(UpdateVersion);

impl Location {
    /// Creates the directory of a local archive if it is missing.
    pub(super) fn prepare(target: &ArchiveTarget) -> Result<(), ArchiveError> {
        let ArchiveTarget::Folder(folder) = target else {
            return Ok(());
        };
        // It has IDs of users: who else may read it is for its owner to say.
        let mut made = std::fs::DirBuilder::new();
        made.recursive(true).mode(0o700);
        made.create(folder).map_err(|source| {
            let path = folder.to_owned();
            ArchiveError::Folder { path, source }
        })
    }

    /// Opens an archive. An object store is asked only when it is used, and asked again after errors of its own so
    /// often.
    pub(super) fn open(
        target: &ArchiveTarget,
        retries_max: usize,
    ) -> Result<Location, ArchiveError> {
        let retry = RetryConfig {
            max_retries: retries_max,
            retry_timeout: OBJECT_WITHIN,
            ..RetryConfig::default()
        };
        let url = target.to_string();
        let base = |place: &BucketPath| Path::parse(&*place.prefix).map_err(Error::from);
        let (objects, base): (Arc<dyn ObjectStore>, Path) = match target {
            ArchiveTarget::Folder(folder) => return Location::of_folder(folder),
            ArchiveTarget::S3(place) => {
                let builder = AmazonS3Builder::from_env().with_url(url).with_retry(retry);
                let builder = builder.with_http_connector(ObjectConnector);
                (Arc::new(builder.build()?), base(place)?)
            }
            ArchiveTarget::GoogleCloud(place) => {
                let builder = GoogleCloudStorageBuilder::from_env().with_url(url);
                let builder = builder
                    .with_retry(retry)
                    .with_http_connector(ObjectConnector);
                (Arc::new(builder.build()?), base(place)?)
            }
            ArchiveTarget::Azure(place) => {
                let builder = MicrosoftAzureBuilder::from_env().with_url(url);
                let builder = builder
                    .with_retry(retry)
                    .with_http_connector(ObjectConnector);
                (Arc::new(builder.build()?), base(place)?)
            }
        };
        Ok(Location {
            objects,
            base,
            folder: None,
        })
    }

    fn of_folder(folder: &std::path::Path) -> Result<Location, ArchiveError> {
        if !folder.is_dir() {
            let why = format!("there is no directory {}", folder.display());
            return Err(ArchiveError::Missing(why));
        }
        let objects = LocalFileSystem::new_with_prefix(folder)?.with_fsync(true);
        Ok(Location {
            objects: Arc::new(objects),
            base: Path::default(),
            folder: Some(folder.to_owned()),
        })
    }

    fn path(&self, name: &str) -> Result<Path, ArchiveError> {
        let base = self.base.as_ref();
        let path = match base.is_empty() {
            true => Path::parse(name),
            false => Path::parse(format!("{base}/{name}")),
        };
        Ok(path.map_err(Error::from)?)
    }

    /// Creates an object. Returns false if there is one of this name.
    pub(super) async fn create(&self, name: &str, bytes: Bytes) -> Result<bool, ArchiveError> {
        match self.put(name, bytes, PutMode::Create).await {
            Ok(()) => Ok(true),
            Err(ArchiveError::Objects(Error::AlreadyExists { .. })) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Replaces an object, unless it is another version than was read: then it returns false. A directory does not know
    /// versions: whoever replaces files there holds [`Location::lock`].
    pub(super) async fn replace(
        &self,
        name: &str,
        ReadVersion(version): ReadVersion,
        bytes: Bytes,
    ) -> Result<bool, ArchiveError> {
        let mode = match self.folder {
            Some(_) => PutMode::Overwrite,
            None => PutMode::Update(version),
        };
        match self.put(name, bytes, mode).await {
            Ok(()) => Ok(true),
            Err(ArchiveError::Objects(Error::Precondition { .. })) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn put(&self, name: &str, bytes: Bytes, mode: PutMode) -> Result<(), ArchiveError> {
        let path = self.path(name)?;
        let options = PutOptions::from(mode);
        let putting = self.objects.put_opts(&path, bytes.into(), options);
        within(putting)
            .await
            .map(drop)
            .map_err(|error| match error {
                ArchiveError::Objects(error) if self.folder.is_some() => self.of_disk(error),
                error => error,
            })
    }

    /// An error of the local directory, where it is one of the system.
    fn of_disk(&self, error: Error) -> ArchiveError {
        let (Error::Generic { source, .. }
        | Error::NotFound { source, .. }
        | Error::PermissionDenied { source, .. }) = &error
        else {
            return error.into();
        };
        let mut cause: Option<&dyn std::error::Error> = Some(&**source);
        while let Some(error) = cause {
            if let Some(system) = error.downcast_ref::<std::io::Error>() {
                return ArchiveError::Folder {
                    path: self.folder.clone().unwrap_or_default(),
                    source: system.kind().into(),
                };
            }
            cause = error.source();
        }
        error.into()
    }

    /// Reads an object; `None` if there is none.
    pub(super) async fn read(
        &self,
        name: &str,
    ) -> Result<Option<(Bytes, ReadVersion)>, ArchiveError> {
        let path = self.path(name)?;
        let reading = async {
            let found = self.objects.get(&path).await?;
            let version = UpdateVersion {
                e_tag: found.meta.e_tag.clone(),
                version: found.meta.version.clone(),
            };
            Ok((found.bytes().await?, ReadVersion(version)))
        };
        match within(reading).await {
            Ok(found) => Ok(Some(found)),
            Err(ArchiveError::Objects(Error::NotFound { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lists the names of objects below a folder, in no order; only those after `after` in the order of bytes.
    pub(super) fn list(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> Result<BoxStream<'_, Result<String, ArchiveError>>, ArchiveError> {
        let path = self.path(folder)?;
        let base = self.base.as_ref().len() + usize::from(!self.base.as_ref().is_empty());
        let listed = match after {
            Some(after) => {
                let after = self.path(after)?;
                self.objects.list_with_offset(Some(&path), &after)
            }
            None => self.objects.list(Some(&path)),
        };
        let named = listed.map(move |found| Ok(found?.location.as_ref()[base..].to_owned()));
        Ok(named.boxed())
    }

    /// Holds the only right to replace files of a directory, until the result is dropped. Object stores know versions
    /// instead.
    pub(super) async fn lock(&self) -> Result<Option<File>, ArchiveError> {
        let Some(folder) = self.folder.clone() else {
            return Ok(None);
        };
        let path = folder.join("_lock");
        let locking = tokio::task::spawn_blocking(move || {
            let mut options = File::options();
            let file = options.create(true).append(true).open(&path)?;
            file.lock()?;
            Ok(file)
        });
        let locked = locking.await.map_err(Error::from)?;
        locked.map(Some).map_err(|source| {
            let path = folder;
            ArchiveError::Folder { path, source }
        })
    }
}

async fn within<T>(
    operation: impl Future<Output = object_store::Result<T>>,
) -> Result<T, ArchiveError> {
    match tokio::time::timeout(OBJECT_WITHIN, operation).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(ArchiveError::Slow(OBJECT_WITHIN)),
    }
}
