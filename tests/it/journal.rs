//! The journal on a real disk: what was written is read back, whatever happened in between.

use crate::support::until;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;
use tempfile::TempDir;
use watershed::experiment::assign::{Share, Weight};
use watershed::experiment::metric::{MetricGoal, MetricKind, Observation};
use watershed::experiment::record::{
    Declaration, DeclaredExperiment, DeclaredGroup, DeclaredMetric, Exposure, Record, Served,
};
use watershed::experiment::{EpochDigest, ExperimentIndex, GroupIndex, MetricIndex, UserId};
use watershed::journal::{
    self, Chunk, DeclaredPlan, JournalFull, Journals, Options, Reader, Writer,
};

pub fn declaration(digest: u64) -> Declaration {
    let group = |name: &str| DeclaredGroup {
        name: name.to_owned(),
        weight: Weight::new(2.5).unwrap(),
        upstream: Some("a".to_owned()),
    };
    Declaration {
        digest,
        experiments: vec![DeclaredExperiment {
            name: "e".to_owned(),
            epoch: EpochDigest(digest * 3),
            traffic: Share::new(0.5).unwrap(),
            groups: vec![group("control"), group("b")],
            metrics: vec![0],
            running: true,
            salt: Some("s".to_owned()),
            unit: None,
        }],
        metrics: vec![DeclaredMetric {
            name: "m".to_owned(),
            kind: MetricKind::Ratio,
            goal: MetricGoal::Decrease,
            scale: 3,
            within_ms: Some(5),
            cap: Some(700),
            covariate_ms: Some(86_400_000),
            definition: Some("event m".to_owned()),
        }],
    }
}

pub fn append(writer: &mut Writer, digest: usize, number: u64) -> Result<(), JournalFull> {
    let user = format!("user-{number}");
    let exposures = [Exposure {
        experiment: ExperimentIndex(0),
        group: GroupIndex(1),
        served: Served::Fallback,
        epoch: None,
    }];
    let observations = [Observation {
        metric: MetricIndex(0),
        count: 2,
        sum: -7,
        base: 1,
        event_id: None,
        at_ms: None,
    }];
    let record = Record {
        at_ms: number,
        user: UserId::new(user.as_bytes()).unwrap(),
        declaration: digest as u64,
        status: 404,
        latency_us: 12,
        exposures: &exposures,
        segments: "",
        observations: &observations,
        minted: None,
        is_new: false,
        unit: "",
    };
    static DECLARED: LazyLock<[DeclaredPlan; 3]> =
        LazyLock::new(|| [0, 1, 2].map(|digest| DeclaredPlan::new(&declaration(digest))));
    writer.append(&DECLARED[digest], &record)
}

pub fn options(quota_bytes: u64) -> Options {
    Options {
        retain: Duration::ZERO,
        ..Options::new(quota_bytes, 1)
    }
}

pub fn open(folder: &Path, options: &Options) -> Journals {
    journal::open(folder, 1, Duration::from_millis(20), options).unwrap()
}

/// Everything that a reader has, by the number in its records.
pub fn drain(reader: &mut Reader) -> Vec<u64> {
    let mut numbers = Vec::new();
    loop {
        let Chunk {
            records,
            declarations,
            ..
        } = reader.next(100).unwrap();
        if records.is_empty() {
            return numbers;
        }
        for (_, record) in records {
            assert_eq!(
                *declarations[&record.declaration],
                declaration(record.declaration)
            );
            assert_eq!(
                record.user[..],
                *format!("user-{}", record.at_ms).as_bytes()
            );
            assert_eq!(
                (record.status, record.latency_us, record.exposures[0].served),
                (404, 12, Served::Fallback)
            );
            assert_eq!(
                (record.observations[0].sum, record.observations[0].count),
                (-7, 2)
            );
            numbers.push(record.at_ms);
        }
    }
}

/// The segments of all journals in a folder. What is being removed has none.
pub fn segments(folder: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        entries.map_while(|entry| Some(entry.ok()?.path()))
    };
    let journals = entries(folder).filter(|path| path.is_dir());
    let files = journals.flat_map(|journal| entries(&journal).collect::<Vec<_>>());
    let mut segments: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|end| end == "seg"))
        .collect();
    segments.sort();
    segments
}

#[test]
fn records_are_read_back_over_many_segments() {
    let folder = TempDir::new().unwrap();
    let options = options(6 << 20);
    let Journals {
        mut writers,
        mut readers,
        keeper,
        ..
    } = open(folder.path(), &options);
    let mut read = Vec::new();
    for number in 0..60_000 {
        // Two plans take turns: each segment declares both.
        append(&mut writers[0], 1 + (number % 2) as usize, number).unwrap();
        if number % 7_000 == 0 {
            read.extend(drain(&mut readers[0]));
        }
    }
    read.extend(drain(&mut readers[0]));
    assert_eq!(read, (0..60_000).collect::<Vec<_>>());
    assert!(segments(folder.path()).len() > 1);
    readers[0].rewind(0);
    assert_eq!(
        drain(&mut readers[0]).len(),
        60_000,
        "what is kept can be read again"
    );
    let through = readers[0].position() - 1;
    readers[0]
        .release(through, &mut journal::HeldExcess::default())
        .unwrap();
    assert_eq!(
        segments(folder.path()).len(),
        1,
        "what was folded is deleted, but for the segment in use"
    );
    drop((writers, keeper));
    assert!(readers[0].is_over(&journal::held_beyond(&readers)));
    readers.pop().unwrap().remove().unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(
        options.quota.used_bytes(),
        0,
        "what is deleted is given back"
    );
}

#[test]
fn left_journal_is_adopted_by_one_process_only() {
    let folder = TempDir::new().unwrap();
    let Journals {
        mut writers,
        readers,
        keeper,
        ..
    } = open(folder.path(), &options(64 << 20));
    for number in 0..500 {
        append(&mut writers[0], 1, number).unwrap();
    }
    assert!(
        journal::adopt(folder.path(), &options(64 << 20))
            .unwrap()
            .readers
            .is_empty(),
        "it is in use"
    );
    // A killed process neither closes its files nor tidies up; its locks end with it.
    std::mem::forget(writers);
    drop((readers, keeper));
    let mut adopted = journal::adopt(folder.path(), &options(64 << 20))
        .unwrap()
        .readers;
    assert_eq!(adopted.len(), 1);
    assert_eq!(
        adopted[0].written(),
        500,
        "declarations have no number of their own"
    );
    assert!(
        journal::adopt(folder.path(), &options(64 << 20))
            .unwrap()
            .readers
            .is_empty(),
        "another has it"
    );
    assert_eq!(drain(&mut adopted[0]), (0..500).collect::<Vec<_>>());
    assert!(adopted[0].is_over(&journal::held_beyond(&adopted)));
}

/// A journal of 100 records that was left, with its one segment changed.
fn damaged(change: impl FnOnce(&mut Vec<u8>)) -> (Vec<u64>, u64) {
    let folder = TempDir::new().unwrap();
    let Journals {
        mut writers,
        readers,
        keeper,
        ..
    } = open(folder.path(), &options(4 << 20));
    for number in 0..100 {
        append(&mut writers[0], 1, number).unwrap();
    }
    drop((writers, readers, keeper));
    let segment = segments(folder.path()).pop().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    change(&mut bytes);
    std::fs::write(&segment, bytes).unwrap();
    // Its threads may take a moment to let go of it.
    let mut adopted = until("an adopted journal", || {
        let adopted = journal::adopt(folder.path(), &options(4 << 20)).unwrap();
        let reader = adopted.readers.into_iter().next();
        reader.ok_or("none")
    });
    let read = drain(&mut adopted);
    (read, adopted.lost())
}

#[test]
fn torn_tail_loses_only_itself() {
    for torn in 1..90 {
        let (read, lost) = damaged(|bytes| bytes.truncate(bytes.len() - torn));
        let whole = read.len() as u64;
        assert!(
            (96..100).contains(&whole),
            "{torn} bytes cost {} records",
            100 - whole
        );
        assert_eq!((read, lost), ((0..whole).collect(), 100 - whole));
    }
    let (read, _) = damaged(|bytes| bytes.extend([0xff; 1000]));
    assert_eq!(read.len(), 100);
    let (read, lost) = damaged(Vec::clear);
    assert_eq!((read.len(), lost), (0, 100));
}

#[test]
fn full_journal_refuses_records_and_recovers() {
    let folder = TempDir::new().unwrap();
    let options = options(4 << 20);
    let Journals {
        mut writers,
        mut readers,
        keeper,
        ..
    } = open(folder.path(), &options);
    let mut taken = 0;
    while append(&mut writers[0], 1, taken).is_ok() {
        taken += 1;
        assert!(taken < 1_000_000, "it is never full");
    }
    assert!(options.quota.used_bytes() <= 4 << 20);
    assert!(append(&mut writers[0], 1, taken).is_err());
    assert_eq!(drain(&mut readers[0]).len() as u64, taken);
    let through = readers[0].position() - 1;
    readers[0]
        .release(through, &mut journal::HeldExcess::default())
        .unwrap();
    let begun = std::time::Instant::now();
    while append(&mut writers[0], 1, taken).is_err() {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "it does not recover"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(drain(&mut readers[0]), [taken]);
    drop(keeper);
}

#[test]
fn unwritable_folder_is_an_error_with_its_path() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let check = |place: &Path, advice: &str| {
        let opened = journal::open(place, 1, Duration::from_secs(1), &options(64 << 20));
        let error = opened.unwrap_err();
        let place = place.display().to_string();
        assert!(error.to_string().contains(&place), "{error}");
        assert!(error.advice().starts_with(advice), "{}", error.advice());
    };
    check(&file, "there is a file instead of the folder");
    check(
        &file.join("journal"),
        "there is a file instead of the folder",
    );
    let read_only = Path::new("/proc/watershed-journal");
    check(read_only, "make the folder writable");
}

/// As when a successor starts while the process before it looks for journals that were left.
#[test]
fn journals_are_created_while_another_process_adopts() {
    let folder = TempDir::new().unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let theirs = options(6 << 20);
                while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                    // What is adopted is empty, and removed.
                    let adopted = journal::adopt(folder.path(), &theirs).unwrap_or_default();
                    for reader in adopted.readers {
                        let _ = reader.remove();
                    }
                }
            });
        }
        let opened = (0..100).map(|_| {
            let quick = Duration::from_millis(20);
            journal::open(folder.path(), 4, quick, &options(6 << 20)).map(drop)
        });
        let opened: Vec<_> = opened.collect();
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        for opened in opened {
            opened.unwrap();
        }
    });
}

/// Segments are kept for a second reader, up to a bound. What is deleted beyond it is counted, exactly.
#[test]
fn second_reader_reads_all_records_that_are_kept_for_it() {
    let folder = TempDir::new().unwrap();
    let options = Options {
        segment_bytes: 1 << 20,
        hold_bytes_max: [3 << 20].into(),
        ..options(32 << 20)
    };
    let Journals {
        mut writers,
        mut readers,
        keeper,
        ..
    } = open(folder.path(), &options);
    let mut second = journal::Follower::of(&mut readers[0], 0).unwrap();
    let release = |readers: &mut Vec<journal::Reader>| {
        let mut excess = journal::held_beyond(readers);
        let through = readers[0].position() - 1;
        readers[0].release(through, &mut excess).unwrap();
    };
    for number in 0..60_000 {
        append(&mut writers[0], 1, number).unwrap();
    }
    drain(&mut readers[0]);
    release(&mut readers);
    let held = segments(folder.path()).len();
    assert!(held > 1, "the second reader has read nothing");
    let chunk = second.next_through(60_000, u64::MAX).unwrap();
    assert_eq!(chunk.records.len(), 60_000);
    release(&mut readers);
    assert_eq!(
        segments(folder.path()).len(),
        held,
        "it was read, and may be needed again"
    );
    second.free(60_000);
    release(&mut readers);
    assert_eq!(segments(folder.path()).len(), 1);
    assert_eq!(second.dropped(), 0);

    // Far more than is kept for it.
    for number in 60_000..360_000 {
        append(&mut writers[0], 1, number).unwrap();
        if number % 5_000 == 0 {
            drain(&mut readers[0]);
            release(&mut readers);
        }
    }
    drain(&mut readers[0]);
    release(&mut readers);
    assert!(
        second.held_bytes() > 0 && second.held_bytes() < 6 << 20,
        "{}",
        second.held_bytes()
    );
    let mut left = 0;
    loop {
        let chunk = second.next_through(50_000, u64::MAX).unwrap();
        if chunk.records.is_empty() {
            break;
        }
        left += chunk.records.len() as u64;
    }
    assert!(second.dropped() > 0);
    assert_eq!(second.dropped() + left, 300_000);
    // Reading it again counts nothing twice.
    let dropped = second.dropped();
    second.start_after(60_000);
    second.next_through(10, u64::MAX).unwrap();
    assert_eq!(second.dropped(), dropped);

    // A journal stays until the second reader has read it.
    drop((writers, keeper));
    second.free(359_990);
    assert!(!readers[0].is_over(&journal::held_beyond(&readers)));
    assert!(
        readers[0].is_over(&journal::HeldExcess::default()),
        "unless too much is kept"
    );
    second.free(360_000);
    assert!(readers[0].is_over(&journal::held_beyond(&readers)));
}

/// What one further reader may keep is not what another one may: each has its own bound.
#[test]
fn slow_further_reader_loses_nothing_of_another_one() {
    let folder = TempDir::new().unwrap();
    let options = Options {
        segment_bytes: 1 << 20,
        hold_bytes_max: [2 << 20, 24 << 20].into(),
        ..options(32 << 20)
    };
    let Journals {
        mut writers,
        mut readers,
        ..
    } = open(folder.path(), &options);
    let further =
        |reader: &mut journal::Reader, owner| journal::Follower::of(reader, owner).unwrap();
    let mut small = further(&mut readers[0], 0);
    let mut large = further(&mut readers[0], 1);
    let release = |readers: &mut Vec<journal::Reader>| {
        drain(&mut readers[0]);
        let mut excess = journal::held_beyond(readers);
        let through = readers[0].position() - 1;
        readers[0].release(through, &mut excess).unwrap();
    };
    for number in 0..120_000 {
        append(&mut writers[0], 1, number).unwrap();
    }
    // Far more than the first may keep is kept, because the second one may.
    release(&mut readers);
    assert!(small.held_bytes() > 3 << 20, "{}", small.held_bytes());
    assert_eq!(small.held_bytes(), large.held_bytes());
    let read = |follower: &mut journal::Follower| {
        let mut read = 0;
        loop {
            let chunk = follower.next_through(50_000, u64::MAX).unwrap();
            if chunk.records.is_empty() {
                return read;
            }
            read += chunk.records.len() as u64;
        }
    };
    assert_eq!((read(&mut large), large.dropped()), (120_000, 0));
    large.free(120_000);
    release(&mut readers);
    let left = read(&mut small);
    assert!(
        small.dropped() > 0 && left > 0,
        "{} {left}",
        small.dropped()
    );
    assert_eq!(small.dropped() + left, 120_000);
    assert_eq!(large.dropped(), 0);
}

/// The position of a further reader is in the journal's folder, and goes with it.
#[test]
fn position_of_a_further_reader_outlives_the_process() {
    let folder = TempDir::new().unwrap();
    let options = Options {
        hold_bytes_max: [1 << 20].into(),
        ..options(32 << 20)
    };
    let Journals {
        mut writers,
        mut readers,
        keeper,
        ..
    } = open(folder.path(), &options);
    let follower = journal::Follower::of(&mut readers[0], 0).unwrap();
    for number in 0..5 {
        append(&mut writers[0], 1, number).unwrap();
    }
    drain(&mut readers[0]);
    assert_eq!(follower.stored_position("a").unwrap(), None);
    follower.store_position("a", 3).unwrap();
    drop((writers, readers, keeper, follower));
    let mut adopted = journal::adopt(folder.path(), &options).unwrap();
    assert!(adopted.skipped.is_empty(), "{:?}", adopted.skipped);
    let follower = journal::Follower::of(&mut adopted.readers[0], 0).unwrap();
    assert_eq!(follower.stored_position("a").unwrap(), Some(3));
    assert_eq!(follower.stored_position("b").unwrap(), None);
    adopted.readers[0].remove().unwrap();
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 0, "the position is deleted with its journal");
}
