//! Where a client's messages begin and end on its connection, and whether they are sound. PURE.
//!
//! Every byte passes here before hyper parses it. What two parsers could read in two ways is a
//! fault, and nothing after a fault is passed on: whoever wants to smuggle a request past a proxy
//! needs one reading here and another one at the upstream.

mod chunks;

pub use chunks::Frames;

use super::grammar;
use super::reply::Reason;
use crate::config::plan::Limits;
use memchr::memchr;
use std::collections::VecDeque;

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

/// Follows the messages of one connection.
#[derive(Debug)]
pub struct Framing {
    bounds: Bounds,
    place: Place,
    /// Where the line that is not complete yet begins, and up to where no line end was found:
    /// both from the beginning of the unit that is waited for.
    line: usize,
    searched: usize,
    head: Head,
    bare: VecDeque<bool>,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Head,
    /// A body of which this many bytes are to come.
    Length(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    /// Not HTTP any more, if the answer to the last request agrees.
    Upgrade,
}

/// What the lines of a head have said so far.
#[derive(Debug, Default)]
struct Head {
    begun: bool,
    fields: usize,
    http_10: bool,
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    connection_upgrade: bool,
}

impl Framing {
    /// At the beginning of a connection.
    pub fn new(bounds: Bounds) -> Framing {
        Framing {
            bounds,
            place: Place::Head,
            line: 0,
            searched: 0,
            head: Head::default(),
            bare: VecDeque::new(),
        }
    }

    /// How many of these bytes are sound and may be passed on, and the fault that follows them.
    ///
    /// Bytes that are neither belong to a head or line that is not complete: they come again, with
    /// more behind them.
    pub fn admit(&mut self, bytes: &[u8]) -> (usize, Option<Reason>) {
        let mut sound = 0;
        loop {
            let rest = &bytes[sound..];
            if rest.is_empty() || self.place == Place::Upgrade {
                return (sound, None);
            }
            let passed = match self.place {
                Place::Length(left) | Place::Chunk(left) => Ok(Some(self.pass(left, rest))),
                Place::Head => self.head(rest),
                Place::ChunkSize => self.chunk_size(rest),
                Place::ChunkEnd => self.chunk_end(rest),
                Place::Trailers => self.trailers(rest),
                Place::Upgrade => Ok(None),
            };
            match passed {
                Ok(Some(passed)) => sound += passed,
                Ok(None) => return (sound, None),
                Err(fault) => return (sound, Some(fault)),
            }
        }
    }

    /// Of each `OPTIONS http://…` whose line was read since this was last asked, whether its target
    /// is only a host.
    pub fn take_bare(&mut self, to: &mut VecDeque<bool>) {
        to.append(&mut self.bare);
    }

    /// Whether the next byte begins a message.
    pub fn is_between(&self) -> bool {
        self.place == Place::Head && !self.head.begun
    }

    /// Whether the next byte belongs to a head, begun or not.
    pub fn is_in_head(&self) -> bool {
        self.place == Place::Head
    }

    /// Whether what follows depends on the answer to a request to upgrade.
    pub fn is_upgrade(&self) -> bool {
        self.place == Place::Upgrade
    }

    /// The answer did not agree to upgrade: what follows is a message again.
    pub fn resume(&mut self) {
        if self.place == Place::Upgrade {
            self.place = Place::Head;
        }
    }

    fn pass(&mut self, left: u64, rest: &[u8]) -> usize {
        let passed = left.min(rest.len() as u64);
        let left = left - passed;
        self.place = match (self.place, left) {
            (Place::Length(_), 0) => Place::Head,
            (Place::Length(_), _) => Place::Length(left),
            (_, 0) => Place::ChunkEnd,
            (_, _) => Place::Chunk(left),
        };
        passed as usize
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

    fn head(&mut self, unit: &[u8]) -> Result<Option<usize>, Reason> {
        loop {
            let begins = self.line;
            let line = self.next_line(unit);
            let seen = line.map_or(unit.len(), |_| self.line);
            if let Some(fault) = self.head_too_long(begins, seen, line.is_some()) {
                return Err(fault);
            }
            let Some((line, _)) = line else {
                return Ok(None);
            };
            if !self.head.begun {
                // RFC 9112, 2.2: empty lines before a request are passed over.
                if !line.is_empty() {
                    self.head.http_10 = grammar::request_line(line, self.bounds.target_bytes)?;
                    self.bare.extend(grammar::is_bare_options(line));
                    self.head.begun = true;
                }
            } else if line.is_empty() {
                let head = std::mem::take(&mut self.head);
                let next = head.body()?;
                return Ok(Some(self.complete(next)));
            } else {
                self.head.fields += 1;
                if self.head.fields > self.bounds.headers {
                    return Err(Reason::HeadTooLong);
                }
                self.head.field(line)?;
            }
        }
    }

    /// What is too long of a head of which so many bytes are seen, with or without the end of the
    /// line that begins at `begins`. The first limit that is passed says so, in whatever pieces
    /// the bytes came.
    fn head_too_long(&self, begins: usize, seen: usize, ended: bool) -> Option<Reason> {
        let target_end = begins + self.bounds.first_line_bytes();
        if !self.head.begun
            && seen - usize::from(ended) > target_end
            && target_end <= self.bounds.head_bytes
        {
            return Some(Reason::TargetTooLong);
        }
        (seen > self.bounds.head_bytes).then_some(Reason::HeadTooLong)
    }

    fn chunk_size(&mut self, unit: &[u8]) -> Result<Option<usize>, Reason> {
        let Some((line, whole)) = self.next_line(unit) else {
            let short = unit.len() <= SIZE_LINE_MAX;
            return short.then_some(None).ok_or(Reason::Chunk);
        };
        // A line end that some take for one and others do not (RFC 9112, 7.1 and 11.2).
        if !whole || line.len() > SIZE_LINE_MAX {
            return Err(Reason::Chunk);
        }
        let next = match grammar::chunk_size(line).ok_or(Reason::Chunk)? {
            0 => Place::Trailers,
            size => Place::Chunk(size),
        };
        Ok(Some(self.complete(next)))
    }

    fn chunk_end(&mut self, unit: &[u8]) -> Result<Option<usize>, Reason> {
        match unit {
            [b'\r', b'\n', ..] => {
                self.line = 2;
                Ok(Some(self.complete(Place::ChunkSize)))
            }
            [b'\r'] => Ok(None),
            _ => Err(Reason::Chunk),
        }
    }

    fn trailers(&mut self, unit: &[u8]) -> Result<Option<usize>, Reason> {
        while let Some((line, whole)) = self.next_line(unit) {
            if self.line > self.bounds.head_bytes {
                return Err(Reason::HeadTooLong);
            }
            if !whole {
                return Err(Reason::Chunk);
            }
            if line.is_empty() {
                self.head = Head::default();
                return Ok(Some(self.complete(Place::Head)));
            }
            grammar::field(line)?;
            self.head.fields += 1;
            if self.head.fields > self.bounds.headers {
                return Err(Reason::HeadTooLong);
            }
        }
        let short = unit.len() <= self.bounds.head_bytes;
        short.then_some(None).ok_or(Reason::HeadTooLong)
    }
}

impl Head {
    fn field(&mut self, line: &[u8]) -> Result<(), Reason> {
        let (name, value) = grammar::field(line)?;
        // By length first: few fields are compared at all.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                self.hosts += 1;
                if self.hosts > 1 || !grammar::is_host(value) {
                    return Err(Reason::Host);
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                // RFC 9112, 6.3: two lengths may be refused even when they agree.
                if self.length.is_some() {
                    return Err(Reason::Length);
                }
                self.length = Some(grammar::length(value).ok_or(Reason::Length)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                // RFC 9112, 6.1: no other coding is known here, and none twice.
                if self.chunked || self.http_10 || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Reason::Coding);
                }
                self.chunked = true;
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
            10 if name.eq_ignore_ascii_case(b"connection") => {
                let mut options = value.split(|&byte| byte == b',');
                self.connection_upgrade |=
                    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
            }
            _ => {}
        }
        Ok(())
    }

    /// What follows the head.
    fn body(&self) -> Result<Place, Reason> {
        if self.hosts == 0 && !self.http_10 {
            return Err(Reason::Host);
        }
        match (self.chunked, self.length) {
            // RFC 9112, 6.1 and 11.2: the classic of smuggling.
            (true, Some(_)) => Err(Reason::Coding),
            (true, None) => Ok(Place::ChunkSize),
            (false, Some(length)) if length > 0 => Ok(Place::Length(length)),
            (false, _) if self.upgrade && self.connection_upgrade && !self.http_10 => {
                Ok(Place::Upgrade)
            }
            (false, _) => Ok(Place::Head),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::chunks::Chunks;
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds {
        head_bytes: 8192,
        headers: 50,
        target_bytes: 1000,
    };

    /// All sound, or sound up to a fault; the same however the bytes are cut into reads.
    #[track_caller]
    fn check(text: &str, expected: Result<(), Reason>) {
        let whole = read(text.as_bytes(), text.len());
        assert_eq!(whole.1.map_or(Ok(()), Err), expected, "{text:?}");
        if expected.is_ok() {
            assert_eq!(whole.0, text.len(), "{text:?}");
        }
        for piece in [1, 2, 3, 7, 100] {
            assert_eq!(read(text.as_bytes(), piece), whole, "{text:?} by {piece}");
        }
    }

    fn read(bytes: &[u8], piece: usize) -> (usize, Option<Reason>) {
        let mut framing = Framing::new(BOUNDS);
        let (mut passed, mut end) = (0, 0);
        while end < bytes.len() {
            end = (end + piece).min(bytes.len());
            let (sound, fault) = framing.admit(&bytes[passed..end]);
            passed += sound;
            if fault.is_some() {
                return (passed, fault);
            }
        }
        (passed, None)
    }

    #[test]
    fn sound_messages_pass_however_they_are_cut() {
        check("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(()));
        check("\r\n\r\nGET / HTTP/1.1\nHost: a\n\n", Ok(()));
        check("GET / HTTP/1.0\r\n\r\n", Ok(()));
        check(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            Ok(()),
        );
        check(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;a=b;c=\"d\\\"\"\r\nx\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            Ok(()),
        );
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_a_fault() {
        let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
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
            check(&format!("{chunked}{body}"), Err(Reason::Chunk));
        }
        check(
            &format!("{chunked}0\r\nX : y\r\n\r\n"),
            Err(Reason::Malformed),
        );
        let head = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        for (fields, fault) in [
            (
                "Content-Length: 1\r\nTransfer-Encoding: chunked",
                Reason::Coding,
            ),
            (
                "Transfer-Encoding: chunked\r\nContent-Length: 1",
                Reason::Coding,
            ),
            ("Transfer-Encoding: gzip, chunked", Reason::Coding),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                Reason::Coding,
            ),
            ("Transfer-Encoding:\x0bchunked", Reason::Malformed),
            ("Content-Length: 1\r\nContent-Length: 1", Reason::Length),
            ("Content-Length: +1", Reason::Length),
            ("Content-Length: 1, 1", Reason::Length),
            ("Content-Length: 99999999999999999999", Reason::Length),
            ("Content-Length:", Reason::Length),
            ("X: a\rb", Reason::Malformed),
            ("X: a\0b", Reason::Malformed),
            (" X: a", Reason::Malformed),
            ("X : a", Reason::Malformed),
            (": a", Reason::Malformed),
            ("X", Reason::Malformed),
            ("Host: b", Reason::Host),
        ] {
            check(&head(fields), Err(fault));
        }
        check(
            "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            Err(Reason::Coding),
        );
        check("GET / HTTP/1.1\r\n\r\n", Err(Reason::Host));
    }

    #[test]
    fn heads_are_bounded() {
        let long = |length: usize| "x".repeat(length);
        check(
            &format!("GET /{} HTTP/1.1\r\n", long(1001)),
            Err(Reason::TargetTooLong),
        );
        check(
            &format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", long(9000)),
            Err(Reason::HeadTooLong),
        );
        check(
            &format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(50)),
            Err(Reason::HeadTooLong),
        );
        // The limit that is passed first says so, however much came at once.
        check(
            &format!("GET /{} HTTP/1.1 more\r\n", long(1101)),
            Err(Reason::TargetTooLong),
        );
        check(
            &format!("GET / HTTP/1.1\r\nHost: a\r\nX{}\r\n", long(9000)),
            Err(Reason::HeadTooLong),
        );
        let trailers = "X: y\r\n".repeat(40);
        let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
        check(
            &format!("{chunked}{trailers}X: {}\r\n\r\n", long(8000)),
            Err(Reason::HeadTooLong),
        );
        let mut framing = Framing::new(BOUNDS);
        let endless = format!("GET /{}", long(2000));
        assert_eq!(
            framing.admit(endless.as_bytes()),
            (0, Some(Reason::TargetTooLong))
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

    #[test]
    fn after_a_request_to_upgrade_nothing_is_read_as_http() {
        let mut framing = Framing::new(BOUNDS);
        let head =
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Upgrade\r\nUpgrade: websocket\r\n\r\n";
        let both = [&head[..], b"\0\0"].concat();
        assert_eq!(framing.admit(&both), (head.len(), None));
        assert!(framing.is_upgrade());
        framing.resume();
        assert_eq!(framing.admit(b"\0\n"), (0, Some(Reason::Malformed)));
    }

    const WORDS: &[&str] = &[
        "GET ",
        "POST ",
        "/",
        "/a?b",
        " HTTP/1.1\r\n",
        " HTTP/1.0\n",
        "\r\n",
        "\r\n\r\n",
        "\n",
        "\r",
        "Host: a\r\n",
        "Host: a b\r\n",
        "Content-Length: 3\r\n",
        "Content-Length: 0\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Connection: upgrade\r\n",
        "Upgrade: x\r\n",
        "X: y\r\n",
        "X : y\r\n",
        " y\r\n",
        "abc",
        "0\r\n",
        "3\r\nabc\r\n",
        "3;a=b\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    ];

    /// What looks like HTTP, more or less.
    fn soup() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            9 => prop::sample::select(WORDS).prop_map(|word| word.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 1..4),
        ];
        prop::collection::vec(word, 1..20).prop_map(|words| words.concat())
    }

    proptest! {
        #[test]
        fn how_bytes_are_cut_changes_nothing(bytes in soup(), piece in 1_usize..40) {
            let whole = read(&bytes, bytes.len());
            let cut = read(&bytes, piece);
            // A fault may be seen before the end of what holds it; never is more passed on.
            prop_assert!(cut.0 <= whole.0 || cut.1 == whole.1);
            prop_assert_eq!(cut, whole);
        }

        /// The parser above the gate sees the same heads, and takes every one of them.
        #[test]
        fn the_parser_above_agrees(bytes in soup()) {
            let mut framing = Framing::new(BOUNDS);
            for end in 1..=bytes.len() {
                let (sound, fault) = framing.admit(&bytes[..end]);
                if sound > 0 {
                    let mut fields = [httparse::EMPTY_HEADER; 100];
                    let mut request = httparse::Request::new(&mut fields);
                    let parsed = request.parse(&bytes[..end]);
                    prop_assert_eq!(parsed, Ok(httparse::Status::Complete(sound)));
                }
                if sound > 0 || fault.is_some() {
                    break;
                }
            }
        }
    }
}
