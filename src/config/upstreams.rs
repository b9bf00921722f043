//! `upstreams:` and `default:` — where the versions of the site run.

use super::node::{Node, check_name};
use super::plan::{Endpoint, Upstream};
use crate::experiment::{Experiment, GroupIndex, UpstreamIndex};
use std::net::{IpAddr, SocketAddr};

/// All upstreams of the file.
pub fn read(root: &Node<'_>, listen: SocketAddr) -> Vec<Upstream> {
    let Some(node) = root.get("upstreams") else {
        root.missing("upstreams", "write where the versions of the site run: upstreams: { current: http://127.0.0.1:3001 }");
        return Vec::new();
    };
    let named = node.named("upstream");
    if named.is_empty() && node.is_map() {
        node.problem(
            "no upstream",
            "at least one, such as `current: http://127.0.0.1:3001`",
        );
    }
    let read = |(name, node): &(String, Node<'_>)| {
        check_name(node, name);
        let endpoints = if node.is_map() {
            node.keys(&[("endpoints", "a list of addresses")]);
            node.get("endpoints")
                .map(|node| node.items())
                .unwrap_or_default()
        } else {
            node.items()
        };
        if endpoints.is_empty() {
            node.problem("no address", "at least one, such as http://127.0.0.1:3001");
        }
        let endpoints = endpoints
            .iter()
            .filter_map(|node| endpoint(node, listen))
            .collect();
        Upstream {
            name: name.as_str().into(),
            endpoints,
        }
    };
    named.iter().map(read).collect()
}

fn endpoint(node: &Node<'_>, listen: SocketAddr) -> Option<Endpoint> {
    const ALLOWED: &str = "an address such as http://127.0.0.1:3001, without a path";
    let text = node.text(ALLOWED)?;
    if let Some((scheme @ ("https" | "h2c"), _)) = text.split_once("://") {
        node.problem(
            format!("{scheme}:// to an upstream is not supported by this version"),
            "use http://",
        );
        return None;
    }
    let endpoint = node.read(ALLOWED, |text| {
        let uri: http::Uri = text.parse().ok()?;
        let authority = uri.authority()?.as_str();
        let bare = uri.path() == "/" && uri.query().is_none() && !authority.contains('@');
        let http = uri.scheme() == Some(&http::uri::Scheme::HTTP);
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
        let port_written = authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.contains(']'));
        let port = if port_written { uri.port_u16()? } else { 80 };
        (bare && http && !host.is_empty() && port > 0).then(|| Endpoint {
            host: host.into(),
            port,
        })
    })?;
    let itself = match endpoint.host.parse::<IpAddr>() {
        Ok(ip) => ip == listen.ip() || (listen.ip().is_unspecified() && ip.is_loopback()),
        Err(_) => {
            &*endpoint.host == "localhost"
                && (listen.ip().is_loopback() || listen.ip().is_unspecified())
        }
    };
    if itself && endpoint.port == listen.port() {
        node.problem(
            "this is where watershed itself listens",
            "requests would go round and round: write the site's own address",
        );
    }
    Some(endpoint)
}

/// Where requests go that no experiment claims.
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
    // Where the first experiment's control goes, or else the first upstream of the file.
    let control = |experiment: &Experiment| {
        let GroupIndex(control) = experiment.control;
        experiment.groups.get(control)?.upstream
    };
    experiments
        .iter()
        .find_map(control)
        .unwrap_or(UpstreamIndex(0))
}
