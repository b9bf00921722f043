//! The fields of a head, where they stand in what was read. PURE.

use crate::experiment::asked::Fields;
use crate::proxy::grammar;
use crate::proxy::reply::Reason;
use http::header::HeaderName;
use memchr::memchr;

/// The fields of one head.
#[derive(Debug)]
pub struct Lines<'a> {
    bytes: &'a [u8],
    // On the heap: a head is moved a few times, and its fields need not be.
    lines: Vec<Line>,
    /// Which lengths of names there are, modulo 64: most names that are asked for are not there.
    lengths: u64,
}

/// How many fields most heads have.
const USUAL: usize = 16;

/// Places in the bytes. A head is far shorter than what 32 bits count.
#[derive(Clone, Copy, Debug)]
struct Line {
    start: u32,
    name_end: u32,
    value: u32,
    value_end: u32,
    end: u32,
    /// Not passed on.
    goes: bool,
    /// Written as it would be written here: copied as it stands.
    canonical: bool,
}

impl Line {
    fn has_length(&self, name: &[u8]) -> bool {
        (self.name_end - self.start) as usize == name.len()
    }
}

/// The next line of `bytes` from `start`, without its end, and where the one after it begins.
pub fn line(bytes: &[u8], start: usize) -> Option<(&[u8], usize)> {
    let rest = bytes.get(start..)?;
    let end = memchr(b'\n', rest)?;
    let line = match &rest[..end] {
        [line @ .., b'\r'] => line,
        line => line,
    };
    Some((line, start + end + 1))
}

/// What the field at `start` is, or where the head ends. `None` where the line has not come.
enum Next {
    Field(Line),
    End(usize),
}

/// Where the end of a line at `place` is over; `Ok(None)` where more must come to tell.
fn over(bytes: &[u8], place: usize) -> Result<Option<usize>, Reason> {
    match bytes.get(place..) {
        Some([b'\n', ..]) => Ok(Some(place + 1)),
        Some([b'\r', b'\n', ..]) => Ok(Some(place + 2)),
        None | Some([] | [b'\r']) => Ok(None),
        Some(_) => Err(Reason::Malformed),
    }
}

fn next(bytes: &[u8], start: usize) -> Result<Option<Next>, Reason> {
    if let Some(b'\r' | b'\n') | None = bytes.get(start) {
        return Ok(over(bytes, start)?.map(Next::End));
    }
    let name_end = start + grammar::token_bytes(&bytes[start..]);
    match bytes.get(name_end) {
        Some(b':') if name_end > start => {}
        None => return Ok(None),
        Some(_) => return Err(Reason::Malformed),
    }
    let behind = name_end + 1;
    let text_end = behind + grammar::text_bytes(&bytes[behind..]);
    let Some(end) = over(bytes, text_end)? else {
        return Ok(None);
    };
    let (mut value, mut value_end) = (behind, text_end);
    while value < value_end && matches!(bytes[value], b' ' | b'\t') {
        value += 1;
    }
    while value < value_end && matches!(bytes[value_end - 1], b' ' | b'\t') {
        value_end -= 1;
    }
    let spaced = match value == value_end {
        true => value == behind,
        false => value == behind + 1 && bytes[behind] == b' ',
    };
    Ok(Some(Next::Field(Line {
        start: start as u32,
        name_end: name_end as u32,
        value: value as u32,
        value_end: value_end as u32,
        end: end as u32,
        goes: false,
        canonical: spaced && value_end + 2 == end,
    })))
}

impl<'a> Lines<'a> {
    /// Reads fields from `start` up to the empty line, and where what follows it begins; `None`
    /// where that line has not come. Of more than `max` fields, or an unsound one, the reason.
    pub fn read(
        bytes: &'a [u8],
        start: usize,
        max: usize,
    ) -> Result<Option<(Lines<'a>, usize)>, Reason> {
        let mut lines = Vec::with_capacity(USUAL);
        let (mut start, mut lengths) = (start, 0);
        loop {
            match next(bytes, start)? {
                None => return Ok(None),
                Some(Next::End(end)) => {
                    let lines = Lines {
                        bytes,
                        lines,
                        lengths,
                    };
                    return Ok(Some((lines, end)));
                }
                Some(Next::Field(_)) if lines.len() == max => return Err(Reason::HeadTooLong),
                Some(Next::Field(line)) => {
                    lengths |= 1 << ((line.name_end - line.start) % 64);
                    start = line.end as usize;
                    lines.push(line);
                }
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Name and value of the one at this place, whether or not it goes.
    pub fn at(&self, place: usize) -> (&'a [u8], &'a [u8]) {
        let line = self.lines[place];
        (self.name(line), self.value(line))
    }

    /// The one at this place is not passed on.
    pub fn take(&mut self, place: usize) {
        self.lines[place].goes = true;
    }

    /// Those of this name are not passed on.
    pub fn take_named(&mut self, name: &HeaderName) {
        let name = name.as_str().as_bytes();
        if self.may_have(name) {
            self.take_all(|other| other.len() == name.len() && grammar::is_same_name(other, name));
        }
    }

    /// Those of which this is true are not passed on.
    pub fn take_all(&mut self, is_meant: impl Fn(&[u8]) -> bool) {
        for place in 0..self.lines.len() {
            if is_meant(self.name(self.lines[place])) {
                self.lines[place].goes = true;
            }
        }
    }

    /// Appends those that are passed on to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        // Those that stand one behind the other are copied at once.
        let (mut from, mut to) = (0, 0);
        for &line in self.lines.iter().filter(|line| !line.goes) {
            let (start, end) = (line.start as usize, line.end as usize);
            if line.canonical && start == to {
                to = end;
                continue;
            }
            out.extend_from_slice(&self.bytes[from..to]);
            (from, to) = (start, start);
            if line.canonical {
                to = end;
            } else {
                field(out, self.name(line), self.value(line));
            }
        }
        out.extend_from_slice(&self.bytes[from..to]);
    }

    fn may_have(&self, name: &[u8]) -> bool {
        self.lengths & (1 << (name.len() % 64)) != 0
    }

    fn name(&self, line: Line) -> &'a [u8] {
        &self.bytes[line.start as usize..line.name_end as usize]
    }

    fn value(&self, line: Line) -> &'a [u8] {
        &self.bytes[line.value as usize..line.value_end as usize]
    }
}

impl<'a> Fields<'a> for &Lines<'a> {
    fn all(self, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
        let name = name.as_str().as_bytes();
        let lines = match self.may_have(name) {
            true => &*self.lines,
            false => &[],
        };
        let lines = lines.iter().filter(move |line| {
            !line.goes && line.has_length(name) && grammar::is_same_name(self.name(**line), name)
        });
        lines.map(|line| self.value(*line))
    }
}

/// Appends a field to a head.
pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(match value.is_empty() {
        true => b":",
        false => b": ",
    });
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a field of a known name, which is written with what parts it from the value.
#[inline(always)]
pub fn named<const N: usize>(out: &mut Vec<u8>, name: &[u8; N], value: &[u8]) {
    out.reserve(N + value.len() + 2);
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> (Lines<'_>, usize) {
        Lines::read(text.as_bytes(), 0, 100).unwrap().unwrap()
    }

    fn written(lines: &Lines<'_>) -> String {
        let mut out = Vec::new();
        lines.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_stays_is_written_in_order_and_as_it_should_be() {
        let (mut lines, end) = read("A: 1\r\nb:2\nC:  3 \r\nD: 4\r\nE:\r\nF: 6\r\n\r\nmore");
        assert_eq!(end, 36);
        assert_eq!(
            written(&lines),
            "A: 1\r\nb: 2\r\nC: 3\r\nD: 4\r\nE:\r\nF: 6\r\n"
        );
        lines.take(0);
        lines.take_all(|name| name == b"D");
        assert_eq!(written(&lines), "b: 2\r\nC: 3\r\nE:\r\nF: 6\r\n");
        assert_eq!(lines.at(3), (&b"D"[..], &b"4"[..]));
        let found = |name: &str| {
            let name = HeaderName::try_from(name).unwrap();
            lines.first(&name).map(<[u8]>::to_vec)
        };
        assert_eq!(found("B"), Some(b"2".to_vec()));
        assert_eq!((found("a"), found("d"), found("g")), (None, None, None));
    }

    #[test]
    fn what_is_not_whole_or_not_sound_is_said() {
        for text in ["", "A: 1", "A: 1\r\n", "A: 1\r\n\r"] {
            assert!(matches!(Lines::read(text.as_bytes(), 0, 9), Ok(None)));
        }
        let fault = |text: &str| Lines::read(text.as_bytes(), 0, 2).unwrap_err();
        assert_eq!(fault("A : 1\r\n\r\n"), Reason::Malformed);
        assert_eq!(fault("A: 1\r\n b\r\n\r\n"), Reason::Malformed);
        assert_eq!(fault("A: 1\r\nA: 1\r\nA: 1\r\n\r\n"), Reason::HeadTooLong);
    }

    proptest! {
        /// The same names and values as the parser that hyper uses, whichever lines go.
        #[test]
        fn what_is_written_is_read_as_what_was_read(
            fields in prop::collection::vec(("[A-Za-z][a-z-]{0,8}", "[ \t]?[!-~]{0,9}[ \t]?", any::<bool>(), any::<bool>()), 0..12),
        ) {
            let end = |crlf: bool| if crlf { "\r\n" } else { "\n" };
            let text: String = fields
                .iter()
                .map(|(name, value, crlf, _)| format!("{name}:{value}{}", end(*crlf)))
                .chain(["\r\n".to_owned()])
                .collect();
            let (mut lines, _) = read(&text);
            for (place, (_, _, _, goes)) in fields.iter().enumerate() {
                if *goes {
                    lines.take(place);
                }
            }
            let again = format!("GET / HTTP/1.1\r\n{}\r\n", written(&lines));
            let mut room = [httparse::EMPTY_HEADER; 20];
            let mut request = httparse::Request::new(&mut room);
            prop_assert!(request.parse(again.as_bytes()).unwrap().is_complete());
            let seen: Vec<_> = request.headers.iter().map(|it| (it.name, it.value)).collect();
            let stays = fields.iter().filter(|(_, _, _, goes)| !goes);
            let meant: Vec<_> = stays.map(|(name, value, _, _)| (&**name, value.trim_matches([' ', '\t']).as_bytes())).collect();
            prop_assert_eq!(seen, meant);
        }
    }
}
