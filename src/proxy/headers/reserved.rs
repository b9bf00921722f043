//! The header names that the proxy sets or relies on: who may bring them, nominate them in
//! `Connection`, or send them as trailers. PURE.
//!
//! CGI, WSGI, Rack and PHP turn header names into variables. `X_Forwarded_For` and
//! `X.Forwarded.For` become the variable of `X-Forwarded-For`, so a name that differs from a
//! reserved one only in such characters never reaches an upstream.

use crate::config::plan::Plan;
use crate::experiment::identity::IdSource;
use crate::proxy::h1::grammar;
use crate::tls::CLIENT_CERTIFICATE_HEADERS;
use http::header::HeaderName;
use smallvec::SmallVec;

/// Set or relied on, whatever the file says.
const NAMES: &[&str] = &[
    "baggage",
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "max-forwards",
    "te",
    "trailer",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-real-ip",
    "x-request-id",
];
/// The same for all names that begin so.
const PREFIXES: &[&str] = &["watershed-", "x-forwarded-", "proxy-"];

/// Meant for all recipients (RFC 9110, 7.6.1), so that no `Connection` removes them.
const END_TO_END: &[&str] = &[
    "authorization",
    "cache-control",
    "cookie",
    "date",
    "origin",
    "pragma",
    "range",
    "referer",
    "user-agent",
];
const END_TO_END_PREFIXES: &[&str] = &["accept", "content-", "if-", "sec-"];

/// Needed before the content (RFC 9110, 6.5.1): authentication, control, and what describes the
/// content. A digest of the content is a trailer of its own right (RFC 9530).
const BEFORE_CONTENT: &[&str] = &[
    "age",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expires",
    "location",
    "origin",
    "pragma",
    "range",
    "retry-after",
    "set-cookie",
    "vary",
    "warning",
    "www-authenticate",
];
const BEFORE_CONTENT_PREFIXES: &[&str] = &["if-"];

/// The reserved names of a plan, made once.
#[derive(Debug)]
pub struct ReservedNames {
    names: Box<[Name]>,
    /// Whether the file names a header that has a character other than letters, digits and
    /// dashes: then the spelling with a dash is the disguised one.
    odd: bool,
    /// Whether clients are asked for certificates. Upstreams then rely on the headers that describe them.
    tells_certificates: bool,
}

#[derive(Debug)]
struct Name {
    /// In lower case.
    exact: Box<[u8]>,
    /// With a dash for every character that is neither a letter nor a digit.
    canonical: Box<[u8]>,
}

type Bytes = SmallVec<[u8; 48]>;

/// The header fields of requests that upstreams, routes and groups replace or remove.
fn changed_in_requests(plan: &Plan) -> impl Iterator<Item = &HeaderName> {
    let sites = plan.upstreams.iter().filter_map(|it| it.site.as_ref());
    let groups = plan.experiments.iter().flat_map(|it| &it.groups);
    let actions = groups.filter_map(|group| group.action.as_ref());
    let edits = sites.map(|site| &site.edits);
    let edits = edits.chain(plan.routes.iter().map(|route| &route.edits));
    let edits = edits.chain(actions.map(|action| &action.edits));
    edits.flat_map(|edits| edits.request.replaced())
}

impl ReservedNames {
    /// The names of a plan: also the headers that hold IDs, those that experiments and routes match, and
    /// those of requests that the file changes.
    pub fn new(plan: &Plan) -> ReservedNames {
        let sources = plan.identity.sources.iter();
        let of_users = sources.filter_map(|source| match source {
            IdSource::Header(name) => Some(name.as_str()),
            _ => None,
        });
        let of_routes = plan.routes.iter().map(|it| &it.matcher);
        let matchers = plan
            .experiments
            .iter()
            .map(|it| &it.matcher)
            .chain(of_routes);
        let fields = matchers.flat_map(|matcher| matcher.fields());
        let matched = fields.map(|name| name.as_str());
        let changed = changed_in_requests(plan).map(HeaderName::as_str);
        let tls = plan.tls.as_ref();
        let tells_certificates = tls.is_some_and(|tls| tls.client_certificates.is_some());
        let of_certificates = CLIENT_CERTIFICATE_HEADERS.iter();
        let of_certificates = of_certificates.filter(|_| tells_certificates);
        let of_plan = of_users.chain(matched).chain(changed);
        let of_plan = of_plan.chain(of_certificates.map(HeaderName::as_str));
        ReservedNames {
            tells_certificates,
            ..ReservedNames::of(NAMES.iter().copied().chain(of_plan))
        }
    }

    fn of<'a>(names: impl Iterator<Item = &'a str>) -> ReservedNames {
        let name = |name: &str| Name {
            exact: name.to_ascii_lowercase().into_bytes().into(),
            canonical: canonical(name.as_bytes()).to_vec().into(),
        };
        let names: Box<[Name]> = names.map(name).collect();
        ReservedNames {
            odd: names.iter().any(|name| is_odd(&name.exact)),
            names,
            tells_certificates: false,
        }
    }

    /// Whether upstreams rely on headers that tell of client certificates.
    pub fn tells_certificates(&self) -> bool {
        self.tells_certificates
    }

    /// Whether even a name of letters, digits and dashes may be a disguised one.
    pub fn is_odd(&self) -> bool {
        self.odd
    }

    /// Whether a name differs from a reserved one, but not for those who turn names into variables.
    pub fn is_disguised(&self, name: &[u8]) -> bool {
        (self.odd || is_odd(name)) && self.is_variant(name) && !self.is_exact(name)
    }

    /// Whether a client may have a field of this name removed by naming it in `Connection`.
    pub fn may_be_nominated(&self, name: &str) -> bool {
        !self.is_variant(name.as_bytes()) && !is_one(name, END_TO_END, END_TO_END_PREFIXES)
    }

    /// Whether a field of this name may follow the content.
    pub fn may_trail(&self, name: &str) -> bool {
        !self.is_variant(name.as_bytes()) && !is_one(name, BEFORE_CONTENT, BEFORE_CONTENT_PREFIXES)
    }

    fn is_variant(&self, name: &[u8]) -> bool {
        let name = canonical(name);
        let begins = |prefix: &&str| name.starts_with(prefix.as_bytes());
        PREFIXES.iter().any(begins) || self.names.iter().any(|it| *it.canonical == *name)
    }

    fn is_exact(&self, name: &[u8]) -> bool {
        let name: Bytes = name.iter().map(u8::to_ascii_lowercase).collect();
        let begins = |prefix: &&str| name.starts_with(prefix.as_bytes());
        PREFIXES.iter().any(begins) || self.names.iter().any(|it| *it.exact == *name)
    }
}

/// Whether a name has a character other than letters, digits and dashes.
fn is_odd(name: &[u8]) -> bool {
    name.iter().any(|&byte| grammar::is_odd(byte))
}

fn canonical(name: &[u8]) -> Bytes {
    let dashed = |&byte: &u8| match grammar::is_odd(byte) {
        true => b'-',
        false => byte.to_ascii_lowercase(),
    };
    name.iter().map(dashed).collect()
}

/// Whether a name in lower case is one of these or begins so.
fn is_one(name: &str, names: &[&str], prefixes: &[&str]) -> bool {
    names.contains(&name) || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserved() -> ReservedNames {
        ReservedNames::of(NAMES.iter().copied().chain(["X-User", "x_beta"]))
    }

    #[test]
    fn variants_of_reserved_names_are_disguised() {
        let reserved = reserved();
        for name in [
            "X_Forwarded_For",
            "x-forwarded_proto",
            "X.Forwarded.Host",
            "x_forwarded_anything",
            "Watershed_User",
            "WATERSHED_EXPERIMENT",
            "watershed_x",
            "Content_Length",
            "transfer_encoding",
            "Proxy_Authorization",
            "X_Real_IP",
            "x~request_id",
            "X_User",
            "x-beta",
            "X.Beta",
        ] {
            assert!(reserved.is_disguised(name.as_bytes()), "{name}");
        }
        for name in [
            "X-Forwarded-For",
            "Watershed-User",
            "content-length",
            "X-User",
            "x_beta",
            "X_Beta",
            "x_other",
            "content_type",
            "x__user",
            "_",
            "host",
        ] {
            assert!(!reserved.is_disguised(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn nominations_and_trailers_leave_reserved_names_alone() {
        let reserved = reserved();
        for name in ["x-hop", "http2-settings", "close", "x_hop"] {
            assert!(reserved.may_be_nominated(name), "{name}");
        }
        for name in [
            "x-forwarded-for",
            "x-user",
            "x_user",
            "x-beta",
            "authorization",
            "forwarded",
            "cookie",
            "host",
            "watershed-user",
            "x-request-id",
            "traceparent",
            "content-type",
            "if-match",
            "cache-control",
        ] {
            assert!(!reserved.may_be_nominated(name), "{name}");
        }
        for name in [
            "grpc-status",
            "x-sum",
            "content-digest",
            "server-timing",
            "etag",
        ] {
            assert!(reserved.may_trail(name), "{name}");
        }
        for name in [
            "x-user",
            "x_forwarded_for",
            "watershed-event",
            "watershed_group",
            "set-cookie",
            "content-length",
            "transfer-encoding",
            "host",
            "authorization",
            "content-type",
            "if-none-match",
            "proxy-authorization",
        ] {
            assert!(!reserved.may_trail(name), "{name}");
        }
    }
}
