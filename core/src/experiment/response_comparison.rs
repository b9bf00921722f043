//! Compares two responses to the same request by what users see of them. PURE.

use super::response_mask::{is_identifier, mask};

/// What is compared of a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComparedResponse {
    /// Its status.
    pub status: u16,
    /// Its `Content-Type`.
    pub content_type: Option<Box<[u8]>>,
    /// Its `Location`.
    pub location: Option<Box<[u8]>>,
    /// The beginning of its body, uncompressed.
    pub body: Vec<u8>,
    /// Whether the body goes on.
    pub is_cut: bool,
}

/// In what two responses differ: the first that is found, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DifferenceKind {
    /// The status.
    Status,
    /// Where a redirect leads.
    Location,
    /// The media type.
    ContentType,
    /// The body, after what changes with each response is masked.
    Body,
}

/// A difference, with what each response has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseDifference {
    /// In what they differ.
    pub kind: DifferenceKind,
    /// What the first one has.
    pub one: String,
    /// What the other one has.
    pub other: String,
}

/// How much of a body an example shows, in bytes.
const EXCERPT_BYTES: usize = 80;
/// How much of that stands before the difference.
const BEFORE_BYTES: usize = 20;
/// The end of a part of a body is not compared, because a token may be cut there.
const EDGE_BYTES: usize = 2_048;
/// How long the pattern of a path may be, in bytes.
const PATTERN_BYTES_MAX: usize = 120;
/// The most parts of a path that its pattern keeps.
const PATTERN_PARTS_MAX: usize = 8;

/// Returns in what two responses differ. `now_s` is their time in Unix seconds.
pub fn compare(
    one: &ComparedResponse,
    other: &ComparedResponse,
    now_s: u64,
) -> Option<ResponseDifference> {
    let difference = |kind, one: String, other: String| {
        let is_one = one != other;
        is_one.then_some(ResponseDifference { kind, one, other })
    };
    let status = |it: &ComparedResponse| it.status.to_string();
    let location = |it: &ComparedResponse| match it.status {
        300..400 => target(it.location.as_deref().unwrap_or_default(), now_s),
        _ => String::new(),
    };
    difference(DifferenceKind::Status, status(one), status(other))
        .or_else(|| difference(DifferenceKind::Location, location(one), location(other)))
        .or_else(|| {
            let (one, other) = (media_type(one), media_type(other));
            difference(DifferenceKind::ContentType, one, other)
        })
        .or_else(|| bodies(one, other, now_s))
}

/// Returns the pattern of a path: parts that name one thing among many become `*`.
pub fn path_pattern(path: &str) -> String {
    let mut pattern = String::new();
    let mut parts = path.split('/').skip(1);
    for part in parts.by_ref().take(PATTERN_PARTS_MAX) {
        let part = match is_identifier(part.as_bytes()) || part.len() > PATTERN_BYTES_MAX / 2 {
            true => "*",
            false => part,
        };
        if pattern.len() + part.len() >= PATTERN_BYTES_MAX {
            return pattern + "/**";
        }
        pattern.push('/');
        pattern.push_str(part);
    }
    if parts.next().is_some() {
        pattern.push_str("/**");
    }
    match pattern.is_empty() {
        true => "/".to_owned(),
        false => pattern,
    }
}

/// Where a redirect leads, on whichever host: that of the version may be another one.
fn target(location: &[u8], now_s: u64) -> String {
    let text = String::from_utf8_lossy(location);
    let path = match text.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => &*text,
    };
    shown(&mask(path.as_bytes(), now_s))
}

/// The media type, without parameters and in lower case.
fn media_type(response: &ComparedResponse) -> String {
    let said = response.content_type.as_deref().unwrap_or_default();
    let said = said.split(|&byte| byte == b';').next().unwrap_or_default();
    String::from_utf8_lossy(said.trim_ascii()).to_ascii_lowercase()
}

/// Whether a body of this media type is text, in which tokens and dates may stand.
fn is_text(media_type: &str) -> bool {
    let is_known = [
        "json",
        "xml",
        "javascript",
        "ecmascript",
        "x-www-form-urlencoded",
    ];
    media_type.is_empty()
        || media_type.starts_with("text/")
        || is_known.iter().any(|it| media_type.ends_with(it))
}

fn bodies(
    one: &ComparedResponse,
    other: &ComparedResponse,
    now_s: u64,
) -> Option<ResponseDifference> {
    let is_part = one.is_cut || other.is_cut;
    if one.body == other.body {
        return None;
    }
    let (mut left, mut right) = match is_text(&media_type(one)) {
        true => (mask(&one.body, now_s), mask(&other.body, now_s)),
        false => (one.body.clone(), other.body.clone()),
    };
    if is_part {
        let end = left.len().min(right.len()).saturating_sub(EDGE_BYTES);
        left.truncate(end);
        right.truncate(end);
    }
    let mut both = left.iter().zip(&right);
    let at = match both.position(|(one, other)| one != other) {
        Some(at) => at,
        None if left.len() == right.len() => return None,
        None => left.len().min(right.len()),
    };
    Some(ResponseDifference {
        kind: DifferenceKind::Body,
        one: excerpt(&left, at),
        other: excerpt(&right, at),
    })
}

/// A part of a body around a place, as people read it.
fn excerpt(body: &[u8], at: usize) -> String {
    let from = at.saturating_sub(BEFORE_BYTES);
    let to = (from + EXCERPT_BYTES).min(body.len());
    let (before, after) = (from > 0, to < body.len());
    let part = shown(&body[from..to]);
    let dots = |is_needed| if is_needed { "…" } else { "" };
    format!("{}{part}{}", dots(before), dots(after))
}

/// A text without control characters, and without bytes that are no text.
fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let letters = text.trim_matches(char::REPLACEMENT_CHARACTER).chars();
    let shown = letters.map(|letter| if letter.is_control() { ' ' } else { letter });
    shown.take(2 * EXCERPT_BYTES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW_S: u64 = 1_795_000_000;

    fn page(body: &str) -> ComparedResponse {
        ComparedResponse {
            status: 200,
            content_type: Some(b"text/html; charset=utf-8"[..].into()),
            location: None,
            body: body.as_bytes().to_vec(),
            is_cut: false,
        }
    }

    fn kind(one: &ComparedResponse, other: &ComparedResponse) -> Option<DifferenceKind> {
        let found = compare(one, other, NOW_S).map(|it| it.kind);
        assert_eq!(compare(other, one, NOW_S).map(|it| it.kind), found);
        found
    }

    #[test]
    fn first_difference_in_order_is_found() {
        let one = page("<p>a</p>");
        assert_eq!(kind(&one, &one), None);
        assert_eq!(kind(&one, &page("<p>a</p>\n")), None);
        assert_eq!(kind(&one, &page("<p>b</p>")), Some(DifferenceKind::Body));
        let with = |status, content_type: &str, location: &str| ComparedResponse {
            status,
            content_type: Some(content_type.as_bytes().into()),
            location: Some(location.as_bytes().into()),
            ..page("other")
        };
        let html = "TEXT/HTML";
        assert_eq!(
            kind(&one, &with(404, html, "")),
            Some(DifferenceKind::Status)
        );
        assert_eq!(
            kind(&one, &with(200, "text/plain", "/x")),
            Some(DifferenceKind::ContentType)
        );
        assert_eq!(
            kind(&with(302, html, "/a"), &with(302, html, "/b")),
            Some(DifferenceKind::Location)
        );
        let other_host = with(302, html, "http://redesign.internal:3000/a");
        assert_eq!(kind(&with(302, html, "/a"), &other_host), None);
        // What leads nowhere is not looked at.
        assert_eq!(kind(&with(200, html, "/a"), &with(200, html, "/b")), None);
    }

    #[test]
    fn example_shows_the_place() {
        let (one, other) = (
            page("<html><body><h1>Welcome to the shop</h1><p>Buy</p></body></html>"),
            page("<html><body><h1>Welcome to the shop</h1><p>Buy now</p></body></html>"),
        );
        let found = compare(&one, &other, NOW_S).unwrap();
        assert_eq!(found.one, "… the shop</h1><p>Buy</p></body></html>");
        assert_eq!(found.other, "… the shop</h1><p>Buy now</p></body></html>");
        let status = ComparedResponse {
            status: 404,
            ..page("")
        };
        let found = compare(&one, &status, NOW_S).unwrap();
        assert_eq!((&*found.one, &*found.other), ("200", "404"));
    }

    #[test]
    fn binary_bodies_are_compared_as_they_are() {
        let image = |body: &str| ComparedResponse {
            content_type: Some(b"image/png"[..].into()),
            ..page(body)
        };
        let (one, other) = ("at 2026-11-24T10:00:00Z", "at 2026-11-24T10:00:01Z");
        assert_eq!(kind(&page(one), &page(other)), None);
        assert_eq!(kind(&image(one), &image(other)), Some(DifferenceKind::Body));
    }

    #[test]
    fn parts_are_compared_up_to_where_they_end() {
        let cut = |body: String| ComparedResponse {
            is_cut: true,
            ..page(&body)
        };
        let text = "word ".repeat(2_000);
        let one = cut(format!("{text}abc"));
        assert_eq!(kind(&one, &cut(format!("{text}x"))), None);
        assert_eq!(
            kind(&one, &cut(format!("y{text}"))),
            Some(DifferenceKind::Body)
        );
        // Both whole: the end counts.
        assert_eq!(
            kind(&page(&text), &page(&format!("{text}abc"))),
            Some(DifferenceKind::Body)
        );
    }

    #[test]
    fn patterns_join_paths_of_one_kind() {
        let check = |path: &str, expected: &str| assert_eq!(path_pattern(path), expected);
        check("/", "/");
        check("", "/");
        check("/product/17", "/product/*");
        check("/product/18/reviews", "/product/*/reviews");
        check("/order-12345", "/*");
        check("/api/v2/users", "/api/v2/users");
        check("/a/b/c/d/e/f/g/h/i", "/a/b/c/d/e/f/g/h/**");
        check(&format!("/{}/x", "y".repeat(300)), "/*/x");
    }

    proptest! {
        #[test]
        fn comparison_is_symmetric_and_finds_no_difference_to_itself(
            one in "[ -~]{0,120}", other in "[ -~]{0,120}",
        ) {
            let (one, other) = (page(&one), page(&other));
            prop_assert_eq!(compare(&one, &one, NOW_S), None);
            let swapped = compare(&other, &one, NOW_S).map(|it| (it.other, it.one));
            prop_assert_eq!(compare(&one, &other, NOW_S).map(|it| (it.one, it.other)), swapped);
        }

        #[test]
        fn patterns_are_bounded(path in "/[ -~]{0,400}") {
            prop_assert!(path_pattern(&path).len() <= PATTERN_BYTES_MAX + 3);
        }
    }
}
