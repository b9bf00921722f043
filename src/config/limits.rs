//! `timeouts:`, `limits:` and `trust:`.

use super::plan::{Limits, Timeouts};
use super::reader::Node;
use ipnet::{IpNet, Ipv4Net};
use std::net::IpAddr;
use std::time::Duration;

/// Reads `timeouts`.
pub(super) fn timeouts(root: &Node<'_>) -> Timeouts {
    let node = root.get("timeouts");
    if let Some(node) = &node {
        node.keys(&[
            ("head", "the time for the head of a request"),
            ("idle", "the time of a connection without a request"),
            ("body", "the time between two pieces of a body"),
            ("connect", "the time for a connection to an endpoint"),
            (
                "response",
                "the time to the head of the upstream's response",
            ),
            (
                "total",
                "the time from the head of a request to the end of its response, or none",
            ),
            ("tunnel", "the time without data on an upgraded connection"),
            ("grace", "the time to serve while readyz reports the stop"),
            ("shutdown", "the time to finish requests after a stop"),
        ]);
    }
    let time = |key: &str, default: u64| {
        let written = node
            .as_ref()
            .and_then(|node| node.get(key))
            .and_then(|node| {
                let time = node.duration()?;
                if time.is_zero() {
                    node.problem("the time is 0", "more than 0s");
                }
                Some(time)
            });
        written.unwrap_or(Duration::from_secs(default))
    };
    let total = node.as_ref().and_then(|node| node.get("total"));
    let grace = node.as_ref().and_then(|node| node.get("grace")?.duration());
    Timeouts {
        total: total
            .filter(|node| !node.is_none())
            .map(|_| time("total", 0)),
        grace: grace.unwrap_or_default(),
        head: time("head", 10),
        idle: time("idle", 60),
        body: time("body", 30),
        connect: time("connect", 2),
        response: time("response", 60),
        tunnel: time("tunnel", 3600),
        shutdown: time("shutdown", 30),
    }
}

const LIMITS: &[(&str, &str)] = &[
    ("head", "the size of a request's head, such as 64KiB"),
    (
        "headers",
        "the number of header fields of a request, such as 200",
    ),
    (
        "response_head",
        "the size of a response's head, such as 256KiB",
    ),
    (
        "response_headers",
        "the number of header fields of a response, such as 200",
    ),
    ("target", "the size of a request's target, such as 16KiB"),
    (
        "body",
        "the size of a request's body, such as 10MiB, or none",
    ),
    (
        "body_rate",
        "the lowest rate at which a client may send a body, such as 240B/s, or none",
    ),
    (
        "connections",
        "the number of client connections, such as 20000",
    ),
    (
        "connections_per_address",
        "the number of connections of one address, such as 1000; half of connections unless given",
    ),
    (
        "requests",
        "the number of requests on one connection, such as 10000, or none",
    ),
    (
        "rate",
        "the rate of requests of one client, such as 100/s or 600/m, or none",
    ),
];

/// Reads `limits`.
pub(super) fn limits(root: &Node<'_>) -> Limits {
    let mut limits = Limits {
        head_bytes: 64 << 10,
        headers: 200,
        response_head_bytes: 256 << 10,
        response_headers: 200,
        target_bytes: 16 << 10,
        body_bytes: None,
        body_rate: Some(240),
        connections: 20_000,
        connections_per_address: None,
        requests: u32::MAX,
        rate: None,
    };
    let Some(node) = root.get("limits") else {
        return limits;
    };
    node.keys(LIMITS);
    let size = |key: &str, default: usize| {
        let written = node.get(key).and_then(|node| {
            let bytes = node.bytes()?;
            if !(8192..=16 << 20).contains(&bytes) {
                node.problem(format!("{bytes} bytes"), "from 8KiB to 16MiB");
            }
            Some(bytes as usize)
        });
        written.unwrap_or(default)
    };
    limits.head_bytes = size("head", limits.head_bytes);
    limits.response_head_bytes = size("response_head", limits.response_head_bytes);
    limits.target_bytes = size("target", limits.target_bytes);
    let count = |key: &str, high: u64| {
        node.get(key)
            .and_then(|node| node.whole(1, high))
            .map(|count| count as usize)
    };
    limits.headers = count("headers", 10_000).unwrap_or(limits.headers);
    limits.response_headers = count("response_headers", 10_000).unwrap_or(limits.response_headers);
    limits.connections = count("connections", 1_000_000).unwrap_or(limits.connections);
    limits.connections_per_address = count("connections_per_address", 1_000_000);
    if let Some(rate) = node.get("body_rate") {
        limits.body_rate = body_rate(&rate);
    }
    if let Some(requests) = node.get("requests")
        && !requests.is_none()
        && let Some(count) = requests.whole(1, u64::from(u32::MAX))
    {
        limits.requests = count as u32;
    }
    limits.rate = node.get("rate").and_then(|node| rate(&node));
    if let Some(body) = node.get("body")
        && !body.is_none()
    {
        limits.body_bytes = body.bytes();
    }
    limits
}

/// Reads bytes per second.
fn body_rate(node: &Node<'_>) -> Option<u64> {
    if node.is_none() {
        return None;
    }
    node.read(
        "a size per second, such as 240B/s or 1KiB/s, or none",
        |text| {
            let size = text
                .strip_suffix("/s")?
                .trim()
                .parse::<bytesize::ByteSize>();
            size.ok()
                .map(|size| size.as_u64())
                .filter(|bytes| *bytes > 0)
        },
    )
}

/// Reads requests per second.
fn rate(node: &Node<'_>) -> Option<f64> {
    if node.is_none() {
        return None;
    }
    node.read(
        "a number per time, such as 100/s, 600/m or 5000/h, or none",
        |text| {
            let (count, time) = text.split_once('/')?;
            let seconds = match time.trim() {
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
            let count: u32 = count.trim().parse().ok()?;
            (count > 0).then(|| f64::from(count) / seconds)
        },
    )
}

/// Reads the trusted peers.
pub(super) fn trust(root: &Node<'_>) -> Box<[IpNet]> {
    let items = root
        .get("trust")
        .map(|node| node.items())
        .unwrap_or_default();
    items.iter().filter_map(network).collect()
}

/// Reads a network, or an address.
pub(super) fn network(node: &Node<'_>) -> Option<IpNet> {
    const NETWORK: &str = "a network or an address, such as 10.0.0.0/8 or 127.0.0.1";
    node.read(NETWORK, |text| {
        let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
        text.parse().ok().or_else(address).map(canonical)
    })
}

/// IPv4 in the form of IPv6 becomes IPv4, because addresses of clients do.
fn canonical(network: IpNet) -> IpNet {
    let bits = network.prefix_len().checked_sub(96);
    match (network.network().to_canonical(), bits) {
        (IpAddr::V4(address), Some(bits)) if network.addr().is_ipv6() => {
            Ipv4Net::new(address, bits).map_or(network, IpNet::V4)
        }
        _ => network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_those_of_clients() {
        for (text, expected) in [
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3/128", "10.1.2.3/32"),
            ("::/0", "::/0"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("10.0.0.0/8", "10.0.0.0/8"),
        ] {
            let network: IpNet = text.parse().unwrap();
            assert_eq!(canonical(network), expected.parse().unwrap(), "{text}");
        }
    }
}
