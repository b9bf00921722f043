//! `segments:`: how users are divided for display.

use super::name::{check_name, is_name};
use super::reader::Node;
use crate::experiment::segment::{
    SEGMENTS_MAX, SegmentSource, SegmentValues, UserSegment, VALUES_MAX,
};

const FORMS: &str =
    "device, returning, or { header: NAME, values: [ … ] }, also with cookie or query";
const VALUES: &str = "1 to 12 values of letters, digits, `_`, `.` and `-`, such as [ free, pro ]";

/// Reads `segments`.
pub(super) fn read(root: &Node<'_>) -> Box<[UserSegment]> {
    let Some(node) = root.get("segments") else {
        return Box::default();
    };
    let named = node.named("segment");
    if named.len() > SEGMENTS_MAX {
        node.problem(
            format!("{} segments", named.len()),
            format!("at most {SEGMENTS_MAX}"),
        );
    }
    let read = |(name, node): &(String, Node<'_>)| {
        check_name(node, name);
        Some(UserSegment::new(name, source(node)?))
    };
    named.iter().filter_map(read).collect()
}

fn source(node: &Node<'_>) -> Option<SegmentSource> {
    if !node.is_map() {
        return node.read(FORMS, |text| match text {
            "device" => Some(SegmentSource::Device),
            "returning" => Some(SegmentSource::Returning),
            _ => None,
        });
    }
    node.keys(&[
        ("header", "the name of a header of the request"),
        ("cookie", "the name of a cookie"),
        ("query", "the name of a parameter of the query"),
        ("values", VALUES),
    ]);
    let (header, cookie, query) = (node.get("header"), node.get("cookie"), node.get("query"));
    let sources = [&header, &cookie, &query].into_iter().flatten().count();
    if sources != 1 {
        node.problem(
            format!("{sources} of header, cookie and query are written"),
            "write one of them",
        );
        return None;
    }
    let values = values(node)?;
    let name = "a name without spaces, `=` and `;`";
    let sound = |text: &str| !text.is_empty() && !text.contains(['=', ';', ' ', '&']);
    let text = |node: Node<'_>| node.read(name, |text| sound(text).then(|| text.into()));
    if let Some(header) = header {
        let name = header.read("the name of a header", |text| text.parse().ok())?;
        return Some(SegmentSource::Header(name, values));
    }
    match (cookie, query) {
        (Some(cookie), _) => {
            let name: Box<str> = text(cookie)?;
            node.reads_cookie(&name);
            Some(SegmentSource::Cookie(name, values))
        }
        (None, Some(query)) => Some(SegmentSource::Query(text(query)?, values)),
        (None, None) => None,
    }
}

/// The values that are told apart. They are named in the file, so that no client can make more.
fn values(node: &Node<'_>) -> Option<SegmentValues> {
    let Some(list) = node.get("values") else {
        node.missing("values", VALUES);
        return None;
    };
    let items = list.items();
    if items.is_empty() || items.len() > VALUES_MAX {
        list.problem(
            format!("{} values", items.len()),
            format!("{VALUES}; all others are counted as `other`"),
        );
        return None;
    }
    let value = |node: &Node<'_>| node.read(VALUES, |text| is_name(text).then(|| text.into()));
    let mut values: Vec<Box<str>> = items.iter().filter_map(value).collect();
    values.sort_unstable();
    values.dedup();
    Some(values.into())
}
