//! A request's head as the upstream gets it. PURE.

use crate::config::plan::UpstreamHost;
use crate::experiment::UpstreamIndex;
use crate::experiment::cookies;
use crate::experiment::http_view::{HeaderView, RequestView};
use crate::experiment::identity::Visitor;
use crate::experiment::message_edits::HeaderEdits;
use crate::experiment::override_token::OVERRIDE_COOKIE;
use crate::experiment::resolve::Assignment;
use crate::proxy::client::{ClientInfo, Protocol};
use crate::proxy::h1::grammar;
use crate::proxy::h1::header_block::{field, named};
use crate::proxy::h1::request_head::{RareFields, Request};
use crate::proxy::headers::hop_by_hop;
use crate::proxy::headers::isolated_cookies::PlainCookies;
use crate::proxy::headers::plan_headers::{PlanHeaders, is_private_name};
use crate::proxy::headers::version_headers::{VersionFields, VersionHeaders};
use crate::proxy::headers::version_mark::VersionMark;
use crate::proxy::observe::trace_context::{
    Correlation, PARENT_BYTES, REQUEST_ID, TRACEPARENT, TRACESTATE, TraceParent,
};
use http::header::{COOKIE, FORWARDED, HOST, HeaderName, HeaderValue};
use smallvec::SmallVec;

/// What the forwarded head says besides the client's own fields.
#[derive(Debug)]
pub struct Forwarding<'a> {
    /// The client.
    pub client: &'a ClientInfo,
    /// Whether what the client says of other clients is believed.
    pub trusted: bool,
    /// Whether the user's browser uses TLS, here or at a trusted peer.
    pub over_tls: bool,
    /// The values that are the same for every request.
    pub prepared: &'a PlanHeaders,
    /// The request ID and trace context, where the file asks for them.
    pub correlation: Option<&'a Correlation>,
    /// What `traceparent` says, where it is written here. Whatever came is left out then.
    pub parent: Option<TraceParent>,
    /// The user, where known.
    pub visitor: Option<&'a Visitor<'a>>,
    /// The user's groups.
    pub assignment: &'a Assignment,
    /// What is different for the upstream, a group or a route.
    pub changes: Option<&'a RequestChanges<'a>>,
    /// Fields that the version gets in the place of those that were taken.
    pub version_fields: &'a [(HeaderName, Vec<u8>)],
}

/// What is different for the upstream that gets the request.
#[derive(Debug)]
pub struct RequestChanges<'a> {
    /// The host that it is asked for.
    pub host: &'a UpstreamHost,
    /// The path, if it is another one than the client's.
    pub path: Option<String>,
    /// Changes to header fields, one after the other.
    pub fields: Vec<&'a HeaderEdits>,
}

/// Where in a forwarded head something may be written later.
#[derive(Clone, Copy, Debug, Default)]
pub struct Placeholders {
    /// The value of `traceparent`, where a parent stands there.
    pub parent: Option<usize>,
    /// Where `Host` is missing.
    pub host: Option<usize>,
}

impl Request<'_> {
    /// Writes the head that the upstream gets.
    pub fn forward(&mut self, out: &mut Vec<u8>, with: &Forwarding<'_>) -> Placeholders {
        self.remove_replaced(with);
        let forwarded_for: SmallVec<[&[u8]; 2]> = match with.trusted {
            // One line that ends with the peer's address.
            true => self.lines.all(&hop_by_hop::FORWARDED_FOR).collect(),
            false => SmallVec::new(),
        };
        if !forwarded_for.is_empty() {
            self.lines.take_named(&hop_by_hop::FORWARDED_FOR);
        }
        let host = self.host_text();
        let changed = with.changes.map(|changes| self.change(changes));
        let path = with.changes.and_then(|changes| changes.path.as_deref());
        match self.same_line && path.is_none() {
            true => out.extend_from_slice(self.line),
            false => self.write_line(path, out),
        }
        match self.odd.take() {
            Some(odd) => {
                self.write_odd(&odd, out, with, host);
                self.odd = Some(odd);
            }
            None => self.lines.write(out),
        }
        out.extend_from_slice(b"x-forwarded-for: ");
        write_list(out, &forwarded_for);
        out.extend_from_slice(&with.client.line);
        out.extend_from_slice(match (with.client.protocol, self.http_10) {
            (Protocol::Http2, _) => b"via: 2 watershed\r\n",
            (Protocol::Http1, false) => b"via: 1.1 watershed\r\n",
            (Protocol::Http1, true) => b"via: 1.0 watershed\r\n",
        });
        if !(with.trusted && self.forwarded_proto) {
            out.extend_from_slice(match with.over_tls {
                true => b"x-forwarded-proto: https\r\n",
                false => b"x-forwarded-proto: http\r\n",
            });
        }
        if !(with.trusted && self.forwarded_host)
            && let Some(host) = host
        {
            named(out, b"x-forwarded-host: ", host);
        }
        if let Some(certificate) = &with.client.certificate {
            out.extend_from_slice(certificate);
        }
        write_user(out, with);
        let parent = write_correlation(out, with);
        for (name, value) in with.version_fields {
            field(out, name.as_str().as_bytes(), value);
        }
        for (name, value) in changed.iter().flatten() {
            field(out, name.as_str().as_bytes(), value.as_bytes());
        }
        let is_missing = match with.changes.map(|changes| changes.host) {
            None | Some(UpstreamHost::Client) => host.is_none(),
            Some(UpstreamHost::Endpoint) => true,
            Some(UpstreamHost::Named(name)) => {
                named(out, b"host: ", name.as_str().as_bytes());
                false
            }
        };
        let host = is_missing.then_some(out.len());
        out.extend_from_slice(b"\r\n");
        Placeholders { parent, host }
    }

    /// Removes the fields that are replaced, and returns those that are added.
    fn change<'c>(&mut self, changes: &RequestChanges<'c>) -> Vec<&'c (HeaderName, HeaderValue)> {
        if *changes.host != UpstreamHost::Client {
            self.lines.take_named(&HOST);
            if let Some(odd) = &mut self.odd {
                odd.authority = None;
            }
        }
        let mut added: Vec<&(HeaderName, HeaderValue)> = Vec::new();
        for edits in &changes.fields {
            for name in edits.replaced() {
                self.lines.take_named(name);
                added.retain(|(known, _)| known != name);
            }
            added.extend(edits.added());
        }
        added
    }

    /// Takes out what is meant for other versions than that of this upstream, and adds what it gets instead to `fields`.
    /// Returns the names of isolated cookies that came without a mark.
    pub fn for_version(
        &mut self,
        versions: &VersionHeaders,
        (upstream, mark): (UpstreamIndex, Option<&VersionMark>),
        fields: &mut VersionFields,
    ) -> PlainCookies {
        let lines = &mut self.lines;
        let (plain, has_own_names) = versions.of_request(upstream, mark, lines, fields);
        if has_own_names {
            // Some are for watershed alone.
            let cookies = fields.iter_mut().filter(|(name, _)| *name == COOKIE);
            cookies.for_each(|(_, line)| *line = public_cookies(line));
        }
        fields.retain(|(_, value)| !value.is_empty());
        plain
    }

    /// Removes what is written here instead.
    fn remove_replaced(&mut self, with: &Forwarding<'_>) {
        let Some(correlation) = with.correlation else {
            return;
        };
        if correlation.id.as_ref().is_some_and(|id| id.made) {
            self.lines.take_named(&REQUEST_ID);
        }
        if with.parent.is_some() {
            self.lines.take_named(&TRACEPARENT);
        }
        if correlation.begins.is_some() {
            // A state belongs to its parent (Trace Context, 3.3).
            self.lines.take_named(&TRACESTATE);
        }
    }

    /// The first line, where it is another than came.
    fn write_line(&self, path: Option<&str>, out: &mut Vec<u8>) {
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(path.unwrap_or(self.path()).as_bytes());
        let removes = self.odd.as_ref().is_some_and(|odd| odd.override_in_query);
        if let Some(query) = self.query() {
            let mut before = b'?';
            for pair in query.split('&').filter(|it| !removes || !is_override(it)) {
                out.push(std::mem::replace(&mut before, b'&'));
                out.extend_from_slice(pair.as_bytes());
            }
        }
        out.extend_from_slice(b" HTTP/1.1\r\n");
    }

    /// The fields of a request that has what few have.
    fn write_odd(
        &mut self,
        odd: &RareFields<'_>,
        out: &mut Vec<u8>,
        with: &Forwarding<'_>,
        host: Option<&[u8]>,
    ) {
        let mut cookies = Vec::new();
        if odd.private_cookies {
            cookies = self.lines.all(&COOKIE).map(public_cookies).collect();
            self.lines.take_named(&COOKIE);
        }
        if odd.authority.is_some() {
            self.lines.take_named(&HOST);
        }
        let forwarded: SmallVec<[&[u8]; 2]> = self.lines.all(&FORWARDED).collect();
        if odd.forwarded {
            self.lines.take_named(&FORWARDED);
        }
        self.lines.write(out);
        if let Some(authority) = odd.authority {
            // RFC 9112, 3.2.2: the target's host replaces what `Host` says.
            named(out, b"host: ", authority.as_bytes());
        }
        for line in cookies.iter().filter(|line| !line.is_empty()) {
            named(out, b"cookie: ", line);
        }
        if odd.forwarded {
            out.extend_from_slice(b"forwarded: ");
            write_list(out, if with.trusted { &forwarded } else { &[] });
            out.extend_from_slice(&hop_by_hop::element(
                host,
                with.client.address,
                with.over_tls,
            ));
            out.extend_from_slice(b"\r\n");
        }
        if let Some(left) = odd.forwards {
            let left = left.saturating_sub(1).to_string();
            named(out, b"max-forwards: ", left.as_bytes());
        }
        let upgrade = odd.upgrade(self);
        // RFC 9110, 10.1.4: `TE` must be listed in `Connection`.
        let connection: &[u8] = match (upgrade, odd.takes_trailers) {
            (Some(_), true) => b"upgrade, te",
            (Some(_), false) => b"upgrade",
            (None, true) => b"te",
            (None, false) => b"",
        };
        if !connection.is_empty() {
            field(out, b"connection", connection);
        }
        if let Some(protocols) = upgrade {
            named(out, b"upgrade: ", protocols);
        }
        if odd.takes_trailers {
            named(out, b"te: ", b"trailers");
        }
    }
}

/// Returns a query without an override.
pub(crate) fn public_query(query: &str) -> String {
    let pairs: Vec<&str> = query.split('&').filter(|it| !is_override(it)).collect();
    pairs.join("&")
}

/// Writes the user's ID, unless it cannot stand in a field, and groups.
fn write_user(out: &mut Vec<u8>, with: &Forwarding<'_>) {
    if let Some(visitor) = with.visitor
        && let user = visitor.user().as_bytes()
        && grammar::text_bytes(user) == user.len()
    {
        named(out, b"watershed-user: ", user);
    }
    for inside in &with.assignment.inside {
        let group = with.prepared.group(inside.experiment, inside.group);
        named(out, b"watershed-experiment: ", group.as_bytes());
    }
}

/// Writes a request ID that was made here, and `traceparent`. Returns where its value stands.
fn write_correlation(out: &mut Vec<u8>, with: &Forwarding<'_>) -> Option<usize> {
    let id = with.correlation.and_then(|it| it.id.as_ref());
    if let Some(id) = id.filter(|id| id.made) {
        named(out, b"x-request-id: ", id.as_bytes());
    }
    let parent = with.parent?;
    named(out, b"traceparent: ", &parent.text());
    Some(out.len() - PARENT_BYTES - b"\r\n".len())
}

/// Writes what is not empty, each with a comma behind it.
fn write_list(out: &mut Vec<u8>, values: &[&[u8]]) {
    for value in values.iter().filter(|value| !value.is_empty()) {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
}

/// A line of cookies without those that are for watershed alone.
fn public_cookies(line: &[u8]) -> Vec<u8> {
    let pairs = line.split(|&byte| byte == b';');
    let kept: Vec<&[u8]> = pairs
        .filter(|pair| !cookies::pairs(pair).any(|(name, _)| is_private_name(name)))
        .collect();
    kept.join(&b';').trim_ascii_start().to_vec()
}

fn is_override(pair: &str) -> bool {
    let rest = pair.strip_prefix(OVERRIDE_COOKIE);
    rest.is_some_and(|rest| rest.starts_with('='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, plan::Plan};
    use crate::experiment::resolve;
    use crate::proxy::h1::framing::Bounds;
    use crate::proxy::h1::request_head;
    use std::net::{IpAddr, Ipv4Addr};
    use std::path::Path;

    fn plan() -> Plan {
        let routes =
            "listen: 127.0.0.1:1\nuser: { header: x-user }\nupstreams: { a: http://127.0.0.1:3 }\n";
        config::parse(routes, Path::new("routes.yaml"), &|_| None).unwrap()
    }

    /// What the upstream gets, without what each request gets.
    fn written(head: &str, trusted: bool) -> String {
        let plan = plan();
        let words = PlanHeaders::new(&plan);
        let bounds = Bounds::from(&plan.limits);
        let mut request = request_head::read(head.as_bytes(), &bounds, &words.reserved, trusted)
            .unwrap()
            .unwrap();
        let address = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));
        let with = Forwarding {
            client: &ClientInfo::new(address, Protocol::Http1, false),
            trusted,
            over_tls: false,
            prepared: &words,
            correlation: None,
            parent: None,
            visitor: None,
            assignment: &resolve::unrecorded(&plan.experiments, &request, None),
            changes: None,
            version_fields: &[],
        };
        let mut out = Vec::new();
        request.forward(&mut out, &with);
        let text = String::from_utf8(out).unwrap();
        let ours = ["x-forwarded-", "via: "];
        let lines = text.split_inclusive("\r\n");
        let lines = lines.filter(|line| !ours.iter().any(|name| line.starts_with(name)));
        lines.collect()
    }

    #[track_caller]
    fn check(fields: &str, expected: &str) {
        let head = |fields: &str| format!("GET /a?b HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(written(&head(fields), false), head(expected), "{fields:?}");
    }

    #[test]
    fn what_is_of_the_connection_stays_here() {
        check("X-A: 1\r\n", "X-A: 1\r\n");
        check("Connection: close\r\nX-A: 1\r\n", "X-A: 1\r\n");
        check("Connection: x-hop, close\r\nX-Hop: 1\r\n", "");
        check(
            "X-Hop: 1\r\nConnection: a\r\nConnection: b , x-hop\r\nA: 1\r\nB: 2\r\n",
            "",
        );
        check(
            "Connection: host, x-user, cookie\r\nX-User: u\r\n",
            "X-User: u\r\n",
        );
        check(
            "Keep-Alive: 5\r\nProxy-Connection: close\r\nUpgrade: h2c\r\n",
            "",
        );
        check("TE: gzip\r\n", "");
        check(
            "TE: gzip, trailers;q=1\r\n",
            "connection: te\r\nte: trailers\r\n",
        );
        check(
            "Connection: Upgrade\r\nUpgrade: websocket\r\n",
            "connection: upgrade\r\nupgrade: websocket\r\n",
        );
        check("Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n", "");
        check(
            "Watershed-User: x\r\nX_User: y\r\nX_Other: z\r\n",
            "X_Other: z\r\n",
        );
        check("Max-Forwards: 3\r\n", "Max-Forwards: 3\r\n");
    }

    #[test]
    fn targets_are_written_in_origin_form() {
        let first = |line: &str| {
            let head = written(&format!("{line}\r\nHost: a\r\nX: y\r\n\r\n"), false);
            let mut lines = head.lines();
            let first = lines.next().unwrap().to_owned();
            (first, lines.any(|line| line == "host: b:8"))
        };
        let check = |line: &str, expected: &str, names: bool| {
            assert_eq!(first(line), (expected.to_owned(), names), "{line}");
        };
        check("GET http://b:8/x?y HTTP/1.1", "GET /x?y HTTP/1.1", true);
        check("GET http://b:8?y HTTP/1.1", "GET /?y HTTP/1.1", true);
        check("GET https://b:8 HTTP/1.1", "GET / HTTP/1.1", true);
        check("OPTIONS http://b:8 HTTP/1.1", "OPTIONS * HTTP/1.1", true);
        check("OPTIONS * HTTP/1.1", "OPTIONS * HTTP/1.1", false);
        check("GET /x HTTP/1.0", "GET /x HTTP/1.1", false);
        check(
            "GET /x?watershed_override=t HTTP/1.1",
            "GET /x HTTP/1.1",
            false,
        );
        check(
            "GET /x?a=1&watershed_override=t&b HTTP/1.1",
            "GET /x?a=1&b HTTP/1.1",
            false,
        );
    }

    #[test]
    fn forwarded_ends_with_this_hop() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nForwarded: for=1.1.1.1\r\n\r\n";
        let ours = "for=10.1.2.3;host=\"a\";proto=http";
        assert!(written(head, false).contains(&format!("\r\nforwarded: {ours}\r\n")));
        assert!(written(head, true).contains(&format!("forwarded: for=1.1.1.1, {ours}\r\n")));
    }

    #[test]
    fn private_cookies_are_removed_and_others_keep_their_bytes() {
        let check = |line: &str, kept: &str| {
            let cookies = public_cookies(line.as_bytes());
            assert_eq!(String::from_utf8(cookies).unwrap(), kept, "{line}");
        };
        check("a=1;b=\"x, y\" ;;c", "a=1;b=\"x, y\" ;;c");
        check("watershed_session=x", "");
        check("watershed_session=x; a=1", "a=1");
        check("a=1;  watershed_session=x;b= 2", "a=1;b= 2");
        check("a=1; watershed_session =x; b", "a=1; b");
        check(
            "watershed_session=x; a=1; watershed_override=t; b=2",
            "a=1; b=2",
        );
        for other in [
            "watershed_id=u1",
            "watershed_sessions=x",
            "xwatershed_session=x",
            "a=watershed_session=x",
            "Watershed_Session=x",
            "watershed_session",
        ] {
            check(other, other);
        }
    }
}
