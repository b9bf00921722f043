//! Where a body in chunks ends, and whether it is soundly framed (RFC 9112, 7.1). PURE.
//!
//! What two parsers could read in two ways is a fault: whoever wants to smuggle a message past a
//! proxy needs one reading here and another one behind it.

use crate::config::plan::Limits;
use crate::proxy::error_response::ErrorCode;
use crate::proxy::h1::grammar;
use memchr::memchr;

/// The longest chunk-size line with its extensions, in bytes.
const SIZE_LINE_MAX: usize = 4096;

/// How large a head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// All of it, in bytes.
    pub head_bytes: usize,
    /// Its fields.
    pub headers: usize,
    /// Its target, in bytes.
    pub target_bytes: usize,
}

impl Bounds {
    /// How long a first line may be: the method, the version and the spaces between stand beside
    /// the target.
    pub fn first_line_bytes(&self) -> usize {
        self.target_bytes + 64
    }
}

impl From<&Limits> for Bounds {
    fn from(limits: &Limits) -> Bounds {
        Bounds {
            head_bytes: limits.head_bytes,
            headers: limits.headers,
            target_bytes: limits.target_bytes,
        }
    }
}

/// Follows the chunks of one body.
#[derive(Debug)]
pub struct Framing {
    bounds: Bounds,
    place: Place,
    /// Where the line that is not complete yet begins, and up to where no line end was found:
    /// both from the beginning of the unit that is waited for.
    line: usize,
    searched: usize,
    /// How many trailers have come.
    trailers: usize,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    End,
}

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
            bounds,
            place: Place::ChunkSize,
            line: 0,
            searched: 0,
            trailers: 0,
        }
    }

    /// What becomes of these bytes of such a body. Bytes that are neither passed on nor skipped
    /// come again, with more behind them.
    pub fn admit_chunks(&mut self, bytes: &[u8]) -> Result<Chunks, ErrorCode> {
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
    pub fn admit_frames(&mut self, bytes: &[u8]) -> Result<Frames, ErrorCode> {
        let mut frames = Frames::default();
        loop {
            let rest = &bytes[frames.bytes..];
            let in_trailers = self.place == Place::Trailers;
            let taken = match self.place {
                _ if rest.is_empty() => None,
                Place::ChunkSize => self.chunk_size(rest)?,
                Place::ChunkEnd => self.chunk_end(rest)?,
                Place::Trailers => self.trailers(rest)?,
                Place::Chunk(_) | Place::End => None,
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
            Place::Chunk(left) => {
                let passed = left.min(bytes.len() as u64);
                self.place = match left - passed {
                    0 => Place::ChunkEnd,
                    left => Place::Chunk(left),
                };
                passed as usize
            }
            _ => 0,
        }
    }

    /// Whether such a body has ended.
    pub fn has_ended(&self) -> bool {
        self.place == Place::End
    }

    /// The next complete line of the unit, without its end; `None` when more is needed. The second
    /// value is whether it ended as it should, with CR and LF.
    fn next_line<'a>(&mut self, unit: &'a [u8]) -> Option<(&'a [u8], bool)> {
        let Some(end) = memchr(b'\n', &unit[self.searched..]) else {
            self.searched = unit.len();
            return None;
        };
        let end = self.searched + end;
        let line = &unit[self.line..end];
        self.line = end + 1;
        self.searched = end + 1;
        Some(match line {
            [line @ .., b'\r'] => (line, true),
            line => (line, false),
        })
    }

    /// The unit is complete: the next one begins.
    fn complete(&mut self, next: Place) -> usize {
        self.place = next;
        self.searched = 0;
        std::mem::take(&mut self.line)
    }

    fn chunk_size(&mut self, unit: &[u8]) -> Result<Option<usize>, ErrorCode> {
        let Some((line, whole)) = self.next_line(unit) else {
            let short = unit.len() <= SIZE_LINE_MAX;
            return short.then_some(None).ok_or(ErrorCode::Chunk);
        };
        // A line end that some take for one and others do not (RFC 9112, 7.1 and 11.2).
        if !whole || line.len() > SIZE_LINE_MAX {
            return Err(ErrorCode::Chunk);
        }
        let next = match grammar::chunk_size(line).ok_or(ErrorCode::Chunk)? {
            0 => Place::Trailers,
            size => Place::Chunk(size),
        };
        Ok(Some(self.complete(next)))
    }

    fn chunk_end(&mut self, unit: &[u8]) -> Result<Option<usize>, ErrorCode> {
        match unit {
            [b'\r', b'\n', ..] => {
                self.line = 2;
                Ok(Some(self.complete(Place::ChunkSize)))
            }
            [b'\r'] => Ok(None),
            _ => Err(ErrorCode::Chunk),
        }
    }

    fn trailers(&mut self, unit: &[u8]) -> Result<Option<usize>, ErrorCode> {
        while let Some((line, whole)) = self.next_line(unit) {
            if self.line > self.bounds.head_bytes {
                return Err(ErrorCode::HeadTooLong);
            }
            if !whole {
                return Err(ErrorCode::Chunk);
            }
            if line.is_empty() {
                return Ok(Some(self.complete(Place::End)));
            }
            grammar::field(line)?;
            self.trailers += 1;
            if self.trailers > self.bounds.headers {
                return Err(ErrorCode::HeadTooLong);
            }
        }
        let short = unit.len() <= self.bounds.head_bytes;
        short.then_some(None).ok_or(ErrorCode::HeadTooLong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        head_bytes: 8192,
        headers: 50,
        target_bytes: 1000,
    };

    /// Where a body ends, however it is cut; or what is wrong with it.
    fn read(body: &[u8], piece: usize) -> Result<Option<usize>, ErrorCode> {
        let mut framing = Framing::of_chunks(BOUNDS);
        let (mut taken, mut end) = (0, 0);
        while end < body.len() && !framing.has_ended() {
            end = (end + piece).min(body.len());
            let found = framing.admit_chunks(&body[taken..end])?;
            taken += found.pass + found.skip;
        }
        Ok(framing.has_ended().then_some(taken))
    }

    #[track_caller]
    fn check(body: &str, expected: Result<Option<usize>, ErrorCode>) {
        for piece in [body.len(), 1, 2, 3, 7, 100] {
            let found = read(body.as_bytes(), piece.max(1));
            assert_eq!(found, expected, "{body:?} by {piece}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_a_fault() {
        for body in [
            "5\nhello\r\n",
            "5 \r\nhello\r\n",
            "5\r\nhellox",
            "5\r\nhello\n",
            "+5\r\n",
            "0x5\r\n",
            "-1\r\n",
            "\r\n",
            "5;\r\n",
            "5;a\rb\r\n",
            "5;a\nb\r\n",
            "11111111111111111\r\n",
            "0\r\nX: y\n\r\n",
        ] {
            check(body, Err(ErrorCode::Chunk));
        }
        check("0\r\nX : y\r\n\r\n", Err(ErrorCode::Malformed));
        let sound = "5\r\nhello\r\n1;a=b;c=\"d\\\"\"\r\nx\r\n0\r\nX: y\r\n\r\n";
        check(&format!("{sound}GET / HTTP/1.1"), Ok(Some(sound.len())));
        check("5\r\nhel", Ok(None));
    }

    #[test]
    fn trailers_are_bounded() {
        let many = "X: y\r\n".repeat(51);
        check(&format!("0\r\n{many}\r\n"), Err(ErrorCode::HeadTooLong));
        let long = "x".repeat(9000);
        check(
            &format!("0\r\nX: {long}\r\n\r\n"),
            Err(ErrorCode::HeadTooLong),
        );
    }

    #[test]
    fn chunks_are_followed_to_their_end() {
        let body = b"5\r\nhello\r\n1;a=b\r\nx\r\n0\r\nX: y\r\n\r\nHTTP/1.1";
        let whole = Framing::of_chunks(BOUNDS).admit_chunks(body).unwrap();
        let expected = Chunks {
            pass: 23,
            data: 6,
            skip: 8,
            ended: true,
        };
        assert_eq!(whole, expected);
        for piece in 1..body.len() {
            let mut framing = Framing::of_chunks(BOUNDS);
            let (mut all, mut end) = (Chunks::default(), 0);
            while !all.ended {
                end += piece;
                let from = all.pass + all.skip;
                let more = framing.admit_chunks(&body[from..end.min(body.len())]);
                let more = more.unwrap();
                all.pass += more.pass;
                all.data += more.data;
                all.skip += more.skip;
                all.ended = more.ended;
            }
            assert_eq!(all, expected, "by {piece}");
        }
        for unsound in ["5\nhello\r\n", "x\r\n", "1\r\nab", "0\r\nX y\r\n\r\n"] {
            let read = Framing::of_chunks(BOUNDS).admit_chunks(unsound.as_bytes());
            assert!(read.is_err(), "{unsound:?}");
        }
    }
}
