//! Replays the stored inputs of each target, and changes of them that depend on nothing but their
//! bytes and a fixed seed, as unit tests of the program: the same tree passes or fails the same way
//! everywhere. libFuzzer's own inputs depend on which code the ones before reached.

use super::{memory, targets};
use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// How many changed inputs are tried for each target; `FUZZ_FACTOR` times as many if it is set.
const RUNS: u64 = 2000;
/// Inputs of the journal are files, which take longer.
const RUNS_JOURNAL: u64 = 100;
const SEED: u64 = 15;

/// No input is longer.
const INPUT_BYTES_MAX: usize = 4096;
/// An input that takes longer never ends.
const INPUT_TIME_MAX: Duration = Duration::from_secs(60);

/// Bytes that mean something to some parser.
const TELLING: &[u8] = b"\0\t\n\r \"#%&'*+,-./09:;=?@AZ[]^_`az{|}~\x7f\x80\xff";

macro_rules! replays {
    ($($target:ident: $runs:expr,)*) => {
        $(
            #[test]
            fn $target() {
                replay(stringify!($target), $runs, targets::$target::try_input);
            }
        )*

        #[test]
        fn every_target_is_replayed() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/targets");
            let replayed = [$(concat!(stringify!($target), ".rs"),)*];
            for entry in fs::read_dir(folder).expect("the folder of targets") {
                let name = entry.expect("a target").file_name();
                assert!(
                    replayed.iter().any(|it| *name == **it),
                    "fuzz/targets/{} is not replayed: add it to fuzz/src/replay.rs",
                    name.display()
                );
            }
        }
    };
}

replays! {
    answer: RUNS,
    body: RUNS,
    events: RUNS,
    identity: RUNS,
    journal: RUNS_JOURNAL,
    lines: RUNS,
    matcher: RUNS,
    opening: RUNS,
    request: RUNS,
    tokens: RUNS,
    transcript: RUNS,
}

/// Tries the stored inputs of a target, then `runs` changes of them. Keeps the input that fails.
fn replay(target: &str, runs: u64, try_input: fn(&[u8])) {
    let runs = match std::env::var("FUZZ_FACTOR") {
        Ok(factor) => runs * factor.parse::<u64>().expect("FUZZ_FACTOR is a number"),
        Err(_) => runs,
    };
    let stored = stored(target);
    let (begin, begun) = mpsc::channel();
    let trying = thread::spawn(move || {
        let changes = (0..runs).map(|number| changed(&stored, Dice(SEED << 32 | number)));
        for input in stored.iter().cloned().chain(changes) {
            begin.send(input.clone()).expect("the test receives");
            memory::bounded(|| try_input(&input));
        }
    });
    let mut last = Vec::new();
    let failure = loop {
        match begun.recv_timeout(INPUT_TIME_MAX) {
            Ok(input) => last = input,
            Err(RecvTimeoutError::Timeout) => break None,
            Err(RecvTimeoutError::Disconnected) => match trying.join() {
                Ok(()) => return,
                Err(panic) => break Some(panic),
            },
        }
    };
    let kept = std::env::temp_dir().join(format!("watershed-fuzz-{target}"));
    fs::write(&kept, &last).expect("the input that failed is written");
    eprintln!(
        "the input that failed: {} (scripts/fuzz says how to store and fix it)",
        kept.display()
    );
    match failure {
        Some(panic) => resume_unwind(panic),
        None => panic!("an input has run for {INPUT_TIME_MAX:?}"),
    }
}

/// The stored inputs, by name: a folder has no order of its own.
fn stored(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let entries = fs::read_dir(folder.join(target)).expect("the folder of stored inputs");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a stored input").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "there are no stored inputs");
    let read = |path| fs::read(path).expect("a stored input");
    paths.into_iter().map(read).collect()
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to `end`, which is excluded unless it is 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end.max(1)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// A piece, mostly a short one.
    fn piece<'a>(&mut self, of: &'a [u8]) -> &'a [u8] {
        let from = self.below(of.len() + 1);
        let most = *self.pick(&[1, 4, 16, 64, INPUT_BYTES_MAX]);
        let length = self.below(most + 1).min(of.len() - from);
        &of[from..from + length]
    }
}

/// One of the stored inputs, changed in one to five places.
fn changed(stored: &[Vec<u8>], mut dice: Dice) -> Vec<u8> {
    let mut input = dice.pick(stored).clone();
    for _ in 0..=dice.below(5) {
        let at = dice.below(input.len() + 1);
        match dice.below(7) {
            0 if at < input.len() => input[at] ^= 1 << dice.below(8),
            1 if at < input.len() => input[at] = *dice.pick(TELLING),
            2 => input.insert(at, *dice.pick(TELLING)),
            3 => {
                let end = at + dice.piece(&input[at..]).len();
                input.drain(at..end);
            }
            4 => {
                let piece = dice.piece(&input).to_vec();
                input.splice(at..at, piece);
            }
            5 => {
                let other = dice.pick(stored);
                input.splice(at..at, dice.piece(other).to_vec());
            }
            6 => {
                let other = dice.pick(stored);
                input.truncate(at);
                input.extend_from_slice(&other[dice.below(other.len())..]);
            }
            _ => {}
        }
        input.truncate(INPUT_BYTES_MAX);
    }
    input
}
