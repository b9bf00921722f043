//! `access_log:`, `request_id:` and `trace:` — what can be seen of single requests.

use super::node::Node;
use super::plan::{AccessLog, LogTo, LogUser, Tracing};
use crate::experiment::assign::Share;

const TO: &str = "true, stdout, stderr, the path of a file, or { to, sample, user, query }";

/// Where requests are logged, and what of them; `None` when they are not.
pub fn access_log(root: &Node<'_>) -> Option<AccessLog> {
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
        ("user", "what is told of the user's ID: hashed, raw or none"),
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

const SHARE: &str = "a percentage from 0% to 100%, with its sign";

fn share(node: &Node<'_>) -> Option<Share> {
    let share = node.percent(SHARE, |percent| (0.0..=100.0).contains(&percent))?;
    Share::new(share)
}

fn to(node: &Node<'_>) -> Option<LogTo> {
    match node.text(TO)? {
        "stdout" => Some(LogTo::Stdout),
        "stderr" => Some(LogTo::Stderr),
        "" => {
            node.problem("no path", TO);
            None
        }
        path => Some(LogTo::File(node.file(path))),
    }
}

/// What requests are given to be told apart by. Requests that are logged have an ID unless the
/// file says otherwise.
pub fn tracing(root: &Node<'_>, logged: bool) -> Tracing {
    let request_id = root.get("request_id").and_then(|node| node.boolean());
    let start = root.get("trace").and_then(|node| match node.flag() {
        Some(true) => Some(Share::ALL),
        Some(false) => None,
        None => share(&node),
    });
    Tracing {
        request_id: request_id.unwrap_or(logged),
        start,
    }
}
