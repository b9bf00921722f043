//! Who is eligible for an experiment: conditions on the request, all of which must hold.

use super::http_view::{HeaderView, RequestView};
use http::Method;
use http::header::HeaderName;
use std::fmt;

/// The conditions of one experiment; a condition not given always holds.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    /// The path, without its query.
    pub path: Option<PathPattern>,
    /// The host, without its port, compared without regard to case.
    pub host: Option<HostPattern>,
    /// Any of these methods; empty for every method.
    pub methods: Vec<Method>,
    /// Request headers, all of which must match.
    pub headers: Vec<ValuePattern<HeaderName>>,
    /// Query parameters, all of which must match.
    pub query: Vec<ValuePattern<Box<str>>>,
}

impl Matcher {
    /// Whether the request is eligible.
    pub fn matches<'a>(&self, request: impl RequestView<'a>) -> bool {
        self.judge(request) == Eligibility::Yes
    }

    /// Whether the request is eligible, or would be with other header fields.
    pub fn judge<'a>(&self, request: impl RequestView<'a>) -> Eligibility {
        let otherwise = self
            .path
            .as_ref()
            .is_none_or(|path| path.matches(request.path()))
            && self
                .host
                .as_ref()
                .is_none_or(|host| host.matches(request.host()))
            && (self.methods.is_empty()
                || self.methods.iter().any(|method| request.has_method(method)))
            && self
                .query
                .iter()
                .all(|wanted| wanted.in_query(request.query()));
        let wanted = |wanted: &ValuePattern<_>| wanted.is_among(request.fields());
        match otherwise {
            false => Eligibility::No,
            true if self.headers.iter().all(wanted) => Eligibility::Yes,
            true => Eligibility::WithOtherHeaders,
        }
    }
}

/// Which conditions of an experiment a request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eligibility {
    /// All conditions.
    Yes,
    /// All but the conditions on header fields.
    WithOtherHeaders,
    /// Not all, even without those on header fields.
    No,
}

/// A path pattern in the file: `/checkout`, `/checkout/**`, or any glob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPattern {
    /// This path and no other.
    Exact(Box<str>),
    /// `/checkout/**`: this path and everything below it.
    Under(Box<str>),
    /// Any other glob: `*` within a segment, `**` across segments, `{a,b}`, `[a-z]`, `?`.
    Glob(Box<str>),
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathPattern::Exact(text) | PathPattern::Glob(text) => f.write_str(text),
            PathPattern::Under(base) => write!(f, "{base}/**"),
        }
    }
}

impl PathPattern {
    /// Parses a pattern. It must begin with `/`, which the configuration checks.
    pub fn new(text: &str) -> PathPattern {
        if let Some(base) = text.strip_suffix("/**")
            && PathPattern::is_literal(base)
        {
            return PathPattern::Under(base.into());
        }
        match PathPattern::is_literal(text) {
            true => PathPattern::Exact(text.into()),
            false => PathPattern::Glob(text.into()),
        }
    }

    /// Whether a pattern has no special characters.
    pub fn is_literal(text: &str) -> bool {
        !text.contains(['*', '?', '[', '{', '!', '\\'])
    }

    /// Whether a request's path matches.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            PathPattern::Exact(exact) => path == &**exact,
            PathPattern::Under(base) => path
                .strip_prefix(&**base)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            PathPattern::Glob(glob) => fast_glob::glob_match(&**glob, path),
        }
    }
}

/// A host pattern in the file: `shop.example.com` or `*.example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// This host.
    Exact(Box<str>),
    /// Any host with this ending, which has its leading dot.
    Under(Box<str>),
}

impl HostPattern {
    /// Parses a pattern.
    pub fn new(text: &str) -> HostPattern {
        match text.strip_prefix('*') {
            Some(rest) if rest.starts_with('.') => HostPattern::Under(rest.into()),
            _ => HostPattern::Exact(text.into()),
        }
    }

    /// Whether a request's host (without port) matches.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            HostPattern::Exact(exact) => host.eq_ignore_ascii_case(exact),
            HostPattern::Under(end) => {
                host.len() > end.len()
                    && host.as_bytes()[host.len() - end.len()..]
                        .eq_ignore_ascii_case(end.as_bytes())
            }
        }
    }
}

/// A named value that a request must carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValuePattern<Name> {
    /// The name of the header or parameter.
    pub name: Name,
    /// The exact value; `None` accepts any value.
    pub value: Option<Box<str>>,
}

impl ValuePattern<HeaderName> {
    /// Whether one of these fields has the name, and the value if there is one.
    pub fn is_among<'a>(&self, fields: impl HeaderView<'a>) -> bool {
        fields.all(&self.name).any(|found| {
            self.value
                .as_ref()
                .is_none_or(|value| found == value.as_bytes())
        })
    }
}

impl ValuePattern<Box<str>> {
    fn in_query(&self, query: Option<&str>) -> bool {
        let query = query.unwrap_or_default().as_bytes();
        form_urlencoded::parse(query).any(|(name, found)| {
            name == *self.name && self.value.as_ref().is_none_or(|value| found == **value)
        })
    }
}
