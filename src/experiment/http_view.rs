//! What the core reads of a request and its answer, however their heads are kept.

use http::header::{HOST, HeaderName};
use http::{HeaderMap, Method, request, response};

/// The fields of a head that is kept for `'a`.
pub trait HeaderView<'a>: Copy {
    /// The values of all fields of this name, in order.
    fn all(self, name: &HeaderName) -> impl Iterator<Item = &'a [u8]>;

    /// The value of the first field of this name.
    fn first(self, name: &HeaderName) -> Option<&'a [u8]> {
        self.all(name).next()
    }
}

/// A request whose head is kept for `'a`.
pub trait RequestView<'a>: Copy {
    /// What keeps its fields.
    type Headers: HeaderView<'a>;

    /// Whether this is its method.
    fn has_method(self, method: &Method) -> bool;
    /// Its path, without its query.
    fn path(self) -> &'a str;
    /// Its query, without the question mark.
    fn query(self) -> Option<&'a str>;
    /// The host that its target names, without a port, where it names one.
    fn target_host(self) -> Option<&'a str>;
    /// Its fields.
    fn fields(self) -> Self::Headers;

    /// The host that it asks, without its port: from the target, or else from `Host`.
    fn host(self) -> &'a str {
        if let Some(host) = self.target_host() {
            return host;
        }
        let named = self.fields().first(&HOST);
        let named = named.and_then(|host| std::str::from_utf8(host).ok());
        let named = named.unwrap_or_default();
        match named.rfind(':') {
            // The colons inside an IPv6 literal are not a port's.
            Some(colon) if !named[colon..].contains(']') => &named[..colon],
            _ => named,
        }
    }
}

/// The head of an answer.
pub trait ResponseView<'a>: Copy {
    /// What keeps its fields.
    type Headers: HeaderView<'a>;

    /// Its status.
    fn status(self) -> u16;
    /// Its fields.
    fn fields(self) -> Self::Headers;
}

impl<'a> HeaderView<'a> for &'a HeaderMap {
    fn all(self, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
        self.get_all(name).into_iter().map(|value| value.as_bytes())
    }
}

impl<'a> RequestView<'a> for &'a request::Parts {
    type Headers = &'a HeaderMap;

    fn has_method(self, method: &Method) -> bool {
        self.method == method
    }

    fn path(self) -> &'a str {
        self.uri.path()
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
