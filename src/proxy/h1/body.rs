//! What follows the head of a message. PURE, but for who is told that it broke off.

use crate::proxy::buffer_pool::ROOM_BYTES;
use crate::proxy::error_response::ErrorCode;
use crate::proxy::h1::framing::{Bounds, Frames, Framing};
use crate::proxy::h1::header_block::HeaderBlock;
use crate::proxy::h1::request_head;
use crate::proxy::h1::response_head::BodyFraming;
use crate::proxy::headers::reserved::ReservedNames;
use crate::proxy::observe::exposure_log::UnfinishedExposures;
use std::io::Write;
use std::rc::Rc;

/// The most trailers of an answer.
pub const TRAILERS_MAX: usize = 100;
/// What bounds them.
const TRAILERS: Bounds = Bounds {
    head_bytes: 64 << 10,
    headers: TRAILERS_MAX,
    target_bytes: 0,
};

/// How a client gets a body without a known length.
#[derive(Clone, Debug, Default)]
pub enum ClientFraming {
    /// In chunks.
    #[default]
    Chunks,
    /// In chunks, with those trailers that are not reserved.
    Trailers(Rc<ReservedNames>),
    /// As it is: the end of the connection is its end (HTTP/1.0).
    Raw,
}

/// The rest of a message, behind its head.
#[derive(Debug)]
pub struct BodyReader {
    body: Body,
    framed: ClientFraming,
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

/// An answer that is recorded as unfinished unless it is let off.
#[derive(Debug)]
pub struct UnfinishedGuard(Option<Box<UnfinishedExposures>>);

impl UnfinishedGuard {
    /// Watches over this one, if it counts.
    pub fn new(unfinished: Option<Box<UnfinishedExposures>>) -> UnfinishedGuard {
        UnfinishedGuard(unfinished)
    }

    /// It has reached its end.
    pub fn let_off(&mut self) {
        self.0 = None;
    }
}

impl Drop for UnfinishedGuard {
    fn drop(&mut self) {
        if let Some(unfinished) = self.0.take() {
            unfinished.record();
        }
    }
}

impl BodyReader {
    /// What follows the head of a request, with trailers within these bounds.
    pub fn of_request(body: request_head::Body, bounds: Bounds) -> BodyReader {
        BodyReader {
            body: match body {
                request_head::Body::None => Body::Ended,
                request_head::Body::Length(length) => Body::Length(length),
                request_head::Body::Chunks => Body::Chunks(Framing::of_chunks(bounds)),
            },
            framed: ClientFraming::Chunks,
        }
    }

    /// What follows the head of an answer, and how the client gets it.
    pub fn new(follows: BodyFraming, framed: ClientFraming) -> BodyReader {
        BodyReader {
            framed,
            body: match follows {
                BodyFraming::Nothing => Body::Ended,
                BodyFraming::Length(length) => Body::Length(length),
                BodyFraming::Chunks => Body::Chunks(Framing::of_chunks(TRAILERS)),
                BodyFraming::UntilClose => Body::UntilClose,
            },
        }
    }

    /// What becomes of these bytes, which come behind what was taken before.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Taken, ErrorCode> {
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
                let found = framing.admit_chunks(bytes)?;
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
    pub fn copy(&mut self, said: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<usize, ErrorCode> {
        if matches!(self.framed, ClientFraming::Raw) {
            return self.copy_raw(said, out);
        }
        let taken = self.take(said)?;
        let chunk = matches!(self.body, Body::UntilClose) && taken.pass > 0;
        if chunk {
            // A `Vec` takes all that is written.
            let _ = write!(out, "{:x}\r\n", taken.pass);
        }
        out.extend_from_slice(&said[..taken.pass]);
        let end = taken.pass + taken.skip;
        match &self.framed {
            ClientFraming::Trailers(reserved) if taken.ends => {
                write_trailers(&said[taken.pass..end], TRAILERS, reserved, out)?;
            }
            _ if chunk || taken.ends => out.extend_from_slice(b"\r\n"),
            _ => {}
        }
        said.drain(..end);
        Ok(taken.data)
    }

    /// The same without what frames it.
    fn copy_raw(&mut self, said: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<usize, ErrorCode> {
        let (mut taken, before) = (0, out.len());
        loop {
            taken += self.frames(&said[taken..])?.bytes;
            let data = self.data(&said[taken..]);
            if data == 0 {
                break;
            }
            out.extend_from_slice(&said[taken..taken + data]);
            taken += data;
        }
        said.drain(..taken);
        Ok(out.len() - before)
    }

    /// What frames the body in these bytes, which come next, up to its data or its end.
    pub fn frames(&mut self, bytes: &[u8]) -> Result<Frames, ErrorCode> {
        let Body::Chunks(framing) = &mut self.body else {
            return Ok(Frames::default());
        };
        let frames = framing.admit_frames(bytes)?;
        if framing.has_ended() {
            self.body = Body::Ended;
        }
        Ok(frames)
    }

    /// Whether a body may begin with these bytes, as far as can be seen.
    pub fn may_begin(&mut self, bytes: &[u8]) -> bool {
        bytes.is_empty() || self.frames(bytes).is_ok()
    }

    /// How many of these bytes, behind what frames the body, are its data.
    pub fn data(&mut self, bytes: &[u8]) -> usize {
        match &mut self.body {
            Body::Chunks(framing) => framing.admit_data(bytes),
            // Nothing frames it: all that may be taken is data.
            _ => self.take(bytes).map_or(0, |taken| taken.pass),
        }
    }

    /// The upstream has closed: what the client gets then, where that is the end of the answer.
    pub fn close(&mut self) -> Option<&'static [u8]> {
        if !matches!(self.body, Body::UntilClose) {
            return None;
        }
        self.body = Body::Ended;
        Some(match self.framed {
            ClientFraming::Raw => b"",
            _ => b"0\r\n\r\n",
        })
    }

    /// Whether nothing more comes.
    pub fn has_ended(&self) -> bool {
        matches!(self.body, Body::Ended)
    }

    /// Whether what comes next goes to the client as it is, and there is much of it.
    pub fn is_wide(&self) -> bool {
        matches!(self.body, Body::Length(left) if left > ROOM_BYTES as u64)
    }
}

/// Writes the trailers that may follow the content, and the end of a body in chunks.
pub fn write_trailers(
    trailers: &[u8],
    bounds: Bounds,
    reserved: &ReservedNames,
    out: &mut Vec<u8>,
) -> Result<(), ErrorCode> {
    if let Some((mut lines, _)) = HeaderBlock::read(trailers, 0, bounds.headers)? {
        lines.take_all(|name| {
            let name = name.to_ascii_lowercase();
            !std::str::from_utf8(&name).is_ok_and(|name| reserved.may_trail(name))
        });
        lines.write(out);
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}
