//! The files of a journal besides its segments, and its lock.

use super::segment;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The lock file, which also holds the journal's marks.
pub(super) const LOCK: &str = "lock";

/// The end of the name of a file with the position of a further reader.
const POSITION: &str = "position";

/// Whether this is a file of a journal besides its segments.
pub(super) fn is_own(folder: &Path, path: &Path) -> bool {
    let is_position = path.extension().is_some_and(|end| end == POSITION);
    is_position || own_files(folder).iter().any(|own| own == path)
}

/// Returns the files of a journal besides its segments. Some of them may be missing.
pub(super) fn all_but_segments(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = own_files(folder).to_vec();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == POSITION) {
            files.push(path);
        }
    }
    Ok(files)
}

fn own_files(folder: &Path) -> [PathBuf; 3] {
    let lock = folder.join(LOCK);
    [lock, copies_path(folder), spare_path(folder)]
}

/// The file with the position of a further reader.
pub(super) fn position_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.{POSITION}"))
}

/// The file with a second copy of the declarations.
pub(super) fn copies_path(folder: &Path) -> PathBuf {
    folder.join("declarations")
}

/// The spare segment, which has no number yet.
pub(super) fn spare_path(folder: &Path) -> PathBuf {
    folder.join("spare.tmp")
}

/// Locks a journal's folder; `None` if another process holds it.
pub(super) fn lock(folder: &Path) -> io::Result<Option<File>> {
    let path = folder.join(LOCK);
    if std::fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
        return Err(io::Error::other(format!("{LOCK} is not a regular file")));
    }
    let file = segment::private()
        .create(true)
        .read(true)
        .write(true)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether this open file is still the one at the path.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    let identity = |found: std::fs::Metadata| (found.dev(), found.ino());
    let (own, there) = (file.metadata(), std::fs::metadata(path));
    own.and_then(|own| Ok(identity(own) == identity(there?)))
        .unwrap_or(false)
}
