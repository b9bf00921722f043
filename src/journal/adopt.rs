//! Adopts journals that earlier processes left in a folder.

use super::files::{LOCK, is_own, lock, spare_path};
use super::frame::{self, FORMAT, FrameFormat, Key};
use super::options::Options;
use super::reader::Reader;
use super::{marks, segment};
use crate::regular_file;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// The journals of a folder.
#[derive(Debug, Default)]
pub struct Adopted {
    /// A reader for each journal that no running process holds.
    pub readers: Vec<Reader>,
    /// Journals and entries that are neither read nor changed.
    pub skipped: Vec<SkippedJournal>,
}

/// A journal, or an entry of one, that is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedJournal {
    /// Its folder, or the skipped entry of its folder.
    pub path: PathBuf,
    /// The reason.
    pub why: SkipReason,
}

/// Why a journal is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// It has a newer format.
    Newer(u32),
    /// It cannot be opened, or holds other files.
    Unusable(String),
    /// An entry has the name of a segment and is none. The rest of its journal is read.
    Stray,
}

impl std::fmt::Display for SkippedJournal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.path.display();
        match &self.why {
            SkipReason::Newer(format) => write!(
                f,
                "the journal {path} has format {format}, and this version reads up to {FORMAT}; it is left unchanged: run the version that wrote it, or delete it"
            ),
            SkipReason::Unusable(error) => write!(
                f,
                "the journal {path} cannot be read: {error}; its events are not counted until it can: make all its files readable for the user that runs watershed, or move away what is not a journal"
            ),
            SkipReason::Stray => write!(
                f,
                "{path} is not a segment of a journal and is skipped: move it away"
            ),
        }
    }
}

/// Returns the name of a journal's folder.
pub(super) fn name_of(id: Uuid) -> String {
    format!("{id}.{FORMAT}")
}

/// Returns the journal of a folder with this name, and its format.
fn read_name(name: &str) -> Option<(Uuid, u32)> {
    let (id, format) = match name.split_once('.') {
        Some((id, format)) => (id, format.parse().ok().filter(|&format| format > 1)?),
        None => (name, 1),
    };
    Some((Uuid::try_parse(id).ok()?, format))
}

/// Opens readers for the journals in a folder that no running process holds. Journals of a newer format
/// and those that cannot be used stay unchanged, and others are still read.
pub fn adopt(folder: &Path, options: &Options) -> io::Result<Adopted> {
    let mut adopted = Adopted::default();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some((id, format)) = name.and_then(read_name) else {
            continue;
        };
        let why = match adopt_one(&path, id, format, options) {
            Ok(AdoptionOutcome::Journal { reader, strays }) => {
                adopted.readers.extend(reader.map(|reader| *reader));
                let alone = |path| SkippedJournal {
                    path,
                    why: SkipReason::Stray,
                };
                adopted.skipped.extend(strays.into_iter().map(alone));
                continue;
            }
            Ok(AdoptionOutcome::Newer(format)) => SkipReason::Newer(format),
            // Another process has removed it since.
            Err(_) if is_gone(&path) => continue,
            Err(error) => SkipReason::Unusable(error.to_string()),
        };
        adopted.skipped.push(SkippedJournal { path, why });
    }
    Ok(adopted)
}

/// The contents of a journal's folder.
enum AdoptionOutcome {
    Journal {
        /// `None` if another process holds it.
        reader: Option<Box<Reader>>,
        /// The entries with names of segments.
        strays: Vec<PathBuf>,
    },
    Newer(u32),
}

fn adopt_one(path: &Path, id: Uuid, format: u32, options: &Options) -> io::Result<AdoptionOutcome> {
    // A link may lead to a folder of another program.
    if std::fs::symlink_metadata(path)?.is_symlink() {
        return Err(io::Error::other("it is a symbolic link"));
    }
    let segment::Listed { segments, strays } = segment::read(path)?;
    if segments.is_empty() && strays.is_empty() && has_others(path)? {
        return Err(io::Error::other("it holds other files, and no segments"));
    }
    let format = format.max(newest(&segments));
    if format > FORMAT {
        return Ok(AdoptionOutcome::Newer(format));
    }
    let held = match lock(path)? {
        Some(lock) => lock,
        None => {
            let reader = None;
            return Ok(AdoptionOutcome::Journal { reader, strays });
        }
    };
    let format = match format {
        1 => FrameFormat::First,
        _ => FrameFormat::Second(Key::from(id)),
    };
    let id = id.to_string().into();
    let reader = Reader::of_left(id, format, path, held, options.clone())?;
    // A spare segment of a writer that has ended.
    let _ = std::fs::remove_file(spare_path(path));
    for (_, segment) in segment::list(path)? {
        let bytes = std::fs::metadata(segment).map_or(0, |found| found.len());
        options.quota.add(bytes);
    }
    let reader = Some(Box::new(reader));
    Ok(AdoptionOutcome::Journal { reader, strays })
}

/// Whether a folder holds files that journals do not have.
fn has_others(folder: &Path) -> io::Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|end| end != "seg") && !is_own(folder, &path) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_gone(path: &Path) -> bool {
    let found = std::fs::symlink_metadata(path);
    found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Returns the time of the latest record of all journals in a folder, in Unix milliseconds; 0 without any.
/// Their clocks can be ahead of the system's.
pub fn latest_ms(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let latest = entries.filter_map(|entry| {
        let path = entry.path();
        read_name(path.file_name()?.to_str()?)?;
        let lock = regular_file::open(&path.join(LOCK)).ok()?;
        Some(marks::left(&lock).latest_ms)
    });
    latest.max().unwrap_or(0)
}

/// Returns the newest format in the heads of a journal's segments; 0 if none can be read. The format in
/// the lock file is not used, because nothing shows whether it is damaged.
fn newest(segments: &[(u64, PathBuf)]) -> u32 {
    let heads = segments.iter().filter_map(|(_, path)| {
        let mut head = [0; frame::SEGMENT_HEAD_BYTES];
        regular_file::open(path).ok()?.read_exact(&mut head).ok()?;
        frame::format_of(&head)
    });
    heads.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes an empty journal.
    fn make(folder: &Path) -> PathBuf {
        let path = folder.join(name_of(Uuid::now_v7()));
        std::fs::create_dir(&path).unwrap();
        path
    }

    fn make_pipe(path: &Path) {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, path, mode).unwrap();
    }

    /// Checks which journals are read and which entries are skipped beside a broken one.
    #[track_caller]
    fn check(break_it: impl FnOnce(&Path) -> PathBuf, is_read: bool, expected: &str) {
        let folder = tempfile::TempDir::new().unwrap();
        let sound = make(folder.path());
        let stray = break_it(folder.path());
        let adopted = adopt(folder.path(), &Options::new(64 << 20, 1)).unwrap();
        let ids: Vec<_> = adopted.readers.iter().map(|it| it.id().clone()).collect();
        let name = sound.file_name().unwrap().to_str().unwrap();
        assert!(ids.iter().any(|id| name.starts_with(&**id)), "{adopted:?}");
        assert_eq!(ids.len(), 1 + usize::from(is_read), "{adopted:?}");
        let [alone] = &adopted.skipped[..] else {
            panic!("{adopted:?}");
        };
        assert_eq!(alone.path, stray);
        assert!(alone.to_string().contains(expected), "{alone}");
        latest_ms(folder.path());
    }

    #[test]
    fn unusable_entry_is_reported_and_other_journals_are_read() {
        let entry = |folder: &Path| folder.join(name_of(Uuid::now_v7()));
        let file = |folder: &Path| {
            let path = entry(folder);
            std::fs::write(&path, "a file").unwrap();
            path
        };
        check(file, false, "Not a directory");
        let pipe = |folder: &Path| {
            let path = entry(folder);
            make_pipe(&path);
            path
        };
        check(pipe, false, "Not a directory");
        let nowhere = |folder: &Path| {
            let path = entry(folder);
            std::os::unix::fs::symlink("nowhere", &path).unwrap();
            path
        };
        check(nowhere, false, "cannot be read");
        let looped = |folder: &Path| {
            let path = entry(folder);
            std::os::unix::fs::symlink(&path, &path).unwrap();
            path
        };
        check(looped, false, "cannot be read");
        for make_lock in [
            |path: &Path| make_pipe(path),
            |path: &Path| std::fs::create_dir(path).unwrap(),
            |path: &Path| std::os::unix::fs::symlink("elsewhere", path).unwrap(),
        ] {
            let lock = |folder: &Path| {
                let journal = make(folder);
                make_lock(&journal.join(LOCK));
                journal
            };
            check(lock, false, "lock is not a regular file");
        }
    }

    #[test]
    fn other_folders_are_not_touched() {
        let foreign = |folder: &Path| {
            let path = make(folder);
            std::fs::create_dir(path.join("data")).unwrap();
            std::fs::write(path.join("data/precious"), "p").unwrap();
            path
        };
        check(foreign, false, "it holds other files");
        let elsewhere = tempfile::TempDir::new().unwrap();
        let link = |folder: &Path| {
            let path = folder.join(name_of(Uuid::now_v7()));
            std::os::unix::fs::symlink(elsewhere.path(), &path).unwrap();
            path
        };
        check(link, false, "it is a symbolic link");
        assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);

        let folder = tempfile::TempDir::new().unwrap();
        let journal = make(folder.path());
        let adopted = adopt(folder.path(), &Options::new(64 << 20, 1)).unwrap();
        std::fs::write(journal.join("notes.txt"), "n").unwrap();
        adopted.readers[0].remove().unwrap();
        let left = std::fs::read_dir(&journal).unwrap();
        let names: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["notes.txt"]);
    }

    #[test]
    fn stray_entry_named_like_a_segment_loses_no_record() {
        const NAMES: [&str; 3] = [
            "00000000000000000001.seg",
            "00000000000000000900.seg",
            "18446744073709551615.seg",
        ];
        for make_stray in [
            |path: &Path| make_pipe(path),
            |path: &Path| std::fs::create_dir(path).unwrap(),
            |path: &Path| std::os::unix::fs::symlink("nowhere", path).unwrap(),
            |path: &Path| std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
        ] {
            for name in NAMES {
                let stray = |folder: &Path| {
                    let path = make(folder).join(name);
                    make_stray(&path);
                    path
                };
                check(stray, true, "is not a segment");
            }
        }
        // Numbers above the highest sequence number.
        for name in ["18446744073709551615.seg", "4611686018427387905.seg"] {
            let stray = |folder: &Path| {
                let path = make(folder).join(name);
                std::fs::write(&path, "x").unwrap();
                path
            };
            check(stray, true, "is not a segment");
        }
    }

    #[test]
    fn flipped_bit_of_a_lock_file_does_not_make_a_journal_newer() {
        let folder = tempfile::TempDir::new().unwrap();
        let options = Options::new(64 << 20, 1);
        let interval = std::time::Duration::from_millis(20);
        drop(crate::journal::open(folder.path(), 1, interval, &options).unwrap());
        let own = std::fs::read_dir(folder.path()).unwrap().next();
        let lock = own.unwrap().unwrap().path().join(LOCK);
        let sound = std::fs::read(&lock).unwrap();
        for bit in 0..8 * sound.len() {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&lock, bytes).unwrap();
            let adopted = adopt(folder.path(), &options).unwrap();
            assert_eq!(adopted.skipped, [], "bit {bit}");
        }
    }
}
