//! The body of an upstream's answer in chunks: what of it is passed on. PURE.

use super::{Bounds, Framing, Place};
use crate::proxy::reply::Reason;

/// What becomes of bytes of a body in chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunks {
    /// So many may be passed on as they are, up to the line of the last chunk.
    pub pass: usize,
    /// So many of these are data.
    pub data: usize,
    /// So many behind them are trailers and the end.
    pub skip: usize,
    /// The body has ended behind them: an empty line is still to be said.
    pub ended: bool,
}

/// What frames a body in chunks, between its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// How many bytes.
    pub bytes: usize,
    /// How many of them, the last ones, are trailers with the empty line behind them.
    pub trailers: usize,
}

impl Framing {
    /// At the beginning of a body in chunks, whose trailers are bounded like a head.
    pub fn of_chunks(bounds: Bounds) -> Framing {
        Framing {
            place: Place::ChunkSize,
            ..Framing::new(bounds)
        }
    }

    /// What becomes of these bytes of such a body. Bytes that are neither passed on nor skipped
    /// come again, with more behind them.
    pub fn admit_chunks(&mut self, bytes: &[u8]) -> Result<Chunks, Reason> {
        let mut found = Chunks::default();
        loop {
            let rest = &bytes[found.pass + found.skip..];
            let frames = self.admit_frames(rest)?;
            let data = self.admit_data(&rest[frames.bytes..]);
            found.pass += frames.bytes - frames.trailers + data;
            found.data += data;
            found.skip += frames.trailers;
            found.ended = self.has_ended();
            if data == 0 {
                return Ok(found);
            }
        }
    }

    /// What frames such a body in these bytes, up to its next data or its end.
    pub fn admit_frames(&mut self, bytes: &[u8]) -> Result<Frames, Reason> {
        let mut frames = Frames::default();
        loop {
            let rest = &bytes[frames.bytes..];
            let in_trailers = self.place == Place::Trailers;
            let taken = match self.place {
                _ if rest.is_empty() => None,
                Place::ChunkSize => self.chunk_size(rest)?,
                Place::ChunkEnd => self.chunk_end(rest)?,
                Place::Trailers => self.trailers(rest)?,
                Place::Chunk(_) | Place::Head | Place::Length(_) | Place::Upgrade => None,
            };
            let Some(taken) = taken else {
                return Ok(frames);
            };
            frames.bytes += taken;
            if in_trailers {
                frames.trailers = taken;
            }
        }
    }

    /// How many of these bytes, behind what frames such a body, are its data.
    pub fn admit_data(&mut self, bytes: &[u8]) -> usize {
        match self.place {
            Place::Chunk(left) => self.pass(left, bytes),
            _ => 0,
        }
    }

    /// Whether such a body has ended.
    pub fn has_ended(&self) -> bool {
        self.place == Place::Head
    }
}
