//! A request of HTTP/1, read where it stands in the client's bytes. PURE.
//!
//! What two readers could read in two ways is a fault: smuggling a request past a proxy needs one
//! reading here and another one at the upstream. [`crate::proxy::headers::forwarding`] writes it for
//! the upstream.

use crate::experiment::http_view::{
    FieldName, HOST, HeaderView, NameMarks, RequestView, without_port,
};
use crate::experiment::identity;
use crate::experiment::normal_path::normal_path;
use crate::experiment::override_token::{OVERRIDE_COOKIE, OVERRIDE_HEADER};
use crate::experiment::served_pages::VERSION_HEADER;
use crate::proxy::error_response::ErrorCode;
use crate::proxy::h1::framing::Bounds;
use crate::proxy::h1::grammar::{self, begins, is_named};
use crate::proxy::h1::header_block::{self, HeaderBlock};
use crate::proxy::headers::plan_headers::{OverrideToken, has_private_cookie};
use crate::proxy::headers::reserved::ReservedNames;
use http::Method;
use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::IpAddr;

/// The most that `Max-Forwards` may say when it is passed on.
const FORWARDS_MAX: u32 = 1000;

/// How the body of a request is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunks,
}

/// A request.
#[derive(Debug)]
pub struct Request<'a> {
    /// Its method.
    pub method: Method,
    /// Its first line, with its end.
    pub(in crate::proxy) line: &'a [u8],
    /// Whether the upstream gets the first line as it came.
    pub(in crate::proxy) same_line: bool,
    /// The path, and the query if there is one.
    target: &'a str,
    path_bytes: usize,
    /// The path in normal form, once it was asked for; `None` if it came so.
    normal_path: OnceCell<Option<Box<str>>>,
    /// The client's address as the proxy believes it, once that is known.
    pub client: Option<IpAddr>,
    /// Its fields; those for this connection only are taken.
    pub lines: HeaderBlock<'a>,
    /// How long its head is, with the empty lines before it, in bytes.
    pub head_bytes: usize,
    /// What follows the head.
    pub body: Body,
    /// Whether it is of HTTP/1.0.
    pub http_10: bool,
    /// Whether the client wants the connection closed.
    pub closes: bool,
    /// Whether the client waits to be told that it may send the body.
    pub expects: bool,
    hosts: usize,
    pub(in crate::proxy) forwarded_proto: bool,
    pub(in crate::proxy) forwarded_host: bool,
    /// What few requests have.
    pub(in crate::proxy) odd: Option<Box<RareFields<'a>>>,
}

/// What few requests have.
#[derive(Debug, Default)]
pub(in crate::proxy) struct RareFields<'a> {
    /// The host that the target names.
    pub authority: Option<&'a str>,
    /// The protocols that the client would change to.
    upgrade: Option<&'a [u8]>,
    /// One of them is HTTP/2, which is spoken from the beginning or not at all (RFC 9113, 3.1).
    h2c: bool,
    /// `Connection` lists `upgrade`.
    lists_upgrade: bool,
    /// The client takes trailers.
    pub takes_trailers: bool,
    /// There is a `Forwarded`.
    pub forwarded: bool,
    /// How far it may still go.
    pub forwards: Option<u32>,
    /// Cookies that are for watershed alone.
    pub private_cookies: bool,
    /// An override in the query.
    pub override_in_query: bool,
    brought: Option<OverrideToken>,
    /// The token of a version that the request is pinned to.
    version: Option<&'a [u8]>,
}

impl<'a> RareFields<'a> {
    /// The protocols that this request asks to change to, if it may.
    pub(crate) fn upgrade(&self, request: &Request<'_>) -> Option<&'a [u8]> {
        let connection = !request.http_10 && request.body == Body::None;
        self.upgrade
            .filter(|_| self.lists_upgrade && !self.h2c && connection)
    }
}

impl<'a, 'r> RequestView<'a> for &'r Request<'a> {
    type Headers = Self;
    type NormalPath = &'r str;

    fn has_method(self, method: &Method) -> bool {
        self.method == method
    }

    fn path(self) -> &'a str {
        match self.path_bytes {
            0 => "/",
            bytes => &self.target[..bytes],
        }
    }

    fn normal_path(self) -> &'r str {
        let other = self
            .normal_path
            .get_or_init(|| match normal_path(self.path()) {
                Cow::Borrowed(_) => None,
                Cow::Owned(other) => Some(other.into()),
            });
        other.as_deref().unwrap_or(self.path())
    }

    fn query(self) -> Option<&'a str> {
        self.target.get(self.path_bytes + 1..)
    }

    fn target_host(self) -> Option<&'a str> {
        self.authority().map(without_port)
    }

    fn fields(self) -> Self {
        self
    }

    fn client(self) -> Option<IpAddr> {
        self.client
    }
}

impl<'a> HeaderView<'a> for &Request<'a> {
    fn may_have_any(self, names: NameMarks) -> bool {
        (&self.lines).may_have_any(names)
    }

    fn all(self, name: &http::HeaderName) -> impl Iterator<Item = &'a [u8]> {
        self.lines.all(name)
    }

    #[inline]
    fn field(self, name: FieldName) -> Option<&'a [u8]> {
        (&self.lines).field(name)
    }

    fn cookies(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.lines.cookies(name)
    }

    fn all_cookies(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.lines.all_cookies()
    }
}

/// Reads the beginning of `bytes`; `None` where more must come.
pub fn read<'a>(
    bytes: &'a [u8],
    bounds: &Bounds,
    reserved: &ReservedNames,
    trusted: bool,
) -> Result<Option<Request<'a>>, ErrorCode> {
    let from = empty_lines(bytes);
    let window = &bytes[..bytes.len().min(bounds.head_bytes)];
    let more = || match bytes.len() <= bounds.head_bytes {
        true => Ok(None),
        false => Err(ErrorCode::HeadTooLong),
    };
    let found = header_block::line(window, from);
    // The first limit that is exceeded decides the reason, in whatever pieces the bytes came.
    let seen = found.map_or(bytes.len(), |(_, next)| next - 1);
    let line_end = from + bounds.first_line_bytes();
    if seen > line_end && line_end <= bounds.head_bytes {
        return Err(ErrorCode::TargetTooLong);
    }
    let Some((line, start)) = found else {
        return more();
    };
    let http_10 = grammar::request_line(line, bounds.target_bytes)?;
    let Some((lines, head_bytes)) = HeaderBlock::read(window, start, bounds.headers)? else {
        return more();
    };
    let mut words = line.splitn(3, |&byte| byte == b' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(ErrorCode::Malformed);
    };
    let mut request = Request {
        method: Method::from_bytes(method).map_err(|_| ErrorCode::Malformed)?,
        line: &bytes[from..start],
        same_line: !http_10 && start - from == line.len() + 2,
        target: std::str::from_utf8(target).map_err(|_| ErrorCode::Target)?,
        path_bytes: 0,
        normal_path: OnceCell::new(),
        client: None,
        lines,
        head_bytes,
        body: Body::None,
        http_10,
        closes: http_10,
        expects: false,
        hosts: 0,
        forwarded_proto: false,
        forwarded_host: false,
        odd: None,
    };
    if target.first() != Some(&b'/') {
        request.split_target();
    }
    let query = memchr::memchr(b'?', request.target.as_bytes());
    request.path_bytes = query.unwrap_or(request.target.len());
    request.sort(trusted, reserved)?;
    if request.lines.is_odd() || reserved.is_odd() {
        request.lines.take_all(|name| reserved.is_disguised(name));
    }
    request.take_override();
    Ok(Some(request))
}

/// RFC 9112, 2.2: how many bytes of empty lines stand before a request, which are passed over.
pub(crate) fn empty_lines(bytes: &[u8]) -> usize {
    let mut from = 0;
    loop {
        match &bytes[from..] {
            [b'\n', ..] => from += 1,
            [b'\r', b'\n', ..] => from += 2,
            _ => return from,
        }
    }
}

impl<'a> Request<'a> {
    fn odd(&mut self) -> &mut RareFields<'a> {
        self.odd.get_or_insert_default()
    }

    /// The target is sound, and names a host, or is `*`.
    fn split_target(&mut self) {
        let target = self.target;
        let Some(scheme) = target.find("://") else {
            return;
        };
        let rest = &target[scheme + "://".len()..];
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        self.target = match target {
            // RFC 9112, 3.2.4: what is asked of the server, and of no resource.
            "" if self.method == Method::OPTIONS => "*",
            "" => "/",
            target => target,
        };
        self.odd().authority = Some(authority);
        self.same_line = false;
    }

    /// Looks at every field once, and takes what is not for the upstream.
    fn sort(&mut self, trusted: bool, reserved: &ReservedNames) -> Result<(), ErrorCode> {
        let (mut length, mut chunked, mut listed) = (None, false, false);
        for place in 0..self.lines.len() {
            let (name, value) = self.lines.at(place);
            // By length first: few fields are compared at all.
            match name.len() {
                4 if is_named(name, b"host") => {
                    self.hosts += 1;
                    if self.hosts > 1 || !grammar::is_host(value) {
                        return Err(ErrorCode::Host);
                    }
                }
                14 if is_named(name, b"content-length") => {
                    // RFC 9112, 6.3: two lengths may be refused even when they agree.
                    let said = grammar::length(value).ok_or(ErrorCode::Length)?;
                    if length.replace(said).is_some() {
                        return Err(ErrorCode::Length);
                    }
                }
                17 if is_named(name, b"transfer-encoding") => {
                    // RFC 9112, 6.1: no other coding is known here, and none twice.
                    if chunked || self.http_10 || !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(ErrorCode::Coding);
                    }
                    chunked = true;
                }
                10 if is_named(name, b"connection") => {
                    listed |= !self.connection(value);
                    self.lines.take(place);
                }
                10 if is_named(name, b"keep-alive") => self.lines.take(place),
                16 if is_named(name, b"proxy-connection") => self.lines.take(place),
                2 | 6 | 7 | 9 if self.is_odd_field(name, value, place) => {}
                12 if is_named(name, b"max-forwards") => self.count_down(value, place)?,
                10.. if begins(name, b"watershed-") => {
                    if name.eq_ignore_ascii_case(OVERRIDE_HEADER.as_str().as_bytes()) {
                        self.bring(value, false);
                    } else if name.eq_ignore_ascii_case(VERSION_HEADER.as_str().as_bytes()) {
                        self.odd().version = Some(value);
                    }
                    self.lines.take(place);
                }
                12.. if begins(name, b"x-forwarded-") => {
                    self.forwarded_proto |= is_named(name, b"x-forwarded-proto");
                    self.forwarded_host |= is_named(name, b"x-forwarded-host");
                    if !trusted {
                        self.lines.take(place);
                    }
                }
                _ => {}
            }
        }
        if self.hosts == 0 && !self.http_10 {
            return Err(ErrorCode::Host);
        }
        self.body = match (chunked, length) {
            // RFC 9112, 6.1 and 11.2: the classic of smuggling.
            (true, Some(_)) => return Err(ErrorCode::Coding),
            (true, None) => Body::Chunks,
            (false, None | Some(0)) => Body::None,
            (false, Some(length)) => Body::Length(length),
        };
        if listed {
            self.take_listed(reserved);
        }
        Ok(())
    }

    /// What a line of `Connection` says; false where it lists what else is to be removed.
    fn connection(&mut self, value: &[u8]) -> bool {
        let mut usual = true;
        for option in value.split(|&byte| byte == b',') {
            let option = option.trim_ascii();
            if option.eq_ignore_ascii_case(b"close") {
                self.closes = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                // Only an old client need say so.
                self.closes &= !self.http_10;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.odd().lists_upgrade = true;
            } else {
                usual = false;
            }
        }
        usual
    }

    /// RFC 9110, 7.6.1: takes the fields that `Connection` lists, as far as it may.
    fn take_listed(&mut self, reserved: &ReservedNames) {
        for place in 0..self.lines.len() {
            let (name, value) = self.lines.at(place);
            if name.len() != 10 || !is_named(name, b"connection") {
                continue;
            }
            for option in value.split(|&byte| byte == b',') {
                let option = option.trim_ascii().to_ascii_lowercase();
                let text = std::str::from_utf8(&option);
                if text.is_ok_and(|option| reserved.may_be_nominated(option)) {
                    let is_meant = |name: &[u8]| name.eq_ignore_ascii_case(&option);
                    self.lines.take_all(is_meant);
                }
            }
        }
    }

    /// Notes one of those that few requests have; false for all others.
    fn is_odd_field(&mut self, name: &[u8], value: &'a [u8], place: usize) -> bool {
        let mut options = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        match name.len() {
            2 if is_named(name, b"te") => {
                let trailers = |option: &[u8]| {
                    let name = option.split(|&byte| byte == b';').next();
                    name.is_some_and(|it| it.trim_ascii().eq_ignore_ascii_case(b"trailers"))
                };
                self.odd().takes_trailers |= options.any(trailers);
                self.lines.take(place);
            }
            6 if is_named(name, b"expect") => {
                self.expects |= !self.http_10 && value.eq_ignore_ascii_case(b"100-continue");
            }
            7 if is_named(name, b"upgrade") => {
                let h2c = options.any(|option| option.eq_ignore_ascii_case(b"h2c"));
                let odd = self.odd();
                odd.h2c |= h2c;
                odd.upgrade.get_or_insert(value);
                self.lines.take(place);
            }
            9 if is_named(name, b"forwarded") => self.odd().forwarded = true,
            _ => return false,
        }
        true
    }

    /// Notes how far a TRACE or OPTIONS may go (RFC 9110, 7.6.2).
    fn count_down(&mut self, value: &[u8], place: usize) -> Result<(), ErrorCode> {
        if !matches!(self.method, Method::TRACE | Method::OPTIONS) {
            return Ok(());
        }
        let said = forwards(value).ok_or(ErrorCode::Malformed)?;
        self.lines.take(place);
        match self.odd().forwards.replace(said) {
            None => Ok(()),
            Some(_) => Err(ErrorCode::Malformed),
        }
    }

    /// Takes an override token out of wherever it stands, and notes what else must not go on. The
    /// one in a header goes before that in a link, and that before the one in a cookie.
    fn take_override(&mut self) {
        let asks = |query| identity::query_value(query, OVERRIDE_COOKIE);
        if let Some(token) = (&*self).query().and_then(asks) {
            self.bring(&token, true);
            self.odd().override_in_query = true;
            self.same_line = false;
        }
        if has_private_cookie(&*self) {
            self.odd().private_cookies = true;
            let token = (&*self).cookies(OVERRIDE_COOKIE).next();
            if let Some(token) = token {
                self.bring(token, false);
            }
        }
    }

    /// The first token counts.
    fn bring(&mut self, token: &[u8], by_link: bool) {
        self.odd().brought.get_or_insert_with(|| OverrideToken {
            token: token.to_vec(),
            by_link,
        });
    }

    /// The override token that came with it.
    pub fn override_token(&self) -> Option<&OverrideToken> {
        self.odd.as_ref()?.brought.as_ref()
    }

    /// The token of a version in its header, not yet verified.
    pub fn version_token(&self) -> Option<&'a [u8]> {
        self.odd.as_ref()?.version
    }

    /// The host that its target names.
    pub fn authority(&self) -> Option<&'a str> {
        self.odd.as_ref()?.authority
    }

    /// The protocols that it asks to change to, if it may (RFC 9110, 7.8).
    pub fn upgrade(&self) -> Option<&'a [u8]> {
        self.odd.as_ref()?.upgrade(self)
    }

    /// Whether the client takes trailers.
    pub fn takes_trailers(&self) -> bool {
        self.odd.as_ref().is_some_and(|odd| odd.takes_trailers)
    }

    /// Whether it may go no further.
    pub fn is_at_last_hop(&self) -> bool {
        self.odd.as_ref().is_some_and(|odd| odd.forwards == Some(0))
    }

    /// The path of its target, and the same with the query.
    pub fn target(&self) -> (&'a str, &'a str) {
        match self.path_bytes {
            0 => ("/", "/"),
            bytes => (&self.target[..bytes], self.target),
        }
    }

    /// The host that it asks, as it is written.
    pub fn host_text(&self) -> Option<&'a [u8]> {
        let authority = self.authority().map(str::as_bytes);
        authority.or_else(|| (&self.lines).field(HOST))
    }
}

/// Digits, up to the most that is passed on.
fn forwards(value: &[u8]) -> Option<u32> {
    let digit = |sum: Option<u32>, byte: &u8| match byte {
        b'0'..=b'9' => {
            let sum = sum?.saturating_mul(10);
            let sum = sum.saturating_add(u32::from(byte - b'0'));
            Some(sum.min(FORWARDS_MAX + 1))
        }
        _ => None,
    };
    value.iter().fold((!value.is_empty()).then_some(0), digit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use proptest::prelude::*;
    use std::path::Path;

    const BOUNDS: Bounds = Bounds {
        head_bytes: 8192,
        headers: 50,
        target_bytes: 1000,
    };

    fn reserved() -> ReservedNames {
        let routes = "listen: 127.0.0.1:1\nupstreams: { a: http://127.0.0.1:3 }\n";
        let plan = config::parse(routes, Path::new("routes.yaml"), &|_| None).unwrap();
        ReservedNames::new(&plan)
    }

    /// How long the head is, or what is wrong: at the first piece that shows it.
    fn read_by(bytes: &[u8], piece: usize) -> Result<Option<usize>, ErrorCode> {
        let reserved = reserved();
        let mut end = 0;
        while end < bytes.len() {
            end = (end + piece).min(bytes.len());
            if let Some(request) = read(&bytes[..end], &BOUNDS, &reserved, false)? {
                return Ok(Some(request.head_bytes));
            }
        }
        Ok(None)
    }

    #[track_caller]
    fn check(text: &str, expected: Result<Option<usize>, ErrorCode>) {
        for piece in [text.len(), 1, 7, 100] {
            let found = read_by(text.as_bytes(), piece);
            assert_eq!(found, expected, "{text:?} by {piece}");
        }
    }

    #[track_caller]
    fn sound(head: &str) {
        check(&format!("{head}GET / HT"), Ok(Some(head.len())));
    }

    #[test]
    fn sound_heads_are_read_however_they_are_cut() {
        sound("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        sound("\r\n\r\nGET / HTTP/1.1\nHost: a\n\n");
        sound("GET / HTTP/1.0\r\n\r\n");
        sound("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n");
        sound("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        sound("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
        sound("GET http://b?q HTTP/1.1\r\nHost: a\r\n\r\n");
        check("GET / HTTP/1.1\r\nHost: a\r\n", Ok(None));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_a_fault() {
        let head = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        let both = "Content-Length: 1\r\nTransfer-Encoding: chunked";
        let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked";
        for (fields, fault) in [
            (both, ErrorCode::Coding),
            (twice, ErrorCode::Coding),
            ("Transfer-Encoding: gzip, chunked", ErrorCode::Coding),
            ("Transfer-Encoding:\x0bchunked", ErrorCode::Malformed),
            ("Content-Length: 1\r\nContent-Length: 1", ErrorCode::Length),
            ("Content-Length: +1", ErrorCode::Length),
            ("Content-Length: 1, 1", ErrorCode::Length),
            ("Content-Length: 99999999999999999999", ErrorCode::Length),
            ("Content-Length:", ErrorCode::Length),
            ("X: a\rb", ErrorCode::Malformed),
            ("X: a\0b", ErrorCode::Malformed),
            (" X: a", ErrorCode::Malformed),
            ("X : a", ErrorCode::Malformed),
            (": a", ErrorCode::Malformed),
            ("X", ErrorCode::Malformed),
            ("Host: b", ErrorCode::Host),
        ] {
            check(&head(fields), Err(fault));
        }
        check(
            "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            Err(ErrorCode::Coding),
        );
        check("GET / HTTP/1.1\r\n\r\n", Err(ErrorCode::Host));
        for first in ["CONNECT a:1", "GET a", "GET *", "GET ftp://a/", "GET /#f"] {
            check(&format!("{first} HTTP/1.1\r\n"), Err(ErrorCode::Target));
        }
    }

    #[test]
    fn heads_are_bounded() {
        let long = |length: usize| "x".repeat(length);
        let target = |length: usize| format!("GET /{} HTTP/1.1", long(length));
        check(
            &format!("{}\r\n", target(1001)),
            Err(ErrorCode::TargetTooLong),
        );
        // The limit that is exceeded first decides, however much came at once.
        check(
            &format!("{} more\r\n", target(1101)),
            Err(ErrorCode::TargetTooLong),
        );
        check(
            &format!("GET /{}", long(2000)),
            Err(ErrorCode::TargetTooLong),
        );
        let head = |fields: String| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}");
        check(
            &head(format!("X: {}", long(9000))),
            Err(ErrorCode::HeadTooLong),
        );
        check(
            &head(format!("X{}\r\n", long(9000))),
            Err(ErrorCode::HeadTooLong),
        );
        check(
            &head(format!("{}\r\n", "X: y\r\n".repeat(50))),
            Err(ErrorCode::HeadTooLong),
        );
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
        "Transfer-Encoding: chunked\r\n",
        "Connection: upgrade\r\n",
        "X: y\r\n",
        "X : y\r\n",
        " y\r\n",
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
        /// Another parser sees the same end of every head that is read.
        #[test]
        fn another_parser_agrees(bytes in soup()) {
            if let Ok(Some(end)) = read_by(&bytes, bytes.len()) {
                let mut fields = [httparse::EMPTY_HEADER; 100];
                let mut request = httparse::Request::new(&mut fields);
                let parsed = request.parse(&bytes);
                prop_assert_eq!(parsed, Ok(httparse::Status::Complete(end)));
            }
        }
    }
}
