//! How facts lie on disk.
//!
//! A journal is a folder of segments. A segment's name is the sequence number of its first frame
//! (20 digits, `.seg`); it is a run of frames, then zeros to the end of the file:
//!
//! ```text
//! offset  size  field
//!      0     4  length of the payload, little-endian; 0 ends the segment
//!      4     4  CRC-32 (IEEE) of the sequence number and the payload
//!      8     8  sequence number, little-endian; one more than the frame before
//!     16     n  payload: one byte of kind (1 declaration, 2 record, 3 record with more), then
//!                postcard
//! ```
//!
//! A segment declares every plan before its first record under it, so each can be read alone.

use super::declared::DeclarationShape;
use crate::experiment::metric::Observation;
use crate::experiment::record::{Declaration, Exposure, Record, Served};
use crate::experiment::{ExperimentIndex, GroupIndex, MetricIndex, UserId};
use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::Arc;

/// The bytes of a frame before its payload.
pub const HEAD_BYTES: usize = 16;

const KIND_DECLARATION: u8 = 1;
const KIND_RECORD: u8 = 2;
const KIND_RECORD_WITH_MORE: u8 = 3;

/// One frame read back.
#[derive(Debug, PartialEq)]
pub struct Frame<'a> {
    /// Its sequence number.
    pub sequence: u64,
    /// Its payload.
    pub payload: &'a [u8],
    /// Its whole length, head included.
    pub bytes: usize,
}

/// What stands at the beginning of some bytes of a segment.
#[derive(Debug, PartialEq)]
pub enum Found<'a> {
    /// A sound frame.
    Frame(Frame<'a>),
    /// The end of what was written: a length of zero, or no room for a head.
    End,
    /// More bytes are needed to tell: this many in all.
    More(usize),
    /// A frame whose checksum or length is wrong: torn by a crash, or damaged.
    Broken,
}

/// A fact, read back from a payload.
#[derive(Debug, PartialEq)]
pub enum Fact {
    /// A plan that later records refer to.
    Declaration(Declaration),
    /// One answered request.
    Record(OwnedRecord),
}

/// A user's ID as most are: a UUID and shorter ones take no room elsewhere.
pub type Id = SmallVec<[u8; 40]>;

/// A [`Record`] that owns what it names.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnedRecord {
    /// See [`Record::at_ms`].
    pub at_ms: u64,
    /// See [`Record::user`]; not empty.
    pub user: Id,
    /// See [`Record::declaration`].
    pub declaration: u64,
    /// See [`Record::status`].
    pub status: u16,
    /// See [`Record::latency_us`].
    pub latency_us: u64,
    /// See [`Record::exposures`].
    pub exposures: SmallVec<[Exposure; 2]>,
    /// See [`Record::observations`].
    pub observations: Vec<Observation>,
    /// See [`Record::event_id`].
    pub event_id: Option<u64>,
    /// See [`Record::known_as`].
    pub known_as: Option<Vec<u8>>,
}

/// Some facts of one journal, in order.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Which journal.
    pub journal: Arc<str>,
    /// Records with their sequence numbers.
    pub records: Vec<(u64, OwnedRecord)>,
    /// The declarations that the records refer to, by digest.
    pub declarations: HashMap<u64, Arc<Declaration>, RandomState>,
    /// Everything up to this sequence number was read.
    pub through: u64,
}

impl Chunk {
    /// Adds what follows it in the same journal.
    pub fn append(&mut self, next: Chunk) {
        self.records.extend(next.records);
        self.declarations.extend(next.declarations);
        self.through = self.through.max(next.through);
    }
}

/// Why a payload could not be read although its checksum was right: another version wrote it.
#[derive(Debug, thiserror::Error)]
#[error("a frame of an unknown kind or shape")]
pub struct Unreadable;

/// Writes a declaration's payload.
pub fn encode_declaration(declaration: &Declaration) -> Vec<u8> {
    let shape = DeclarationShape::from(declaration);
    // Writing into a growing vector fails only for types that postcard cannot hold; this one it can.
    postcard::to_extend(&shape, vec![KIND_DECLARATION]).expect("a declaration has a postcard shape")
}

/// Writes a record's frame to the beginning of `room`. `None` when it does not fit.
pub fn write_record(room: &mut [u8], sequence: u64, record: &Record<'_>) -> Option<usize> {
    let (head, payload) = room.split_at_mut_checked(HEAD_BYTES)?;
    let (kind, body) = payload.split_first_mut()?;
    let shape = RecordShape::from(record);
    let more = More {
        event_id: record.event_id,
        known_as: record.known_as.map(|user| user.as_bytes()),
    };
    let written = if more.is_none() {
        *kind = KIND_RECORD;
        postcard::to_slice(&shape, body)
    } else {
        *kind = KIND_RECORD_WITH_MORE;
        postcard::to_slice(&(shape, more), body)
    };
    let length = 1 + written.ok()?.len();
    finish(head, &payload[..length], sequence)
}

/// Writes a frame around a payload to the beginning of `room`. `None` when it does not fit.
pub fn write_payload(room: &mut [u8], sequence: u64, payload: &[u8]) -> Option<usize> {
    let (head, rest) = room.split_at_mut_checked(HEAD_BYTES)?;
    rest.get_mut(..payload.len())?.copy_from_slice(payload);
    finish(head, payload, sequence)
}

fn finish(head: &mut [u8], payload: &[u8], sequence: u64) -> Option<usize> {
    let length = u32::try_from(payload.len()).ok()?;
    head[0..4].copy_from_slice(&length.to_le_bytes());
    head[4..8].copy_from_slice(&checksum(sequence, payload).to_le_bytes());
    head[8..16].copy_from_slice(&sequence.to_le_bytes());
    Some(HEAD_BYTES + payload.len())
}

/// What stands at the beginning of `bytes`.
pub fn read_frame(bytes: &[u8]) -> Found<'_> {
    match frame(bytes) {
        (Found::Frame(frame), sum) if checksum(frame.sequence, frame.payload) != sum => {
            Found::Broken
        }
        (found, _) => found,
    }
}

/// [`read_frame`] where it has found a sound frame already: the sum is not reckoned again.
pub fn read_sound(bytes: &[u8]) -> Found<'_> {
    frame(bytes).0
}

/// What stands at the beginning of `bytes`, and the sum that a frame there must have.
fn frame(bytes: &[u8]) -> (Found<'_>, u32) {
    let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES) else {
        // A head that is cut short by the end of the file was never written.
        let is_over = bytes.iter().all(|&byte| byte == 0);
        let found = if is_over {
            Found::End
        } else {
            Found::More(HEAD_BYTES)
        };
        return (found, 0);
    };
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (length, sum) = (word(0) as usize, word(4));
    let sequence = u64::from(word(8)) | u64::from(word(12)) << 32;
    if length == 0 {
        let is_over = head.iter().all(|&byte| byte == 0);
        let found = if is_over { Found::End } else { Found::Broken };
        return (found, 0);
    }
    let Some(payload) = rest.get(..length) else {
        return (Found::More(HEAD_BYTES + length), 0);
    };
    let frame = Frame {
        sequence,
        payload,
        bytes: HEAD_BYTES + length,
    };
    (Found::Frame(frame), sum)
}

/// How many bytes to pass over when [`read_frame`] finds a broken frame at the beginning, so that
/// the next one is sound: only its payload is damaged then. `None` when its length is, too, or
/// nothing follows it.
pub fn pass_over(bytes: &[u8]) -> Option<usize> {
    let length = bytes.get(..4)?.try_into().map(u32::from_le_bytes).ok()?;
    let whole = HEAD_BYTES.checked_add(length as usize)?;
    matches!(read_frame(bytes.get(whole..)?), Found::Frame(_)).then_some(whole)
}

/// The fact in a payload.
pub fn decode(payload: &[u8]) -> Result<Fact, Unreadable> {
    let (&kind, body) = payload.split_first().ok_or(Unreadable)?;
    match kind {
        KIND_DECLARATION => {
            let shape: DeclarationShape = postcard::from_bytes(body).map_err(|_| Unreadable)?;
            shape.read().map(Fact::Declaration).ok_or(Unreadable)
        }
        KIND_RECORD => {
            let shape: RecordShape<'_> = postcard::from_bytes(body).map_err(|_| Unreadable)?;
            let record = shape.read(More::default());
            record.map(Fact::Record).ok_or(Unreadable)
        }
        KIND_RECORD_WITH_MORE => {
            let (shape, more): (RecordShape<'_>, More<'_>) =
                postcard::from_bytes(body).map_err(|_| Unreadable)?;
            shape.read(more).map(Fact::Record).ok_or(Unreadable)
        }
        _ => Err(Unreadable),
    }
}

fn checksum(sequence: u64, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&sequence.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

// The shapes below are the disk's own: changing a type of the core changes no file.

#[derive(Serialize, Deserialize)]
struct RecordShape<'a> {
    at_ms: u64,
    #[serde(borrow, with = "serde_bytes")]
    user: &'a [u8],
    declaration: u64,
    status: u16,
    latency_us: u64,
    exposures: SmallVec<[(u32, u32, u8); 2]>,
    observations: SmallVec<[(u32, u32, i64, i64); 4]>,
}

/// What few records have.
#[derive(Default, Serialize, Deserialize)]
struct More<'a> {
    event_id: Option<u64>,
    #[serde(borrow)]
    known_as: Option<&'a [u8]>,
}

impl More<'_> {
    fn is_none(&self) -> bool {
        self.event_id.is_none() && self.known_as.is_none()
    }
}

impl<'a> From<&Record<'a>> for RecordShape<'a> {
    fn from(record: &Record<'a>) -> Self {
        let exposure = |exposure: &Exposure| {
            let served = match exposure.served {
                Served::Own => 0,
                Served::Fallback => 1,
                Served::Forced => 2,
                Served::Unfinished => 3,
            };
            (
                exposure.experiment.0 as u32,
                exposure.group.0 as u32,
                served,
            )
        };
        let observation =
            |seen: &Observation| (seen.metric.0 as u32, seen.count, seen.sum, seen.base);
        RecordShape {
            at_ms: record.at_ms,
            user: record.user.as_bytes(),
            declaration: record.declaration,
            status: record.status,
            latency_us: record.latency_us,
            exposures: record.exposures.iter().map(exposure).collect(),
            observations: record.observations.iter().map(observation).collect(),
        }
    }
}

impl RecordShape<'_> {
    fn read(self, more: More<'_>) -> Option<OwnedRecord> {
        let exposure = |(experiment, group, served): (u32, u32, u8)| {
            let served = match served {
                0 => Served::Own,
                1 => Served::Fallback,
                2 => Served::Forced,
                3 => Served::Unfinished,
                _ => return None,
            };
            let (experiment, group) = (
                ExperimentIndex(experiment as usize),
                GroupIndex(group as usize),
            );
            Some(Exposure {
                experiment,
                group,
                served,
            })
        };
        let observation = |(metric, count, sum, base): (u32, u32, i64, i64)| Observation {
            metric: MetricIndex(metric as usize),
            count,
            sum,
            base,
        };
        Some(OwnedRecord {
            at_ms: self.at_ms,
            user: UserId::new(self.user)?.as_bytes().into(),
            declaration: self.declaration,
            status: self.status,
            latency_us: self.latency_us,
            exposures: self
                .exposures
                .into_iter()
                .map(exposure)
                .collect::<Option<_>>()?,
            observations: self.observations.into_iter().map(observation).collect(),
            event_id: more.event_id,
            known_as: more.known_as.map(<[u8]>::to_vec),
        })
    }
}
