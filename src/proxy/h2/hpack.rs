//! Finds paths of HTTP/2 requests that have a fragment. PURE.
//!
//! The parser above cuts a fragment off without a word, so that `/admin#` would be forwarded as
//! `/admin`: another path than the one that a proxy before this one has judged. Here header blocks
//! are followed as far as that takes (RFC 7541): which literals are paths, and for names that refer
//! to the dynamic table, what it holds.

use memchr::memchr;
use std::collections::VecDeque;

/// RFC 9113, 3.4 and 4.1.
const PREFACE_BYTES: usize = 24;
const FRAME_HEAD_BYTES: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// RFC 7541, 4.1, and the size that no setting of this server changes.
const ENTRY_OVERHEAD: usize = 32;
const TABLE_BYTES: usize = 4096;
/// Of the entries of the static table, how long their names are. 4 and 5 are `:path`.
const STATIC_NAMES: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14,
    16, 13, 12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10,
    25, 17, 10, 4, 3, 16,
];
const PATH: &[u8] = b":path";
const PATH_IN_HUFFMAN: &[u8] = &[0xb9, 0x58, 0xd3, 0x3f];
/// The Huffman code (RFC 7541, appendix B) is canonical: of each length in bits, how many codes
/// there are. They follow each other in value.
const CODES: [(u32, u32); 21] = [
    (5, 10),
    (6, 26),
    (7, 32),
    (8, 6),
    (10, 5),
    (11, 3),
    (12, 2),
    (13, 6),
    (14, 2),
    (15, 3),
    (19, 3),
    (20, 8),
    (21, 13),
    (22, 26),
    (23, 29),
    (24, 12),
    (25, 4),
    (26, 15),
    (27, 19),
    (28, 29),
    (30, 4),
];
/// `#`.
const HASH: (u32, u32) = (12, 0xffa);

/// Follows what one client sends.
#[derive(Debug)]
pub(super) struct Paths {
    /// So many bytes are passed over before the next part.
    skip: usize,
    /// The head of a frame, or a header block, as far as it has come.
    held: Vec<u8>,
    block: Vec<u8>,
    /// A HEADERS or CONTINUATION frame, of which so many bytes are to come, and its flags.
    frame: Option<(usize, u8, u8)>,
    block_max: usize,
    table: Table,
}

#[derive(Debug)]
struct Table {
    entries: VecDeque<TableEntry>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct TableEntry {
    bytes: usize,
    name: Name,
}

#[derive(Clone, Copy, Debug)]
struct Name {
    bytes: usize,
    is_path: bool,
}

impl Paths {
    /// At the beginning of a connection whose header blocks are no longer than this.
    pub(super) fn new(block_max: usize) -> Paths {
        Paths {
            skip: PREFACE_BYTES,
            held: Vec::new(),
            block: Vec::new(),
            frame: None,
            block_max,
            table: Table {
                entries: VecDeque::new(),
                bytes: 0,
                bytes_max: TABLE_BYTES,
            },
        }
    }

    /// Whether all header blocks in these bytes, which come next, are sound and have no path with a
    /// fragment. If not, the connection must end: what follows cannot be judged.
    pub(super) fn admit(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let passed = self.skip.min(bytes.len());
            (self.skip, bytes) = (self.skip - passed, &bytes[passed..]);
            let missing = match self.frame {
                Some((length, ..)) => length,
                None => FRAME_HEAD_BYTES,
            };
            let more = (missing - self.held.len()).min(bytes.len());
            self.held.extend_from_slice(&bytes[..more]);
            bytes = &bytes[more..];
            if self.skip > 0 || self.held.len() < missing {
                return true;
            }
            let held = std::mem::take(&mut self.held);
            let sound = match self.frame.take() {
                Some((_, kind, flags)) => self.end_of_frame(&held, kind, flags),
                None => self.begin_frame(&held),
            };
            self.held = held;
            self.held.clear();
            if !sound {
                return false;
            }
        }
        true
    }

    fn begin_frame(&mut self, head: &[u8]) -> bool {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        match head[3] {
            kind @ (HEADERS | CONTINUATION) if self.block.len() + length <= self.block_max => {
                match length {
                    0 => return self.end_of_frame(&[], kind, head[4]),
                    _ => self.frame = Some((length, kind, head[4])),
                }
            }
            HEADERS | CONTINUATION => return false,
            _ => self.skip = length,
        }
        true
    }

    fn end_of_frame(&mut self, payload: &[u8], kind: u8, flags: u8) -> bool {
        let block = match kind {
            HEADERS => fragment_of_block(payload, flags),
            _ => Some(payload),
        };
        let Some(block) = block else {
            return false;
        };
        if flags & END_HEADERS == 0 {
            self.block.extend_from_slice(block);
            return true;
        }
        let whole = std::mem::take(&mut self.block);
        let sound = match whole.is_empty() {
            true => self.table.judge(block),
            false => self.table.judge(&[&whole, block].concat()),
        };
        sound == Some(true)
    }
}

/// RFC 9113, 6.2: without padding and priority.
fn fragment_of_block(payload: &[u8], flags: u8) -> Option<&[u8]> {
    let (padding, rest) = match flags & PADDED {
        0 => (0, payload),
        _ => payload
            .split_first()
            .map(|(padding, rest)| (usize::from(*padding), rest))?,
    };
    let rest = match flags & PRIORITY {
        0 => rest,
        _ => rest.get(5..)?,
    };
    rest.get(..rest.len().checked_sub(padding)?)
}

impl Table {
    /// Whether no path of a header block has a fragment; `None` where the block is unsound.
    fn judge(&mut self, mut block: &[u8]) -> Option<bool> {
        let mut sound = true;
        while let Some(&first) = block.first() {
            match first {
                0x80.. => (_, block) = integer(block, 7)?,
                0x40.. => {
                    let (name, value, rest) = self.literal(block, 6)?;
                    block = rest;
                    sound &= !(name.is_path && value.has_hash()?);
                    self.insert(name, value.decoded_bytes()?);
                }
                0x20.. => {
                    let (bytes_max, rest) = integer(block, 5)?;
                    block = rest;
                    self.bytes_max = bytes_max.min(TABLE_BYTES);
                    self.evict(0);
                }
                _ => {
                    let (name, value, rest) = self.literal(block, 4)?;
                    block = rest;
                    sound &= !(name.is_path && value.has_hash()?);
                }
            }
        }
        Some(sound)
    }

    fn literal<'a>(&self, block: &'a [u8], bits: u32) -> Option<(Name, Text<'a>, &'a [u8])> {
        let (index, block) = integer(block, bits)?;
        let (name, block) = match index {
            0 => {
                let (text, block) = text(block)?;
                let name = Name {
                    bytes: text.decoded_bytes()?,
                    is_path: text.bytes == [PATH, PATH_IN_HUFFMAN][usize::from(text.is_huffman)],
                };
                (name, block)
            }
            index @ 1..=61 => {
                let name = Name {
                    bytes: usize::from(STATIC_NAMES[index - 1]),
                    is_path: matches!(index, 4 | 5),
                };
                (name, block)
            }
            index => (self.entries.get(index - 62)?.name, block),
        };
        let (value, block) = text(block)?;
        Some((name, value, block))
    }

    fn insert(&mut self, name: Name, value_bytes: usize) {
        let bytes = name.bytes + value_bytes + ENTRY_OVERHEAD;
        self.evict(bytes);
        if bytes <= self.bytes_max {
            self.bytes += bytes;
            self.entries.push_front(TableEntry { bytes, name });
        }
    }

    /// Makes room for so many bytes (RFC 7541, 4.4).
    fn evict(&mut self, bytes: usize) {
        while self.bytes + bytes > self.bytes_max
            && let Some(last) = self.entries.pop_back()
        {
            self.bytes -= last.bytes;
        }
    }
}

/// A string of a block (RFC 7541, 5.2).
#[derive(Clone, Copy)]
struct Text<'a> {
    bytes: &'a [u8],
    is_huffman: bool,
}

impl Text<'_> {
    fn has_hash(self) -> Option<bool> {
        if !self.is_huffman {
            return Some(memchr(b'#', self.bytes).is_some());
        }
        let mut found = false;
        codes(self.bytes, |code| found |= code == HASH)?;
        Some(found)
    }

    fn decoded_bytes(self) -> Option<usize> {
        if !self.is_huffman {
            return Some(self.bytes.len());
        }
        let mut count = 0;
        codes(self.bytes, |_| count += 1)?;
        Some(count)
    }
}

fn text(block: &[u8]) -> Option<(Text<'_>, &[u8])> {
    let is_huffman = block.first()? & 0x80 != 0;
    let (length, block) = integer(block, 7)?;
    let (bytes, block) = block.split_at_checked(length)?;
    Some((Text { bytes, is_huffman }, block))
}

/// RFC 7541, 5.1: a number that begins in the last `bits` of the first byte.
fn integer(block: &[u8], bits: u32) -> Option<(usize, &[u8])> {
    let (first, mut block) = block.split_first()?;
    let most = (1_usize << bits) - 1;
    let mut number = usize::from(*first) & most;
    if number < most {
        return Some((number, block));
    }
    for shift in [0, 7, 14, 21] {
        let (byte, rest) = block.split_first()?;
        block = rest;
        number += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((number, block));
        }
    }
    None
}

/// Gives each code of a string with its length in bits; `None` where it does not end as it should.
fn codes(bytes: &[u8], mut give: impl FnMut((u32, u32))) -> Option<()> {
    let (mut window, mut have) = (0_u64, 0_u32);
    let mut bytes = bytes.iter();
    loop {
        while have < 32 {
            let Some(&byte) = bytes.next() else { break };
            (window, have) = (window << 8 | u64::from(byte), have + 8);
        }
        if have == 0 {
            return Some(());
        }
        let Some(code) = code(window, have) else {
            // RFC 7541, 5.2: the rest is ones, and less than a byte.
            let ones = (1_u64 << have) - 1;
            return (have < 8 && window & ones == ones).then_some(());
        };
        have -= code.0;
        give(code);
    }
}

/// The code at the beginning of the last `have` bits.
fn code(window: u64, have: u32) -> Option<(u32, u32)> {
    let (mut first, mut bits_before) = (0_u32, 0);
    for (bits, count) in CODES {
        first <<= bits - bits_before;
        if bits > have {
            return None;
        }
        let code = (window >> (have - bits)) as u32 & ((1 << bits) - 1);
        if code < first + count {
            return Some((bits, code));
        }
        (first, bits_before) = (first + count, bits);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text
            .bytes()
            .filter(|byte| !byte.is_ascii_whitespace())
            .collect();
        let byte =
            |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    fn table(bytes_max: usize) -> Table {
        Table {
            entries: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// RFC 7541, C.4 and C.6: what the table holds after each of the examples.
    #[test]
    fn the_table_is_followed() {
        let mut requests = table(4096);
        for (block, bytes) in [
            ("828684418cf1e3c2e5f23a6ba0ab90f4ff", 57),
            ("828684be5886a8eb10649cbf", 110),
            ("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", 164),
        ] {
            assert_eq!(requests.judge(&hex(block)), Some(true));
            assert_eq!(requests.bytes, bytes);
        }
        let mut answers = table(256);
        for (block, bytes) in [
            (
                "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
                222,
            ),
            ("4883640effc1c0bf", 222),
            (
                "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
                215,
            ),
        ] {
            assert_eq!(answers.judge(&hex(block)), Some(true));
            assert_eq!(answers.bytes, bytes);
        }
    }

    #[test]
    fn fragments_are_found_wherever_a_path_is_written() {
        let check = |block: &[u8], expected: Option<bool>| {
            assert_eq!(table(4096).judge(block), expected, "{block:02x?}");
        };
        check(b"\x04\x04/a#b", Some(false));
        check(b"\x44\x04/a#b", Some(false));
        check(b"\x15\x04/a#b", Some(false));
        check(b"\x00\x05:path\x02/#", Some(false));
        check(b"\x00\x84\xb9\x58\xd3\x3f\x02/#", Some(false));
        // `/#` in Huffman's code: 011000 111111111010, and ones.
        check(b"\x04\x83\x63\xfe\xbf", Some(false));
        // A name that refers to what was inserted, also when that was a while ago.
        check(b"\x44\x01/\x40\x01x\x01y\x0f\x30\x02/#", Some(false));
        check(b"\x44\x01/\x40\x01x\x01y\x0f\x2f\x02/#", Some(true));
        // Not in a path.
        check(b"\x01\x03a#b\x00\x01x\x02/#\x04\x01/", Some(true));
        check(b"\x85\x84\x82", Some(true));
        for unsound in [
            &b"\x04"[..],
            b"\x04\x05/",
            b"\x0f\xff\xff\xff\xff\xff",
            b"\x0f\x30\x01a",
        ] {
            check(unsound, None);
        }
    }

    #[test]
    fn frames_are_followed_however_they_are_cut() {
        let frame = |kind: u8, flags: u8, payload: &[u8]| {
            let mut frame = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 1];
            frame.extend(payload);
            frame
        };
        let begin = |frames: &[Vec<u8>]| {
            let settings = frame(4, 0, b"");
            [&[b'p'; 24][..], &settings, &frames.concat()].concat()
        };
        let sound = frame(HEADERS, 5, b"\x82\x04\x01/");
        for (frames, expected) in [
            (vec![sound.clone(), frame(0, 1, b"#\x04\x02/#")], true),
            (vec![sound.clone(), frame(HEADERS, 5, b"\x04\x02/#")], false),
            (
                vec![
                    frame(HEADERS, 1, b"\x82\x04\x02"),
                    frame(CONTINUATION, 4, b"/#"),
                ],
                false,
            ),
            (
                vec![
                    frame(HEADERS, 1, b""),
                    frame(CONTINUATION, 0, b"\x04"),
                    frame(CONTINUATION, 4, b"\x02/#"),
                ],
                false,
            ),
            (
                vec![frame(HEADERS, 0x2d, b"\x02\0\0\0\0\x10\x04\x02/#\0\0")],
                false,
            ),
            (
                vec![
                    frame(HEADERS, 0x2d, b"\x02\0\0\0\0\x10\x04\x02/a\0\0"),
                    sound,
                ],
                true,
            ),
        ] {
            let bytes = begin(&frames);
            for piece in 1..=bytes.len() {
                let mut paths = Paths::new(100);
                let all = bytes.chunks(piece).all(|piece| paths.admit(piece));
                assert_eq!(all, expected, "{bytes:02x?} by {piece}");
            }
        }
    }
}
