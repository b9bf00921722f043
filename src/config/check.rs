//! From the file to the plan, all problems said at once.

use super::experiments::{self, Known};
use super::identity;
use super::metrics;
use super::node::{Node, Reading, check_name};
use super::plan::{Admin, Endpoint, Journal, Limits, Plan, Store, Timeouts, Upstream};
use crate::experiment::{Experiment, GroupIndex, UpstreamIndex};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

const KEYS: &[(&str, &str)] = &[
    (
        "listen",
        "where the public is listened to, such as 0.0.0.0:8080",
    ),
    ("admin", "{ listen: 127.0.0.1:9900, token: … }"),
    (
        "store",
        "redis://host:port, or the path of a file; watershed.db beside this file unless given",
    ),
    ("journal", "{ path, sync_interval, quota }"),
    ("workers", "a whole number; one for each core unless given"),
    (
        "user",
        "where the user's ID stands: { cookie: NAME }, { header: NAME }, { query: NAME }, { jwt: CLAIM }, or a list",
    ),
    (
        "identity",
        "{ name, max_age, domain, path, same_site, secure, http_only, max_length, store }",
    ),
    (
        "upstreams",
        "a name for each version of the site, then its address",
    ),
    (
        "default",
        "the upstream of everything that no experiment claims",
    ),
    ("experiments", "a name for each experiment, then its groups"),
    ("metrics", "a name for each metric, then what counts"),
    (
        "timeouts",
        "{ head, idle, body, connect, response, tunnel, shutdown }",
    ),
    ("limits", "{ head, headers, target, body, connections }"),
    (
        "trust",
        "a list of networks whose X-Forwarded-* are believed, such as 10.0.0.0/8",
    ),
    ("overrides", "{ secret: … }"),
    (
        "show_group",
        "whether answers carry Watershed-Group: true or false",
    ),
    ("tls", "not supported by this version"),
    ("consent", "not supported by this version"),
];

/// What the file means. With problems noted in the reading, what is returned is of no use.
pub fn plan(root: &Node<'_>, cores: usize, digest: u64) -> Plan {
    root.keys(KEYS);
    for key in ["tls", "consent"] {
        if let Some(node) = root.get(key) {
            node.problem(
                "this version does not support it yet",
                format!("leave `{key}` out"),
            );
        }
    }
    let listen = root.get("listen").and_then(|node| address(&node));
    let listen = listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)));
    let upstreams = upstreams(root, listen);
    let names: Vec<&str> = upstreams.iter().map(|upstream| &*upstream.name).collect();
    let metrics = metrics::read(root.get("metrics"));
    let known = Known {
        upstreams: &names,
        metrics: &metrics,
    };
    let experiments = experiments::read(root.get("experiments"), &known);
    let default = default_upstream(root, &names, &experiments);
    let workers = root
        .get("workers")
        .and_then(|node| node.whole(1, 1024))
        .map(|workers| workers as usize);
    Plan {
        listen,
        admin: admin(root, listen),
        store: store(root),
        journal: journal(root),
        workers: workers.unwrap_or(cores),
        identity: identity::read(root),
        upstreams: upstreams.into(),
        default,
        experiments: experiments.into(),
        metrics: metrics.into(),
        timeouts: timeouts(root),
        limits: limits(root),
        trust: trust(root),
        override_secret: root.get("overrides").and_then(|node| {
            node.keys(&[("secret", "a long random text; or ${NAME}, or file:PATH")]);
            let Some(secret) = node.get("secret") else {
                node.missing(
                    "secret",
                    "a long random text, such as `openssl rand -hex 32` prints",
                );
                return None;
            };
            let kept = secret.secret("a text")?;
            if kept.reveal().len() < 16 {
                secret.problem(
                    "the secret is shorter than 16 bytes",
                    "a long random text, such as `openssl rand -hex 32` prints",
                );
            }
            Some(kept)
        }),
        show_group: root
            .get("show_group")
            .and_then(|node| node.boolean())
            .unwrap_or(false),
        digest,
    }
}

/// `0.0.0.0:8080`, `:8080` or `8080`.
fn address(node: &Node<'_>) -> Option<SocketAddr> {
    node.read(
        "an address and a port, such as 0.0.0.0:8080, [::1]:8080 or 8080",
        |text| {
            let port = text.strip_prefix(':').unwrap_or(text);
            let everywhere = || {
                port.parse()
                    .ok()
                    .map(|port: u16| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
            };
            text.parse().ok().or_else(everywhere)
        },
    )
}

fn admin(root: &Node<'_>, public: SocketAddr) -> Admin {
    let node = root.get("admin");
    if let Some(node) = &node {
        node.keys(&[
            ("listen", "an address and a port, such as 127.0.0.1:9900"),
            ("token", "a text; or ${NAME}, or file:PATH"),
        ]);
    }
    let written = node.as_ref().and_then(|node| node.get("listen"));
    let listen = written
        .as_ref()
        .and_then(address)
        .unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 9900)));
    let token_node = node.as_ref().and_then(|node| node.get("token"));
    let token = token_node.as_ref().and_then(|node| node.secret("a text"));
    if let (Some(node), Some(token)) = (&token_node, &token)
        && token.reveal().is_empty()
    {
        node.problem(
            "the token is empty",
            "a long random text, such as `openssl rand -hex 32` prints",
        );
    }
    if let Some(node) = written {
        if !listen.ip().is_loopback() && token_node.is_none() {
            let hint = "write `admin: { listen: …, token: … }`, or listen on 127.0.0.1";
            node.problem(
                format!("{listen} can be reached from elsewhere, and no token is asked for"),
                hint,
            );
        }
        if listen == public && listen.port() != 0 {
            node.problem(
                format!("{listen} is where the public is listened to"),
                "write another port",
            );
        }
    }
    Admin { listen, token }
}

fn store(root: &Node<'_>) -> Store {
    const ALLOWED: &str = "redis://[user:password@]host:port, or the path of a file";
    let embedded = |path: &str| Store::Embedded {
        path: root.file(path),
    };
    let Some(node) = root.get("store") else {
        return embedded("watershed.db");
    };
    let mut prefix: Box<str> = "ws".into();
    let written = if node.is_map() {
        node.keys(&[
            ("url", ALLOWED),
            ("prefix", "what every key begins with; ws unless given"),
        ]);
        if let Some(given) = node.get("prefix") {
            let sound =
                |text: &str| !text.is_empty() && !text.contains(['{', '}']) && text.len() <= 64;
            let read = given.read("1 to 64 characters without { and }", |text| {
                sound(text).then(|| text.into())
            });
            prefix = read.unwrap_or(prefix);
        }
        node.get("url")
    } else {
        Some(node.clone())
    };
    let Some(written) = written else {
        node.missing("url", ALLOWED);
        return embedded("watershed.db");
    };
    let Some(url) = written.secret(ALLOWED) else {
        return embedded("watershed.db");
    };
    match url.reveal().split_once("://") {
        Some(("redis" | "valkey", _)) => Store::Redis { url, prefix },
        Some((scheme, _)) => {
            written.problem(
                format!("a store of the kind {scheme}://"),
                format!("{ALLOWED}; redis:// without TLS is what this version supports"),
            );
            embedded("watershed.db")
        }
        None => embedded(url.reveal()),
    }
}

fn journal(root: &Node<'_>) -> Journal {
    let mut journal = Journal {
        path: root.file("watershed-journal"),
        sync_interval: Duration::from_secs(1),
        quota_bytes: 1 << 30,
    };
    let Some(node) = root.get("journal") else {
        return journal;
    };
    node.keys(&[
        (
            "path",
            "a folder; watershed-journal beside this file unless given",
        ),
        (
            "sync_interval",
            "what a power cut may cost at most, such as 1s",
        ),
        (
            "quota",
            "what it may grow to while the store is away, such as 1GiB",
        ),
    ]);
    if let Some(path) = node
        .get("path")
        .and_then(|node| node.text("the path of a folder"))
    {
        journal.path = root.file(path);
    }
    journal.sync_interval = node
        .get("sync_interval")
        .and_then(|node| node.duration())
        .unwrap_or(journal.sync_interval);
    if let Some(quota) = node.get("quota") {
        const LEAST: u64 = 32 << 20;
        match quota.bytes() {
            Some(bytes) if bytes < LEAST => quota.problem("less than 32MiB", "at least 32MiB"),
            Some(bytes) => journal.quota_bytes = bytes,
            None => {}
        }
    }
    journal
}

fn upstreams(root: &Node<'_>, listen: SocketAddr) -> Vec<Upstream> {
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

fn default_upstream(root: &Node<'_>, names: &[&str], experiments: &[Experiment]) -> UpstreamIndex {
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

fn timeouts(root: &Node<'_>) -> Timeouts {
    let node = root.get("timeouts");
    if let Some(node) = &node {
        node.keys(&[
            ("head", "for a request's head"),
            ("idle", "a kept connection without a request"),
            ("body", "between two pieces of a body"),
            ("connect", "for a connection to an endpoint"),
            ("response", "to the head of the upstream's answer"),
            ("tunnel", "the quiet time of an upgraded connection"),
            ("shutdown", "for finishing what runs when told to stop"),
        ]);
    }
    let time = |key: &str, default: u64| {
        let written = node
            .as_ref()
            .and_then(|node| node.get(key))
            .and_then(|node| {
                let time = node.duration()?;
                if time.is_zero() {
                    node.problem("no time at all", "more than 0s");
                }
                Some(time)
            });
        written.unwrap_or(Duration::from_secs(default))
    };
    Timeouts {
        head: time("head", 10),
        idle: time("idle", 60),
        body: time("body", 30),
        connect: time("connect", 2),
        response: time("response", 60),
        tunnel: time("tunnel", 3600),
        shutdown: time("shutdown", 30),
    }
}

fn limits(root: &Node<'_>) -> Limits {
    let mut limits = Limits {
        head_bytes: 64 << 10,
        headers: 200,
        target_bytes: 16 << 10,
        body_bytes: None,
        connections: 20_000,
    };
    let Some(node) = root.get("limits") else {
        return limits;
    };
    node.keys(&[
        ("head", "the size of a request's head, such as 64KiB"),
        ("headers", "how many header fields, such as 200"),
        ("target", "the size of a request's target, such as 16KiB"),
        (
            "body",
            "the size of a request's body, such as 10MiB, or none",
        ),
        ("connections", "how many client connections, such as 20000"),
    ]);
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
    limits.target_bytes = size("target", limits.target_bytes);
    let count = |key: &str, high: u64| {
        node.get(key)
            .and_then(|node| node.whole(1, high))
            .map(|count| count as usize)
    };
    limits.headers = count("headers", 10_000).unwrap_or(limits.headers);
    limits.connections = count("connections", 1_000_000).unwrap_or(limits.connections);
    if let Some(body) = node.get("body")
        && *body.value != super::file::Value::Text("none".to_owned())
    {
        limits.body_bytes = body.bytes();
    }
    limits
}

fn trust(root: &Node<'_>) -> Box<[IpNet]> {
    let items = root
        .get("trust")
        .map(|node| node.items())
        .unwrap_or_default();
    let network = |node: &Node<'_>| {
        node.read(
            "a network or an address, such as 10.0.0.0/8 or 127.0.0.1",
            |text| {
                text.parse()
                    .ok()
                    .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
            },
        )
    };
    items.iter().filter_map(network).collect()
}

/// Makes the root of a reading.
pub fn root<'a>(reading: &'a Reading<'a>, value: &'a super::file::Value) -> Node<'a> {
    Node {
        reading,
        path: Vec::new(),
        value,
    }
}
