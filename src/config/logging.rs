//! `access_log:`: where requests are logged, and which of their properties.

use super::plan::{AccessLog, LogTo, LogUser};
use super::reader::Node;
use crate::experiment::assign::Share;

const TO: &str = "true, stdout, stderr, the path of a file, or { to, sample, user, query }";

/// Reads `access_log`. Returns `None` when requests are not logged.
pub(super) fn access_log(root: &Node<'_>) -> Option<AccessLog> {
    let node = root.get("access_log")?;
    let mut log = AccessLog {
        to: LogTo::Stdout,
        sample: Share::ALL,
        user: LogUser::Hashed,
        query: false,
    };
    if let Some(on) = node.flag() {
        return on.then_some(log);
    }
    if !node.is_map() {
        log.to = to(&node)?;
        return Some(log);
    }
    node.keys(&[
        ("to", "stdout, stderr or the path of a file"),
        ("sample", SHARE),
        ("user", "how the user ID is logged: hashed, raw or none"),
        ("query", "whether the query is logged: true or false"),
    ]);
    if let Some(node) = node.get("to") {
        log.to = to(&node)?;
    }
    log.sample = node
        .get("sample")
        .and_then(|node| share(&node))
        .unwrap_or(log.sample);
    let words = [
        ("hashed", LogUser::Hashed),
        ("raw", LogUser::Raw),
        ("none", LogUser::None),
    ];
    let user = node.get("user").and_then(|node| node.word(&words));
    log.user = user.unwrap_or(log.user);
    let query = node.get("query").and_then(|node| node.boolean());
    log.query = query.unwrap_or(log.query);
    Some(log)
}

/// How a share of requests is written.
pub(super) const SHARE: &str = "a percentage from 0% to 100%, with its sign";

/// Reads a share of requests.
pub(super) fn share(node: &Node<'_>) -> Option<Share> {
    let share = node.percent(SHARE, |percent| (0.0..=100.0).contains(&percent))?;
    Share::new(share)
}

fn to(node: &Node<'_>) -> Option<LogTo> {
    match node.path_text(TO)? {
        "stdout" => Some(LogTo::Stdout),
        "stderr" => Some(LogTo::Stderr),
        "" => {
            node.problem("no path", TO);
            None
        }
        path => Some(LogTo::File(node.file(path))),
    }
}
