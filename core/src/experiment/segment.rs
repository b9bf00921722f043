//! Segments: the parts of all users that a user belongs to, as seen at a request. The store keeps the
//! segments of the first exposure. PURE.

use super::device::DeviceClass;
use super::http_view::{HeaderView, RequestView};
use super::identity::query_value;
use http::header::HeaderName;
use std::borrow::Cow;

/// The most values that a file may name for one segment.
pub const VALUES_MAX: usize = 12;
/// The most segments of a file.
pub const SEGMENTS_MAX: usize = 8;

/// A request this long after the ID was minted belongs to a later visit. In milliseconds.
const VISIT_MS: u64 = 30 * 60_000;

/// The value of users without one.
const NONE: &str = "none";
/// The value that counts all values that the file does not name.
const OTHER: &str = "other";
/// The value of users of whom it cannot be known.
const UNKNOWN: &str = "unknown";

/// One way to divide users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSegment {
    /// Its name in the file: letters, digits and `_.-`; unique.
    pub name: Box<str>,
    /// The name and a digest of the definition, such as `plan~1f03ab`. It is what records have, so that
    /// users of two definitions are never counted as one segment.
    pub key: Box<str>,
    /// What the value is read from.
    source: SegmentSource,
}

/// What a segment's value is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentSource {
    /// The class of the device, by `Sec-CH-UA-Mobile` and `User-Agent`.
    Device,
    /// Whether the visitor came before this visit, by the age of the minted ID.
    Returning,
    /// A header of the request.
    Header(HeaderName, SegmentValues),
    /// A cookie of the request.
    Cookie(Box<str>, SegmentValues),
    /// A parameter of the query.
    Query(Box<str>, SegmentValues),
}

/// The values that are told apart: at most [`VALUES_MAX`], each of letters, digits and `_.-`.
pub type SegmentValues = Box<[Box<str>]>;

impl UserSegment {
    /// Returns the segment of this name.
    pub fn new(name: &str, source: SegmentSource) -> UserSegment {
        let definition = source.definition();
        // Reading from a slice cannot fail.
        let digest = murmur3::murmur3_32(&mut definition.as_bytes(), 0).unwrap_or_default();
        UserSegment {
            name: name.into(),
            key: format!("{name}~{:06x}", digest >> 8).into(),
            source,
        }
    }
}

impl SegmentSource {
    /// All that decides the value, in one line.
    fn definition(&self) -> String {
        let (kind, name, values) = match self {
            SegmentSource::Device => return "device".to_owned(),
            SegmentSource::Returning => return "returning".to_owned(),
            SegmentSource::Header(name, values) => ("header", name.as_str(), values),
            SegmentSource::Cookie(name, values) => ("cookie", &**name, values),
            SegmentSource::Query(name, values) => ("query", &**name, values),
        };
        format!("{kind} {name}: {}", values.join(", "))
    }
}

/// The segments of one request, as `device~31c5aa=mobile,plan~1f03ab=free`: keys and values. They have
/// no other characters than letters, digits and `_.-~`. `minted_ms` is when the visitor's ID was minted, in
/// Unix milliseconds, where that is known.
pub fn describe<'a>(
    segments: &[UserSegment],
    request: impl RequestView<'a>,
    minted_ms: Option<u64>,
    now_ms: u64,
) -> String {
    let mut text = String::new();
    for segment in segments {
        let value = match &segment.source {
            SegmentSource::Device => DeviceClass::of(request.fields()).name(),
            SegmentSource::Returning => returning(minted_ms, now_ms),
            SegmentSource::Header(name, values) => {
                among(values, request.fields().first(name).map(Cow::Borrowed))
            }
            SegmentSource::Cookie(name, values) => among(
                values,
                request.fields().cookies(name).next().map(Cow::Borrowed),
            ),
            SegmentSource::Query(name, values) => {
                among(values, request.query().and_then(|it| query_value(it, name)))
            }
        };
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&segment.key);
        text.push('=');
        text.push_str(value);
    }
    text
}

/// Returns the value if the file names it, and [`NONE`] or [`OTHER`] otherwise.
fn among<'v>(values: &'v SegmentValues, found: Option<Cow<'_, [u8]>>) -> &'v str {
    let Some(found) = found.filter(|found| !found.trim_ascii().is_empty()) else {
        return NONE;
    };
    let found = found.trim_ascii();
    let mut named = values.iter();
    named
        .find(|value| value.as_bytes() == found)
        .map_or(OTHER, |value| &**value)
}

fn returning(minted_ms: Option<u64>, now_ms: u64) -> &'static str {
    match minted_ms {
        None => UNKNOWN,
        Some(minted_ms) if minted_ms.saturating_add(VISIT_MS) <= now_ms => "returning",
        Some(_) => "new",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Request, request};

    fn request(uri: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn segment(source: SegmentSource) -> [UserSegment; 1] {
        [UserSegment::new("s", source)]
    }

    /// The value in `s~<digest>=<value>`.
    fn value_of(described: &str) -> &str {
        let (key, value) = described.split_once('=').unwrap();
        assert!(key.starts_with("s~") && key.len() == 8, "{key}");
        value
    }

    #[track_caller]
    fn check(source: &SegmentSource, request: &request::Parts, value: &str) {
        let found = describe(&segment(source.clone()), request, None, 0);
        assert_eq!(value_of(&found), value);
    }

    #[test]
    fn value_that_the_file_does_not_name_is_other() {
        let values = || -> SegmentValues { ["free", "pro"].map(Into::into).into() };
        let header = SegmentSource::Header(HeaderName::from_static("x-plan"), values());
        check(&header, &request("/", &[("x-plan", " pro ")]), "pro");
        check(&header, &request("/", &[("x-plan", "gold")]), "other");
        check(&header, &request("/", &[("x-plan", "a=b,c|d")]), "other");
        check(&header, &request("/", &[("x-plan", "")]), "none");
        check(&header, &request("/", &[]), "none");
        let cookie = SegmentSource::Cookie("plan".into(), values());
        check(
            &cookie,
            &request("/", &[("cookie", "a=1; plan=free")]),
            "free",
        );
        let query = SegmentSource::Query("plan".into(), values());
        check(&query, &request("/?x=1&plan=%70ro", &[]), "pro");
        check(&query, &request("/", &[]), "none");
    }

    #[test]
    fn device_is_read_from_what_the_browser_reports() {
        for (agent, hint, device) in [
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Mobile/15E148",
                None,
                "mobile",
            ),
            (
                "Mozilla/5.0 (Linux; Android 16; Pixel 9) Mobile Safari/537.36",
                None,
                "mobile",
            ),
            (
                "Mozilla/5.0 (Linux; Android 16; SM-X910) Safari/537.36",
                Some("?0"),
                "tablet",
            ),
            (
                "Mozilla/5.0 (iPad; CPU OS 19_0 like Mac OS X) Mobile/15E148",
                None,
                "tablet",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/142.0",
                Some("?0"),
                "desktop",
            ),
            (
                "Mozilla/5.0 (X11; Linux x86_64) Firefox/145.0",
                None,
                "desktop",
            ),
            ("Mozilla/5.0 (X11; Linux x86_64)", Some("?1"), "mobile"),
            ("curl/8.5.0", None, "other"),
            ("", None, "other"),
        ] {
            let mut headers = vec![("user-agent", agent)];
            headers.extend(hint.map(|hint| ("sec-ch-ua-mobile", hint)));
            check(&SegmentSource::Device, &request("/", &headers), device);
        }
    }

    #[test]
    fn returning_is_read_from_the_age_of_the_minted_id() {
        let of = |minted_ms: Option<u64>| {
            let segments = segment(SegmentSource::Returning);
            let described = describe(&segments, &request("/", &[]), minted_ms, 10 * VISIT_MS);
            value_of(&described).to_owned()
        };
        assert_eq!(of(None), "unknown");
        assert_eq!(of(Some(9 * VISIT_MS + 1)), "new");
        assert_eq!(of(Some(9 * VISIT_MS)), "returning");
    }
    #[test]
    fn another_definition_has_another_key() {
        let header = |name: &'static str, values: &[&str]| {
            let values = values.iter().map(|&value| value.into()).collect();
            let source = SegmentSource::Header(HeaderName::from_static(name), values);
            UserSegment::new("plan", source).key
        };
        let first = header("x-plan", &["free", "pro"]);
        assert_eq!(first, header("x-plan", &["free", "pro"]));
        assert_ne!(first, header("x-plan", &["free"]));
        assert_ne!(first, header("x-tier", &["free", "pro"]));
        let cookie = SegmentSource::Cookie("x-plan".into(), ["free", "pro"].map(Into::into).into());
        assert_ne!(first, UserSegment::new("plan", cookie).key);
    }
}
