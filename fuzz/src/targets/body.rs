//! What follows the head of a response: how the bytes are cut changes nothing; what is written for
//! a client of HTTP/1 and what is taken out for one of HTTP/2 is the same body, which another
//! parser reads too. The second byte of the input says what follows, the third how long it is.

use super::super::http1;
use super::super::split;
use watershed::proxy::fuzzing::{BodyFraming, BodyReader, ClientFraming};

#[derive(Debug, Default, PartialEq)]
struct Read {
    /// What was written, or the data alone.
    bytes: Vec<u8>,
    taken: usize,
    ended: bool,
    broken: bool,
}

/// As it goes to a client of HTTP/1.
fn copy(follows: BodyFraming, bytes: &[u8], mut size: impl FnMut() -> usize) -> Read {
    let (mut rest, mut said, mut read) = (
        BodyReader::new(follows, ClientFraming::Chunks),
        Vec::new(),
        Read::default(),
    );
    let mut come = 0;
    while come < bytes.len() && !rest.has_ended() {
        let piece = size().min(bytes.len() - come);
        said.extend_from_slice(&bytes[come..come + piece]);
        come += piece;
        if rest.copy(&mut said, &mut read.bytes).is_err() {
            read.broken = true;
            break;
        }
    }
    if !read.broken
        && !rest.has_ended()
        && let Some(last) = rest.close()
    {
        read.bytes.extend_from_slice(last);
    }
    // Of an unsound body, more may be taken before the fault when it comes in pieces.
    read.taken = if read.broken { 0 } else { come - said.len() };
    read.ended = rest.has_ended();
    read
}

/// As it goes to a client of HTTP/2, and as it goes where there is much of it: its data alone.
fn data(follows: BodyFraming, bytes: &[u8], mut size: impl FnMut() -> usize) -> Read {
    let (mut rest, mut said, mut read) = (
        BodyReader::new(follows, ClientFraming::Chunks),
        Vec::new(),
        Read::default(),
    );
    let mut come = 0;
    'pieces: while come < bytes.len() && !rest.has_ended() {
        let piece = size().min(bytes.len() - come);
        said.extend_from_slice(&bytes[come..come + piece]);
        come += piece;
        loop {
            let Ok(frames) = rest.frames(&said) else {
                read.broken = true;
                break 'pieces;
            };
            assert!(frames.trailers <= frames.bytes);
            if frames.trailers > 2 {
                let trailers = &said[frames.bytes - frames.trailers..frames.bytes];
                let other = http1::block(trailers).expect("sound trailers");
                assert_eq!(other.map(|(_, end)| end), Some(frames.trailers));
            }
            said.drain(..frames.bytes);
            let data = rest.data(&said);
            read.bytes.extend(said.drain(..data));
            if data == 0 {
                break;
            }
        }
    }
    if !read.broken && !rest.has_ended() {
        rest.close();
    }
    // Of an unsound body, more may be taken before the fault when it comes in pieces.
    read.taken = if read.broken { 0 } else { come - said.len() };
    read.ended = rest.has_ended();
    read
}

/// The data in what was written for HTTP/1, and whether it ended; by another parser.
fn decoded(follows: BodyFraming, bytes: &[u8]) -> (Vec<u8>, bool) {
    match follows {
        BodyFraming::Nothing => (Vec::new(), true),
        BodyFraming::Length(length) => (bytes.to_vec(), bytes.len() as u64 == length),
        BodyFraming::Chunks | BodyFraming::UntilClose => match http1::chunks(bytes, 0) {
            Ok(Some((body, end))) => {
                assert_eq!(end, bytes.len(), "something follows the end");
                (body, true)
            }
            Ok(None) => (Vec::new(), false),
            Err(()) => panic!("another parser refuses it"),
        },
    }
}

/// Tries one input.
pub fn try_input(input: &[u8]) {
    let Some((mut cutter, rest)) = split(input) else {
        return;
    };
    let Some((&[kind, length], bytes)) = rest.split_first_chunk::<2>() else {
        return;
    };
    let follows = match (kind % 8, length) {
        // A head that says a length of zero is one that nothing follows.
        (0, _) | (1, 0) => BodyFraming::Nothing,
        (1, _) => BodyFraming::Length(u64::from(length)),
        (2, _) => BodyFraming::UntilClose,
        _ => BodyFraming::Chunks,
    };
    let whole = data(follows, bytes, || bytes.len());
    assert_eq!(
        whole,
        data(follows, bytes, || cutter.size()),
        "all at once, and cut"
    );
    assert_eq!(
        whole,
        data(follows, bytes, || 1),
        "all at once, and byte by byte"
    );
    if follows == BodyFraming::Chunks && !whole.broken {
        // Another parser need not wait for the end of a line to refuse it.
        let other = match http1::chunks(bytes, 0) {
            Err(()) if !whole.ended => None,
            other => other.expect("another parser refuses it"),
        };
        let read = whole.ended.then(|| (whole.bytes.clone(), whole.taken));
        assert_eq!(read, other);
    }
    for size in [bytes.len(), 1, 7] {
        let copied = copy(follows, bytes, || size);
        assert_eq!((copied.ended, copied.broken), (whole.ended, whole.broken));
        if copied.broken {
            continue;
        }
        assert_eq!(copied.taken, whole.taken);
        let (body, ended) = decoded(follows, &copied.bytes);
        assert_eq!(ended, whole.ended);
        if ended {
            assert_eq!(body, whole.bytes);
        }
    }
}
