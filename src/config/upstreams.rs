//! `upstreams:` and `default:`.

use super::health;
use super::message_edits::{self, HEADERS, STRIP_PREFIX};
use super::name::check_name;
use super::plan::{EndpointAddress, Health, Transport, Upstream, UpstreamHost, UpstreamSite};
use super::reader::Node;
use super::tls::{self, Watched};
use crate::experiment::http_view::without_port;
use crate::experiment::path_rewrite::{PathPrefix, PathRewrite};
use crate::experiment::{Experiment, GroupIndex, UpstreamIndex};
use crate::features::Feature;
use http::HeaderValue;
use http::uri::Authority;
use rustls::pki_types::ServerName;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const KEYS: &[(&str, &str)] = &[
    ("endpoints", "a list of addresses"),
    ("host", HOST),
    (
        "path",
        "the path under which the site stands there, such as /v2; the path of the addresses unless given",
    ),
    STRIP_PREFIX,
    HEADERS,
    (
        "keep_alive",
        "how long connections are kept without a request, such as 4s: shorter than the endpoints keep them; 50s unless given",
    ),
    (
        "eject",
        "false, or { errors: 5, share: 50% }: an endpoint that answers so often with 5xx in a row gets no requests for a while",
    ),
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

/// The default of `keep_alive`: shorter than servers usually keep connections.
const KEEP_ALIVE: Duration = Duration::from_secs(50);
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(3600);
/// The longest path of a socket that the system takes.
const SOCKET_BYTES_MAX: usize = 107;
const HOST: &str = "the host that it is asked for: client (the one that the client names), upstream (that of the endpoint), or a name such as preview.example.net";

/// Reads all upstreams of the file.
pub(super) fn read(root: &Node<'_>, listen: SocketAddr, watched: &mut Watched) -> Vec<Upstream> {
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
        let host = host(node);
        let site = site(node, &host, &addresses);
        let endpoints = spoken_to(node, addresses, &host, watched);
        let health = node.get("health").and_then(|node| health::read(&node));
        Upstream {
            name: name.as_str().into(),
            endpoints,
            balance: health::balance(node),
            health: health.map(|health| Arc::new(asked_for(health, &host))),
            bounds: health::bounds(node),
            keep_alive: keep_alive(node),
            ejection: health::ejection(node),
            site: site.map(Arc::new),
        }
    };
    named.iter().map(read).collect()
}

/// An address as it is written in the file.
struct Address {
    scheme: Scheme,
    host: Box<str>,
    port: u16,
    path: PathPrefix,
    is_srv: bool,
    socket: Option<Box<Path>>,
}

/// Reads `host`.
fn host(upstream: &Node<'_>) -> UpstreamHost {
    let read = |text: &str| {
        Some(match text {
            "client" => UpstreamHost::Client,
            "upstream" => UpstreamHost::Endpoint,
            name => {
                let authority: Authority = name.parse().ok()?;
                let host = authority.host().trim_matches(['[', ']']);
                let has_port = name.len() > authority.host().len();
                let is_sound = !name.contains('@')
                    && ServerName::try_from(host).is_ok()
                    && has_port == authority.port().is_some();
                UpstreamHost::Named(Some(authority).filter(|_| is_sound)?)
            }
        })
    };
    let node = upstream.get("host");
    let host = node.and_then(|node| node.read(HOST, read));
    host.unwrap_or(UpstreamHost::Client)
}

/// Health checks ask for the host that requests have.
fn asked_for(mut health: Health, host: &UpstreamHost) -> Health {
    if let UpstreamHost::Named(name) = host
        && health.host.is_none()
    {
        health.host = HeaderValue::try_from(name.as_str()).ok();
    }
    health
}

/// Reads how requests of an upstream differ from those of clients.
fn site(upstream: &Node<'_>, host: &UpstreamHost, addresses: &[Address]) -> Option<UpstreamSite> {
    let mut edits = message_edits::headers(upstream);
    edits.path = prefixes(upstream, addresses);
    if *host == UpstreamHost::Client && edits.is_empty() {
        return None;
    }
    let written = |address: &Address| match address.host.contains(':') {
        true => format!("[{}]", address.host),
        false => address.host.to_string(),
    };
    let mut names: Vec<Box<str>> = addresses.iter().map(|it| written(it).into()).collect();
    let mut ports: Vec<u16> = addresses.iter().map(|it| it.port).collect();
    if let UpstreamHost::Named(name) = host {
        names.push(without_port(name.as_str()).to_ascii_lowercase().into());
        ports.extend(name.port_u16());
    }
    Some(UpstreamSite {
        host: host.clone(),
        edits,
        names: names.into(),
        ports: ports.into(),
    })
}

/// Reads the prefixes: `strip_prefix`, and `path` or the path of the addresses.
fn prefixes(upstream: &Node<'_>, addresses: &[Address]) -> Option<PathRewrite> {
    let of_addresses = addresses.first().map(|it| &it.path).cloned();
    let of_addresses = of_addresses.unwrap_or_default();
    if addresses.iter().any(|it| it.path != of_addresses) {
        upstream.problem(
            "endpoints with different paths",
            "the same path in all addresses of an upstream, or `path`",
        );
    }
    if let Some(path) = upstream.get("path").filter(|_| !of_addresses.is_empty()) {
        path.problem(
            "a `path` beside addresses with a path",
            "write the path in one of the two places",
        );
    }
    match message_edits::prefixes(upstream, "strip_prefix", "path") {
        Some(PathRewrite::Prefix { strip, add }) if add.is_empty() => Some(PathRewrite::Prefix {
            strip,
            add: of_addresses,
        }),
        None if !of_addresses.is_empty() => Some(PathRewrite::Prefix {
            strip: PathPrefix::default(),
            add: of_addresses,
        }),
        written => written,
    }
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
    host: &UpstreamHost,
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
    let mut tls = tls.flatten();
    if let Some(tls) = &mut tls
        && let UpstreamHost::Named(name) = host
        && tls.name.is_none()
    {
        let name = name.host().trim_matches(['[', ']']).to_owned();
        Arc::make_mut(tls).name = ServerName::try_from(name).ok();
    }
    let endpoint = |address: Address| {
        Some(EndpointAddress {
            transport: match address.scheme {
                Scheme::Http => Transport::Http,
                Scheme::H2c => Transport::H2c,
                Scheme::Https => Transport::Https(tls.clone()?),
            },
            host: address.host,
            port: address.port,
            socket: address.socket,
            is_srv: address.is_srv,
            ip: None,
        })
    };
    addresses.into_iter().filter_map(endpoint).collect()
}

fn address(node: &Node<'_>, listen: SocketAddr) -> Option<Address> {
    const ALLOWED: &str = "an address such as http://127.0.0.1:3001 (or https://, or h2c://), without a query, unix:/run/app.sock, or http+srv://_http._tcp.app.internal";
    if let Some(socket) = node.text(ALLOWED)?.strip_prefix("unix:") {
        return unix_socket(node, socket);
    }
    let address = node.read(ALLOWED, |text| {
        let uri: http::Uri = text.parse().ok()?;
        let path = PathPrefix::new(uri.path())?;
        let authority = uri.authority()?.as_str();
        let bare = uri.query().is_none() && !authority.contains('@') && !text.contains('#');
        // Schemes of URLs ignore case.
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let (scheme, is_srv) = match scheme.strip_suffix("+srv") {
            Some(scheme) => (scheme, true),
            None => (&*scheme, false),
        };
        let scheme = match scheme {
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
            // SRV records name the ports.
            uri.port_u16().filter(|_| !is_srv)?
        } else if scheme == Scheme::Https {
            443
        } else {
            80
        };
        (bare && !host.is_empty() && port > 0).then(|| Address {
            scheme,
            host: host.into(),
            port,
            path,
            is_srv,
            socket: None,
        })
    })?;
    if address.is_srv {
        node.needs(Feature::Dns, "the addresses of the endpoints");
    }
    if is_itself(&address.host, address.port, listen) {
        node.problem(
            "this is an address of watershed itself",
            "requests would loop: write the address of the site",
        );
    }
    Some(address)
}

/// Reads `dns`.
pub(super) fn name_servers(root: &Node<'_>) -> Box<[SocketAddr]> {
    const SERVER: &str = "the address of a name server, such as 10.0.0.2 or 10.0.0.2:53";
    let Some(node) = root.get("dns") else {
        return Box::default();
    };
    node.needs(Feature::Dns, "leave it out");
    node.keys(&[("servers", "the address of a name server, or a list of them")]);
    let Some(servers) = node.get("servers") else {
        node.missing("servers", SERVER);
        return Box::default();
    };
    let server = |node: &Node<'_>| {
        node.read(SERVER, |text| {
            let ip = text.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, 53));
            text.parse().ok().or(ip)
        })
    };
    servers.items().iter().filter_map(server).collect()
}

/// Reads the path of a Unix domain socket, which is relative to the file.
fn unix_socket(node: &Node<'_>, text: &str) -> Option<Address> {
    // As in a URL, there may be an empty host.
    let text = text.strip_prefix("//").unwrap_or(text);
    let socket = node.file(text);
    let bytes = socket.as_os_str().len();
    if text.is_empty() || text.ends_with('/') || bytes > SOCKET_BYTES_MAX {
        node.problem(
            format!("found the path {text:?} of {bytes} bytes"),
            format!("the path of a socket of at most {SOCKET_BYTES_MAX} bytes, such as unix:/run/app.sock"),
        );
        return None;
    }
    Some(Address {
        scheme: Scheme::Http,
        host: "localhost".into(),
        port: 80,
        path: PathPrefix::default(),
        is_srv: false,
        socket: Some(socket.into()),
    })
}

/// Reads `keep_alive`.
fn keep_alive(upstream: &Node<'_>) -> Duration {
    let node = upstream.get("keep_alive");
    let time = node.and_then(|node| {
        let time = node.duration()?;
        if time > KEEP_ALIVE_MAX {
            node.problem("the time is too long", "at most 1h");
        }
        Some(time)
    });
    time.unwrap_or(KEEP_ALIVE)
}

/// Whether this is an address of watershed itself.
pub(super) fn is_itself(host: &str, port: u16, listen: SocketAddr) -> bool {
    let everywhere = listen.ip().is_unspecified();
    let host = match host.parse::<IpAddr>() {
        Ok(ip) => ip == listen.ip() || (everywhere && ip.is_loopback()),
        Err(_) => host == "localhost" && (listen.ip().is_loopback() || everywhere),
    };
    host && port == listen.port()
}

/// Reads the upstream of requests that match no experiment.
pub(super) fn default(
    root: &Node<'_>,
    names: &[&str],
    experiments: &[Experiment],
) -> UpstreamIndex {
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
