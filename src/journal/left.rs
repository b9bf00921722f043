//! Journals that earlier processes left in a folder.

use super::frame::{self, FORMAT, Format, Key};
use super::{Options, Reader, marks, segment, writer};
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use uuid::Uuid;

/// Locked as long as the journal is held; also keeps its marks.
pub(super) const LOCK: &str = "lock";

/// What was found in a folder.
#[derive(Debug, Default)]
pub struct Adopted {
    /// One for each journal that no running process holds.
    pub readers: Vec<Reader>,
    /// What is neither read nor changed.
    pub left_alone: Vec<LeftAlone>,
}

/// A journal that this version does not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftAlone {
    /// Its folder.
    pub path: PathBuf,
    /// Its format, which is newer.
    pub format: u32,
}

impl std::fmt::Display for LeftAlone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the journal {} has format {}, and this version reads up to {FORMAT}; it is left as it is: run the version that wrote it, or delete it",
            self.path.display(),
            self.format
        )
    }
}

/// The name of a journal's folder.
pub(super) fn name_of(id: Uuid) -> String {
    format!("{id}.{FORMAT}")
}

/// The journal that a folder of this name holds, and its format.
fn read_name(name: &str) -> Option<(Uuid, u32)> {
    let (id, format) = match name.split_once('.') {
        Some((id, format)) => (id, format.parse().ok().filter(|&format| format > 1)?),
        None => (name, 1),
    };
    Some((Uuid::try_parse(id).ok()?, format))
}

/// Readers for the journals in a folder that no running process holds. Journals of a newer format
/// are left as they are.
pub fn adopt(folder: &Path, options: &Options) -> io::Result<Adopted> {
    let mut adopted = Adopted::default();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some((id, format)) = name.and_then(read_name) else {
            continue;
        };
        let format = format.max(newest(&path));
        if format > FORMAT {
            adopted.left_alone.push(LeftAlone { path, format });
            continue;
        }
        let lock = match lock(&path) {
            Ok(Some(lock)) => lock,
            Ok(None) => continue,
            // Another process has just removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        // Made ahead for a writer that is gone.
        let _ = std::fs::remove_file(writer::spare_path(&path));
        for (_, segment) in segment::list(&path)? {
            let bytes = std::fs::metadata(segment).map_or(0, |found| found.len());
            let used = &options.quota.used_bytes;
            used.fetch_add(bytes, Ordering::Relaxed);
        }
        let format = match format {
            1 => Format::First,
            _ => Format::Second(Key::from(id)),
        };
        let id = id.to_string().into();
        let reader = Reader::new(id, format, &path, lock, None, options.clone());
        adopted.readers.push(reader);
    }
    Ok(adopted)
}

/// The time of the latest fact of all journals in a folder, in Unix milliseconds; 0 without any.
/// Their clocks can be ahead of the system's.
pub fn latest_ms(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let latest = entries.filter_map(|entry| {
        let path = entry.path();
        read_name(path.file_name()?.to_str()?)?;
        let lock = File::open(path.join(LOCK)).ok()?;
        Some(marks::left(&lock).latest_ms)
    });
    latest.max().unwrap_or(0)
}

/// The newest format that any file of a journal names; 0 where none can be read.
fn newest(folder: &Path) -> u32 {
    let lock = File::open(folder.join(LOCK)).ok();
    let marks = lock.and_then(|lock| marks::left(&lock).format);
    let segments = segment::list(folder).unwrap_or_default();
    let segments = segments.into_iter().filter_map(|(_, path)| {
        let mut head = [0; frame::SEGMENT_HEAD_BYTES];
        File::open(path).ok()?.read_exact(&mut head).ok()?;
        frame::format_of(&head)
    });
    segments.chain(marks).max().unwrap_or(0)
}

/// The lock of a journal's folder, or `None` when another process holds it.
pub(super) fn lock(folder: &Path) -> io::Result<Option<File>> {
    let file = segment::private()
        .create(true)
        .read(true)
        .write(true)
        .open(folder.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
