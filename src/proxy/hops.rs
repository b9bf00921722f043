//! What belongs to one connection only, and what says who passed a message on. PURE.

use super::grammar;
use super::reply::Reason;
use super::reserved::Reserved;
use crate::experiment::asked::Fields;
use http::header::{
    CONNECTION, CONTENT_LENGTH, FORWARDED, HOST, HeaderName, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, StatusCode, Version, response};
use smallvec::SmallVec;
use std::net::IpAddr;

/// The addresses that a request came through.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Whether the visitor came over TLS.
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the upstream.
    Request,
    /// To the client.
    Answer,
}

/// `Via` for a message that came in this version.
pub fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_10 => "1.0 watershed",
        Version::HTTP_2 => "2 watershed",
        _ => "1.1 watershed",
    })
}

/// Takes out what only this connection needed (RFC 9110, 7.6.1), and what is `foreign`; the rest
/// keeps its order. `Connection` removes the names that `may_be_nominated`. `TE: trailers` is kept
/// for requests: trailers are forwarded.
pub fn strip(
    headers: &mut HeaderMap,
    way: Way,
    may_be_nominated: impl Fn(&str) -> bool,
    foreign: impl Fn(&str) -> bool,
) {
    let listed: SmallVec<[HeaderName; 4]> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| may_be_nominated(name.as_str()))
        .collect();
    let trailers = way == Way::Request && takes_trailers(headers);
    // The body is framed anew; a length beside a coding was never meant (RFC 9112, 6.3).
    let coded = headers.contains_key(TRANSFER_ENCODING);
    let goes = |name: &HeaderName| match *name {
        CONTENT_LENGTH => coded,
        _ => is_of_the_hop(name) || listed.contains(name) || foreign(name.as_str()),
    };
    if headers.keys().any(goes) {
        remove_in_order(headers, goes);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// `HeaderMap::remove` puts the last field in the place of the one that goes.
fn remove_in_order(headers: &mut HeaderMap, goes: impl Fn(&HeaderName) -> bool) {
    let before = std::mem::take(headers);
    headers.reserve(before.keys_len());
    let mut current = None;
    for (name, value) in before {
        // Further values of a name come without it.
        if let Some(name) = name {
            current = (!goes(&name)).then_some(name);
        }
        if let Some(name) = &current {
            headers.append(name.clone(), value);
        }
    }
}

/// The protocols that a request asks to change to, if it may (RFC 9110, 7.8). HTTP/2 is not one of
/// them: it is spoken from the beginning or not at all (RFC 9113, 3.1).
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let options = |name: HeaderName| {
        let lines = headers.get_all(name).iter();
        lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
    };
    let has = |name: HeaderName, what: &[u8]| {
        options(name).any(|option| option.trim_ascii().eq_ignore_ascii_case(what))
    };
    let protocols = headers.get(UPGRADE)?;
    let asks = has(CONNECTION, b"upgrade") && !has(UPGRADE, b"h2c");
    asks.then(|| protocols.clone())
}

/// Asks for, or agrees to, another protocol on this connection.
pub fn set_upgrade(headers: &mut HeaderMap, protocols: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocols);
}

fn takes_trailers(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(TE).iter();
    let mut options = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    options.any(|option| {
        let name = option.split(|&byte| byte == b';').next();
        name.is_some_and(|name| name.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    })
}

/// Who asked, by which name and how: set for peers that are not trusted, completed for others.
pub fn forwarded(headers: &mut HeaderMap, peer: IpAddr, trusted: bool, over_tls: bool) {
    let proto = HeaderValue::from_static(if over_tls { "https" } else { "http" });
    if headers.contains_key(FORWARDED) {
        let ours = element(headers.get(HOST), peer, &proto);
        chain(headers, FORWARDED, &ours, trusted);
    }
    chain(headers, FORWARDED_FOR, peer.to_string().as_bytes(), trusted);
    if !trusted || !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, proto);
    }
    if !trusted || !headers.contains_key(FORWARDED_HOST) {
        match headers.get(HOST).cloned() {
            Some(host) => drop(headers.insert(FORWARDED_HOST, host)),
            None => drop(headers.remove(FORWARDED_HOST)),
        }
    }
}

/// The addresses in `X-Forwarded-For`, in order; `None` for what is none.
pub fn forwarded_for<'a>(fields: impl Fields<'a>) -> impl Iterator<Item = Option<IpAddr>> {
    let lines: SmallVec<[&[u8]; 2]> = fields.all(&FORWARDED_FOR).collect();
    lines
        .into_iter()
        .flat_map(|line| line.split(|&byte| byte == b','))
        .map(|said| std::str::from_utf8(said).ok()?.trim().parse().ok())
}

/// One line that ends with our word; what stood there before is kept from a trusted peer only.
fn chain(headers: &mut HeaderMap, name: HeaderName, ours: &[u8], trusted: bool) {
    let before = headers.get_all(&name).iter().filter(|_| trusted);
    let mut line: SmallVec<[u8; 64]> = SmallVec::new();
    for value in before.filter(|value| !value.is_empty()) {
        line.extend_from_slice(value.as_bytes());
        line.extend_from_slice(b", ");
    }
    line.extend_from_slice(ours);
    // Parts of header values make a header value.
    if let Ok(line) = HeaderValue::from_bytes(&line) {
        headers.insert(name, line);
    }
}

/// RFC 7239, 4: `for=…;host=…;proto=…`.
fn element(host: Option<&HeaderValue>, peer: IpAddr, proto: &HeaderValue) -> Vec<u8> {
    let address = match peer {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    let mut element = format!("for={address}").into_bytes();
    if let Some(host) = host {
        element.extend_from_slice(b";host=\"");
        element.extend_from_slice(host.as_bytes());
        element.push(b'"');
    }
    element.extend_from_slice(b";proto=");
    element.extend_from_slice(proto.as_bytes());
    element
}

/// Whether an upstream's answer can be passed on. What two readers could read in two ways must
/// reach neither this client nor, through a kept connection, the next one.
pub fn admit_answer(upgrading: bool, head: &mut response::Parts) -> Result<(), Reason> {
    let headers = &mut head.headers;
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return upgrading.then_some(()).ok_or(Reason::Unsound);
    }
    let chunked = one(headers, TRANSFER_ENCODING, |coding| {
        coding.eq_ignore_ascii_case(b"chunked")
    })?;
    let length = one(headers, CONTENT_LENGTH, |length| {
        grammar::length(length).is_some()
    })?;
    if chunked && length {
        return Err(Reason::Unsound);
    }
    if head.status == StatusCode::NO_CONTENT {
        // RFC 9110, 8.6: it has no body, and says no length.
        headers.remove(CONTENT_LENGTH);
    }
    Ok(())
}

/// Whether there is a line of this name; more than one, or an unsound one, is refused.
fn one(
    headers: &HeaderMap,
    name: HeaderName,
    is_sound: impl Fn(&[u8]) -> bool,
) -> Result<bool, Reason> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(false),
        (Some(line), None) if is_sound(line.as_bytes()) => Ok(true),
        _ => Err(Reason::Unsound),
    }
}

/// An interim answer as a client may have it; `None` where there is nothing to say.
pub fn interim(head: &[u8]) -> Option<Vec<u8>> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut answer = httparse::Response::new(&mut fields);
    answer.parse(head).ok()?;
    let reason = answer.reason.unwrap_or_default();
    let mut said = format!("HTTP/1.1 {} {reason}\r\n", answer.code?).into_bytes();
    let listed = |name: &str| {
        let lines = answer.headers.iter();
        let lines = lines.filter(|line| line.name.eq_ignore_ascii_case("connection"));
        let mut options = lines.flat_map(|line| line.value.split(|&byte| byte == b','));
        options.any(|option| option.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
    };
    for field in answer.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        if is_of_the_hop(&name) || listed(field.name) || name.as_str().starts_with("watershed-") {
            continue;
        }
        said.extend_from_slice(field.name.as_bytes());
        said.extend_from_slice(b": ");
        said.extend_from_slice(field.value);
        said.extend_from_slice(b"\r\n");
    }
    said.extend_from_slice(b"\r\n");
    Some(said)
}

/// Removes the trailers that may not follow the content.
pub fn remove_from_trailers(trailers: &mut HeaderMap, reserved: &Reserved) {
    let not_after = |name: &&HeaderName| !reserved.may_trail(name.as_str());
    let found: SmallVec<[HeaderName; 4]> = trailers.keys().filter(not_after).cloned().collect();
    for name in found {
        trailers.remove(name);
    }
}

fn is_of_the_hop(name: &HeaderName) -> bool {
    *name == KEEP_ALIVE
        || *name == PROXY_CONNECTION
        || matches!(
            *name,
            CONNECTION | TE | UPGRADE | TRANSFER_ENCODING | CONTENT_LENGTH
        )
}
