//! What follows the head of an answer. PURE, but for who is told that it broke off.

use super::answer::Follows;
use super::rooms::ROOM_BYTES;
use crate::proxy::framing::{Bounds, Frames, Framing};
use crate::proxy::record::Unfinished;
use std::io::Write;

/// The most trailers of an answer.
pub const TRAILERS_MAX: usize = 100;
/// What bounds them.
const TRAILERS: Bounds = Bounds {
    head_bytes: 64 << 10,
    headers: TRAILERS_MAX,
    target_bytes: 0,
};

/// The rest of an answer, behind its head.
#[derive(Debug)]
pub struct Rest {
    body: Body,
}

#[derive(Debug)]
enum Body {
    Ended,
    Length(u64),
    Chunks(Framing),
    UntilClose,
}

/// What becomes of some bytes: so many are passed on, then so many are not.
#[derive(Debug)]
pub struct Taken {
    /// How many are passed on.
    pub pass: usize,
    /// How many of these are data of the body.
    pub data: usize,
    skip: usize,
    /// The client is told of the end by an empty line behind them.
    ends: bool,
}

/// The upstream's answer is not what it said it would be.
#[derive(Debug)]
pub struct Broken;

/// An answer that is recorded as unfinished unless it is let off.
#[derive(Debug)]
pub struct Watched(Option<Box<Unfinished>>);

impl Watched {
    /// Watches over this one, if it counts.
    pub fn new(unfinished: Option<Box<Unfinished>>) -> Watched {
        Watched(unfinished)
    }

    /// It has reached its end.
    pub fn let_off(&mut self) {
        self.0 = None;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(unfinished) = self.0.take() {
            unfinished.record();
        }
    }
}

impl Rest {
    /// Nothing more.
    pub const NONE: Rest = Rest { body: Body::Ended };

    /// What follows a head.
    pub fn new(follows: Follows) -> Rest {
        Rest {
            body: match follows {
                Follows::Nothing => Body::Ended,
                Follows::Length(length) => Body::Length(length),
                Follows::Chunks => Body::Chunks(Framing::of_chunks(TRAILERS)),
                Follows::UntilClose => Body::UntilClose,
            },
        }
    }

    /// What becomes of these bytes, which come behind what was taken before.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Taken, Broken> {
        let mut taken = Taken {
            pass: 0,
            data: 0,
            skip: 0,
            ends: false,
        };
        match &mut self.body {
            Body::Ended => {}
            Body::Length(left) => {
                let pass = (*left).min(bytes.len() as u64);
                *left -= pass;
                (taken.pass, taken.data) = (pass as usize, pass as usize);
                if *left == 0 {
                    self.body = Body::Ended;
                }
            }
            Body::Chunks(framing) => {
                let found = framing.admit_chunks(bytes).map_err(|_| Broken)?;
                (taken.pass, taken.skip) = (found.pass, found.skip);
                taken.data = found.data;
                if found.ended {
                    taken.ends = true;
                    self.body = Body::Ended;
                }
            }
            Body::UntilClose => (taken.pass, taken.data) = (bytes.len(), bytes.len()),
        }
        Ok(taken)
    }

    /// Appends to `out` what the client gets of `said`, and takes that out of it. Says how many
    /// bytes of it are data of the body.
    pub fn copy(&mut self, said: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<usize, Broken> {
        let taken = self.take(said)?;
        let chunk = matches!(self.body, Body::UntilClose) && taken.pass > 0;
        if chunk {
            // A `Vec` takes all that is written.
            let _ = write!(out, "{:x}\r\n", taken.pass);
        }
        out.extend_from_slice(&said[..taken.pass]);
        if chunk || taken.ends {
            out.extend_from_slice(b"\r\n");
        }
        said.drain(..taken.pass + taken.skip);
        Ok(taken.data)
    }

    /// What frames the body in these bytes, which come next, up to its data or its end.
    pub fn frames(&mut self, bytes: &[u8]) -> Result<Frames, Broken> {
        let Body::Chunks(framing) = &mut self.body else {
            return Ok(Frames::default());
        };
        let frames = framing.admit_frames(bytes).map_err(|_| Broken)?;
        if framing.has_ended() {
            self.body = Body::Ended;
        }
        Ok(frames)
    }

    /// How many of these bytes, behind what frames the body, are its data.
    pub fn data(&mut self, bytes: &[u8]) -> usize {
        match &mut self.body {
            Body::Chunks(framing) => framing.admit_data(bytes),
            // Nothing frames it: all that may be taken is data.
            _ => self.take(bytes).map_or(0, |taken| taken.pass),
        }
    }

    /// The upstream has closed: whether that is the end of the answer.
    pub fn close(&mut self) -> bool {
        let ends = matches!(self.body, Body::UntilClose);
        if ends {
            self.body = Body::Ended;
        }
        ends
    }

    /// Whether nothing more comes.
    pub fn has_ended(&self) -> bool {
        matches!(self.body, Body::Ended)
    }

    /// How many bytes are to come, where that is known.
    pub fn left_bytes(&self) -> Option<u64> {
        match self.body {
            Body::Ended => Some(0),
            Body::Length(left) => Some(left),
            Body::Chunks(_) | Body::UntilClose => None,
        }
    }

    /// Whether what comes next goes to the client as it is, and there is much of it.
    pub fn is_wide(&self) -> bool {
        matches!(self.body, Body::Length(left) if left > ROOM_BYTES as u64)
    }
}
