//! `store:`: the store of the counts.

use super::plan::{Secret, StoreConfig};
use super::reader::Node;
use super::tls::{self, Watched};
use crate::features::Feature;
use std::path::PathBuf;

const ALLOWED: &str = "redis://[user:password@]host:port (rediss:// for TLS; any nodes of a cluster, separated by commas), redis+sentinel://host:port,host:port/master, postgres://user[:password]@host[:port]/database (?sslmode=require for TLS), or the path of a file";

const KEYS: &[(&str, &str)] = &[
    ("url", ALLOWED),
    (
        "prefix",
        "the prefix of every key in Redis; ws unless given",
    ),
    (
        "schema",
        "the schema of all tables in PostgreSQL; watershed unless given",
    ),
    (
        "ca",
        "a PEM file with the certificates to trust, of authorities or the store's own; the system's roots unless given",
    ),
    (
        "certificate",
        "a PEM file with the client certificate for the store",
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
    let keys = StoreKeys {
        prefix: prefix(&node),
        schema: schema(&node),
        ca: file(root, &node, "ca"),
        identity: identity(root, &node),
    };
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
        )) => in_redis(&node, &written, url, keys, watched),
        Some(("postgres" | "postgresql", _)) => in_postgres(&node, &written, url, keys, watched),
        Some((scheme, _)) => {
            written.problem(format!("{scheme}:// is not a known store"), ALLOWED);
            embedded("watershed.db")
        }
        None => {
            check_path(&written, url.reveal());
            is_without(&node, "schema", "only PostgreSQL has schemas");
            without_tls(&node, "a file", "name a server in its address");
            embedded(url.reveal())
        }
    }
}

/// The keys beside the address.
struct StoreKeys {
    prefix: Box<str>,
    schema: Box<str>,
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

fn in_redis(
    node: &Node<'_>,
    written: &Node<'_>,
    url: Secret,
    keys: StoreKeys,
    watched: &mut Watched,
) -> StoreConfig {
    written.needs(Feature::Redis, "name a file, which counts for one process");
    check_address(written, url.reveal());
    is_without(node, "schema", "only PostgreSQL has schemas");
    let is_secure = ["rediss", "valkeys"]
        .iter()
        .any(|scheme| url.reveal().starts_with(scheme));
    check_tls(node, is_secure, "write rediss:// in its address", watched);
    StoreConfig::Redis {
        url,
        prefix: keys.prefix,
        ca: keys.ca,
        identity: keys.identity,
    }
}

fn in_postgres(
    node: &Node<'_>,
    written: &Node<'_>,
    url: Secret,
    keys: StoreKeys,
    watched: &mut Watched,
) -> StoreConfig {
    written.needs(
        Feature::Postgres,
        "name a file, which counts for one process",
    );
    let is_secure = check_postgres(written, url.reveal());
    let why = "only keys of Redis have a prefix; `schema` names the schema in PostgreSQL";
    is_without(node, "prefix", why);
    let how = "write ?sslmode=require at the end of its address";
    check_tls(node, is_secure, how, watched);
    StoreConfig::Postgres {
        url,
        schema: keys.schema,
        ca: keys.ca,
        identity: keys.identity,
    }
}

#[cfg(feature = "redis")]
fn check_address(written: &Node<'_>, url: &str) {
    use crate::redis_address::Address;
    use crate::tls::TlsFiles;
    if let Err(error) = Address::read(url, TlsFiles::default()) {
        written.problem(format!("the address is invalid: {error}"), ALLOWED);
    }
}

/// The missing feature is an error already.
#[cfg(not(feature = "redis"))]
fn check_address(_: &Node<'_>, _: &str) {}

/// Reports an invalid address. Returns whether it asks for TLS.
#[cfg(feature = "postgres")]
fn check_postgres(written: &Node<'_>, url: &str) -> bool {
    use crate::postgres_address::PostgresAddress;
    match PostgresAddress::read(url, crate::tls::TlsFiles::default()) {
        Ok(address) => address.tls.is_some(),
        Err(error) => {
            written.problem(format!("the address is invalid: {error}"), ALLOWED);
            true
        }
    }
}

/// The missing feature is an error already.
#[cfg(not(feature = "postgres"))]
fn check_postgres(_: &Node<'_>, _: &str) -> bool {
    true
}

/// Reports a key that would have no effect.
fn is_without(node: &Node<'_>, key: &str, why: &str) {
    if let Some(found) = node.get(key) {
        found.problem(why.to_owned(), format!("leave `{key}` out"));
    }
}

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

fn schema(node: &Node<'_>) -> Box<str> {
    let allowed =
        "1 to 63 lower-case letters, digits and _, with a letter first; pg_ is PostgreSQL's own";
    let schema = node.get("schema").and_then(|node| {
        node.read(allowed, |text| {
            let is_part =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            let is_valid = (1..=63).contains(&text.len())
                && text.starts_with(|first: char| first.is_ascii_lowercase())
                && text.bytes().all(is_part)
                && !text.starts_with("pg_");
            is_valid.then(|| text.into())
        })
    });
    schema.unwrap_or_else(|| "watershed".into())
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
            "a PEM file with the client certificate for the store",
        ),
    }
    None
}

/// Checks the files of a store over TLS. They are read for each connection, and should be valid
/// before.
fn check_tls(node: &Node<'_>, is_secure: bool, how: &str, watched: &mut Watched) {
    if !is_secure {
        return without_tls(node, "reached without TLS", how);
    }
    tls::trust(node, node.get("ca").as_ref(), "store.ca", watched);
    if let (Some(certificate), Some(key)) = (node.get("certificate"), node.get("key")) {
        tls::pair(&certificate, &key, watched);
    }
}

/// Reports files for TLS that would have no effect, and `how` they would have one.
fn without_tls(node: &Node<'_>, what: &str, how: &str) {
    for key in ["ca", "certificate", "key"] {
        if let Some(file) = node.get(key) {
            file.problem(
                format!("the store is {what}"),
                format!("{how}, or leave `{key}` out"),
            );
        }
    }
}
