//! `store`: where the counts live.

use super::plan::StoreConfig;
use super::reader::Node;
use super::tls::{self, Watched};

const ALLOWED: &str = "redis://[user:password@]host:port (rediss:// for TLS; any nodes of a cluster, parted by commas), redis+sentinel://host:port,host:port/master, or the path of a file";

/// Reads `store`; without it, a file beside the configuration.
pub fn store(root: &Node<'_>, watched: &mut Watched) -> StoreConfig {
    let embedded = |path: &str| StoreConfig::Embedded {
        path: root.file(path),
    };
    let Some(node) = root.get("store") else {
        return embedded("watershed.db");
    };
    let mut prefix: Box<str> = "ws".into();
    let (mut ca, mut identity) = (None, None);
    let written = if node.is_map() {
        node.keys(&[
            ("url", ALLOWED),
            ("prefix", "what every key begins with; ws unless given"),
            (
                "ca",
                "a PEM file with the certificates to trust, of authorities or Redis's own; the system's roots unless given",
            ),
            ("certificate", "a PEM file that is shown to Redis"),
            ("key", "a PEM file with the certificate's key"),
        ]);
        if let Some(given) = node.get("prefix") {
            let sound =
                |text: &str| !text.is_empty() && !text.contains(['{', '}']) && text.len() <= 64;
            let read = given.read("1 to 64 characters without { and }", |text| {
                sound(text).then(|| text.into())
            });
            prefix = read.unwrap_or(prefix);
        }
        let file = |key| {
            let path = node.get(key)?;
            path.text("the path of a PEM file")
                .map(|path| root.file(path))
        };
        ca = file("ca");
        identity = match (file("certificate"), file("key")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => {
                node.missing("key", "a PEM file with the certificate's key");
                None
            }
            (None, Some(_)) => {
                node.missing("certificate", "a PEM file that is shown to Redis");
                None
            }
        };
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
        Some((
            "redis" | "rediss" | "valkey" | "valkeys" | "redis+sentinel" | "rediss+sentinel"
            | "valkey+sentinel" | "valkeys+sentinel",
            _,
        )) => {
            check_tls(&node, url.reveal(), watched);
            StoreConfig::Redis {
                url,
                prefix,
                ca,
                identity,
            }
        }
        Some((scheme, _)) => {
            written.problem(format!("a store of the kind {scheme}://"), ALLOWED);
            embedded("watershed.db")
        }
        None => {
            without_tls(&node, "a file");
            embedded(url.reveal())
        }
    }
}

/// Whether TLS to this Redis can be spoken: its files are read when it is connected to, and should
/// be sound before.
fn check_tls(node: &Node<'_>, url: &str, watched: &mut Watched) {
    if !url.starts_with("rediss") && !url.starts_with("valkeys") {
        return without_tls(node, "reached without TLS");
    }
    tls::trust(node, node.get("ca").as_ref(), "store.ca", watched);
    if let (Some(certificate), Some(key)) = (node.get("certificate"), node.get("key")) {
        tls::pair(&certificate, &key, watched);
    }
}

/// Says so where files for TLS would have no effect.
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
