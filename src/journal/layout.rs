//! The payload of a frame: one byte of kind (1 declaration, 2 record, 3 record with more fields of
//! 0.1.0, 4 record with more fields, 5 record with more fields and times of its events, 6 the same with
//! segments, 7 the same with epochs of exposures and a unit; 128 more for a record of an ID that was minted for its request), then postcard.
//! [`super::frame`] defines the frame.
//!
//! A journal is a folder of segments, each named by the sequence number of its first record (20
//! digits, `.seg`). A segment has frames, and then zeros to the end of the file. It declares every plan
//! before the first record of that plan. The file `declarations` in the same folder holds a second copy
//! of the declarations, so that a damaged one loses no record.

use super::declarations::{DeclarationMore, DeclarationShape, DeclaredUnits};
use super::frame::{self, HEAD_BYTES, Key};
use crate::experiment::event::EventId;
use crate::experiment::metric::Observation;
use crate::experiment::not_counted::NotCounted;
use crate::experiment::record::{Declaration, Exposure, Record, Served};
use crate::experiment::{EpochDigest, ExperimentIndex, GroupIndex, MetricIndex, UserId};
use foldhash::fast::RandomState;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU64;
use std::sync::Arc;

const KIND_DECLARATION: u8 = 1;
const KIND_RECORD: u8 = 2;
const KIND_RECORD_WITH_OLD_MORE: u8 = 3;
const KIND_RECORD_WITH_MORE: u8 = 4;
const KIND_RECORD_WITH_TIMES: u8 = 5;
const KIND_RECORD_WITH_SEGMENTS: u8 = 6;
const KIND_RECORD_WITH_EPOCHS: u8 = 7;
/// Added to the kind of a record of a new ID.
const OF_NEW_ID: u8 = 0x80;
/// How an exposure that is not counted is served: this, and the place of the reason among all.
const NOT_COUNTED: u8 = 16;

/// A decoded payload.
#[expect(clippy::large_enum_variant, reason = "nearly all entries are records")]
#[derive(Debug, PartialEq)]
pub enum JournalEntry {
    /// A declaration of a plan that later records refer to.
    Declaration(Declaration),
    /// A record of one request.
    Record(OwnedRecord),
}

/// A user ID. A UUID and shorter IDs need no allocation.
pub type Id = SmallVec<[u8; 40]>;

/// A [`Record`] that owns its data.
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
    /// See [`Record::segments`].
    pub segments: String,
    /// See [`Record::observations`].
    pub observations: Vec<Observation>,
    /// See [`Record::minted`].
    pub minted: Option<Vec<u8>>,
    /// See [`Record::is_new`].
    pub is_new: bool,
    /// See [`Record::unit`].
    pub unit: String,
}

/// Some records of one journal, in order.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The journal.
    pub journal: Arc<str>,
    /// Records with their sequence numbers.
    pub records: Vec<(u64, OwnedRecord)>,
    /// The declarations that the records refer to, by digest.
    pub declarations: HashMap<u64, Arc<Declaration>, RandomState>,
}

/// The error for a payload with a valid checksum that cannot be decoded: another version wrote it.
#[derive(Debug, thiserror::Error)]
#[error("a frame of an unknown kind or shape")]
pub struct UnreadablePayload;

/// Encodes a declaration.
pub fn encode_declaration(declaration: &Declaration) -> Vec<u8> {
    let shape = DeclarationShape::from(declaration);
    let more = DeclarationMore::from(declaration);
    let units: DeclaredUnits = declaration
        .experiments
        .iter()
        .map(|it| it.unit.clone())
        .collect();
    // Writing to a vector fails only for types that postcard cannot encode; this type it can.
    postcard::to_extend(&(shape, more, units), vec![KIND_DECLARATION])
        .expect("a declaration has a postcard shape")
}

/// Writes the frame of a record to the beginning of `room`. Returns its size; `None` if it does not fit.
pub fn write_record(
    room: &mut [u8],
    sequence: u64,
    record: &Record<'_>,
    key: Key,
) -> Option<usize> {
    let (head, payload) = room.split_first_chunk_mut::<HEAD_BYTES>()?;
    let (kind, body) = payload.split_first_mut()?;
    let shape = Writing::from(record);
    let minted = record.minted.map(|user| user.as_bytes());
    let observations = || record.observations.iter();
    let has_ids = observations().any(|it| it.event_id.is_some());
    let has_times = observations().any(|it| it.at_ms.is_some());
    let more = || {
        let ids = observations().map(|it| it.event_id);
        let event_ids = ids.map(|id| id.map_or(0, EventId::get)).collect();
        More { minted, event_ids }
    };
    let times = || -> Times {
        let times = observations().map(|it| it.at_ms.map_or(0, NonZeroU64::get));
        times.collect()
    };
    let exposures = || record.exposures.iter();
    let written = if !record.unit.is_empty() || exposures().any(|it| it.epoch.is_some()) {
        *kind = KIND_RECORD_WITH_EPOCHS;
        let epochs = exposures().map(|it| it.epoch.map_or(0, |epoch| epoch.0));
        let epochs: Epochs = epochs.collect();
        let rest = (record.segments, epochs, record.unit);
        postcard::to_slice(&(shape, more(), times(), rest), body)
    } else if !record.segments.is_empty() {
        *kind = KIND_RECORD_WITH_SEGMENTS;
        postcard::to_slice(&(shape, more(), times(), record.segments), body)
    } else if has_times {
        *kind = KIND_RECORD_WITH_TIMES;
        postcard::to_slice(&(shape, more(), times()), body)
    } else if has_ids || minted.is_some() {
        *kind = KIND_RECORD_WITH_MORE;
        postcard::to_slice(&(shape, more()), body)
    } else {
        *kind = KIND_RECORD;
        postcard::to_slice(&shape, body)
    };
    if record.is_new {
        *kind |= OF_NEW_ID;
    }
    let length = 1 + written.ok()?.len();
    frame::write_head(head, &payload[..length], sequence, key)?;
    Some(HEAD_BYTES + length)
}

/// Writes the frame of a payload to the beginning of `room`. Returns its size; `None` if it does not fit.
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

/// Decodes a payload.
pub fn decode(payload: &[u8]) -> Result<JournalEntry, UnreadablePayload> {
    let (&kind, body) = payload.split_first().ok_or(UnreadablePayload)?;
    let mut entry = decode_kind(kind & !OF_NEW_ID, body)?;
    match &mut entry {
        JournalEntry::Record(record) => record.is_new = kind & OF_NEW_ID != 0,
        JournalEntry::Declaration(_) if kind & OF_NEW_ID == 0 => {}
        JournalEntry::Declaration(_) => return Err(UnreadablePayload),
    }
    Ok(entry)
}

/// Decodes what a newer version wrote behind what an older one knows; the default where nothing is there.
fn behind<'a, T: Default + Deserialize<'a>>(
    rest: &'a [u8],
) -> Result<(T, &'a [u8]), UnreadablePayload> {
    match rest {
        [] => Ok((T::default(), rest)),
        rest => postcard::take_from_bytes(rest).map_err(|_| UnreadablePayload),
    }
}

fn decode_kind(kind: u8, body: &[u8]) -> Result<JournalEntry, UnreadablePayload> {
    match kind {
        KIND_DECLARATION => {
            let (shape, rest): (DeclarationShape, &[u8]) =
                postcard::take_from_bytes(body).map_err(|_| UnreadablePayload)?;
            let (more, rest) = behind::<DeclarationMore>(rest)?;
            let (units, _) = behind::<DeclaredUnits>(rest)?;
            shape
                .read(more, units)
                .map(JournalEntry::Declaration)
                .ok_or(UnreadablePayload)
        }
        KIND_RECORD => {
            let shape: Reading<'_> = postcard::from_bytes(body).map_err(|_| UnreadablePayload)?;
            let record = shape.read(None);
            record.map(JournalEntry::Record).ok_or(UnreadablePayload)
        }
        KIND_RECORD_WITH_MORE => {
            let (shape, more): (Reading<'_>, More<'_>) =
                postcard::from_bytes(body).map_err(|_| UnreadablePayload)?;
            let record = more.read(shape).ok_or(UnreadablePayload)?;
            Ok(JournalEntry::Record(record))
        }
        KIND_RECORD_WITH_TIMES => {
            let (shape, more, times): (Reading<'_>, More<'_>, Times) =
                postcard::from_bytes(body).map_err(|_| UnreadablePayload)?;
            let record = more.read_with(shape, times).ok_or(UnreadablePayload)?;
            Ok(JournalEntry::Record(record))
        }
        KIND_RECORD_WITH_SEGMENTS => {
            let (shape, more, times, segments): (Reading<'_>, More<'_>, Times, &str) =
                postcard::from_bytes(body).map_err(|_| UnreadablePayload)?;
            let mut record = more.read_with(shape, times).ok_or(UnreadablePayload)?;
            segments.clone_into(&mut record.segments);
            Ok(JournalEntry::Record(record))
        }
        KIND_RECORD_WITH_EPOCHS => {
            type Rest<'a> = (&'a str, Epochs, &'a str);
            let (shape, more, times, rest): (Reading<'_>, More<'_>, Times, Rest<'_>) =
                postcard::from_bytes(body).map_err(|_| UnreadablePayload)?;
            let mut record = more.read_with(shape, times).ok_or(UnreadablePayload)?;
            let (segments, epochs, unit) = rest;
            segments.clone_into(&mut record.segments);
            unit.clone_into(&mut record.unit);
            for (exposure, epoch) in record.exposures.iter_mut().zip(epochs) {
                exposure.epoch = (epoch != 0).then_some(EpochDigest(epoch));
            }
            Ok(JournalEntry::Record(record))
        }
        KIND_RECORD_WITH_OLD_MORE => {
            let (shape, more): (Reading<'_>, OldMore<'_>) =
                postcard::from_bytes(body).map_err(|_| UnreadablePayload)?;
            let mut record = shape.read(None).ok_or(UnreadablePayload)?;
            if let Some(known) = more.known_as.and_then(UserId::new) {
                record.user = Id::from_slice(known.as_bytes());
            }
            // Such a record has one event, and the ID is the event's.
            let event_id = more.event_id.and_then(EventId::new);
            let observations = record.observations.iter_mut();
            observations.for_each(|seen| seen.event_id = event_id);
            Ok(JournalEntry::Record(record))
        }
        _ => Err(UnreadablePayload),
    }
}

// The types below define the format on disk. A change of a type elsewhere changes no file.

/// Its lists are encoded and decoded directly from and to a record, without a copy.
#[derive(Serialize, Deserialize)]
struct RecordShape<'a, E, O> {
    at_ms: u64,
    #[serde(borrow, with = "serde_bytes")]
    user: &'a [u8],
    declaration: u64,
    status: u16,
    latency_us: u64,
    exposures: E,
    observations: O,
}

/// For encoding.
type Writing<'a> = RecordShape<'a, List<&'a [Exposure]>, List<&'a [Observation]>>;
/// For decoding.
type Reading<'a> = RecordShape<'a, List<SmallVec<[Exposure; 2]>>, List<Vec<Observation>>>;

/// Elements with a format on disk.
struct List<L>(L);

/// The format of an element on disk.
trait Shaped: Sized {
    type Shape: Serialize + for<'de> Deserialize<'de>;

    fn shape(&self) -> Self::Shape;

    /// `None` for a value of another version.
    fn read(shape: Self::Shape) -> Option<Self>;
}

impl Shaped for Exposure {
    type Shape = (u32, u32, u8);

    fn shape(&self) -> Self::Shape {
        let served = match self.served {
            Served::Own => 0,
            Served::Fallback => 1,
            Served::Override => 2,
            Served::Unfinished => 3,
            Served::NotCounted(why) => NOT_COUNTED + why as u8,
        };
        (self.experiment.0 as u32, self.group.0 as u32, served)
    }

    fn read((experiment, group, served): Self::Shape) -> Option<Exposure> {
        let served = match served {
            0 => Served::Own,
            1 => Served::Fallback,
            2 => Served::Override,
            3 => Served::Unfinished,
            reason => {
                let place = usize::from(reason.checked_sub(NOT_COUNTED)?);
                Served::NotCounted(*NotCounted::ALL.get(place)?)
            }
        };
        Some(Exposure {
            experiment: ExperimentIndex(experiment as usize),
            group: GroupIndex(group as usize),
            served,
            epoch: None,
        })
    }
}

impl Shaped for Observation {
    type Shape = (u32, u32, i64, i64);

    fn shape(&self) -> Self::Shape {
        (self.metric.0 as u32, self.count, self.sum, self.base)
    }

    fn read((metric, count, sum, base): Self::Shape) -> Option<Observation> {
        Some(Observation {
            metric: MetricIndex(metric as usize),
            count,
            sum,
            base,
            event_id: None,
            at_ms: None,
        })
    }
}

impl<T: Shaped> Serialize for List<&[T]> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(T::shape))
    }
}

impl<'de, T: Shaped, L: Extend<T> + Default> Deserialize<'de> for List<L>
where
    L: IntoIterator<Item = T>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<List<L>, D::Error> {
        struct Elements<L>(PhantomData<L>);

        impl<'de, T: Shaped, L: Extend<T> + Default + IntoIterator<Item = T>> Visitor<'de> for Elements<L> {
            type Value = List<L>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<List<L>, A::Error> {
                let mut list = L::default();
                while let Some(shape) = all.next_element()? {
                    let read = T::read(shape);
                    list.extend(Some(
                        read.ok_or_else(|| A::Error::custom("an unknown value"))?,
                    ));
                }
                Ok(List(list))
            }
        }

        deserializer.deserialize_seq(Elements(PhantomData))
    }
}

/// Fields that few records have: a minted ID, and event IDs, one for each observation, 0 for none.
#[derive(Serialize, Deserialize)]
struct More<'a> {
    #[serde(borrow)]
    minted: Option<&'a [u8]>,
    event_ids: SmallVec<[u64; 4]>,
}

impl More<'_> {
    fn read(self, shape: Reading<'_>) -> Option<OwnedRecord> {
        let mut record = shape.read(self.minted)?;
        for (seen, id) in record.observations.iter_mut().zip(self.event_ids) {
            seen.event_id = EventId::new(id);
        }
        Some(record)
    }

    fn read_with(self, shape: Reading<'_>, times: Times) -> Option<OwnedRecord> {
        let mut record = self.read(shape)?;
        for (seen, at_ms) in record.observations.iter_mut().zip(times) {
            seen.at_ms = NonZeroU64::new(at_ms);
        }
        Some(record)
    }
}

/// The epochs of exposures, one for each, 0 for the declaration's.
type Epochs = SmallVec<[u64; 2]>;

/// The own times of events in Unix milliseconds, one for each observation, 0 for none.
type Times = SmallVec<[u64; 4]>;

/// Fields that few records of 0.1.0 have. `event_id` is that of all observations. `known_as` came with an
/// ID that a client could choose: the known ID is the user, and the other ID proves nothing.
#[derive(Deserialize)]
struct OldMore<'a> {
    event_id: Option<u64>,
    #[serde(borrow)]
    known_as: Option<&'a [u8]>,
}

impl<'a> From<&Record<'a>> for Writing<'a> {
    fn from(record: &Record<'a>) -> Self {
        RecordShape {
            at_ms: record.at_ms,
            user: record.user.as_bytes(),
            declaration: record.declaration,
            status: record.status,
            latency_us: record.latency_us,
            exposures: List(record.exposures),
            observations: List(record.observations),
        }
    }
}

impl Reading<'_> {
    fn read(self, minted: Option<&[u8]>) -> Option<OwnedRecord> {
        Some(OwnedRecord {
            at_ms: self.at_ms,
            user: Id::from_slice(UserId::new(self.user)?.as_bytes()),
            declaration: self.declaration,
            status: self.status,
            latency_us: self.latency_us,
            exposures: self.exposures.0,
            segments: String::new(),
            unit: String::new(),
            observations: self.observations.0,
            minted: minted.map(<[u8]>::to_vec),
            is_new: false,
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
            segments: "",
            observations,
            minted: UserId::new(b"minted"),
            is_new: false,
            unit: "",
        }
    }

    fn seen(metric: usize, event_id: Option<u64>) -> Observation {
        Observation {
            metric: MetricIndex(metric),
            count: 1,
            sum: 5,
            base: 0,
            event_id: event_id.and_then(EventId::new),
            at_ms: None,
        }
    }

    #[track_caller]
    fn decoded(payload: &[u8]) -> OwnedRecord {
        match decode(payload) {
            Ok(JournalEntry::Record(record)) => record,
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
    fn each_event_of_a_record_keeps_its_own_time() {
        let mut observations = [seen(0, None), seen(1, Some(9)), seen(1, None)];
        observations[1].at_ms = NonZeroU64::new(1_700_000_000_000);
        let mut room = [0; 200];
        let key = Key::from(uuid::Uuid::nil());
        let bytes = write_record(&mut room, 1, &record(&observations), key).unwrap();
        let read = decoded(&room[HEAD_BYTES..bytes]);
        assert_eq!(read.observations, observations);
        assert_eq!(read.minted.as_deref(), Some(&b"minted"[..]));
    }

    #[test]
    fn segments_of_a_record_are_kept() {
        let observations = [seen(0, None), seen(1, Some(9))];
        let mut record = record(&observations);
        record.segments = "device=mobile,plan=none";
        let mut room = [0; 200];
        let key = Key::from(uuid::Uuid::nil());
        let bytes = write_record(&mut room, 1, &record, key).unwrap();
        let read = decoded(&room[HEAD_BYTES..bytes]);
        assert_eq!(read.segments, record.segments);
        assert_eq!(read.observations, observations);
    }

    #[test]
    fn a_record_with_more_as_0_1_0_wrote_it_is_read() {
        let observations = [seen(0, None), seen(1, None)];
        let shape = Writing::from(&record(&observations));
        let more = (Some(9_u64), Some(&b"known"[..]));
        let payload = postcard::to_extend(&(shape, more), vec![KIND_RECORD_WITH_OLD_MORE]).unwrap();
        let read = decoded(&payload);
        assert_eq!(read.observations, [seen(0, Some(9)), seen(1, Some(9))]);
        // A client could choose the other ID, so it proves nothing.
        assert_eq!((&read.user[..], read.minted), (&b"known"[..], None));
    }
}
