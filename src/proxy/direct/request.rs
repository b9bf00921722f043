//! A plain request, read and written again for the upstream. PURE.
//!
//! Plain is what most requests are: HTTP/1.1, with a length or no body, asking for nothing but an
//! answer. What is not plain, or not sound, is left to those who know all of HTTP.

use super::lines::{self, Lines, named};
use crate::experiment::asked::{Asked, Fields};
use crate::experiment::forced::{OVERRIDE_COOKIE, OVERRIDE_HEADER};
use crate::experiment::identity::{self, Visitor};
use crate::experiment::visit::Visit;
use crate::proxy::framing::Bounds;
use crate::proxy::grammar::{self, is_named};
use crate::proxy::headers::{Words, has_private_cookie};
use crate::proxy::hops;
use crate::proxy::reserved::Reserved;
use crate::proxy::trace::{PARENT_BYTES, Parent, REQUEST_ID, TRACEPARENT, TRACESTATE, Tags};
use http::Method;
use smallvec::SmallVec;

/// What stands at the beginning of what a client has sent.
#[derive(Debug)]
pub enum Read<'a> {
    /// A head that is not complete, and may become a plain one.
    More,
    /// What is not plain.
    Other,
    /// A plain request.
    Plain(Request<'a>),
}

/// A plain request.
#[derive(Debug)]
pub struct Request<'a> {
    /// Its method.
    pub method: Method,
    /// Its first line, with its end.
    line: &'a [u8],
    target: &'a str,
    path_bytes: usize,
    /// Its fields; those for this connection only are taken.
    pub lines: Lines<'a>,
    /// How long its head is, in bytes.
    pub head_bytes: usize,
    /// How long its body is, in bytes.
    pub body_bytes: usize,
    /// Whether the client wants the connection closed.
    pub closes: bool,
    host: &'a [u8],
    forwarded_proto: bool,
    forwarded_host: bool,
}

/// What one connection says of its client, made once.
#[derive(Debug)]
pub struct Ours {
    /// Whether what the client says of others is believed.
    pub trusted: bool,
    /// The address, the end of its line, and `via`.
    lines: Box<[u8]>,
}

impl Ours {
    /// For a client of this address, which speaks HTTP/2 or 1.1.
    pub fn new(address: std::net::IpAddr, trusted: bool, http2: bool) -> Ours {
        let version = if http2 { "2" } else { "1.1" };
        Ours {
            trusted,
            lines: format!("{address}\r\nvia: {version} watershed\r\n")
                .into_bytes()
                .into(),
        }
    }
}

impl<'a> Asked<'a> for &Request<'a> {
    type Fields = Self;

    fn has_method(self, method: &Method) -> bool {
        self.method == method
    }

    fn path(self) -> &'a str {
        &self.target[..self.path_bytes]
    }

    fn query(self) -> Option<&'a str> {
        self.target.get(self.path_bytes + 1..)
    }

    fn target_host(self) -> Option<&'a str> {
        None
    }

    fn fields(self) -> Self {
        self
    }
}

impl<'a> Fields<'a> for &Request<'a> {
    fn all(self, name: &http::HeaderName) -> impl Iterator<Item = &'a [u8]> {
        self.lines.all(name)
    }
}

/// Reads the beginning of `bytes`.
pub fn read<'a>(bytes: &'a [u8], bounds: &Bounds, reserved: &Reserved, trusted: bool) -> Read<'a> {
    plain(bytes, bounds, reserved, trusted).unwrap_or(Read::Other)
}

/// `None` for what is not plain.
fn plain<'a>(
    bytes: &'a [u8],
    bounds: &Bounds,
    reserved: &Reserved,
    trusted: bool,
) -> Option<Read<'a>> {
    let short = bytes.len() <= bounds.head_bytes;
    let more = || short.then_some(Read::More);
    let Some((line, start)) = lines::line(bytes, 0) else {
        return more();
    };
    if start > bounds.first_line_bytes() {
        return None;
    }
    let http_10 = grammar::request_line(line, bounds.target_bytes).ok()?;
    let mut words = line.splitn(3, |&byte| byte == b' ');
    let (method, target) = (words.next()?, words.next()?);
    if http_10 || start != line.len() + 2 || target.first() != Some(&b'/') {
        return None;
    }
    let target = std::str::from_utf8(target).ok()?;
    let Some((lines, head_bytes)) = Lines::read(bytes, start, bounds.headers).ok()? else {
        return more();
    };
    if head_bytes > bounds.head_bytes {
        return None;
    }
    let mut request = Request {
        method: Method::from_bytes(method).ok()?,
        line: &bytes[..start],
        target,
        path_bytes: memchr::memchr(b'?', target.as_bytes()).unwrap_or(target.len()),
        lines,
        head_bytes,
        body_bytes: 0,
        closes: false,
        host: b"",
        forwarded_proto: false,
        forwarded_host: false,
    };
    request.sort(trusted)?;
    if request.lines.is_odd() || reserved.is_odd() {
        request.lines.take_all(|name| reserved.is_disguised(name));
    }
    let asks = |query| identity::query_value(query, OVERRIDE_COOKIE).is_some();
    if has_private_cookie(&request) || (&request).query().is_some_and(asks) {
        return None;
    }
    Some(Read::Plain(request))
}

impl<'a> Request<'a> {
    /// Looks at every field once, and takes what is not for the upstream.
    fn sort(&mut self, trusted: bool) -> Option<()> {
        let (mut hosts, mut length) = (0, None);
        for place in 0..self.lines.len() {
            let (name, value) = self.lines.at(place);
            // By length first: few fields are compared at all.
            match name.len() {
                4 if is_named(name, b"host") => {
                    hosts += 1;
                    self.host = value;
                    if !grammar::is_host(value) {
                        return None;
                    }
                }
                14 if is_named(name, b"content-length") => {
                    if length.is_some() {
                        return None;
                    }
                    length = Some(grammar::length(value)?);
                }
                10 if is_named(name, b"connection") => {
                    self.closes |= value.eq_ignore_ascii_case(b"close");
                    if !self.closes && !value.eq_ignore_ascii_case(b"keep-alive") {
                        return None;
                    }
                    self.lines.take(place);
                }
                10 if is_named(name, b"keep-alive") => self.lines.take(place),
                16 if is_named(name, b"proxy-connection") => self.lines.take(place),
                2 if is_named(name, b"te") => return None,
                6 if is_named(name, b"expect") => return None,
                7 if is_named(name, b"upgrade") => return None,
                12 if is_named(name, b"max-forwards") => return None,
                9 if is_named(name, b"forwarded") => return None,
                17 if is_named(name, b"transfer-encoding") => return None,
                10.. if begins(name, b"watershed-") => {
                    if name.eq_ignore_ascii_case(OVERRIDE_HEADER.as_str().as_bytes()) {
                        return None;
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
        self.body_bytes = usize::try_from(length.unwrap_or(0)).ok()?;
        (hosts == 1).then_some(())
    }

    /// The path of its target, and the same with the query.
    pub fn target(&self) -> (&'a str, &'a str) {
        (&self.target[..self.path_bytes], self.target)
    }

    /// Writes the head that the upstream gets. Where a `parent` is to stand in it, whatever came is
    /// left out, and the place of its value in `out` is returned: another may be written there.
    pub fn write(
        &mut self,
        out: &mut Vec<u8>,
        (ours, over_tls): (&Ours, bool),
        words: &Words,
        (tags, parent): (Option<&Tags>, Option<Parent>),
        visitor: Option<&Visitor<'_>>,
        visit: &Visit,
    ) -> Option<usize> {
        let made = tags.and_then(|tags| tags.id.as_ref());
        let made = made.filter(|id| id.made);
        if made.is_some() {
            self.lines.take_named(&REQUEST_ID);
        }
        if parent.is_some() {
            self.lines.take_named(&TRACEPARENT);
        }
        if tags.is_some_and(|tags| tags.begins.is_some()) {
            // A state belongs to its parent (Trace Context, 3.3).
            self.lines.take_named(&TRACESTATE);
        }
        let told: SmallVec<[&[u8]; 2]> = match ours.trusted {
            // One line that ends with our word.
            true => self.lines.all(&hops::FORWARDED_FOR).collect(),
            false => SmallVec::new(),
        };
        if !told.is_empty() {
            self.lines.take_named(&hops::FORWARDED_FOR);
        }
        out.extend_from_slice(self.line);
        self.lines.write(out);
        out.extend_from_slice(b"x-forwarded-for: ");
        for said in told.iter().filter(|said| !said.is_empty()) {
            out.extend_from_slice(said);
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(&ours.lines);
        if !(ours.trusted && self.forwarded_proto) {
            out.extend_from_slice(match over_tls {
                true => b"x-forwarded-proto: https\r\n",
                false => b"x-forwarded-proto: http\r\n",
            });
        }
        if !(ours.trusted && self.forwarded_host) {
            named(out, b"x-forwarded-host: ", self.host);
        }
        let sound = |user: &[u8]| {
            let text = |&byte: &u8| (byte >= b' ' || byte == b'\t') && byte != 0x7f;
            user.iter().all(text)
        };
        if let Some(visitor) = visitor
            && let user = visitor.user().as_bytes()
            && sound(user)
        {
            named(out, b"watershed-user: ", user);
        }
        for &(experiment, group, _) in &visit.inside {
            let said = words.group(experiment, group);
            named(out, b"watershed-experiment: ", said.as_bytes());
        }
        if let Some(id) = made {
            named(out, b"x-request-id: ", id.as_bytes());
        }
        let place = parent.map(|parent| {
            named(out, b"traceparent: ", &parent.text());
            out.len() - PARENT_BYTES - b"\r\n".len()
        });
        out.extend_from_slice(b"\r\n");
        place
    }
}

fn begins<const N: usize>(name: &[u8], with: &[u8; N]) -> bool {
    name.get(..N).is_some_and(|begin| is_named(begin, with))
}
