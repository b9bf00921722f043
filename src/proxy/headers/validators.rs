//! ETags that name the version that issued them, so that a version is asked only about its own (RFC 9110,
//! 8.8.3 and 13.1). PURE.

use crate::proxy::headers::version_mark::VersionMark;

/// The conditions of a request as its version gets them. What is `None` is not sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Conditions {
    /// `If-Match`: a tag of another version keeps its mark, and so matches nothing.
    pub if_match: Option<Vec<u8>>,
    /// `If-None-Match`, with the version's own tags alone.
    pub if_none_match: Option<Vec<u8>>,
    /// `If-Modified-Since`, beside a tag of the version.
    pub if_modified_since: Option<Vec<u8>>,
    /// `If-Range`, with the version's own tag.
    pub if_range: Option<Vec<u8>>,
    /// `Range`, unless it is bound to another version.
    pub range: Option<Vec<u8>>,
}

/// The conditions of a request as they came, each with the values of all its lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReceivedConditions<'a> {
    /// `If-Match`.
    pub if_match: Vec<&'a [u8]>,
    /// `If-None-Match`.
    pub if_none_match: Vec<&'a [u8]>,
    /// `If-Modified-Since`.
    pub if_modified_since: Option<&'a [u8]>,
    /// `If-Range`.
    pub if_range: Option<&'a [u8]>,
    /// `Range`.
    pub range: Option<&'a [u8]>,
}

impl ReceivedConditions<'_> {
    /// Returns what the version with this mark gets.
    pub(crate) fn for_version(&self, mark: &VersionMark) -> Conditions {
        let matching = self.if_match.iter().flat_map(|line| tags(line));
        let matching = matching.map(|tag| match tag.own(mark) {
            Some(own) => own,
            None => tag.text.to_vec(),
        });
        let known = self.if_none_match.iter().flat_map(|line| tags(line));
        let known = known.filter_map(|tag| match tag.text {
            b"*" => Some(b"*".to_vec()),
            _ => tag.own(mark),
        });
        let if_none_match = list(known);
        let own_range = self.if_range.map(|value| {
            let mut tags = tags(value);
            let tag = tags.next().filter(|tag| tag.is_tag());
            tag.and_then(|tag| tag.own(mark))
                .filter(|_| tags.next().is_none())
        });
        Conditions {
            if_match: list(matching),
            // The version of a date is unknown.
            if_modified_since: (if_none_match.as_ref().and(self.if_modified_since))
                .map(<[u8]>::to_vec),
            if_none_match,
            range: match own_range {
                // A part of another version would be joined to one of this.
                Some(None) => None,
                _ => self.range.map(<[u8]>::to_vec),
            },
            if_range: own_range.flatten(),
        }
    }
}

/// The ETag that the client gets; `None` where it is not one.
pub(crate) fn mark_tag(etag: &[u8], mark: &VersionMark) -> Option<Vec<u8>> {
    let mut found = tags(etag);
    let tag = found.next().filter(Tag::is_tag)?;
    if found.next().is_some() || tag.text.len() != etag.trim_ascii().len() {
        return None;
    }
    Some([tag.before(), mark.as_bytes(), tag.opaque(), tag.after()].concat())
}

fn list(tags: impl Iterator<Item = Vec<u8>>) -> Option<Vec<u8>> {
    let tags: Vec<Vec<u8>> = tags.collect();
    (!tags.is_empty()).then(|| tags.join(&b", "[..]))
}

/// An element of a list of entity tags: `"a"`, `W/"a"` or `*`, or what some servers write without quotes.
#[derive(Clone, Copy, Debug)]
struct Tag<'a> {
    text: &'a [u8],
}

impl<'a> Tag<'a> {
    /// Whether it has quotation marks, as it must.
    fn is_tag(&self) -> bool {
        let quoted = self.text.strip_prefix(b"W/").unwrap_or(self.text);
        quoted.len() >= 2 && quoted.starts_with(b"\"") && quoted.ends_with(b"\"")
    }

    /// What stands in front of the opaque part.
    fn before(&self) -> &'a [u8] {
        match self.is_tag() {
            true if self.text.starts_with(b"W/") => &self.text[..3],
            true => &self.text[..1],
            false => b"",
        }
    }

    fn after(&self) -> &'a [u8] {
        match self.is_tag() {
            true => b"\"",
            false => b"",
        }
    }

    fn opaque(&self) -> &'a [u8] {
        &self.text[self.before().len()..self.text.len() - self.after().len()]
    }

    /// The tag as the version gave it, if it is one of this version.
    fn own(&self, mark: &VersionMark) -> Option<Vec<u8>> {
        let opaque = mark.strip(self.opaque())?;
        Some([self.before(), opaque, self.after()].concat())
    }
}

/// The elements of a list. A comma may be within a tag.
fn tags(line: &[u8]) -> impl Iterator<Item = Tag<'_>> {
    let mut quoted = false;
    let elements = line.split(move |&byte| {
        quoted ^= byte == b'"';
        byte == b',' && !quoted
    });
    let elements = elements.map(<[u8]>::trim_ascii);
    elements
        .filter(|text| !text.is_empty())
        .map(|text| Tag { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(name: &str) -> VersionMark {
        VersionMark::of(name)
    }

    /// Replaces `a:` and `b:` by the marks of two versions.
    fn text(of: &str) -> Vec<u8> {
        let text = of.replace("a:", &mark("a").to_string());
        text.replace("b:", &mark("b").to_string()).into_bytes()
    }

    fn shown(value: Option<Vec<u8>>) -> String {
        value.map_or("-".to_owned(), |value| String::from_utf8(value).unwrap())
    }

    #[test]
    fn tags_get_the_mark_within_their_quotes() {
        let check = |etag: &str, expected: &str| {
            let marked = mark_tag(etag.as_bytes(), &mark("a"));
            assert_eq!(
                shown(marked),
                String::from_utf8(text(expected)).unwrap(),
                "{etag}"
            );
        };
        check("\"x\"", "\"a:x\"");
        check("W/\"x\"", "W/\"a:x\"");
        check("\"\"", "\"a:\"");
        check("\"x,y\"", "\"a:x,y\"");
        // Not tags: browsers send them back, and nobody could tell whose they are.
        for other in ["x", "", "\"x", "x\"", "\"x\", \"y\"", "w/\"x\"", "\""] {
            check(other, "-");
        }
    }

    #[test]
    fn version_is_asked_about_its_own_tags_only() {
        let check = |lines: &[&str], expected: &str| {
            let lines: Vec<Vec<u8>> = lines.iter().map(|line| text(line)).collect();
            let received = ReceivedConditions {
                if_none_match: lines.iter().map(Vec::as_slice).collect(),
                if_modified_since: Some(b"yesterday"),
                ..ReceivedConditions::default()
            };
            let found = received.for_version(&mark("a"));
            assert_eq!(found.if_modified_since.is_some(), expected != "-");
            assert_eq!(shown(found.if_none_match), expected, "{lines:?}");
        };
        check(&["\"a:x\""], "\"x\"");
        check(&["W/\"a:x\""], "W/\"x\"");
        check(
            &["\"b:x\", W/\"a:y,z\",\"a:w-gzip\""],
            "W/\"y,z\", \"w-gzip\"",
        );
        check(&["\"b:x\"", "\"a:y\""], "\"y\"");
        check(&["\"b:x\""], "-");
        check(&["\"x\""], "-");
        check(&["*"], "*");
        check(&[","], "-");
        check(&[], "-");
    }

    #[test]
    fn foreign_tag_of_if_match_matches_nothing() {
        let line = text("\"a:x\", \"b:x\", \"x\"");
        let received = ReceivedConditions {
            if_match: vec![&line],
            ..ReceivedConditions::default()
        };
        let found = received.for_version(&mark("a"));
        let expected = String::from_utf8(text("\"x\", \"b:x\", \"x\"")).unwrap();
        assert_eq!(shown(found.if_match), expected);
    }

    #[test]
    fn range_is_sent_unless_it_is_bound_to_another_version() {
        let check = |if_range: Option<&str>, expected: (&str, &str)| {
            let if_range = if_range.map(text);
            let received = ReceivedConditions {
                if_range: if_range.as_deref(),
                range: Some(b"bytes=1-"),
                ..ReceivedConditions::default()
            };
            let found = received.for_version(&mark("a"));
            assert_eq!((&*shown(found.range), &*shown(found.if_range)), expected);
        };
        check(None, ("bytes=1-", "-"));
        check(Some("\"a:x\""), ("bytes=1-", "\"x\""));
        check(Some("\"b:x\""), ("-", "-"));
        check(Some("\"x\""), ("-", "-"));
        check(Some("Wed, 21 Oct 2015 07:28:00 GMT"), ("-", "-"));
    }
}
