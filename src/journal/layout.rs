//! What is in the payload of a frame: one byte of kind (1 declaration, 2 record, 3 record with
//! more as 0.1.0 wrote it, 4 record with more), then postcard. See [`super::frame`] for what is
//! around it.
//!
//! A journal is a folder of segments, each named by the sequence number of its first record (20
//! digits, `.seg`): frames, then zeros to the end of the file. A segment declares every plan before
//! its first record under it. The file `declarations` in the same folder holds them once more, so
//! that a damaged declaration costs no record.

use super::declared::DeclarationShape;
use super::frame::{self, HEAD_BYTES, Key};
use crate::experiment::event::EventId;
use crate::experiment::metric::Observation;
use crate::experiment::record::{Declaration, Exposure, Record, Served};
use crate::experiment::{ExperimentIndex, GroupIndex, MetricIndex, UserId};
use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::Arc;

const KIND_DECLARATION: u8 = 1;
const KIND_RECORD: u8 = 2;
const KIND_RECORD_WITH_OLD_MORE: u8 = 3;
const KIND_RECORD_WITH_MORE: u8 = 4;

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
    /// See [`Record::minted`].
    pub minted: Option<Vec<u8>>,
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

/// Writes a record's frame to the beginning of `room`; how many bytes it takes. `None` when it does
/// not fit.
pub fn write_record(
    room: &mut [u8],
    sequence: u64,
    record: &Record<'_>,
    key: Key,
) -> Option<usize> {
    let (head, payload) = room.split_first_chunk_mut::<HEAD_BYTES>()?;
    let (kind, body) = payload.split_first_mut()?;
    let shape = RecordShape::from(record);
    let minted = record.minted.map(|user| user.as_bytes());
    let has_ids = record.observations.iter().any(|it| it.event_id.is_some());
    let written = if has_ids || minted.is_some() {
        *kind = KIND_RECORD_WITH_MORE;
        let ids = record.observations.iter().map(|it| it.event_id);
        let event_ids = ids.map(|id| id.map_or(0, EventId::get)).collect();
        let more = More { minted, event_ids };
        postcard::to_slice(&(shape, more), body)
    } else {
        *kind = KIND_RECORD;
        postcard::to_slice(&shape, body)
    };
    let length = 1 + written.ok()?.len();
    frame::write_head(head, &payload[..length], sequence, key)?;
    Some(HEAD_BYTES + length)
}

/// Writes a frame around a payload to the beginning of `room`; how many bytes it takes. `None` when
/// it does not fit.
pub fn write_payload(room: &mut [u8], sequence: u64, payload: &[u8], key: Key) -> Option<usize> {
    let (head, rest) = room.split_first_chunk_mut::<HEAD_BYTES>()?;
    rest.get_mut(..payload.len())?.copy_from_slice(payload);
    frame::write_head(head, payload, sequence, key)?;
    Some(HEAD_BYTES + payload.len())
}

/// Whether a payload is a declaration.
pub fn is_declaration(payload: &[u8]) -> bool {
    payload.first() == Some(&KIND_DECLARATION)
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
            let record = shape.read(None);
            record.map(Fact::Record).ok_or(Unreadable)
        }
        KIND_RECORD_WITH_MORE => {
            let (shape, more): (RecordShape<'_>, More<'_>) =
                postcard::from_bytes(body).map_err(|_| Unreadable)?;
            let mut record = shape.read(more.minted).ok_or(Unreadable)?;
            for (seen, id) in record.observations.iter_mut().zip(more.event_ids) {
                seen.event_id = EventId::new(id);
            }
            Ok(Fact::Record(record))
        }
        KIND_RECORD_WITH_OLD_MORE => {
            let (shape, more): (RecordShape<'_>, OldMore<'_>) =
                postcard::from_bytes(body).map_err(|_| Unreadable)?;
            let mut record = shape.read(None).ok_or(Unreadable)?;
            if let Some(known) = more.known_as.and_then(UserId::new) {
                record.user = known.as_bytes().into();
            }
            // The ID is that of the only event that such a record has.
            let event_id = more.event_id.and_then(EventId::new);
            let observations = record.observations.iter_mut();
            observations.for_each(|seen| seen.event_id = event_id);
            Ok(Fact::Record(record))
        }
        _ => Err(Unreadable),
    }
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

/// What few records have: a minted ID, and the IDs of events, one for each observation, 0 for none.
#[derive(Serialize, Deserialize)]
struct More<'a> {
    #[serde(borrow)]
    minted: Option<&'a [u8]>,
    event_ids: SmallVec<[u64; 4]>,
}

/// What few records of 0.1.0 have. `event_id` is that of all observations. `known_as` came with an
/// ID that a client could choose: the known ID is the user, and the other one is no evidence.
#[derive(Deserialize)]
struct OldMore<'a> {
    event_id: Option<u64>,
    #[serde(borrow)]
    known_as: Option<&'a [u8]>,
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
    fn read(self, minted: Option<&[u8]>) -> Option<OwnedRecord> {
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
            event_id: None,
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
            minted: minted.map(<[u8]>::to_vec),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(observations: &[Observation]) -> Record<'_> {
        Record {
            at_ms: 1,
            user: UserId::new(b"u").unwrap(),
            declaration: 7,
            status: 200,
            latency_us: 3,
            exposures: &[],
            observations,
            minted: UserId::new(b"minted"),
        }
    }

    fn seen(metric: usize, event_id: Option<u64>) -> Observation {
        Observation {
            metric: MetricIndex(metric),
            count: 1,
            sum: 5,
            base: 0,
            event_id: event_id.and_then(EventId::new),
        }
    }

    #[track_caller]
    fn decoded(payload: &[u8]) -> OwnedRecord {
        match decode(payload) {
            Ok(Fact::Record(record)) => record,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_event_of_a_record_keeps_its_id() {
        let observations = [seen(0, None), seen(1, Some(9)), seen(1, Some(10))];
        let mut room = [0; 200];
        let key = Key::from(uuid::Uuid::nil());
        let bytes = write_record(&mut room, 1, &record(&observations), key).unwrap();
        let read = decoded(&room[HEAD_BYTES..bytes]);
        assert_eq!(read.observations, observations);
        assert_eq!(read.minted.as_deref(), Some(&b"minted"[..]));
    }

    #[test]
    fn a_record_with_more_as_0_1_0_wrote_it_is_read() {
        let observations = [seen(0, None), seen(1, None)];
        let shape = RecordShape::from(&record(&observations));
        let more = (Some(9_u64), Some(&b"known"[..]));
        let payload = postcard::to_extend(&(shape, more), vec![KIND_RECORD_WITH_OLD_MORE]).unwrap();
        let read = decoded(&payload);
        assert_eq!(read.observations, [seen(0, Some(9)), seen(1, Some(9))]);
        // A client could choose the other ID: it is evidence of nothing.
        assert_eq!((&read.user[..], read.minted), (&b"known"[..], None));
    }
}
