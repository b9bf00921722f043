//! The format of frames, and how a valid frame is distinguished from damage. PURE.
//!
//! A journal of format 2 is a folder named `<UUID>.2`; one of format 1 is named `<UUID>`. Releases
//! that know only format 1 skip folders whose name is not a UUID, and this one skips folders of a
//! higher format. A segment of format 2 begins with a head of 32 bytes:
//!
//! ```text
//! offset  size  field
//!      0     8  "WTRSHEDJ"
//!      8     4  format, little-endian; 2
//!     12     4  CRC-32 (IEEE) of bytes 0..12 and 16..32
//!     16    16  UUID of the journal
//! ```
//!
//! Frames follow:
//!
//! ```text
//! offset  size  field
//!      0     4  length of the payload, little-endian; never 0
//!      4     4  CRC-32 of the payload
//!      8     8  sequence number of the record, or of the record that follows a declaration
//!     16     4  seal: a keyed hash of the 16 bytes before it
//!     20     n  payload
//! ```
//!
//! A segment of format 1 has no head. Its frames have no seal (their payload begins at 16), their
//! checksum covers the sequence number too, and declarations have sequence numbers of their own.
//!
//! **Frames after damage.** A search examines every offset, including those inside payloads, which hold
//! IDs that clients choose. A client cannot plant a frame there: the seal's key is derived from the 74
//! random bits of the journal's UUID, which no response shows, so a planted head passes with a
//! probability of 2^-32. Only IDs in damaged frames are examined, because a search goes from the end of
//! one valid frame to the next. In format 1, a planted frame would need one of the few sequence numbers
//! that fit into the skipped bytes. The seal covers the length, so no checksum is computed before the
//! length is known to be genuine: a search takes one pass over the segment, whatever it contains.

use crc32fast::Hasher;
use std::sync::LazyLock;
use uuid::Uuid;

/// The size of a segment's head in format 2, in bytes.
pub(super) const SEGMENT_HEAD_BYTES: usize = 32;
/// The size of a frame's head in format 2, in bytes.
pub(super) const HEAD_BYTES: usize = 20;
/// The format that is written.
pub(super) const FORMAT: u32 = 2;

const MAGIC: &[u8; 8] = b"WTRSHEDJ";
const HEAD_BYTES_FIRST: usize = 16;

/// The format of a journal's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameFormat {
    /// Format 1, of release 0.1.0; read only.
    First,
    /// Format 2.
    Second(Key),
}

/// Seals the frames of one journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(u64, u64);

impl From<Uuid> for Key {
    fn from(id: Uuid) -> Key {
        let (high, low) = id.as_u64_pair();
        Key(high ^ 0x9E37_79B9_7F4A_7C15, low)
    }
}

impl Key {
    /// Computes the seal of a head. The halves of a product are combined, so that each bit depends on all
    /// bits.
    fn seal(self, length: u32, sum: u32, sequence: u64) -> u32 {
        let frame = (u64::from(length) << 32 | u64::from(sum)) ^ self.0;
        let product = u128::from(frame) * u128::from(sequence ^ self.1);
        let folded = product as u64 ^ (product >> 64) as u64;
        (folded ^ folded >> 32) as u32
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    /// The size of the payload, in bytes.
    pub length: usize,
    /// The sequence number of the frame.
    pub sequence: u64,
    sum: u32,
}

impl FrameFormat {
    /// Returns the offset of the first frame of a segment.
    pub(super) fn frames_from(self) -> usize {
        match self {
            FrameFormat::First => 0,
            FrameFormat::Second(_) => SEGMENT_HEAD_BYTES,
        }
    }

    /// Returns the size of a frame's head, in bytes.
    pub(super) fn head_bytes(self) -> usize {
        match self {
            FrameFormat::First => HEAD_BYTES_FIRST,
            FrameFormat::Second(_) => HEAD_BYTES,
        }
    }

    /// Decodes the head at the beginning of `bytes`; `None` if it is not genuine. Only the checksum of its
    /// payload shows whether a head of format 1 is genuine.
    pub(super) fn head(self, bytes: &[u8]) -> Option<FrameHead> {
        let (length, sum) = (word(bytes, 0)?, word(bytes, 4)?);
        let sequence = u64::from(word(bytes, 8)?) | u64::from(word(bytes, 12)?) << 32;
        if length == 0 {
            return None;
        }
        if let FrameFormat::Second(key) = self
            && word(bytes, 16)? != key.seal(length, sum, sequence)
        {
            return None;
        }
        Some(FrameHead {
            length: length as usize,
            sequence,
            sum,
        })
    }

    /// Whether this is the payload of the head.
    pub(super) fn is_sound(self, head: FrameHead, payload: &[u8]) -> bool {
        head.sum
            == match self {
                FrameFormat::First => checksum_first(head.sequence, payload),
                FrameFormat::Second(_) => checksum(payload),
            }
    }
}

/// Writes the head of a frame of format 2 for a payload; `None` if the payload is too long.
pub(super) fn write_head(
    head: &mut [u8; HEAD_BYTES],
    payload: &[u8],
    sequence: u64,
    key: Key,
) -> Option<()> {
    let length = u32::try_from(payload.len()).ok()?;
    let sum = checksum(payload);
    head[0..4].copy_from_slice(&length.to_le_bytes());
    head[4..8].copy_from_slice(&sum.to_le_bytes());
    head[8..16].copy_from_slice(&sequence.to_le_bytes());
    head[16..20].copy_from_slice(&key.seal(length, sum, sequence).to_le_bytes());
    Some(())
}

/// Makes the head of a segment of this journal.
pub(super) fn segment_head(journal: Uuid) -> [u8; SEGMENT_HEAD_BYTES] {
    let mut head = [0; SEGMENT_HEAD_BYTES];
    head[..8].copy_from_slice(MAGIC);
    head[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    head[16..].copy_from_slice(journal.as_bytes());
    let sum = head_checksum(&head);
    head[12..16].copy_from_slice(&sum.to_le_bytes());
    head
}

/// Returns the format in a segment's head; `None` without a valid head.
pub(super) fn format_of(head: &[u8]) -> Option<u32> {
    let head: &[u8; SEGMENT_HEAD_BYTES] = head.get(..SEGMENT_HEAD_BYTES)?.try_into().ok()?;
    let is_sound = head.starts_with(MAGIC) && word(head, 12)? == head_checksum(head);
    is_sound.then(|| word(head, 8)).flatten()
}

/// Computes the checksum of a payload.
fn checksum(payload: &[u8]) -> u32 {
    /// A new hasher would detect the processor's features each time.
    static EMPTY: LazyLock<Hasher> = LazyLock::new(Hasher::new);
    let mut hasher = EMPTY.clone();
    hasher.update(payload);
    hasher.finalize()
}

fn head_checksum(head: &[u8; SEGMENT_HEAD_BYTES]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&head[..12]);
    hasher.update(&head[16..]);
    hasher.finalize()
}

fn checksum_first(sequence: u64, payload: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&sequence.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    bytes.try_into().map(u32::from_le_bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_head_breaks_its_seal() {
        let key = Key::from(Uuid::now_v7());
        let mut head = [0; HEAD_BYTES];
        write_head(&mut head, b"payload", 77, key).unwrap();
        let format = FrameFormat::Second(key);
        let found = format.head(&head).unwrap();
        assert_eq!((found.length, found.sequence), (7, 77));
        assert!(format.is_sound(found, b"payload") && !format.is_sound(found, b"qayload"));
        for bit in 0..8 * HEAD_BYTES {
            let mut flipped = head;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(format.head(&flipped), None, "bit {bit}");
        }
        let other = FrameFormat::Second(Key::from(Uuid::now_v7()));
        assert_eq!(other.head(&head), None, "another journal's");
    }

    #[test]
    fn a_segment_head_names_its_format_until_a_bit_flips() {
        let head = segment_head(Uuid::now_v7());
        assert_eq!(format_of(&head), Some(FORMAT));
        for bit in 0..8 * SEGMENT_HEAD_BYTES {
            let mut flipped = head;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(format_of(&flipped), None, "bit {bit}");
        }
        assert_eq!(format_of(&head[1..]), None);
    }
}
