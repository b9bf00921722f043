//! `robots:`, `exclude:` and `preflight:`: who is served but not counted.

use super::file::Value;
use super::reader::Node;
use super::{conditions, limits};
use crate::experiment::admission::ListedIds;
use crate::experiment::identity;
use crate::experiment::not_counted::{CountingRules, Exclusion};
use crate::experiment::robots::Robots;
use crate::experiment::{UpstreamIndex, UserId};
use crate::regular_file;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const ROBOTS: &[(&str, &str)] = &[
    (
        "serve",
        "control, or assigned: the group of a robot that has a user ID",
    ),
    (
        "also",
        "parts of User-Agent that robots have besides those that are known, such as acme-monitor",
    ),
    (
        "never",
        "parts of User-Agent of clients that are never robots, such as HeadlessChrome",
    ),
    ("networks", "networks of robots, such as 192.0.2.0/24"),
];
const EXCLUSION: &[(&str, &str)] = &[
    ("network", "a network, such as 10.0.0.0/8, or a list"),
    (
        "header",
        "header names, each with a value, or `true` for any",
    ),
    (
        "cookie",
        "cookie names, each with a value, or `true` for any",
    ),
    (
        "ids",
        "user IDs: a list, or file:PATH with one ID on each line",
    ),
];
const PART: &str =
    "a part of User-Agent, at least 3 letters, without `*`: any text may stand around it";
/// Larger files are probably not meant: a list of staff has thousands of IDs.
const IDS_BYTES_MAX: u64 = 16 << 20;

/// Reads `robots`, `exclude` and `preflight`.
pub(super) fn read(
    root: &Node<'_>,
    upstreams: &[&str],
    watched: &mut Vec<PathBuf>,
) -> CountingRules {
    let mut rules = CountingRules {
        robots: Some(Robots::default()),
        ..CountingRules::default()
    };
    match root.get("robots") {
        None => {}
        Some(node) if node.flag() == Some(false) => rules.robots = None,
        Some(node) if node.flag() == Some(true) => {}
        Some(node) => robots(&node, &mut rules),
    }
    let exclude = root.get("exclude").map(|node| node.items());
    let exclude = exclude.unwrap_or_default();
    rules.exclusions = exclude
        .iter()
        .flat_map(|node| exclusions(node, watched))
        .collect();
    rules.preflight = root.get("preflight").and_then(|node| {
        let name = node.text("the name of an upstream")?;
        let place = upstreams.iter().position(|upstream| *upstream == name);
        if place.is_none() {
            node.unknown("upstream", name, upstreams.iter().copied());
        }
        place.map(UpstreamIndex)
    });
    rules
}

fn robots(node: &Node<'_>, rules: &mut CountingRules) {
    if !node.keys(ROBOTS) {
        return;
    }
    let serve = node.get("serve");
    let serve = serve.and_then(|node| node.word(&[("control", false), ("assigned", true)]));
    rules.robots_follow_group = serve.unwrap_or(false);
    let parts = |key: &str| {
        let items = node.get(key).map(|node| node.items()).unwrap_or_default();
        let is_sound = |text: &str| text.len() >= 3 && !text.contains('*');
        let read = |text: &str| is_sound(text.trim()).then(|| text.trim().into());
        let parts = items.iter().filter_map(|node| node.read(PART, read));
        parts.collect()
    };
    rules.robots = Some(Robots {
        also: parts("also"),
        never: parts("never"),
    });
    let networks = node.get("networks").map(|node| node.items());
    let networks = networks.unwrap_or_default();
    rules.robot_networks = networks.iter().filter_map(limits::network).collect();
}

/// The conditions of one item. Each of its keys leaves requests out.
fn exclusions(node: &Node<'_>, watched: &mut Vec<PathBuf>) -> Vec<Exclusion> {
    if !node.keys(EXCLUSION) {
        return Vec::new();
    }
    let named = |key: &str| {
        node.get(key)
            .map(|node| node.named(key))
            .unwrap_or_default()
    };
    let networks = node.get("network").map(|node| node.items());
    let networks = networks.unwrap_or_default();
    let mut all: Vec<_> = networks
        .iter()
        .filter_map(limits::network)
        .map(Exclusion::Network)
        .collect();
    let headers = named("header");
    let cookies = named("cookie");
    // They say who is left out, as a password does.
    let hidden = headers.iter().chain(&cookies);
    hidden.for_each(|(_, node)| node.hide());
    let headers = headers.iter().filter_map(conditions::header);
    all.extend(headers.map(|(name, test)| Exclusion::Header(name, test)));
    let cookies = cookies.iter().filter_map(conditions::cookie);
    all.extend(cookies.map(|(name, test)| Exclusion::Cookie(name, test)));
    if let Some(ids) = node.get("ids").and_then(|node| ids(&node, watched)) {
        all.push(Exclusion::Ids(ids));
    }
    if all.is_empty() && matches!(node.value, Value::Map(map) if map.is_empty()) {
        node.problem("no condition", "write network, header, cookie or ids");
    }
    all
}

/// Reads user IDs: a list, or a file with one on each line. Empty lines, and those that begin with `#`, are
/// none.
pub(super) fn ids(node: &Node<'_>, watched: &mut Vec<PathBuf>) -> Option<ListedIds> {
    const IDS: &str = "user IDs, or file:PATH with one ID on each line";
    let sound = |id: &str| {
        let id = UserId::trim(id.as_bytes());
        (!identity::is_no_id(id)).then(|| id.into())
    };
    let path = match node.value {
        Value::Text(text) => text.strip_prefix("file:"),
        _ => None,
    };
    let Some(path) = path else {
        let items = node.items();
        let ids = items.iter().filter_map(|node| node.read(IDS, sound));
        return Some(Arc::new(ids.collect()));
    };
    let path = node.file(path);
    watched.push(path.clone());
    let reading = node.reading;
    let ids = match read_ids(&path) {
        Ok(ids) => Arc::new(ids),
        Err(error) => match reading.known_ids.get(&path) {
            Some(known) => {
                let text = format!("{} cannot be read: {error}", path.display());
                node.warn(text, "the IDs that were read before stay in use");
                Arc::clone(known)
            }
            None => {
                node.problem(
                    format!("{} cannot be read: {error}", path.display()),
                    "make the file readable, or name another one",
                );
                return None;
            }
        },
    };
    reading.id_lists.borrow_mut().insert(path, Arc::clone(&ids));
    Some(ids)
}

fn read_ids(path: &Path) -> std::io::Result<BTreeSet<Box<[u8]>>> {
    if std::fs::metadata(path)?.len() > IDS_BYTES_MAX {
        return Err(std::io::Error::other("it is larger than 16 MiB"));
    }
    let bytes = regular_file::read(path)?;
    // Some editors begin a file with a byte order mark.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let lines = bytes.split(|&byte| byte == b'\n');
    let lines = lines.map(|line| UserId::trim(line.trim_ascii()));
    let ids = lines.filter(|line| !line.starts_with(b"#") && !identity::is_no_id(line));
    Ok(ids.map(Into::into).collect())
}
