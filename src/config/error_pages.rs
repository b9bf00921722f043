//! Own pages for errors that watershed answers: `error_pages`.

use super::plan::{ErrorPages, FixedResponse};
use super::reader::Node;
use super::routes;
use std::path::PathBuf;
use std::sync::Arc;

/// The statuses that may have a page: those of requests that could be read.
const STATUSES: [u16; 5] = [413, 429, 502, 503, 504];
const STATUS: &str = "413, 429, 502, 503 or 504: the errors that watershed answers itself";

/// Reads the pages.
pub(super) fn read(root: &Node<'_>, watched: &mut Vec<PathBuf>) -> ErrorPages {
    let mut pages = ErrorPages::new();
    let named = root.get("error_pages").map(|node| node.named("status"));
    for (name, node) in named.iter().flatten() {
        let status = name.parse().ok().filter(|it| STATUSES.contains(it));
        let Some(status) = status else {
            node.problem(format!("a page for `{name}`"), STATUS);
            continue;
        };
        node.keys(&[
            ("headers", "header names, each with its value"),
            ("body", "a text"),
            (
                "file",
                "the path of a file with the body, relative to this file",
            ),
        ]);
        if node.get("body").is_none() && node.get("file").is_none() {
            node.missing(
                "file",
                "the path of a file with the body, or `body` with a text",
            );
        }
        let mut page = FixedResponse {
            status,
            fields: Box::default(),
            body: Box::default(),
        };
        routes::content(node, &mut page, watched);
        pages.insert(status, Arc::new(page));
    }
    pages
}
