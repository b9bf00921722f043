//! `upstreams.NAME`: load balancing, health checks, and limits of endpoints.

use super::metrics;
use super::plan::{Balance, Ejection, EndpointBounds, Health};
use super::reader::Node;
use http::HeaderValue;
use http::uri::PathAndQuery;
use std::time::Duration;

/// The default of `limits.pending`.
const PENDING: u32 = 1024;
const PATH: &str = "a path, such as /healthz";

/// Reads how the endpoint for a request is chosen.
pub(super) fn balance(upstream: &Node<'_>) -> Balance {
    let words = [
        ("least_loaded", Balance::LeastLoaded),
        ("round_robin", Balance::RoundRobin),
        ("user", Balance::User),
    ];
    let written = upstream.get("balance").and_then(|node| node.word(&words));
    written.unwrap_or(Balance::LeastLoaded)
}

/// Reads `health:`, a path or keys.
pub(super) fn read(node: &Node<'_>) -> Option<Health> {
    let mut health = Health {
        path: PathAndQuery::from_static("/"),
        host: None,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        status: (200, 399),
        failures: 3,
        successes: 2,
    };
    let path = |node: &Node<'_>| {
        node.read(PATH, |text| {
            let path: Option<PathAndQuery> = text.parse().ok();
            path.filter(|_| text.starts_with('/'))
        })
    };
    if !node.is_map() {
        health.path = path(node)?;
        return Some(health);
    }
    node.keys(&[
        ("path", PATH),
        ("host", "the Host of the check"),
        ("interval", "the time between two checks, such as 5s"),
        ("timeout", "how long a response may take, such as 2s"),
        ("status", metrics::STATUS),
        (
            "failures",
            "failures in a row until the endpoint counts as unhealthy, such as 3",
        ),
        (
            "successes",
            "successes in a row until the endpoint counts as healthy, such as 2",
        ),
    ]);
    match node.get("path") {
        Some(node) => health.path = path(&node)?,
        None => node.missing("path", PATH),
    }
    health.host = node.get("host").and_then(|node| {
        node.read("a host name", |text| {
            let host: Option<http::uri::Authority> = text.parse().ok();
            HeaderValue::try_from(host?.as_str()).ok()
        })
    });
    let time = |key: &str| {
        let node = node.get(key)?;
        let time = node.duration()?;
        if time < Duration::from_millis(10) {
            node.problem("the time is too short", "10ms or more");
        }
        Some(time)
    };
    health.interval = time("interval").unwrap_or(health.interval);
    health.timeout = time("timeout").unwrap_or(health.timeout);
    let status = node.get("status");
    let status = status.and_then(|node| node.read(metrics::STATUS, metrics::status_of));
    if let Some(status) = status {
        health.status = (status.low, status.high);
    }
    let count = |key: &str| Some(node.get(key)?.whole(1, 1000)? as u32);
    health.failures = count("failures").unwrap_or(health.failures);
    health.successes = count("successes").unwrap_or(health.successes);
    Some(health)
}

/// Reads `eject`.
pub(super) fn ejection(upstream: &Node<'_>) -> Option<Ejection> {
    let mut ejection = Ejection {
        errors: 5,
        share_max: 0.5,
    };
    let Some(node) = upstream.get("eject") else {
        return Some(ejection);
    };
    if let Some(is_on) = node.flag() {
        return is_on.then_some(ejection);
    }
    const SHARE: &str = "a percentage above 0% and up to 100%, such as 50%";
    node.keys(&[
        ("errors", "responses with 5xx in a row, such as 5"),
        (
            "share",
            "the largest share of the endpoints that is ejected for that, such as 50%",
        ),
    ]);
    let errors = node.get("errors").and_then(|node| node.whole(1, 1_000_000));
    ejection.errors = errors.map_or(ejection.errors, |errors| errors as u32);
    let share = node.get("share");
    let share = share.and_then(|node| node.percent(SHARE, |it| it > 0.0 && it <= 100.0));
    ejection.share_max = share.unwrap_or(ejection.share_max);
    Some(ejection)
}

/// Reads the `limits:` of each endpoint.
pub(super) fn bounds(upstream: &Node<'_>) -> EndpointBounds {
    let mut bounds = EndpointBounds {
        connections: None,
        pending: PENDING,
    };
    let Some(node) = upstream.get("limits") else {
        return bounds;
    };
    node.keys(&[
        ("connections", "the number of connections, such as 500"),
        (
            "pending",
            "the number of requests that wait for a connection, such as 1024",
        ),
    ]);
    let count = |key: &str, low| Some(node.get(key)?.whole(low, 1_000_000)? as u32);
    bounds.connections = count("connections", 1);
    bounds.pending = count("pending", 0).unwrap_or(bounds.pending);
    bounds
}
