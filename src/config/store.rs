//! `store:`: the store of the counts.

use super::plan::StoreConfig;
use super::reader::Node;
use super::tls::{self, Watched};
use crate::features::Feature;
use std::path::PathBuf;

const ALLOWED: &str = "redis://[user:password@]host:port (rediss:// for TLS; any nodes of a cluster, separated by commas), redis+sentinel://host:port,host:port/master, or the path of a file";

const KEYS: &[(&str, &str)] = &[
    ("url", ALLOWED),
    (
        "prefix",
        "the prefix of every key in Redis; ws unless given",
    ),
    (
        "ca",
        "a PEM file with the certificates to trust, of authorities or Redis's own; the system's roots unless given",
    ),
    (
        "certificate",
        "a PEM file with the client certificate for Redis",
    ),
    ("key", "a PEM file with the certificate's key"),
];

/// Reads `store`; without it, a file beside the configuration.
pub(super) fn store(root: &Node<'_>, watched: &mut Watched) -> StoreConfig {
    let embedded = |path: &str| StoreConfig::Embedded {
        path: root.file(path),
    };
    let Some(node) = root.get("store") else {
        return embedded("watershed.db");
    };
    let written = if node.is_map() {
        node.keys(KEYS);
        node.get("url")
    } else {
        Some(node.clone())
    };
    // Read in any case, so that all their problems are reported.
    let (prefix, ca, identity) = (
        prefix(&node),
        file(root, &node, "ca"),
        identity(root, &node),
    );
    let Some(written) = written else {
        node.missing("url", ALLOWED);
        return embedded("watershed.db");
    };
    if written.refuses_old_boolean(ALLOWED) {
        return embedded("watershed.db");
    }
    let Some(url) = written.secret(ALLOWED) else {
        return embedded("watershed.db");
    };
    match url.reveal().split_once("://") {
        Some((
            "redis" | "rediss" | "valkey" | "valkeys" | "redis+sentinel" | "rediss+sentinel"
            | "valkey+sentinel" | "valkeys+sentinel",
            _,
        )) => {
            written.needs(Feature::Redis, "name a file, which counts for one process");
            check_address(&written, url.reveal());
            check_tls(&node, url.reveal(), watched);
            StoreConfig::Redis {
                url,
                prefix,
                ca,
                identity,
            }
        }
        Some((scheme, _)) => {
            written.problem(format!("{scheme}:// is not a known store"), ALLOWED);
            embedded("watershed.db")
        }
        None => {
            check_path(&written, url.reveal());
            without_tls(&node, "a file");
            embedded(url.reveal())
        }
    }
}

#[cfg(feature = "redis")]
fn check_address(written: &Node<'_>, url: &str) {
    use crate::redis_address::{Address, TlsFiles};
    if let Err(error) = Address::read(url, TlsFiles::default()) {
        written.problem(format!("the address is invalid: {error}"), ALLOWED);
    }
}

/// The missing feature is an error already.
#[cfg(not(feature = "redis"))]
fn check_address(_: &Node<'_>, _: &str) {}

/// Reports a path that is an address with a mistake, such as `localhost:6379`: it would become the
/// name of a file that nobody looks for.
fn check_path(written: &Node<'_>, path: &str) {
    let first = path.split('/').next().unwrap_or_default();
    if first.contains(':') {
        written.problem(
            "this is neither an address with :// nor a plain path".to_owned(),
            format!("{ALLOWED} (./ before the name of a file that has a colon)"),
        );
    }
}

fn prefix(node: &Node<'_>) -> Box<str> {
    let prefix = node.get("prefix").and_then(|node| {
        node.read("1 to 64 characters without { and }", |text| {
            let is_valid = (1..=64).contains(&text.len()) && !text.contains(['{', '}']);
            is_valid.then(|| text.into())
        })
    });
    prefix.unwrap_or_else(|| "ws".into())
}

fn file(root: &Node<'_>, node: &Node<'_>, key: &str) -> Option<PathBuf> {
    let path = node.get(key)?;
    path.text("the path of a PEM file")
        .map(|path| root.file(path))
}

/// Reads the client certificate and its key.
fn identity(root: &Node<'_>, node: &Node<'_>) -> Option<(PathBuf, PathBuf)> {
    match (file(root, node, "certificate"), file(root, node, "key")) {
        (Some(certificate), Some(key)) => return Some((certificate, key)),
        (None, None) => {}
        (Some(_), None) => node.missing("key", "a PEM file with the certificate's key"),
        (None, Some(_)) => node.missing(
            "certificate",
            "a PEM file with the client certificate for Redis",
        ),
    }
    None
}

/// Checks the files of a Redis over TLS. They are read for each connection, and should be valid
/// before.
fn check_tls(node: &Node<'_>, url: &str, watched: &mut Watched) {
    if !url.starts_with("rediss") && !url.starts_with("valkeys") {
        return without_tls(node, "reached without TLS");
    }
    tls::trust(node, node.get("ca").as_ref(), "store.ca", watched);
    if let (Some(certificate), Some(key)) = (node.get("certificate"), node.get("key")) {
        tls::pair(&certificate, &key, watched);
    }
}

/// Reports files for TLS that would have no effect.
fn without_tls(node: &Node<'_>, what: &str) {
    for key in ["ca", "certificate", "key"] {
        if let Some(file) = node.get(key) {
            file.problem(
                format!("the store is {what}"),
                format!("write rediss:// in its address, or leave `{key}` out"),
            );
        }
    }
}
