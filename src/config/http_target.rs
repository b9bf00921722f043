//! Addresses of servers that the program sends to, beside upstreams.

use super::plan::{EndpointAddress, HttpTarget, Transport};
use super::reader::Node;
use super::tls::{self, Watched};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderValue, Uri};

/// Base64 with and without padding.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// An address in the file.
pub(super) struct TargetKey<'a> {
    /// Its key.
    pub key: &'a str,
    /// What it holds.
    pub holds: &'a str,
    /// The address where the file has none; `None` if it must have one.
    pub default: Option<&'a str>,
}

/// Reads the address of a server, and the `tls` beside it. The address may hold a secret, and is not shown.
pub(super) fn read(
    node: &Node<'_>,
    at: &TargetKey<'_>,
    watched: &mut Watched,
) -> Option<(Uri, HttpTarget)> {
    let uri = match (node.get(at.key), at.default) {
        (Some(node), _) => address(&node, at.holds),
        (None, Some(default)) => default.parse().ok(),
        (None, None) => {
            node.missing(at.key, at.holds);
            None
        }
    };
    let is_secure = uri
        .as_ref()
        .is_some_and(|uri| uri.scheme_str() == Some("https"));
    if let Some(tls) = node.get("tls").filter(|_| uri.is_some() && !is_secure) {
        tls.problem(
            "the receiver is reached without TLS",
            "write https:// in its address, or leave `tls` out",
        );
    }
    let transport = match is_secure {
        true => Transport::Https(tls::upstream(node, watched)?),
        false => Transport::Http,
    };
    let uri = uri?;
    let host = uri.host()?;
    let (login, place) = match uri.authority()?.as_str().rsplit_once('@') {
        Some((login, place)) => (Some(login), place),
        None => (None, uri.authority()?.as_str()),
    };
    let target = HttpTarget {
        endpoint: EndpointAddress {
            socket: None,
            is_srv: false,
            ip: None,
            host: host.trim_start_matches('[').trim_end_matches(']').into(),
            port: uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 }),
            transport,
        },
        path: uri.path_and_query()?.clone(),
        host: HeaderValue::try_from(place).ok()?,
        authorization: login.and_then(of_login),
    };
    Some((uri, target))
}

fn address(node: &Node<'_>, holds: &str) -> Option<Uri> {
    let text = node.secret(holds)?;
    let uri: Option<Uri> = text.reveal().parse().ok();
    let is_sound = |uri: &Uri| {
        let is_known = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority().map_or("", |it| it.as_str());
        let place = authority.rsplit_once('@').map_or(authority, |it| it.1);
        let port = place.rsplit_once(':').filter(|it| !it.1.contains(']'));
        let has_port = port.is_none() || uri.port_u16().is_some_and(|port| port > 0);
        is_known && has_port && uri.host().is_some_and(|host| !host.is_empty())
    };
    let uri = uri.filter(is_sound);
    if uri.is_none() {
        // It may hold a secret.
        node.problem("this is not an address", holds);
    }
    uri
}

/// Returns `Authorization` of a user and a password in an address.
fn of_login(login: &str) -> Option<HeaderValue> {
    let login: Vec<u8> = percent_encoding::percent_decode_str(login).collect();
    basic(&login)
}

/// Returns `Authorization` of a user, a colon and a password.
pub(super) fn basic(login: &[u8]) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Basic {}", BASE64.encode(login))).ok()?;
    value.set_sensitive(true);
    Some(value)
}
