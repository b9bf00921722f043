//! Journals on a bad disk: damage costs the records that it hits, and no more; what is lost is
//! counted.

use crate::journal::{append, drain, open, options, segments};
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::until;
use std::collections::BTreeMap;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use watershed::experiment::UserId;
use watershed::experiment::record::Record;
use watershed::journal::{self, DeclaredPlan, Journals, Options};

const SEGMENT_HEAD: usize = 32;
const FRAME_HEAD: usize = 20;

/// Segments small enough for records to fill several.
fn small() -> Options {
    Options {
        segment_bytes: 16 << 10,
        ..options(64 << 20)
    }
}

/// A journal that was left, of so many records.
fn left(records: u64, options: &Options) -> TempDir {
    let folder = TempDir::new().unwrap();
    let Journals {
        mut writers,
        readers,
        keeper,
        ..
    } = open(folder.path(), options);
    for number in 0..records {
        append(&mut writers[0], 1, number).unwrap();
    }
    drop((writers, readers, keeper));
    folder
}

/// What can be read of a journal that was left: numbers of records, and how many are lost.
#[track_caller]
fn read(folder: &Path) -> (Vec<u64>, u64) {
    // The child of another test holds all locks between its fork and its start.
    let mut adopted = until("a lock", || {
        let readers = journal::adopt(folder, &small()).unwrap().readers;
        if readers.is_empty() {
            Err("held")
        } else {
            Ok(readers)
        }
    });
    let numbers = drain(&mut adopted[0]);
    let read_on = adopted[0].position() > adopted[0].written();
    assert!(read_on, "it is not read to its end");
    (numbers, adopted[0].lost())
}

/// Where each frame stands in a segment without damage, and whether it is a record's.
fn frames(bytes: &[u8]) -> Vec<(Range<usize>, bool)> {
    let mut at = SEGMENT_HEAD;
    let mut frames = Vec::new();
    while bytes.len() > at + FRAME_HEAD {
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        if length == 0 {
            break;
        }
        let end = at + FRAME_HEAD + length;
        frames.push((at..end, bytes[at + FRAME_HEAD] != 1));
        at = end;
    }
    frames
}

fn file_of(folder: &Path, name: &str) -> PathBuf {
    segments(folder)[0].with_file_name(name)
}

#[test]
fn flipped_bit_loses_at_most_its_record() {
    let folder = left(100, &options(4 << 20));
    let segment = segments(folder.path()).pop().unwrap();
    let bytes = std::fs::read(&segment).unwrap();
    assert_eq!(read(folder.path()), ((0..100).collect(), 0));
    let file = std::fs::File::options().write(true).open(&segment).unwrap();
    let (mut flips, mut lost_in_all) = (0, 0);
    for bit in (0..8 * bytes.len()).step_by(5) {
        let at = bit / 8;
        let flipped = bytes[at] ^ 1 << (bit % 8);
        file.write_all_at(&[flipped], at as u64).unwrap();
        let (numbers, lost) = read(folder.path());
        assert!(numbers.len() >= 99, "bit {bit}: {} are left", numbers.len());
        assert!(numbers.is_sorted_by(|a, b| a < b), "bit {bit}");
        assert_eq!(numbers.len() as u64 + lost, 100, "bit {bit}");
        file.write_all_at(&bytes[at..=at], at as u64).unwrap();
        flips += 1;
        lost_in_all += lost;
    }
    // Heads of segments and declarations cost nothing; any record's own bits cost that record.
    let records = frames(&bytes)
        .into_iter()
        .filter(|(_, is_record)| *is_record);
    let bits: usize = records.map(|(at, _)| 8 * at.len()).sum();
    let expected = bits as u64 / 5;
    assert!(
        lost_in_all.abs_diff(expected) < 100,
        "{flips} flips cost {lost_in_all}, not {expected}"
    );
}

#[test]
fn flipped_bits_outside_segments_lose_nothing() {
    let folder = left(100, &options(4 << 20));
    for name in ["declarations", "lock"] {
        let path = file_of(folder.path(), name);
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(&path, flipped).unwrap();
            // A flip of the format's number is one of a newer format.
            if journal::adopt(folder.path(), &small())
                .unwrap()
                .readers
                .is_empty()
            {
                assert_eq!((name, at >= 48), ("lock", true));
                continue;
            }
            assert_eq!(read(folder.path()), ((0..100).collect(), 0), "{name}, {at}");
        }
        std::fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn lost_declaration_is_found_in_other_segments() {
    let folder = left(1200, &small());
    let all = segments(folder.path());
    assert!(all.len() > 2);
    std::fs::remove_file(file_of(folder.path(), "declarations")).unwrap();
    let mut bytes = std::fs::read(&all[0]).unwrap();
    bytes[SEGMENT_HEAD + 3] ^= 0x40;
    std::fs::write(&all[0], bytes).unwrap();
    assert_eq!(read(folder.path()), ((0..1200).collect(), 0));
}

/// One damage to some segments, chosen by `dice`.
fn damage(all: &mut [Vec<u8>], dice: &mut fastrand::Rng) -> &'static str {
    let which = dice.usize(..all.len());
    let from = dice.usize(..all.len());
    let source = all[from].clone();
    let bytes = &mut all[which];
    if bytes.is_empty() {
        return "nothing";
    }
    let page = |dice: &mut fastrand::Rng, length: usize| 4096 * dice.usize(..length.div_ceil(4096));
    let at = dice.usize(..bytes.len());
    match dice.u8(..6) {
        0 => {
            bytes[at] ^= 1 << dice.u8(..8);
            "a flipped bit"
        }
        1 => {
            let end = (at + dice.usize(1..300)).min(bytes.len());
            bytes[at..end].fill_with(|| dice.u8(..));
            "random bytes"
        }
        2 => {
            let at = page(dice, bytes.len());
            let end = (at + 4096).min(bytes.len());
            bytes[at..end].fill(0);
            "a page of zeros"
        }
        3 => {
            bytes.truncate(at);
            "truncated"
        }
        4 => {
            let (at, to) = (page(dice, source.len()), page(dice, bytes.len()));
            let length = 4096
                .min(source.len() - at.min(source.len()))
                .min(bytes.len() - to);
            bytes[to..to + length].copy_from_slice(&source[at..at + length]);
            "a page at a wrong place"
        }
        _ => {
            bytes.drain(at..(at + dice.usize(1..200)).min(bytes.len()));
            "bytes that are missing"
        }
    }
}

#[test]
fn no_sound_record_is_lost_or_read_twice_whatever_is_damaged_around_it() {
    const RECORDS: u64 = 800;
    let folder = left(RECORDS, &small());
    let paths = segments(folder.path());
    let whole: Vec<Vec<u8>> = paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    let mut number = 0;
    let mut places = BTreeMap::new();
    for (which, bytes) in whole.iter().enumerate() {
        for (at, is_record) in frames(bytes) {
            if is_record {
                places.insert(number, (which, at));
                number += 1;
            }
        }
    }
    assert_eq!(number, RECORDS);
    for seed in (0..250).chain([1215]) {
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut all = whole.clone();
        let n_damages = dice.usize(1..5);
        let damages: Vec<_> = (0..n_damages)
            .map(|_| damage(&mut all, &mut dice))
            .collect();
        for (path, bytes) in paths.iter().zip(&all) {
            std::fs::write(path, bytes).unwrap();
        }
        let (numbers, lost) = read(folder.path());
        assert!(numbers.is_sorted_by(|a, b| a < b), "{seed}: {damages:?}");
        assert_eq!(numbers.len() as u64 + lost, RECORDS, "{seed}: {damages:?}");
        for (number, (which, at)) in &places {
            let stands = all[*which].get(at.clone()) == Some(&whole[*which][at.clone()]);
            assert!(
                !stands || numbers.binary_search(number).is_ok(),
                "{seed}: record {number} is sound and lost after {damages:?}"
            );
        }
    }
}

#[test]
fn frame_planted_in_an_id_is_not_read_after_damage() {
    let folder = TempDir::new().unwrap();
    let Journals {
        mut writers,
        readers,
        keeper,
        ..
    } = open(folder.path(), &options(4 << 20));
    append(&mut writers[0], 1, 0).unwrap();
    let forged = segments(folder.path())[0].clone();
    let (at, _) = frames(&std::fs::read(forged).unwrap())[1].clone();
    // A frame of this very journal's shape and of another journal's key, with each number that could
    // be next: all that a visitor can know.
    let other = left(9, &options(4 << 20));
    let bytes = std::fs::read(&segments(other.path())[0]).unwrap();
    let planted: Vec<u8> = frames(&bytes)
        .into_iter()
        .skip(1)
        .flat_map(|(at, _)| bytes[at].to_vec())
        .collect();
    let declared = DeclaredPlan::new(&crate::journal::declaration(1));
    let record = Record {
        at_ms: 1,
        user: UserId::new(&planted).unwrap(),
        declaration: 1,
        status: 404,
        latency_us: 12,
        exposures: &[],
        segments: "",
        observations: &[],
        minted: None,
        is_new: false,
        unit: "",
    };
    writers[0].append(&declared, &record).unwrap();
    append(&mut writers[0], 1, 2).unwrap();
    drop((writers, readers, keeper));
    let path = segments(folder.path()).pop().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at.end] ^= 4;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(read(folder.path()), (vec![0, 2], 1));
}

#[test]
fn damage_to_a_live_segment_costs_what_it_hits() {
    let folder = TempDir::new().unwrap();
    let Journals {
        mut writers,
        mut readers,
        keeper,
        ..
    } = open(folder.path(), &options(4 << 20));
    for number in 0..200 {
        append(&mut writers[0], 1, number).unwrap();
    }
    let path = segments(folder.path()).pop().unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0; 4096], 4096).unwrap();
    let mut numbers = drain(&mut readers[0]);
    let lost = readers[0].lost();
    assert!((40..100).contains(&lost), "{lost}");
    // The end, too: nothing follows it yet.
    for number in 200..300 {
        append(&mut writers[0], 1, number).unwrap();
    }
    numbers.extend(drain(&mut readers[0]));
    assert_eq!(numbers.len() as u64 + lost, 300);
    assert_eq!(readers[0].lost(), lost);
    drop((writers, keeper));
}

#[test]
fn journal_of_a_newer_format_is_left_as_it_is() {
    let folder = left(20, &options(4 << 20));
    let ours = segments(folder.path()).pop().unwrap();
    let own = ours.parent().unwrap().to_owned();
    let name = own.file_name().unwrap().to_str().unwrap().to_owned();
    let newer = folder.path().join(name.replace(".2", ".3"));
    std::fs::rename(&own, &newer).unwrap();
    let before = contents(&newer);
    let adopted = journal::adopt(folder.path(), &small()).unwrap();
    assert_eq!((adopted.readers.len(), adopted.skipped.len()), (0, 1));
    assert!(adopted.skipped[0].to_string().contains("format 3"));
    assert_eq!(contents(&newer), before);
    // Only one segment says so.
    std::fs::rename(&newer, &own).unwrap();
    let mut bytes = std::fs::read(&ours).unwrap();
    bytes[8] = 7;
    let mut summed = bytes[..12].to_vec();
    summed.extend(&bytes[16..32]);
    bytes[12..16].copy_from_slice(&crc32fast::hash(&summed).to_le_bytes());
    std::fs::write(&ours, bytes).unwrap();
    let before = contents(&own);
    let adopted = journal::adopt(folder.path(), &small()).unwrap();
    assert_eq!(adopted.readers.len(), 0);
    assert_eq!(adopted.skipped[0].why, journal::SkipReason::Newer(7));
    assert_eq!(contents(&own), before);
}

#[test]
fn missing_segment_is_lost_unless_it_was_released() {
    let number = |path: &Path| {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        stem.parse::<u64>().unwrap()
    };
    let folder = left(2_000, &small());
    let all = segments(folder.path());
    assert!(all.len() > 3);
    std::fs::remove_file(&all[0]).unwrap();
    let (numbers, lost) = read(folder.path());
    assert_eq!(lost, number(&all[1]) - 1);
    assert_eq!(numbers.len() as u64 + lost, 2_000);

    let folder = left(2_000, &small());
    segments(folder.path())
        .iter()
        .for_each(|path| std::fs::remove_file(path).unwrap());
    assert_eq!(read(folder.path()), (Vec::new(), 2_000));

    for by_writer in [true, false] {
        let folder = TempDir::new().unwrap();
        let Journals {
            mut writers,
            mut readers,
            keeper,
            ..
        } = open(folder.path(), &small());
        for number in 0..2_000 {
            append(&mut writers[0], 1, number).unwrap();
        }
        let third = number(&segments(folder.path())[2]);
        if by_writer {
            readers[0]
                .release(third - 1, &mut journal::HeldExcess::default())
                .unwrap();
        }
        drop((writers, readers, keeper));
        if !by_writer {
            let mut adopted = until("a lock", || {
                let mut readers = journal::adopt(folder.path(), &small()).unwrap().readers;
                readers.pop().ok_or("held")
            });
            adopted
                .release(third - 1, &mut journal::HeldExcess::default())
                .unwrap();
        }
        let all = segments(folder.path());
        assert_eq!(number(&all[0]), third);
        let (numbers, lost) = read(folder.path());
        assert_eq!((numbers.len() as u64 + third - 1, lost), (2_000, 0));
        std::fs::remove_file(&all[0]).unwrap();
        let (numbers, lost) = read(folder.path());
        assert_eq!(lost, number(&all[1]) - third);
        assert_eq!(numbers.len() as u64 + lost + third - 1, 2_000);
    }
}

/// All files of a folder and its folders.
pub fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(contents(&path)),
            false => drop(all.insert(path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    all
}

fn routes(store: &str, origins: &[Origin; 2]) -> String {
    format!(
        "{store}workers: 1\nuser: {{ cookie: uid }}\nupstreams: {{ a: \"http://{}\", b: \"http://{}\" }}\nexperiments: {{ shop: {{ control: a, experiment: b, percent: 50 }} }}\nmetrics: {{ buy: {{ event: buy }}, spend: {{ event: buy, value: amount, kind: mean }} }}\n",
        origins[0].address, origins[1].address
    )
}

fn users(results: &serde_json::Value) -> u64 {
    let groups = results["experiments"][0]["groups"].as_array().unwrap();
    groups
        .iter()
        .map(|group| group["users"].as_u64().unwrap())
        .sum()
}

#[test]
fn results_report_what_was_damaged_once_and_for_good() {
    let origins = [Origin::start("a"), Origin::start("b")];
    let away = routes("store: redis://127.0.0.1:1\n", &origins);
    let mut proxy = Proxy::start(&away);
    let mut client = proxy.client();
    for number in 0..50 {
        client.get("/", &format!("Cookie: uid=user-{number}\r\n"));
    }
    proxy.kill();
    let journals = proxy.folder.path().join("watershed-journal");
    let flip = |path: &Path| {
        let mut bytes = std::fs::read(path).unwrap();
        let all = frames(&bytes);
        if let Some((at, _)) = all.get(20) {
            bytes[at.start + 1] ^= 0x10;
            std::fs::write(path, bytes).unwrap();
            return true;
        }
        false
    };
    let flipped = segments(&journals).iter().filter(|path| flip(path)).count();
    assert_eq!(flipped, 1);
    let here = routes("", &origins);
    for start in 0..2 {
        proxy.again(&here);
        let results = proxy.results();
        let damaged = &results["store"]["damaged_events"];
        assert_eq!((users(&results), damaged), (49, &1.into()), "start {start}");
        proxy.signal("TERM");
        proxy.wait();
    }
}

#[test]
fn journal_of_release_0_1_0_is_read_also_when_it_is_damaged() {
    let origins = [Origin::start("a"), Origin::start("b")];
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/0.1.0/journal");
    for damaged in [0, 1] {
        let mut proxy = Proxy::start(&routes("", &origins));
        let journals = proxy.folder.path().join("watershed-journal");
        for (path, mut bytes) in contents(&fixture) {
            if damaged == 1 && path.extension().is_some_and(|end| end == "seg") {
                // The length of a record's frame, in the middle.
                let at = bytes.windows(7).position(|it| it == b"user-15").unwrap();
                let mut start = 0;
                loop {
                    let length = u32::from_le_bytes(bytes[start..start + 4].try_into().unwrap());
                    let end = start + 16 + length as usize;
                    if end > at {
                        break;
                    }
                    start = end;
                }
                bytes[start + 1] ^= 1;
            }
            let to = journals.join(path.strip_prefix(&fixture).unwrap());
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::write(to, bytes).unwrap();
        }
        proxy.signal("TERM");
        proxy.wait();
        proxy.again(&routes("", &origins));
        let results = until("the old journal", || {
            let results = proxy.results();
            match users(&results) {
                0 => Err(results),
                _ => Ok(results),
            }
        });
        assert_eq!(users(&results), 30 - damaged);
        assert_eq!(results["store"]["damaged_events"], damaged);
        let buy = results["experiments"][0]["metrics"][0]["groups"]
            .as_array()
            .unwrap();
        let buyers: u64 = buy.iter().map(|it| it["converted"].as_u64().unwrap()).sum();
        assert_eq!(buyers, 10 - damaged);
    }
}
