//! A damaged journal: reading it never fails, never ends in a loop, and never yields a record that
//! was not written, nor one twice; what is missing is counted.
//!
//! The input is a list of damages, six bytes each. None of them puts a byte of the input into the
//! journal: the fuzzer would learn to forge checksums, which no disk does.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;
use watershed::experiment::assign::{Share, Weight};
use watershed::experiment::event::EventId;
use watershed::experiment::metric::{MetricGoal, MetricKind, Observation};
use watershed::experiment::record::{
    Declaration, DeclaredExperiment, DeclaredGroup, DeclaredMetric, Exposure, Record, Served,
};
use watershed::experiment::{EpochDigest, ExperimentIndex, GroupIndex, MetricIndex, UserId};
use watershed::journal::{self, DeclaredPlan, Journals, Options, OwnedRecord};

const RECORDS: u64 = 120;

fn options() -> Options {
    Options {
        segment_bytes: 4096,
        retain: Duration::ZERO,
        ..Options::new(64 << 20, 1)
    }
}

fn declaration(digest: u64) -> Declaration {
    Declaration {
        digest,
        experiments: vec![DeclaredExperiment {
            name: "e".to_owned(),
            epoch: EpochDigest(digest),
            traffic: Share::new(0.5).expect("a share"),
            groups: vec![DeclaredGroup {
                name: "g".to_owned(),
                weight: Weight::new(1.0).expect("a weight"),
                upstream: None,
            }],
            metrics: vec![0],
            running: true,
            salt: None,
            unit: None,
        }],
        metrics: vec![DeclaredMetric {
            name: "m".to_owned(),
            kind: MetricKind::Mean,
            goal: MetricGoal::Increase,
            scale: 2,
            within_ms: None,
            cap: None,
            covariate_ms: None,
            definition: None,
        }],
    }
}

/// A journal as its writer left it.
struct Written {
    name: String,
    segments: Vec<(String, Vec<u8>)>,
    records: BTreeMap<u64, OwnedRecord>,
    frames: u64,
}

static WRITTEN: LazyLock<Written> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let journals = journal::open(folder.path(), 1, Duration::from_secs(1), &options());
    let Journals {
        mut writers,
        mut readers,
        keeper,
        ..
    } = journals.expect("a journal");
    let declared = [1, 2].map(|digest| DeclaredPlan::new(&declaration(digest)));
    let mut records = BTreeMap::new();
    for number in 0..RECORDS {
        let user = format!("user-{number}");
        let digest = 1 + number / 7 % 2;
        let exposures = [Exposure {
            experiment: ExperimentIndex(0),
            group: GroupIndex(0),
            served: Served::Own,
            epoch: None,
        }];
        let observations = [Observation {
            metric: MetricIndex(0),
            count: 1,
            sum: number as i64 * 1000,
            base: 0,
            event_id: EventId::new(if number % 5 == 0 { number } else { 0 }),
            at_ms: NonZeroU64::new(if number % 7 == 0 { number } else { 0 }),
        }];
        let record = Record {
            at_ms: number,
            user: UserId::new(user.as_bytes()).expect("an ID"),
            declaration: digest,
            status: 200,
            latency_us: 7,
            exposures: &exposures,
            segments: "",
            observations: &observations[..(number % 2) as usize],
            minted: None,
            is_new: false,
            unit: "",
        };
        let declared = &declared[digest as usize - 1];
        writers[0].append(declared, &record).expect("room");
        if number % 20 == 0 {
            // Time for the keeper to make the next segment.
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let frames = writers[0].written();
    drop((writers, keeper));
    loop {
        let chunk = readers[0].next(50).expect("sound");
        if chunk.records.is_empty() {
            break;
        }
        records.extend(chunk.records);
    }
    assert_eq!(records.len() as u64, RECORDS);
    let name = format!("{}.2", readers[0].id());
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(folder.path().join(&name)).expect("its folder") {
        let path = entry.expect("a file").path();
        if path.extension().is_some_and(|end| end == "seg") {
            let file = path.file_name().and_then(|name| name.to_str());
            let bytes = std::fs::read(&path).expect("its bytes");
            segments.push((file.expect("a name").to_owned(), bytes));
        }
    }
    segments.sort();
    assert!(segments.len() > 1);
    Written {
        name,
        segments,
        records,
        frames,
    }
});

fn damage(segments: &mut [(String, Vec<u8>)], order: &[u8; 6]) {
    let [which, what, high, low, far, long] = order.map(usize::from);
    let n_segments = segments.len();
    let bytes = &mut segments[which % n_segments].1;
    if bytes.is_empty() {
        return;
    }
    let at = (high << 8 | low) % bytes.len();
    let end = (at + 1 + long).min(bytes.len());
    match what % 7 {
        0 => bytes[at] ^= 1 << (long % 8),
        1 => bytes[at..end].fill(0),
        2 => bytes[at..end].fill(0xff),
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(at..end)),
        5 => {
            // A block that was written to another place.
            let to = (at + far * 16) % bytes.len();
            let block = bytes[at..end].to_vec();
            let fits = block.len().min(bytes.len() - to);
            bytes[to..to + fits].copy_from_slice(&block[..fits]);
        }
        _ => bytes.extend(std::iter::repeat_n(0, far * 16)),
    }
}

fn check(folder: &Path, whole: bool) {
    let written = &*WRITTEN;
    let mut readers = journal::adopt(folder, &options()).expect("adopted").readers;
    let mut reader = readers.pop().expect("a reader");
    for round in 0..2 {
        let (mut last, mut yielded, mut empty) = (0, 0, 0);
        for step in 0.. {
            assert!(step < 3 * RECORDS, "it does not come to an end");
            let chunk = reader.next(10).expect("read");
            for (sequence, record) in &chunk.records {
                assert_eq!(
                    written.records.get(sequence),
                    Some(record),
                    "not written so"
                );
                assert!(*sequence > last, "{sequence} after {last}");
                assert_eq!(
                    *chunk.declarations[&record.declaration],
                    declaration(record.declaration)
                );
                last = *sequence;
                yielded += 1;
            }
            assert!(reader.position() > last && reader.position() <= reader.written() + 1);
            empty = if chunk.records.is_empty() {
                empty + 1
            } else {
                0
            };
            if empty == 3 {
                break;
            }
        }
        if round == 1 {
            // A declaration that was damaged may stand again in a later segment: read over, its
            // records are there.
            break;
        }
        // What was torn off behind the last frame that is left, nobody can know of.
        let cut = written.frames - reader.written();
        assert!(
            yielded + reader.lost() + cut >= RECORDS,
            "{yielded} are read, {} lost and {cut} cut off",
            reader.lost()
        );
        assert!(yielded + reader.lost() <= written.frames);
        if whole {
            assert_eq!((yielded, reader.lost()), (RECORDS, 0));
        }
        if round == 0 {
            reader.rewind(0);
        }
    }
}

/// Tries one input.
pub fn try_input(input: &[u8]) {
    let written = &*WRITTEN;
    let mut segments = written.segments.clone();
    let orders = input.as_chunks::<6>().0;
    for order in orders.iter().take(8) {
        damage(&mut segments, order);
    }
    // In memory where there is such a folder.
    let memory = Path::new("/dev/shm");
    let folder = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    let folder = folder.expect("a folder");
    let own = folder.path().join(&written.name);
    std::fs::create_dir(&own).expect("its folder");
    for (name, bytes) in &segments {
        std::fs::write(own.join(name), bytes).expect("a segment");
    }
    check(folder.path(), segments == written.segments);
}
