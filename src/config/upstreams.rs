//! `upstreams:` and `default:`.

use super::health;
use super::name::check_name;
use super::plan::{EndpointAddress, Transport, Upstream};
use super::reader::Node;
use super::tls::{self, Watched};
use crate::experiment::{Experiment, GroupIndex, UpstreamIndex};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

const KEYS: &[(&str, &str)] = &[
    ("endpoints", "a list of addresses"),
    ("tls", "{ ca, cert, key, name }, for endpoints at https://"),
    ("balance", "least_loaded, round_robin or user"),
    (
        "health",
        "a path such as /healthz, or { path, host, interval, timeout, status, failures, successes }",
    ),
    (
        "limits",
        "{ connections, pending } of each endpoint, over all workers",
    ),
];

/// Reads all upstreams of the file.
pub fn read(root: &Node<'_>, listen: SocketAddr, watched: &mut Watched) -> Vec<Upstream> {
    let Some(node) = root.get("upstreams") else {
        root.missing(
            "upstreams",
            "write the address of the site: upstreams: { current: http://127.0.0.1:3001 }",
        );
        return Vec::new();
    };
    let named = node.named("upstream");
    if named.is_empty() && node.is_map() {
        node.problem(
            "there is no upstream",
            "at least one, such as `current: http://127.0.0.1:3001`",
        );
    }
    let read = |(name, node): &(String, Node<'_>)| {
        check_name(node, name);
        let endpoints = if node.is_map() {
            node.keys(KEYS);
            node.get("endpoints")
                .map(|node| node.items())
                .unwrap_or_default()
        } else {
            node.items()
        };
        if endpoints.is_empty() {
            node.problem(
                "there is no address",
                "at least one, such as http://127.0.0.1:3001",
            );
        }
        let addresses: Vec<Address> = endpoints
            .iter()
            .filter_map(|node| address(node, listen))
            .collect();
        let endpoints = spoken_to(node, addresses, watched);
        Upstream {
            name: name.as_str().into(),
            endpoints,
            balance: health::balance(node),
            health: node
                .get("health")
                .and_then(|node| health::read(&node))
                .map(Arc::new),
            bounds: health::bounds(node),
        }
    };
    named.iter().map(read).collect()
}

/// An address as it is written in the file.
struct Address {
    scheme: Scheme,
    host: Box<str>,
    port: u16,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    H2c,
    Https,
}

/// Adds the protocol to the addresses of one upstream.
fn spoken_to(
    upstream: &Node<'_>,
    addresses: Vec<Address>,
    watched: &mut Watched,
) -> Box<[EndpointAddress]> {
    let secure = addresses.iter().filter(|it| it.scheme == Scheme::Https);
    let secure = secure.count();
    if let Some(tls) = upstream.get("tls").filter(|_| secure == 0) {
        tls.problem(
            "no endpoint of this upstream is reached over TLS",
            "write https:// in their addresses, or leave `tls` out",
        );
    }
    if secure > 0 && secure < addresses.len() {
        upstream.problem(
            "some endpoints are reached over TLS and some are not",
            "write https:// in all addresses of an upstream or in none: an attacker who interrupts the TLS connections could read the requests that then go to the others",
        );
    }
    // Without it, an error was reported.
    let tls = (secure > 0).then(|| tls::upstream(upstream, watched));
    let tls = tls.flatten();
    let endpoint = |address: Address| {
        Some(EndpointAddress {
            transport: match address.scheme {
                Scheme::Http => Transport::Http,
                Scheme::H2c => Transport::H2c,
                Scheme::Https => Transport::Https(tls.clone()?),
            },
            host: address.host,
            port: address.port,
        })
    };
    addresses.into_iter().filter_map(endpoint).collect()
}

fn address(node: &Node<'_>, listen: SocketAddr) -> Option<Address> {
    const ALLOWED: &str =
        "an address such as http://127.0.0.1:3001 (or https://, or h2c://), without a path";
    let address = node.read(ALLOWED, |text| {
        let uri: http::Uri = text.parse().ok()?;
        let authority = uri.authority()?.as_str();
        let bare = uri.path() == "/" && uri.query().is_none() && !authority.contains('@');
        // Schemes of URLs ignore case.
        let scheme = match uri.scheme_str()?.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "h2c" => Scheme::H2c,
            "https" => Scheme::Https,
            _ => return None,
        };
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
        let port_written = authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.contains(']'));
        let port = if port_written {
            uri.port_u16()?
        } else if scheme == Scheme::Https {
            443
        } else {
            80
        };
        (bare && !host.is_empty() && port > 0).then(|| Address {
            scheme,
            host: host.into(),
            port,
        })
    })?;
    if is_itself(&address.host, address.port, listen) {
        node.problem(
            "this is an address of watershed itself",
            "requests would loop: write the address of the site",
        );
    }
    Some(address)
}

/// Whether this is an address of watershed itself.
pub fn is_itself(host: &str, port: u16, listen: SocketAddr) -> bool {
    let everywhere = listen.ip().is_unspecified();
    let host = match host.parse::<IpAddr>() {
        Ok(ip) => ip == listen.ip() || (everywhere && ip.is_loopback()),
        Err(_) => host == "localhost" && (listen.ip().is_loopback() || everywhere),
    };
    host && port == listen.port()
}

/// Reads the upstream of requests that match no experiment.
pub fn default(root: &Node<'_>, names: &[&str], experiments: &[Experiment]) -> UpstreamIndex {
    if let Some(node) = root.get("default") {
        let Some(name) = node.text("the name of an upstream") else {
            return UpstreamIndex(0);
        };
        let place = names.iter().position(|upstream| *upstream == name);
        if place.is_none() {
            node.unknown("upstream", name, names.iter().copied());
        }
        return UpstreamIndex(place.unwrap_or(0));
    }
    // By default, the upstream of the first experiment's control, or the first upstream of the file.
    let control = |experiment: &Experiment| {
        let GroupIndex(control) = experiment.control;
        experiment.groups.get(control)?.upstream
    };
    experiments
        .iter()
        .find_map(control)
        .unwrap_or(UpstreamIndex(0))
}
