//! The framing of client bytes: how they are cut changes nothing; whatever passes, another parser
//! reads with the same boundaries; what is held back is bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watershed::proxy::fuzzing::{Bounds, Framing, Reason};
use watershed_fuzz::{http1, split};

const BOUNDS: Bounds = Bounds {
    head_bytes: 2048,
    headers: 20,
    target_bytes: 200,
};

/// What passed, the fault, and where heads and messages ended.
type Outcome = (usize, Option<Reason>, Vec<usize>, bool);

/// Fed so many bytes at a time.
fn feed(bytes: &[u8], mut size: impl FnMut() -> usize) -> Outcome {
    let mut framing = Framing::new(BOUNDS);
    let (mut passed, mut come, mut ends) = (0, 0, Vec::new());
    while come < bytes.len() {
        let piece = size();
        come = (come + piece).min(bytes.len());
        let was_in_head = framing.is_in_head();
        let (sound, fault) = framing.admit(&bytes[passed..come]);
        passed += sound;
        assert!(passed <= come);
        if sound > 0 && (was_in_head || framing.is_between() || framing.is_upgrade()) {
            ends.push(passed);
        }
        if fault.is_some() {
            return (passed, fault, ends, framing.is_upgrade());
        }
        if framing.is_upgrade() {
            break;
        }
        // What is not passed on is held in memory.
        assert!(come - passed <= 4096 + piece, "{} held", come - passed);
    }
    (passed, None, ends, framing.is_upgrade())
}

fuzz_target!(init: watershed_fuzz::fixed::replay(), |input: &[u8]| {
    let Some((mut cutter, bytes)) = split(input) else {
        return;
    };
    // A kibibyte of length cannot be waited for.
    let whole = feed(bytes, || bytes.len());
    let cut = feed(bytes, || cutter.size());
    let slow = feed(bytes, || 1);
    assert_eq!(
        (whole.0, whole.1),
        (slow.0, slow.1),
        "all at once, byte by byte"
    );
    assert_eq!((cut.0, cut.1), (slow.0, slow.1), "cut, byte by byte");
    // The other reader takes all that passed, with the same ends of heads and messages.
    let (messages, sound) = http1::read(&bytes[..slow.0], true);
    assert!(sound, "another parser refuses what passed");
    let mut ends = Vec::new();
    for message in &messages {
        ends.push(message.head_end);
        if let Some((_, end)) = message.body
            && end > message.head_end
        {
            ends.push(end);
        }
    }
    assert_eq!(slow.2, ends, "heads and messages end at other places");
    assert_eq!(slow.3, messages.last().is_some_and(|last| last.upgrade));
});
