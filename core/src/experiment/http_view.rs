//! The parts of requests and responses that the core reads, independent of how heads are stored.

use super::cookies;
use super::normal_path::normal_path;
use http::header::{COOKIE, HeaderName};
use http::{HeaderMap, Method, request, response};
use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Deref;

/// `Host`.
pub const HOST: FieldName = FieldName::new("host");

/// Names of fields, as a set that tells quickly that a head has none of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct NameMarks(u64);

impl NameMarks {
    /// The mark of one name: one bit of 64, by its length and first letter. The factors are chosen so that names which are
    /// asked for seldom share a bit with names which browsers send.
    pub const fn of(name: &[u8]) -> NameMarks {
        let first = match name {
            [first, ..] => (*first | 0x20) as usize,
            [] => 0,
        };
        NameMarks(1 << ((5 * name.len() + 47 * first) % 64))
    }

    /// The names of both.
    pub const fn and(self, other: NameMarks) -> NameMarks {
        NameMarks(self.0 | other.0)
    }

    /// Whether a name may be in both.
    pub const fn meets(self, other: NameMarks) -> bool {
        self.0 & other.0 != 0
    }
}

/// The name of a field that is asked for on every request, with what tells quickly that a head does not have it.
#[derive(Clone, Copy, Debug)]
pub struct FieldName {
    text: &'static str,
    marks: NameMarks,
}

impl FieldName {
    /// A name, which must be in small letters.
    pub const fn new(text: &'static str) -> FieldName {
        FieldName {
            text,
            marks: NameMarks::of(text.as_bytes()),
        }
    }

    /// The name, in small letters.
    pub const fn text(self) -> &'static str {
        self.text
    }

    /// Its mark.
    pub const fn marks(self) -> NameMarks {
        self.marks
    }
}

/// The fields of a head that lives for `'a`.
pub trait HeaderView<'a>: Copy {
    /// Whether there may be a field with one of these names.
    fn may_have_any(self, _names: NameMarks) -> bool {
        true
    }

    /// Returns the values of all fields with this name, in order.
    fn all(self, name: &HeaderName) -> impl Iterator<Item = &'a [u8]>;

    /// Returns the values of all cookies with this name, over all `Cookie` fields, as they came.
    fn cookies(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.all_cookies()
            .filter(move |(other, _)| *other == name.as_bytes())
            .map(|(_, value)| value)
    }

    /// Returns the same without quotation marks around them.
    fn cookie_texts(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.cookies(name).map(cookies::unquoted)
    }

    /// Returns the names and values of all cookies, over all `Cookie` fields, as they came.
    fn all_cookies(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.all(&COOKIE).flat_map(cookies::pairs)
    }

    /// Returns the value of the first field with this name.
    fn first(self, name: &HeaderName) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// Returns the value of the first field with this name, which is known.
    fn field(self, name: FieldName) -> Option<&'a [u8]>;
}

/// A request whose head lives for `'a`.
pub trait RequestView<'a>: Copy {
    /// The type of its fields.
    type Headers: HeaderView<'a>;
    /// The type of its path in normal form.
    type NormalPath: Deref<Target = str>;

    /// Whether the request has this method.
    fn has_method(self, method: &Method) -> bool;
    /// Returns the path, without the query.
    fn path(self) -> &'a str;
    /// Returns the path in [normal form](super::normal_path), in which conditions read it.
    fn normal_path(self) -> Self::NormalPath;
    /// Returns the query, without the question mark.
    fn query(self) -> Option<&'a str>;
    /// Returns the host in the target, without a port, if it has one.
    fn target_host(self) -> Option<&'a str>;
    /// Returns the fields.
    fn fields(self) -> Self::Headers;
    /// Returns the client's address as the proxy believes it, where it is known.
    fn client(self) -> Option<IpAddr>;

    /// Returns the requested host without its port and without a dot at its end: from the target, or
    /// from `Host`.
    fn host(self) -> &'a str {
        let host = self.target_host().unwrap_or_else(|| {
            let named = self.fields().field(HOST);
            let named = named.and_then(|host| std::str::from_utf8(host).ok());
            without_port(named.unwrap_or_default())
        });
        host.strip_suffix('.').unwrap_or(host)
    }
}

/// Returns a host without its port.
pub fn without_port(named: &str) -> &str {
    match named.rfind(':') {
        // The colons inside an IPv6 literal do not separate a port.
        Some(colon) if !named[colon..].contains(']') => &named[..colon],
        _ => named,
    }
}

/// The address of the client, among the extensions of [`request::Parts`].
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub IpAddr);

/// The head of a response.
pub trait ResponseView<'a>: Copy {
    /// The type of its fields.
    type Headers: HeaderView<'a>;

    /// Returns the status.
    fn status(self) -> u16;
    /// Returns the fields.
    fn fields(self) -> Self::Headers;
}

impl<'a> HeaderView<'a> for &'a HeaderMap {
    fn all(self, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
        self.get_all(name).into_iter().map(|value| value.as_bytes())
    }

    fn field(self, name: FieldName) -> Option<&'a [u8]> {
        self.get(name.text).map(|value| value.as_bytes())
    }
}

impl<'a> RequestView<'a> for &'a request::Parts {
    type Headers = &'a HeaderMap;
    type NormalPath = Cow<'a, str>;

    fn has_method(self, method: &Method) -> bool {
        self.method == method
    }

    fn path(self) -> &'a str {
        self.uri.path()
    }

    fn normal_path(self) -> Cow<'a, str> {
        normal_path(self.path())
    }

    fn query(self) -> Option<&'a str> {
        self.uri.query()
    }

    fn target_host(self) -> Option<&'a str> {
        self.uri.host()
    }

    fn fields(self) -> &'a HeaderMap {
        &self.headers
    }

    fn client(self) -> Option<IpAddr> {
        self.extensions.get().map(|ClientAddress(address)| *address)
    }
}

impl<'a> ResponseView<'a> for &'a response::Parts {
    type Headers = &'a HeaderMap;

    fn status(self) -> u16 {
        self.status.as_u16()
    }

    fn fields(self) -> &'a HeaderMap {
        &self.headers
    }
}
