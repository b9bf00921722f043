//! The head of an upstream's answer, read and written again for the client. PURE.

use crate::config::plan::Limits;
use crate::experiment::http_view::{FieldName, HeaderView, ResponseView};
use crate::proxy::error_response::ErrorCode;
use crate::proxy::h1::grammar::{self, begins, is_named};
use crate::proxy::h1::header_block::{self, HeaderBlock, field};
use crate::proxy::headers::edit::Edit;
use http::header::{CONNECTION, DATE, HeaderName, HeaderValue, TRAILER};
use http::{Response, StatusCode};
use smallvec::SmallVec;
use std::time::Duration;

/// How large the head of a response may be, an interim one included.
#[derive(Clone, Copy, Debug)]
pub struct ResponseLimits {
    /// Its size, in bytes.
    pub head_bytes: usize,
    /// Its header fields.
    pub headers: usize,
}

impl ResponseLimits {
    /// For responses that watershed makes itself.
    pub const OWN: ResponseLimits = ResponseLimits {
        head_bytes: usize::MAX,
        headers: usize::MAX,
    };
}

impl From<&Limits> for ResponseLimits {
    fn from(limits: &Limits) -> ResponseLimits {
        ResponseLimits {
            head_bytes: limits.response_head_bytes,
            headers: limits.response_headers,
        }
    }
}

/// What stands at the beginning of what an upstream has sent.
#[derive(Debug)]
pub enum ParsedHead<'a> {
    /// A head that is not complete.
    More,
    /// An interim answer of this status, whose head ends here.
    Interim(u16, usize),
    /// The answer.
    Final(ResponseHead<'a>),
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// Nothing.
    Nothing,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunks,
    /// All that comes until the upstream closes.
    UntilClose,
}

impl BodyFraming {
    /// Whether all of it is within these bytes, and it is plain to see.
    pub fn is_within(self, bytes: &[u8]) -> bool {
        match self {
            BodyFraming::Nothing => true,
            BodyFraming::Length(length) => length <= bytes.len() as u64,
            BodyFraming::Chunks | BodyFraming::UntilClose => false,
        }
    }
}

/// The head of an answer.
#[derive(Debug)]
pub struct ResponseHead<'a> {
    /// Its status.
    pub status: u16,
    /// The protocol that it changes to.
    chosen: Option<&'a [u8]>,
    /// Whether `Connection` lists other fields.
    lists: bool,
    /// What it says after the version, with the end of the line.
    said: &'a [u8],
    lines: HeaderBlock<'a>,
    /// How long the head is, in bytes.
    pub head_bytes: usize,
    /// What follows it.
    pub follows: BodyFraming,
    /// Whether the upstream lets another request follow.
    pub keeps: bool,
    /// How long the upstream keeps the connection without a request, if it says so.
    pub idle_for: Option<Duration>,
    /// Whether it is of HTTP/1.0.
    pub http_10: bool,
    /// Whether the client gets the length of a body that comes in chunks.
    pub sized: bool,
    /// Whether it is a stream of events, which are waited for.
    pub is_of_events: bool,
}

/// What the meaning of a response's head depends on besides its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseContext {
    /// Whether the method of the request is HEAD.
    pub to_head: bool,
    /// Whether the request asks for another protocol.
    pub upgrading: bool,
    /// Whether the body comes in chunks, whatever the head says: it was translated from HTTP/2.
    pub in_chunks: bool,
}

/// Reads the beginning of `bytes`. The outcome does not depend on how much of the body has arrived.
pub fn read(
    bytes: &[u8],
    limits: ResponseLimits,
    context: ResponseContext,
) -> Result<ParsedHead<'_>, ErrorCode> {
    // What is beyond the limit is not looked at, whether it has arrived or not.
    let (bytes, is_all) = match bytes.split_at_checked(limits.head_bytes) {
        Some((head, rest)) => (head, rest.is_empty()),
        None => (bytes, true),
    };
    let more = || match is_all {
        true => Ok(ParsedHead::More),
        false => Err(ErrorCode::ResponseHeadTooLong),
    };
    let Some((line, start)) = header_block::line(bytes, 0) else {
        return more();
    };
    let (http_10, status) = status_line(line).ok_or(ErrorCode::Unsound)?;
    let read = HeaderBlock::read(bytes, start, limits.headers).map_err(|code| match code {
        ErrorCode::HeadTooLong => ErrorCode::TooManyResponseHeaders,
        _ => ErrorCode::Unsound,
    })?;
    let Some((lines, head_bytes)) = read else {
        return more();
    };
    if status == 101 && !context.upgrading {
        return Err(ErrorCode::Unsound);
    }
    if status < 200 && status != 101 {
        return Ok(ParsedHead::Interim(status, head_bytes));
    }
    let mut answer = ResponseHead {
        chosen: None,
        lists: false,
        status,
        said: &line[b"HTTP/1.1 ".len()..],
        lines,
        head_bytes,
        follows: BodyFraming::UntilClose,
        keeps: !http_10,
        idle_for: None,
        http_10,
        sized: false,
        is_of_events: false,
    };
    answer.frame(context)?;
    Ok(ParsedHead::Final(answer))
}

/// RFC 9112, 4: whether it is HTTP/1.0, and the status.
fn status_line(line: &[u8]) -> Option<(bool, u16)> {
    let (version, rest) = line.split_at_checked(b"HTTP/1.1".len())?;
    let http_10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return None,
    };
    let [b' ', a @ b'1'..=b'9', b, c, phrase @ ..] = rest else {
        return None;
    };
    if !b.is_ascii_digit() || !c.is_ascii_digit() {
        return None;
    }
    let control = |bad, &byte: &u8| bad | ((byte < b' ' && byte != b'\t') | (byte == 0x7f));
    let sound = matches!(phrase, [] | [b' ', ..]) && !phrase.iter().fold(false, control);
    let digit = |byte: &u8| u16::from(byte - b'0');
    sound.then(|| (http_10, digit(a) * 100 + digit(b) * 10 + digit(c)))
}

/// How long a connection may be idle whose server says `timeout=5`: a second less, because the server
/// may close it while a request is on its way. Of short times, the half.
fn idle_for(keep_alive: &[u8]) -> Option<Duration> {
    let mut parameters = keep_alive.split(|&byte| byte == b',');
    let seconds = parameters.find_map(|parameter| {
        let (name, value) = std::str::from_utf8(parameter).ok()?.split_once('=')?;
        let is_timeout = name.trim().eq_ignore_ascii_case("timeout");
        let value = value.trim().trim_matches('"');
        value.parse::<u32>().ok().filter(|_| is_timeout)
    })?;
    let whole = Duration::from_secs(seconds.into());
    let less = whole.saturating_sub(Duration::from_secs(1));
    Some(less.max(whole / 2))
}

/// Whether this media type is that of a stream of events.
fn is_of_events(media_type: &[u8]) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    let said = media_type.get(..EVENTS.len());
    said.is_some_and(|said| said.eq_ignore_ascii_case(EVENTS))
}

impl<'a> ResponseHead<'a> {
    /// Finds what follows. What two readers could read in two ways must reach neither this client
    /// nor, through a kept connection, the next one.
    fn frame(&mut self, context: ResponseContext) -> Result<(), ErrorCode> {
        let (mut length, mut chunked) = (None, false);
        for place in 0..self.lines.len() {
            let (name, value) = self.lines.at(place);
            match name.len() {
                14 if is_named(name, b"content-length") => {
                    let said = grammar::length(value).ok_or(ErrorCode::Unsound)?;
                    if length.replace(said).is_some() {
                        return Err(ErrorCode::Unsound);
                    }
                    if self.status == 204 {
                        // RFC 9110, 8.6: it has no body, and says no length.
                        self.lines.take(place);
                    }
                }
                17 if is_named(name, b"transfer-encoding") => {
                    if chunked || self.http_10 || !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(ErrorCode::Unsound);
                    }
                    chunked = true;
                    self.lines.keep(place);
                }
                10 if is_named(name, b"connection") => {
                    self.connection(value);
                    self.lines.keep(place);
                }
                10 if is_named(name, b"keep-alive") => {
                    self.idle_for = idle_for(value);
                    self.lines.keep(place);
                }
                2 if is_named(name, b"te") => self.lines.keep(place),
                7 if is_named(name, b"upgrade") => {
                    self.chosen = self.chosen.or(Some(value));
                    self.lines.keep(place);
                }
                16 if is_named(name, b"proxy-connection") => self.lines.keep(place),
                10.. if begins(name, b"watershed-") => self.lines.keep(place),
                12 if is_named(name, b"content-type") => {
                    self.is_of_events = is_of_events(value);
                }
                _ => {}
            }
        }
        if chunked && length.is_some() {
            return Err(ErrorCode::Unsound);
        }
        self.sized = context.in_chunks && length.is_some();
        self.follows = match (chunked || context.in_chunks, length) {
            _ if context.to_head || matches!(self.status, 101 | 204 | 304) => BodyFraming::Nothing,
            (true, _) => BodyFraming::Chunks,
            (false, Some(0)) => BodyFraming::Nothing,
            (false, Some(length)) => BodyFraming::Length(length),
            (false, None) => BodyFraming::UntilClose,
        };
        self.keeps &= self.follows != BodyFraming::UntilClose && self.status != 101;
        Ok(())
    }

    /// What a line of `Connection` says.
    fn connection(&mut self, value: &[u8]) {
        for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            if option.eq_ignore_ascii_case(b"close") {
                self.keeps = false;
            } else {
                self.lists |= !option.eq_ignore_ascii_case(b"keep-alive");
            }
        }
    }

    /// Takes out what is not for the client (`Watershed-Event` among it), and what only this
    /// connection needed.
    pub fn strip(&mut self) {
        if self.lists {
            self.take_listed();
        }
        self.lines.take_own();
    }

    /// Takes the fields that `Connection` lists (RFC 9110, 7.6.1).
    fn take_listed(&mut self) {
        for place in 0..self.lines.len() {
            let (name, value) = self.lines.at(place);
            if name.len() != 10 || !is_named(name, b"connection") {
                continue;
            }
            for option in value.split(|&byte| byte == b',') {
                let option = option.trim_ascii();
                // It must not be used to take out what frames the body.
                if !option.eq_ignore_ascii_case(b"content-length") {
                    self.lines
                        .take_all(|name| name.eq_ignore_ascii_case(option));
                }
            }
        }
    }

    /// Whether a client of HTTP/1.0 finds the end of the body only by the end of the connection.
    pub fn is_unframed(&self) -> bool {
        matches!(self.follows, BodyFraming::Chunks | BodyFraming::UntilClose) && !self.sized
    }

    /// Whether trailers are announced.
    pub fn has_trailers(&self) -> bool {
        self.lines.first(&TRAILER).is_some()
    }

    /// Writes the head that the client gets, with `more` fields. `date` stands in where the
    /// upstream gave none.
    fn write(&self, out: &mut Vec<u8>, more: &ExtraHeaders, date: &[u8], to: ClientContext<'_>) {
        out.extend_from_slice(match to.http_10 {
            true => b"HTTP/1.0 ",
            false => b"HTTP/1.1 ",
        });
        out.extend_from_slice(self.said);
        out.extend_from_slice(b"\r\n");
        self.lines.write(out);
        for (name, value) in more {
            field(out, name.as_str().as_bytes(), value.as_bytes());
        }
        if self.is_unframed() && !to.http_10 {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        if !self.lines.has_date() {
            field(out, b"date", date);
        }
        if self.status == 101 {
            let protocol = self.chosen.or(to.upgrade).unwrap_or_default();
            out.extend_from_slice(b"connection: upgrade\r\n");
            field(out, b"upgrade", protocol);
        } else if to.closes && !to.http_10 {
            out.extend_from_slice(b"connection: close\r\n");
        } else if to.http_10 && !to.closes {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }
}

impl<'a> ResponseView<'a> for &ResponseHead<'a> {
    type Headers = Self;

    fn status(self) -> u16 {
        self.status
    }

    fn fields(self) -> Self {
        self
    }
}

impl<'a> HeaderView<'a> for &ResponseHead<'a> {
    fn all(self, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
        self.lines.all(name)
    }

    #[inline]
    fn field(self, name: FieldName) -> Option<&'a [u8]> {
        (&self.lines).field(name)
    }
}

/// Fields that a response is completed by.
pub type ExtraHeaders = SmallVec<[(HeaderName, HeaderValue); 4]>;

/// Which client gets an answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientContext<'a> {
    /// One of HTTP/1.0.
    pub http_10: bool,
    /// Its connection is to be closed behind it.
    pub closes: bool,
    /// The protocols that it asked to change to.
    pub upgrade: Option<&'a [u8]>,
}

/// How a client gets the head of an answer.
pub trait HeadWriter {
    /// Makes it of an answer and `more` fields. `date` stands in where the upstream gave none.
    fn complete(
        &mut self,
        answer: &ResponseHead<'_>,
        more: &ExtraHeaders,
        date: &[u8],
        to: ClientContext<'_>,
    );
}

/// As text, for HTTP/1.
impl HeadWriter for Vec<u8> {
    fn complete(
        &mut self,
        answer: &ResponseHead<'_>,
        more: &ExtraHeaders,
        date: &[u8],
        to: ClientContext<'_>,
    ) {
        answer.write(self, more, date, to);
    }
}

/// As fields, for HTTP/2, which says no phrase and frames bodies itself.
impl HeadWriter for Response<()> {
    fn complete(
        &mut self,
        answer: &ResponseHead<'_>,
        more: &ExtraHeaders,
        date: &[u8],
        _: ClientContext<'_>,
    ) {
        if let Ok(status) = StatusCode::from_u16(answer.status) {
            *self.status_mut() = status;
        }
        let headers = self.headers_mut();
        headers.reserve(answer.lines.len() + more.len() + 1);
        answer.lines.give(headers);
        for (name, value) in more {
            headers.append(name.clone(), value.clone());
        }
        // Own responses may have this field, which HTTP/2 does not allow.
        headers.remove(CONNECTION);
        if !answer.lines.has_date()
            && let Ok(date) = HeaderValue::from_bytes(date)
        {
            headers.insert(DATE, date);
        }
    }
}

/// An answer that is completed by more fields.
pub struct EditableHead<'x, 'a> {
    /// What the upstream gave.
    pub answer: &'x mut ResponseHead<'a>,
    /// What comes behind it.
    pub more: &'x mut ExtraHeaders,
}

impl Edit for EditableHead<'_, '_> {
    fn all(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]> {
        let more = self.more.iter();
        let more = more.filter(move |(known, _)| known == name);
        let lines = &self.answer.lines;
        lines
            .all(name)
            .chain(more.map(|(_, value)| value.as_bytes()))
    }

    fn append(&mut self, name: HeaderName, value: HeaderValue) {
        self.more.push((name, value));
    }

    fn insert(&mut self, name: HeaderName, value: HeaderValue) {
        self.take_out(&name);
        self.append(name, value);
    }

    fn take_out(&mut self, name: &HeaderName) {
        self.answer.lines.take_named(name);
        self.more.retain(|(known, _)| known != name);
    }

    fn discard(&mut self, is_meant: impl Fn(&str) -> bool) {
        self.answer.lines.take_all(|name| {
            let name = HeaderName::from_bytes(name);
            name.is_ok_and(|name| is_meant(name.as_str()))
        });
        self.more.retain(|(name, _)| !is_meant(name.as_str()));
    }
}
