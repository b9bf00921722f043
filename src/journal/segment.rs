//! One segment of a journal: a preallocated, memory-mapped file.
//!
//! It is preallocated, so that a full disk is noticed when the file is created and not when a mapped page
//! is written. It is mapped, so that appending takes no system call, and appended records are in the page
//! cache when the process is killed.

use super::mapping::Mapping;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A segment being written.
#[derive(Debug)]
pub(super) struct Segment {
    map: Mapping,
    file: Arc<File>,
}

impl Segment {
    /// Creates a segment of this many bytes, all of them reserved on the disk.
    pub(super) fn create(path: &Path, bytes: u64) -> io::Result<Segment> {
        let file = private()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        reserve(&file, bytes).inspect_err(|_| {
            // A half-reserved file would occupy the space that is short.
            let _ = std::fs::remove_file(path);
        })?;
        let map = Mapping::of(&file)?;
        Ok(Segment {
            map,
            file: Arc::new(file),
        })
    }

    /// Returns the segment's bytes.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.map
    }

    /// Returns the segment's bytes for reading.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.map
    }

    /// Whether the file was truncated while it was written.
    pub(super) fn is_lost(&self) -> bool {
        self.map.is_lost()
    }

    /// Truncates the segment to its first `bytes` bytes.
    pub(super) fn close(self, bytes: u64) -> io::Result<()> {
        let Segment { map, file } = self;
        drop(map);
        file.set_len(bytes)
    }

    /// Returns the file, for syncing it on another thread.
    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }
}

/// Returns the path of the segment whose first frame has this sequence number.
pub(super) fn path_of(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.seg"))
}

/// The highest sequence number in the name of a segment; no journal reaches it.
const SEQUENCE_MAX: u64 = 1 << 62;

/// The entries of a journal's folder with names of segments.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// The first sequence numbers and paths of segments, in order.
    pub segments: Vec<(u64, PathBuf)>,
    /// Entries that are no regular file, or whose number is too high.
    pub strays: Vec<PathBuf>,
}

/// Reads a journal's folder.
pub(super) fn read(folder: &Path) -> io::Result<Listed> {
    let mut listed = Listed::default();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if path.extension().is_none_or(|end| end != "seg") {
            continue;
        }
        let number = path
            .file_stem()
            .and_then(|stem| stem.to_str()?.parse().ok());
        let Some(first) = number else {
            continue;
        };
        let is_file = match entry.file_type() {
            Ok(kind) if kind.is_symlink() => path.is_file(),
            Ok(kind) => kind.is_file(),
            // Another process has just removed it.
            Err(_) => continue,
        };
        if is_file && first <= SEQUENCE_MAX {
            listed.segments.push((first, path));
        } else {
            listed.strays.push(path);
        }
    }
    listed.segments.sort();
    Ok(listed)
}

/// Lists the first sequence numbers and paths of a folder's segments, in order.
pub(super) fn list(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    match read(folder) {
        Ok(listed) => Ok(listed.segments),
        // Another program has removed the folder; a writer creates it again.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Options that create files for their owner only. Opening never waits, also if the path is a pipe.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
    options
}

/// Creates a folder for its owner only, and its missing parents.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Reserves the first bytes of a file on the disk.
pub(super) fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(file, bytes),
        Err(error) => Err(error.into()),
    }
}

/// Writes zeros, for file systems that cannot reserve space.
fn write_zeros(mut file: &File, bytes: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut file).map(drop)
}
