//! Inputs of a fixed seed, for CI: the stored inputs, then changes of them that depend on nothing
//! but their bytes and the seed. libFuzzer's own inputs depend on which code the ones before
//! reached, and so on the build, on addresses and on the keys of hash maps.

use std::fs;
use std::path::PathBuf;
use std::process::{abort, exit};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// No input is longer.
const INPUT_BYTES_MAX: usize = 4096;
/// How long one input may take.
const INPUT_SECONDS_MAX: u32 = 60;

/// Bytes that mean something to some parser.
const TELLING: &[u8] = b"\0\t\n\r \"#%&'*+,-./09:;=?@AZ[]^_`az{|}~\x7f\x80\xff";

/// The input that is tried.
static INPUT: Mutex<Vec<u8>> = Mutex::new(Vec::new());
/// How many were begun.
static BEGUN: AtomicU64 = AtomicU64::new(0);

/// With `FUZZ_FIXED` set to the folder of stored inputs, tries them and `FUZZ_RUNS` changes of
/// them from `FUZZ_SEED`, and ends the program. The input that fails is written to `FUZZ_FAILED`.
pub fn replay() {
    let Ok(folder) = std::env::var("FUZZ_FIXED") else {
        return;
    };
    let number = |name| -> u64 {
        let text = std::env::var(name).unwrap_or_default();
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number"))
    };
    let (runs, seed) = (number("FUZZ_RUNS"), number("FUZZ_SEED"));
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the folder of stored inputs")
        .map(|entry| entry.expect("a stored input").path())
        .collect();
    // A folder has no order of its own.
    paths.sort();
    let stored: Vec<Vec<u8>> = paths
        .iter()
        .map(|path| fs::read(path).expect("a stored input"))
        .collect();
    assert!(!stored.is_empty(), "there are no stored inputs");
    report_failures();
    for input in &stored {
        run(input);
    }
    for number in 0..runs {
        run(&changed(&stored, Dice(seed << 32 | number)));
    }
    println!("Done {} stored and {runs} changed inputs", stored.len());
    exit(0);
}

fn run(input: &[u8]) {
    *INPUT.lock().expect("nobody panics with it") = input.to_vec();
    BEGUN.fetch_add(1, Ordering::Relaxed);
    // SAFETY: it reads that many bytes from there.
    unsafe { libfuzzer_sys::test_input_wrap(input.as_ptr(), input.len()) };
}

fn report_failures() {
    let keep = || {
        let path = std::env::var("FUZZ_FAILED").expect("FUZZ_FAILED is a path");
        let input = INPUT.lock().expect("nobody panics with it");
        fs::write(&path, &*input).expect("the failed input is written");
        eprintln!("failed: {path}");
    };
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        keep();
        before(panic);
    }));
    std::thread::spawn(move || {
        let (mut last, mut seconds) = (0, 0);
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let begun = BEGUN.load(Ordering::Relaxed);
            seconds = if begun == last { seconds + 1 } else { 0 };
            last = begun;
            if seconds == INPUT_SECONDS_MAX {
                keep();
                eprintln!("it has run for {INPUT_SECONDS_MAX} seconds");
                abort();
            }
        }
    });
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
