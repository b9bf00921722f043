//! What belongs to one connection only, and what says who passed a message on. PURE.

use crate::proxy::headers::reserved::ReservedNames;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Version};
use smallvec::SmallVec;
use std::net::IpAddr;

/// The addresses that a request came through.
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Whether the visitor came over TLS.
pub(crate) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The host that the visitor asks for.
pub(crate) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// `Via` for a message that came in this version.
pub(crate) fn via(version: Version) -> HeaderValue {
    // Constants are checked when the program is built, and not for each message.
    const OF_HTTP_10: HeaderValue = HeaderValue::from_static("1.0 watershed");
    const OF_HTTP_11: HeaderValue = HeaderValue::from_static("1.1 watershed");
    const OF_HTTP_2: HeaderValue = HeaderValue::from_static("2 watershed");
    match version {
        Version::HTTP_10 => OF_HTTP_10,
        Version::HTTP_2 => OF_HTTP_2,
        _ => OF_HTTP_11,
    }
}

/// RFC 7239, 4: `for=…;host=…;proto=…`.
pub(crate) fn element(host: Option<&[u8]>, peer: IpAddr, over_tls: bool) -> Vec<u8> {
    let address = match peer {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    let mut element = format!("for={address}").into_bytes();
    if let Some(host) = host {
        element.extend_from_slice(b";host=\"");
        element.extend_from_slice(host);
        element.push(b'"');
    }
    element.extend_from_slice(match over_tls {
        true => b";proto=https",
        false => b";proto=http",
    });
    element
}

/// An interim answer as a client may have it; `None` where there is nothing to say.
pub(crate) fn interim(head: &[u8]) -> Option<Vec<u8>> {
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
pub(crate) fn remove_from_trailers(trailers: &mut HeaderMap, reserved: &ReservedNames) {
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
