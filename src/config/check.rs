//! Reads the file into the plan, and reports all diagnostics at once.

use super::admission;
use super::experiments::{self, Known};
use super::identity;
use super::metrics;
use super::plan::{Journal, Plan};
use super::reader::{Node, ReadContext};
use super::{
    admin, archive, counting, error_pages, forward, lifecycle, limits, logging, plan, privacy,
    routes, segments, server_tls, tracing, upstreams, webhooks,
};
use crate::experiment::key_ring::KeyRing;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

const KEYS: &[(&str, &str)] = &[
    ("listen", "the public address, such as 0.0.0.0:8080"),
    ("admin", "{ listen: 127.0.0.1:9900, token: … }"),
    (
        "store",
        "redis://host:port, or the path of a file; watershed.db beside this file unless given",
    ),
    ("journal", "{ path, sync_interval, quota }"),
    ("workers", "a whole number; one per core unless given"),
    (
        "user",
        "the source of the user ID: { cookie: NAME }, { header: NAME }, { query: NAME }, { jwt: CLAIM }, or a list",
    ),
    (
        "identity",
        "{ name, max_age, domain, path, same_site, secure, http_only, max_length, join, store, key, keys }",
    ),
    ("upstreams", "a name for each upstream, then its address"),
    (
        "default",
        "the upstream of requests that match no experiment and no route",
    ),
    (
        "dns",
        "{ servers: [127.0.0.1:53] }: the name servers that know the addresses of endpoints; those of the system unless given",
    ),
    (
        "routes",
        "a list of { match, upstream, redirect, respond, headers, … } for requests that no experiment claims: the first that matches decides",
    ),
    (
        "error_pages",
        "pages for errors that watershed answers: 413, 429, 502, 503 and 504, each with { headers, body, file }",
    ),
    (
        "https",
        "{ redirect: true, port: 443, hsts: 365d }: redirects requests without TLS, and tells browsers to use TLS",
    ),
    ("experiments", "a name for each experiment, then its groups"),
    (
        "metrics",
        "a name for each metric, then the event or rule that counts",
    ),
    (
        "segments",
        "a name for each segment, then device, returning or { header: NAME, values: [ … ] }",
    ),
    (
        "timeouts",
        "{ head, idle, body, connect, response, total, tunnel, grace, shutdown }",
    ),
    (
        "limits",
        "{ head, headers, target, body, connections, requests, rate }",
    ),
    (
        "trust",
        "a list of networks whose X-Forwarded-* headers are trusted, such as 10.0.0.0/8",
    ),
    ("overrides", "{ secret: … }"),
    (
        "show_group",
        "whether responses carry Watershed-Group: true or false",
    ),
    (
        "cache",
        "how shared caches keep groups apart: vary, private or off, or { upstream, header, routes }",
    ),
    (
        "access_log",
        "true, stdout, stderr, the path of a file, or { to, sample, user, query }",
    ),
    (
        "request_id",
        "whether requests get an X-Request-Id: true or false",
    ),
    (
        "trace",
        "whether requests get a traceparent: true, false, the sampled percentage, or { sample, otlp }",
    ),
    ("consent", "{ cookie: NAME, value: … }"),
    (
        "robots",
        "true, false, or { serve, also, never, networks }: robots get control and are not counted",
    ),
    (
        "exclude",
        "who gets control and is not counted: a list of { network }, { header }, { cookie }, { ids }",
    ),
    (
        "preflight",
        "the upstream of CORS preflights; the default upstream unless given",
    ),
    (
        "events",
        "{ path, origins, body, per_minute, per_minute_per_address, browser }",
    ),
    (
        "holdout",
        "users who are in no experiment: { share: 5%, experiments: [NAME] }",
    ),
    (
        "retired",
        "names of experiments that left the file after a promotion, which ends: a list",
    ),
    (
        "retention",
        "how long users are kept after their experiment ended, such as 90d; forever unless given",
    ),
    (
        "tls",
        "{ listen: 0.0.0.0:8443, certificates: { cert: FILE, key: FILE }, acme, min_version, ciphers, client_certificates }",
    ),
    ("files", FILES),
    (
        "archive",
        "{ to, every, backlog }: where all exposures and events are written as Parquet",
    ),
    (
        "forward",
        "where exposures and events are sent: a list of { to: segment, write_key }, or to: posthog, ga4, snowplow, webhook, otlp",
    ),
    (
        "webhooks",
        "who is told of winners, harm and the like: a list of { url, secret, on }",
    ),
];
const FILES: &str = "more files with upstreams, experiments and metrics: a list of paths or patterns, relative to this file";

/// Reads the plan. If the context has diagnostics afterwards, the returned plan is incomplete.
pub(super) fn plan(root: &Node<'_>, cores: usize, digest: u64) -> Plan {
    root.keys(KEYS);
    files(root);
    let listen = listen(root);
    let mut watched = Vec::new();
    let upstreams = upstreams::read(root, listen, &mut watched);
    let names: Vec<&str> = upstreams.iter().map(|upstream| &*upstream.name).collect();
    let mut metrics = metrics::read(root.get("metrics"));
    let known = Known {
        upstreams: &names,
        metrics: &metrics,
    };
    let (experiments, units) = experiments::read(root, &known, &mut watched);
    metrics::covariates_of_experiments(root, &experiments, &mut metrics);
    let webhooks = webhooks::read(root, &mut watched);
    lifecycle::confirmations(root, &experiments, &webhooks);
    let default = upstreams::default(root, &names, &experiments);
    let known = (&*names, default, &*experiments);
    let routes = routes::read(root, known, &mut watched);
    let access_log = logging::access_log(root);
    let counting = counting::read(root, &names, &mut watched);
    let (journal, secret) = (journal(root), random_secret(root));
    let keys = |purpose| KeyRing::new(purpose, &secret, []);
    Plan {
        listen,
        tls: server_tls::read(root, &mut watched),
        admin: admin::read(root, listen, keys(plan::SESSION_KEYS), &mut watched),
        store: super::store::store(root, &mut watched),
        archive: archive::read(root, journal.quota_bytes),
        forward: forward::read(root, (listen, &journal, &metrics), &mut watched),
        journal,
        workers: workers(root).unwrap_or(cores),
        identity: identity::read(root, keys(plan::IDENTITY_KEYS)),
        upstreams: upstreams.into(),
        default,
        name_servers: upstreams::name_servers(root),
        routes: routes.into(),
        https: routes::https(root),
        error_pages: error_pages::read(root, &mut watched),
        experiments: experiments.into(),
        units: units.into(),
        holdout: admission::whole_holdout(root),
        metrics: metrics.into(),
        segments: segments::read(root),
        timeouts: limits::timeouts(root),
        limits: limits::limits(root),
        trust: limits::trust(root),
        cache: super::cache::read(root),
        tracing: tracing::read(root, access_log.is_some(), listen, &mut watched),
        access_log,
        override_secret: override_secret(root),
        consent: privacy::consent(root),
        counting,
        beacon: privacy::beacon(root),
        retention: privacy::retention(root),
        retired: lifecycle::retired(root),
        cookies_read: Box::default(),
        definitions: BTreeMap::new(),
        webhooks: webhooks.into(),
        show_group: root.get("show_group").and_then(|node| node.boolean()) == Some(true),
        digest,
        redacted_file: serde_json::Value::Null,
        secrets: 0,
        content: "{}".into(),
        id_lists: root.reading.id_lists.take(),
        watched: watched.into(),
        watched_patterns: Box::default(),
        warnings: Box::default(),
    }
}

/// Reads the number of workers.
fn workers(root: &Node<'_>) -> Option<usize> {
    let workers = root.get("workers")?.whole(1, 1024);
    workers.map(|workers| workers as usize)
}

/// Reports names of files that are no text. The files were read before.
fn files(root: &Node<'_>) {
    for node in root.get("files").iter().flat_map(|node| node.items()) {
        let _ = node.text(FILES);
    }
}

/// Reads the public address.
pub(super) fn listen(root: &Node<'_>) -> SocketAddr {
    let listen = root.get("listen").and_then(|node| node.listen_address());
    listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)))
}

/// Reads the secret that signs overrides.
fn override_secret(root: &Node<'_>) -> Option<plan::Secret> {
    let node = root.get("overrides")?;
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
}

/// Makes the secret that signs until the secret of the store replaces it.
fn random_secret(root: &Node<'_>) -> [u8; 32] {
    let mut secret = [0; 32];
    if let Err(error) = getrandom::fill(&mut secret) {
        root.problem(
            format!("the system returns no random numbers: {error}"),
            "let this process use getrandom(2) or read /dev/urandom",
        );
    }
    secret
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
            "the records of how long a power failure may lose, such as 1s",
        ),
        (
            "quota",
            "the size up to which it grows while the store is unavailable, such as 1GiB",
        ),
    ]);
    if let Some(path) = node
        .get("path")
        .and_then(|node| node.path_text("the path of a folder"))
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

/// Returns the root of the file.
pub(super) fn root<'a>(reading: &'a ReadContext<'a>, value: &'a super::file::Value) -> Node<'a> {
    Node {
        reading,
        path: Vec::new(),
        value,
    }
}
