//! The fields of a head, where they stand in what was read. PURE.

use crate::experiment::cookies;
use crate::experiment::http_view::{FieldName, HeaderView, NameMarks};
use crate::proxy::error_response::ErrorCode;
use crate::proxy::h1::grammar;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use memchr::memchr;
use std::cell::Cell;

/// The fields of one head.
#[derive(Debug)]
pub struct HeaderBlock<'a> {
    bytes: &'a [u8],
    // On the heap: a head is moved a few times, and its fields need not be.
    lines: Vec<Line>,
    /// All names: most names that are asked for are not there.
    marks: NameMarks,
    /// Whether a name has a character other than letters, digits and dashes.
    odd: bool,
    /// Where cookies stand: they are asked for often, and read once.
    cookies: Vec<Cookie>,
    /// All their names.
    cookie_marks: NameMarks,
    /// The place of the last `Date`.
    date: Option<u32>,
}

/// How many fields most heads have, and for how many of them, and of cookies, room is kept.
const USUAL: usize = 16;
const KEPT_MAX: usize = 256;

thread_local! {
    /// Room for the next head on this thread: one is read after the other.
    static LINES: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    static COOKIES: Cell<Vec<Cookie>> = const { Cell::new(Vec::new()) };
}

impl Drop for HeaderBlock<'_> {
    fn drop(&mut self) {
        if self.lines.capacity() <= KEPT_MAX {
            LINES.set(std::mem::take(&mut self.lines));
        }
        if (1..=KEPT_MAX).contains(&self.cookies.capacity()) {
            COOKIES.set(std::mem::take(&mut self.cookies));
        }
    }
}

/// Positions in the bytes. A head is far shorter than what 32 bits count.
#[derive(Clone, Copy, Debug)]
struct Line {
    start: u32,
    name_end: u32,
    value: u32,
    value_end: u32,
    end: u32,
    /// Not passed on.
    goes: bool,
    /// For this connection or for watershed alone: read, and not passed on.
    is_own: bool,
    /// Written as it would be written here: copied as it stands.
    canonical: bool,
    /// Its name has a character other than letters, digits and dashes.
    odd: bool,
}

/// Where a cookie stands in the bytes.
#[derive(Clone, Copy, Debug)]
struct Cookie {
    /// The place of its line.
    line: u32,
    name: u32,
    equals: u32,
    end: u32,
}

impl Line {
    fn has_length(&self, name: &[u8]) -> bool {
        (self.name_end - self.start) as usize == name.len()
    }
}

/// The next line of `bytes` from `start`, without its end, and where the one after it begins.
pub(crate) fn line(bytes: &[u8], start: usize) -> Option<(&[u8], usize)> {
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
fn over(bytes: &[u8], place: usize) -> Result<Option<usize>, ErrorCode> {
    match bytes.get(place..) {
        Some([b'\n', ..]) => Ok(Some(place + 1)),
        Some([b'\r', b'\n', ..]) => Ok(Some(place + 2)),
        None | Some([] | [b'\r']) => Ok(None),
        Some(_) => Err(ErrorCode::Malformed),
    }
}

fn next(bytes: &[u8], start: usize) -> Result<Option<Next>, ErrorCode> {
    let Some(rest) = bytes.get(start..) else {
        return Ok(None);
    };
    if let [b'\r' | b'\n', ..] | [] = rest {
        return Ok(over(bytes, start)?.map(Next::End));
    }
    let (name_bytes, odd) = grammar::name_bytes(rest);
    let text = match rest.get(name_bytes..) {
        Some([b':', text @ ..]) if name_bytes > 0 => text,
        None | Some([]) => return Ok(None),
        Some(_) => return Err(ErrorCode::Malformed),
    };
    let text_bytes = grammar::text_bytes(text);
    let (text, behind) = text.split_at(text_bytes);
    // Almost every line ends so.
    let end_bytes = match behind {
        [b'\r', b'\n', ..] => 2,
        [b'\n', ..] => 1,
        [] | [b'\r'] => return Ok(None),
        _ => return Err(ErrorCode::Malformed),
    };
    let text_start = start + name_bytes + 1;
    let end = text_start + text_bytes + end_bytes;
    // One space, then what is visible up to the end.
    let (value_start, value_end, canonical) = match text {
        [b' ', first, .., last] if *first > b' ' && *last > b' ' => (1, text_bytes, end_bytes == 2),
        [b' ', only] if *only > b' ' => (1, text_bytes, end_bytes == 2),
        [] => (0, 0, end_bytes == 2),
        _ => {
            let value = text.trim_ascii();
            let start = text_bytes - text.trim_ascii_start().len();
            (start, start + value.len(), false)
        }
    };
    Ok(Some(Next::Field(Line {
        start: start as u32,
        name_end: (start + name_bytes) as u32,
        value: (text_start + value_start) as u32,
        value_end: (text_start + value_end) as u32,
        end: end as u32,
        goes: false,
        is_own: false,
        canonical,
        odd,
    })))
}

impl<'a> HeaderBlock<'a> {
    /// Reads fields from `start` up to the empty line, and where what follows it begins; `None`
    /// where that line has not come. Of more than `max` fields, or an unsound one, the reason.
    pub fn read(
        bytes: &'a [u8],
        start: usize,
        max: usize,
    ) -> Result<Option<(HeaderBlock<'a>, usize)>, ErrorCode> {
        let mut found = HeaderBlock {
            bytes,
            lines: LINES.take(),
            marks: NameMarks::default(),
            odd: false,
            cookies: Vec::new(),
            cookie_marks: NameMarks::default(),
            date: None,
        };
        found.lines.clear();
        found.lines.reserve(USUAL);
        let mut start = start;
        loop {
            match next(bytes, start)? {
                None => return Ok(None),
                Some(Next::End(end)) => return Ok(Some((found, end))),
                Some(Next::Field(_)) if found.lines.len() == max => {
                    return Err(ErrorCode::HeadTooLong);
                }
                Some(Next::Field(line)) => {
                    found.marks = found.marks.and(NameMarks::of(found.name(line)));
                    found.odd |= line.odd;
                    start = line.end as usize;
                    let name = found.name(line);
                    match name.len() {
                        4 if grammar::is_named(name, b"date") => {
                            found.date = Some(found.lines.len() as u32);
                        }
                        6 if grammar::is_named(name, b"cookie") => found.read_cookies(line),
                        _ => {}
                    }
                    found.lines.push(line);
                }
            }
        }
    }

    /// Reads the cookies of the next line.
    fn read_cookies(&mut self, line: Line) {
        if self.cookies.capacity() == 0 {
            self.cookies = COOKIES.take();
            self.cookies.clear();
        }
        let place = self.lines.len() as u32;
        for cookie in cookies::places(self.value(line)) {
            let at = |place: usize| line.value + place as u32;
            let cookie = Cookie {
                line: place,
                name: at(cookie.name),
                equals: at(cookie.equals),
                end: at(cookie.end),
            };
            let name = NameMarks::of(self.cookie(cookie).0);
            self.cookie_marks = self.cookie_marks.and(name);
            self.cookies.push(cookie);
        }
    }

    /// The name and the value of a cookie.
    fn cookie(&self, cookie: Cookie) -> (&'a [u8], &'a [u8]) {
        let value = cookie.equals as usize + 1..cookie.end as usize;
        let name = cookie.name as usize..cookie.equals as usize;
        (&self.bytes[name], self.bytes[value].trim_ascii_end())
    }

    /// How many there are.
    #[cfg_attr(
        test,
        allow(clippy::len_without_is_empty, reason = "public only for fuzz targets")
    )]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether a name has a character other than letters, digits and dashes.
    pub fn is_odd(&self) -> bool {
        self.odd
    }

    /// Whether a `Date` is passed on.
    pub fn has_date(&self) -> bool {
        self.date
            .is_some_and(|place| !self.lines[place as usize].goes)
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

    /// The one at this place is read, and not passed on behind [`HeaderBlock::take_own`].
    pub fn keep(&mut self, place: usize) {
        self.lines[place].is_own = true;
    }

    /// Those that were kept are not passed on.
    pub fn take_own(&mut self) {
        self.lines
            .iter_mut()
            .for_each(|line| line.goes |= line.is_own);
    }

    /// Those of this name are not passed on.
    pub fn take_named(&mut self, name: &HeaderName) {
        let name = name.as_str().as_bytes();
        if self.may_have(name) {
            self.take_all(|other| other.len() == name.len() && grammar::is_same_name(other, name));
        }
    }

    /// Fields of cookies are not passed on.
    pub fn take_cookies(&mut self) {
        for line in &mut self.lines {
            let name = &self.bytes[line.start as usize..line.name_end as usize];
            line.goes |= grammar::is_named(name, b"cookie");
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

    /// Adds those that are passed on to `headers`.
    pub fn give(&self, headers: &mut HeaderMap) {
        // Copied once: values are pieces of it.
        let (Some(first), Some(last)) = (self.lines.first(), self.lines.last()) else {
            return;
        };
        let from = first.start as usize;
        let bytes = Bytes::copy_from_slice(&self.bytes[from..last.end as usize]);
        for line in self.lines.iter().filter(|line| !line.goes) {
            let value = bytes.slice(line.value as usize - from..line.value_end as usize - from);
            // Both were read by a grammar that is no wider than the maps'.
            if let Ok(name) = HeaderName::from_bytes(self.name(*line))
                && let Ok(value) = HeaderValue::from_maybe_shared(value)
            {
                headers.append(name, value);
            }
        }
    }

    /// Calls `each` with what stands between the semicolons of `Cookie`, over all lines, and where its `=` is: 0 for what has
    /// none, which is the value of a cookie without a name.
    pub fn each_cookie(&self, mut each: impl FnMut(&'a [u8], usize)) {
        let mut cookies = &*self.cookies;
        for (place, &line) in self.lines.iter().enumerate() {
            if !line.has_length(b"cookie") || !grammar::is_named(self.name(line), b"cookie") {
                continue;
            }
            let own = cookies.iter().take_while(|it| it.line as usize == place);
            let (own, others) = cookies.split_at(own.count());
            cookies = others;
            if line.goes {
                continue;
            }
            let mut from = line.value as usize;
            for cookie in own {
                let name = cookie.name as usize;
                match &self.bytes[from..name] {
                    // Almost always.
                    [] | [b';', b' '] => {}
                    text => nameless_cookies(text, &mut each),
                }
                from = cookie.end as usize;
                let text = match &self.bytes[name..from] {
                    text @ [.., last] if *last > b' ' => text,
                    text => text.trim_ascii_end(),
                };
                each(text, cookie.equals as usize - name);
            }
            nameless_cookies(&self.bytes[from..line.value_end as usize], &mut each);
        }
    }

    /// Whether a cookie is passed on.
    fn has(&self, cookie: &Cookie) -> bool {
        !self.lines[cookie.line as usize].goes
    }

    fn may_have(&self, name: &[u8]) -> bool {
        self.marks.meets(NameMarks::of(name))
    }

    /// The values of fields with this name, in small letters, that are passed on.
    fn values(&self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        let lines = self.lines.iter().filter(move |line| {
            let is_same = line.has_length(name) && grammar::is_same_name(self.name(**line), name);
            is_same && !line.goes
        });
        lines.map(|line| self.value(*line))
    }

    fn name(&self, line: Line) -> &'a [u8] {
        &self.bytes[line.start as usize..line.name_end as usize]
    }

    fn value(&self, line: Line) -> &'a [u8] {
        &self.bytes[line.value as usize..line.value_end as usize]
    }
}

impl<'a> HeaderView<'a> for &HeaderBlock<'a> {
    fn may_have_any(self, names: NameMarks) -> bool {
        self.marks.meets(names)
    }

    fn all(self, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
        let name = name.as_str().as_bytes();
        let may_have = self.may_have(name).then(|| self.values(name));
        may_have.into_iter().flatten()
    }

    #[inline]
    fn field(self, name: FieldName) -> Option<&'a [u8]> {
        // Most heads have none.
        match self.marks.meets(name.marks()) {
            true => self.values(name.text().as_bytes()).next(),
            false => None,
        }
    }

    fn cookies(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let name = name.as_bytes();
        let cookies = match self.cookie_marks.meets(NameMarks::of(name)) {
            true => &*self.cookies,
            false => &[],
        };
        let cookies = cookies.iter().filter(move |cookie| {
            let has_length = (cookie.equals - cookie.name) as usize == name.len();
            has_length && self.cookie(**cookie).0 == name && self.has(cookie)
        });
        cookies.map(|cookie| self.cookie(*cookie).1)
    }

    fn all_cookies(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let cookies = self.cookies.iter().filter(|cookie| self.has(cookie));
        cookies.map(|cookie| self.cookie(*cookie))
    }
}

/// Calls `each` with what stands between cookies besides semicolons.
fn nameless_cookies<'a>(text: &'a [u8], each: &mut impl FnMut(&'a [u8], usize)) {
    // Almost always a semicolon and a space.
    if text.iter().all(|byte| matches!(byte, b';' | b' ')) {
        return;
    }
    let texts = text.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    let texts = texts.filter(|text| !text.is_empty());
    texts.for_each(|text| each(text, 0));
}

/// Appends a field to a head.
pub(crate) fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
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
pub(crate) fn named<const N: usize>(out: &mut Vec<u8>, name: &[u8; N], value: &[u8]) {
    out.reserve(N + value.len() + 2);
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> (HeaderBlock<'_>, usize) {
        HeaderBlock::read(text.as_bytes(), 0, 100).unwrap().unwrap()
    }

    fn written(lines: &HeaderBlock<'_>) -> String {
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
            assert!(matches!(HeaderBlock::read(text.as_bytes(), 0, 9), Ok(None)));
        }
        let fault = |text: &str| HeaderBlock::read(text.as_bytes(), 0, 2).unwrap_err();
        assert_eq!(fault("A : 1\r\n\r\n"), ErrorCode::Malformed);
        assert_eq!(fault("A: 1\r\n b\r\n\r\n"), ErrorCode::Malformed);
        assert_eq!(
            fault("A: 1\r\nA: 1\r\nA: 1\r\n\r\n"),
            ErrorCode::HeadTooLong
        );
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
