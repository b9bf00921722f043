//! One segment of a journal: a preallocated, memory-mapped file.
//!
//! Preallocated, so that a full disk is met when the file is made and not when a mapped page is
//! written. Mapped, so that appending needs no system call, and what was appended
//! is in the page cache when the process is killed.

use super::mapping::Mapping;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A segment being written.
#[derive(Debug)]
pub struct Segment {
    map: Mapping,
    file: Arc<File>,
}

impl Segment {
    /// Makes a segment of this many bytes, all of them reserved on the disk.
    pub fn create(path: &Path, bytes: u64) -> io::Result<Segment> {
        let file = private()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        reserve(&file, bytes).inspect_err(|_| {
            // A half-reserved file would hold on to the room that is short.
            let _ = std::fs::remove_file(path);
        })?;
        let map = Mapping::of(&file)?;
        Ok(Segment {
            map,
            file: Arc::new(file),
        })
    }

    /// The segment's bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.map
    }

    /// The same, for reading.
    pub fn as_bytes(&self) -> &[u8] {
        &self.map
    }

    /// Whether the file was shortened while it was written.
    pub fn is_lost(&self) -> bool {
        self.map.is_lost()
    }

    /// Ends the segment after its first `bytes` bytes and gives the rest back to the disk.
    pub fn close(self, bytes: u64) -> io::Result<()> {
        let Segment { map, file } = self;
        drop(map);
        file.set_len(bytes)
    }

    /// The file, for making it durable from another thread.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }
}

/// The file of the segment whose first frame has this sequence number.
pub fn path_of(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.seg"))
}

/// The highest sequence number that a segment's name may have; no journal gets there.
const SEQUENCE_MAX: u64 = 1 << 62;

/// What stands in a journal's folder under the names of segments.
#[derive(Debug, Default)]
pub struct Listed {
    /// The first sequence numbers and paths of segments, in order.
    pub segments: Vec<(u64, PathBuf)>,
    /// What is no regular file, or has a number that no journal reaches.
    pub strays: Vec<PathBuf>,
}

/// Reads a journal's folder.
pub fn read(folder: &Path) -> io::Result<Listed> {
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
            // It was just removed.
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

/// The first sequence numbers and paths of a folder's segments, in order.
pub fn list(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    match read(folder) {
        Ok(listed) => Ok(listed.segments),
        // Somebody has removed it: a writer makes it anew.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Opens a file for reading. Opening a pipe would wait for ever, and reading a device never ends:
/// only a regular file is opened.
pub fn open(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from);
    let named = |error: io::Error| {
        let name = path.file_name().unwrap_or_default().display();
        io::Error::new(error.kind(), format!("{name}: {error}"))
    };
    let file = File::from(opened.map_err(named)?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(not_regular(path)),
    }
}

/// Reads a whole regular file.
pub fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The error for what stands in the place of a file.
pub fn not_regular(path: &Path) -> io::Error {
    let name = path.file_name().unwrap_or_default().display();
    io::Error::other(format!("{name} is no regular file"))
}

/// How files are made: for their owner only. Opening waits for nothing, also where a pipe stands in
/// the place of a file.
pub fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
    options
}

/// Makes a folder for its owner only, and its parents where missing.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Reserves the first bytes of a file on the disk.
pub fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(file, bytes),
        Err(error) => Err(error.into()),
    }
}

/// For file systems that cannot reserve: what is written is there.
fn write_zeros(mut file: &File, bytes: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut file).map(drop)
}
