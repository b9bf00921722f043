//! How paths of requests become paths of an upstream or of a redirect, and how paths of an upstream
//! become public ones again.

use super::pattern::PathPattern;
use smallvec::SmallVec;
use std::fmt;

/// A prefix of paths: whole segments, without a slash at the end. Empty for every path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathPrefix(Box<str>);

impl PathPrefix {
    /// Parses `/v2` or `/v2/`. `None` for what is no literal path in normal form.
    pub fn new(text: &str) -> Option<PathPrefix> {
        let prefix = text.strip_suffix('/').unwrap_or(text);
        if prefix.is_empty() {
            return (text == "/").then(PathPrefix::default);
        }
        match PathPattern::new(prefix) {
            Ok(PathPattern::Exact(path)) if *path == *prefix && !path.ends_with('/') => {
                Some(PathPrefix(path))
            }
            _ => None,
        }
    }

    /// Returns the prefix; empty for every path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether every path has it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Returns what follows a prefix of whole segments: nothing, or a text that begins with a slash.
fn below<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// How the path of a request is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// A prefix is removed from paths that have it, then another one is added to all paths.
    Prefix {
        /// What is removed.
        strip: PathPrefix,
        /// What is added.
        add: PathPrefix,
    },
    /// Another path.
    Replace(PathTemplate),
}

/// A path on its way to an upstream, and how to find the way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewrittenPath {
    path: String,
    /// The public prefix and the upstream's prefix of the same pages; `None` where they are not known.
    prefixes: Option<(String, String)>,
}

impl RewrittenPath {
    /// A path in normal form, as it came.
    pub fn new(normal_path: &str) -> RewrittenPath {
        RewrittenPath {
            path: normal_path.to_owned(),
            prefixes: Some(Default::default()),
        }
    }

    /// Returns the path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Changes the path. `*`, which OPTIONS may ask for, is no path and stays.
    pub fn apply(&mut self, rewrite: &PathRewrite) {
        match rewrite {
            _ if !self.path.starts_with('/') => {}
            PathRewrite::Prefix { strip, add } => {
                self.strip(strip.as_str());
                self.add(add.as_str());
            }
            PathRewrite::Replace(template) => {
                if let Some(path) = template.expand(&self.path) {
                    (self.path, self.prefixes) = (path, None);
                }
            }
        }
    }

    fn strip(&mut self, prefix: &str) {
        let Some(rest) = below(&self.path, prefix).filter(|_| !prefix.is_empty()) else {
            return;
        };
        self.path = match rest {
            "" => "/".to_owned(),
            rest => rest.to_owned(),
        };
        if let Some((public, upstream)) = &mut self.prefixes {
            // One of them begins with the other, because the path begins with both.
            match below(upstream, prefix) {
                Some(rest) => *upstream = rest.to_owned(),
                None => {
                    public.push_str(below(prefix, upstream).unwrap_or_default());
                    upstream.clear();
                }
            }
        }
    }

    fn add(&mut self, prefix: &str) {
        self.path.insert_str(0, prefix);
        if let Some((_, upstream)) = &mut self.prefixes {
            upstream.insert_str(0, prefix);
        }
    }

    /// Whether pages of the upstream have another path than the public ones, which is known.
    pub fn has_prefixes(&self) -> bool {
        let prefixes = self.prefixes.as_ref();
        prefixes.is_some_and(|(public, upstream)| public != upstream)
    }

    /// Returns the public path of a page at `path` of the upstream, where that is another one.
    pub fn public(&self, path: &str) -> Option<String> {
        let prefixes = self.prefixes.as_ref();
        let (public, upstream) = prefixes.filter(|_| self.has_prefixes())?;
        let rest = below(path, upstream)?;
        Some(match (public.is_empty(), rest.is_empty()) {
            (true, true) => "/".to_owned(),
            _ => format!("{public}{rest}"),
        })
    }
}

/// A path or URL with places for the parts of a path that a pattern's `*` and `**` match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate {
    /// The segments of the pattern; empty where no part is taken over.
    pattern: Box<[PatternSegment]>,
    parts: Box<[TemplatePart]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum PatternSegment {
    Literal(Box<str>),
    /// `*`
    One,
    /// `**`, at the end
    Rest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum TemplatePart {
    Literal(Box<str>),
    /// What the `*` of this number, from 0 on, matches.
    One(usize),
    /// What `**` matches, with the slash before it.
    RestWithSlash,
    /// The same without that slash.
    Rest,
}

/// Why a text is no template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateFault {
    /// It has a `*` or `**` that the pattern has not.
    MoreParts,
    /// It has a `*` or `**`, and the pattern is not made of whole segments, `*`, and `**` at the end.
    NotSegments,
}

impl PathTemplate {
    /// Parses a text. `pattern` is the only path pattern that requests match, if there is exactly one;
    /// without conditions on the path, it is `/**`.
    pub fn new(text: &str, pattern: Option<&PathPattern>) -> Result<PathTemplate, TemplateFault> {
        let (mut parts, mut rest) = (Vec::new(), text);
        let (mut ones, mut has_rest) = (0, false);
        while let Some(at) = rest.find('*') {
            let (mut before, after) = rest.split_at(at);
            match after.strip_prefix("**") {
                Some(after) => {
                    has_rest = true;
                    let part = match before.strip_suffix('/') {
                        Some(shorter) => {
                            before = shorter;
                            TemplatePart::RestWithSlash
                        }
                        None => TemplatePart::Rest,
                    };
                    parts.push(TemplatePart::Literal(before.into()));
                    parts.push(part);
                    rest = after;
                }
                None => {
                    parts.push(TemplatePart::Literal(before.into()));
                    parts.push(TemplatePart::One(ones));
                    ones += 1;
                    rest = &after[1..];
                }
            }
        }
        parts.push(TemplatePart::Literal(rest.into()));
        let mut segments = Vec::new();
        if ones > 0 || has_rest {
            segments = pattern
                .and_then(segments_of)
                .ok_or(TemplateFault::NotSegments)?;
            let are_ones = |it: &&PatternSegment| **it == PatternSegment::One;
            let is_short = segments.iter().filter(are_ones).count() < ones;
            if is_short || (has_rest && segments.last() != Some(&PatternSegment::Rest)) {
                return Err(TemplateFault::MoreParts);
            }
        }
        Ok(PathTemplate {
            pattern: segments.into(),
            parts: parts.into(),
        })
    }

    /// Returns the text for a path in normal form; `None` if the pattern does not match it.
    pub fn expand(&self, normal_path: &str) -> Option<String> {
        let (ones, rest) = self.captures(normal_path)?;
        let mut text = String::new();
        for part in &self.parts {
            text.push_str(match part {
                TemplatePart::Literal(literal) => literal,
                TemplatePart::One(place) => ones.get(*place)?,
                TemplatePart::RestWithSlash => rest,
                TemplatePart::Rest => rest.strip_prefix('/').unwrap_or(rest),
            });
        }
        // `/**` of nothing.
        if text.is_empty() {
            text.push('/');
        }
        Some(text)
    }

    /// What each `*` matches, and what `**` matches with the slash before it.
    fn captures<'p>(&self, path: &'p str) -> Option<(SmallVec<[&'p str; 4]>, &'p str)> {
        let (mut ones, mut left) = (SmallVec::new(), path);
        for segment in &self.pattern {
            if *segment == PatternSegment::Rest {
                return Some((ones, left));
            }
            let inner = left.strip_prefix('/')?;
            let end = inner.find('/').unwrap_or(inner.len());
            let (text, after) = inner.split_at(end);
            match segment {
                PatternSegment::Literal(literal) if **literal != *text => return None,
                PatternSegment::Literal(_) => {}
                PatternSegment::One | PatternSegment::Rest => ones.push(text),
            }
            left = after;
        }
        (self.pattern.is_empty() || left.is_empty()).then_some((ones, ""))
    }
}

/// As the file writes it.
impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            f.write_str(match part {
                TemplatePart::Literal(text) => text,
                TemplatePart::One(_) => "*",
                TemplatePart::RestWithSlash => "/**",
                TemplatePart::Rest => "**",
            })?;
        }
        Ok(())
    }
}

/// The segments of a pattern that has only literal ones, `*`, and `**` at the end.
fn segments_of(pattern: &PathPattern) -> Option<Vec<PatternSegment>> {
    let text = match pattern {
        PathPattern::Regex(_) => return None,
        other => other.to_string(),
    };
    let segments = text.strip_prefix('/')?.split('/');
    let mut found = Vec::new();
    for segment in segments {
        if found.last() == Some(&PatternSegment::Rest) {
            return None;
        }
        found.push(match segment {
            "*" => PatternSegment::One,
            "**" => PatternSegment::Rest,
            other if PathPattern::is_literal(other) => PatternSegment::Literal(other.into()),
            _ => return None,
        });
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(strip: &str, add: &str) -> PathRewrite {
        PathRewrite::Prefix {
            strip: PathPrefix::new(strip).unwrap(),
            add: PathPrefix::new(add).unwrap(),
        }
    }

    #[test]
    fn prefixes_are_whole_literal_segments() {
        for (text, expected) in [
            ("/", Some("")),
            ("/v2", Some("/v2")),
            ("/v2/", Some("/v2")),
            ("/a/b", Some("/a/b")),
            ("/%C3%A9", Some("/%C3%A9")),
            ("", None),
            ("v2", None),
            ("/v2//", None),
            ("//v2", None),
            ("/a/../b", None),
            ("/a*", None),
            ("/a?b", None),
            ("/a#b", None),
            ("/a b", None),
        ] {
            let found = PathPrefix::new(text);
            assert_eq!(found.as_ref().map(PathPrefix::as_str), expected, "{text}");
        }
    }

    #[test]
    fn prefixes_are_stripped_and_added_and_found_again() {
        #[track_caller]
        fn check(rewrites: &[(&str, &str)], path: &str, sent: &str, back: &[(&str, Option<&str>)]) {
            let mut rewritten = RewrittenPath::new(path);
            for (strip, add) in rewrites {
                rewritten.apply(&prefix(strip, add));
            }
            assert_eq!(rewritten.path(), sent, "{rewrites:?} {path}");
            for (path, public) in back {
                assert_eq!(rewritten.public(path).as_deref(), *public, "{path}");
            }
        }
        let back = [
            ("/v2/a", Some("/a")),
            ("/v2", Some("/")),
            ("/v2/", Some("/")),
            ("/v21", None),
            ("/a", None),
        ];
        check(&[("/", "/v2")], "/x", "/v2/x", &back);
        check(&[("/", "/v2")], "/", "/v2/", &[]);
        let back = [("/a", Some("/shop/a")), ("/", Some("/shop/"))];
        check(&[("/shop", "/")], "/shop/x", "/x", &back);
        check(&[("/shop", "/")], "/shop", "/", &back);
        // It was not stripped.
        check(&[("/shop", "/")], "/shopping", "/shopping", &[("/a", None)]);
        let back = [("/v2/a", Some("/shop/a")), ("/v2", Some("/shop"))];
        check(&[("/shop", "/v2")], "/shop/x", "/v2/x", &back);
        check(&[("/shop", "/"), ("/", "/v2")], "/shop/x", "/v2/x", &back);
        // What one adds, the next one strips.
        check(
            &[("/", "/a/b"), ("/a", "/")],
            "/x",
            "/b/x",
            &[("/b/y", Some("/y"))],
        );
        check(
            &[("/", "/a"), ("/a/x", "/")],
            "/x/y",
            "/y",
            &[("/z", Some("/x/z"))],
        );
        check(&[("/", "/a"), ("/a", "/")], "/x", "/x", &[("/z", None)]);
        check(&[("/", "/v2")], "*", "*", &[]);
    }

    #[test]
    fn templates_take_over_what_the_pattern_matches() {
        #[track_caller]
        fn check(pattern: &str, template: &str, path: &str, expected: Option<&str>) {
            let pattern = PathPattern::new(pattern).unwrap();
            let parsed = PathTemplate::new(template, Some(&pattern)).unwrap();
            assert_eq!(parsed.to_string(), template);
            assert_eq!(
                parsed.expand(path).as_deref(),
                expected,
                "{pattern} {template} {path}"
            );
        }
        check("/old/**", "/new", "/old/a", Some("/new"));
        check("/old/**", "/new/**", "/old/a/b", Some("/new/a/b"));
        check("/old/**", "/new/**", "/old/", Some("/new/"));
        check("/old/**", "/new/**", "/old", Some("/new"));
        check("/old/**", "/**", "/old", Some("/"));
        check("/old/**", "/**", "/old/a", Some("/a"));
        check(
            "/old/**",
            "https://b.test/x?p=**",
            "/old/a/b",
            Some("https://b.test/x?p=a/b"),
        );
        check("/u/*/p/*", "/p/*/of/*", "/u/1/p/2", Some("/p/1/of/2"));
        check("/u/*/**", "/user/*/**", "/u/1/a/b", Some("/user/1/a/b"));
        check("/u/*/**", "/user/*", "/u/1/a/b", Some("/user/1"));
        check("/u/*/x", "/user/*", "/u/1/y", None);
        check("/u/*", "/user/*", "/u/1/2", None);
        check("/**", "https://b.test/**", "/a", Some("https://b.test/a"));
    }

    #[test]
    fn templates_with_parts_that_the_pattern_lacks_are_refused() {
        let pattern = |text| PathPattern::new(text).unwrap();
        let fault =
            |text, pattern: &PathPattern| PathTemplate::new(text, Some(pattern)).unwrap_err();
        assert_eq!(fault("/a/**", &pattern("/b")), TemplateFault::MoreParts);
        assert_eq!(fault("/a/*", &pattern("/b/**")), TemplateFault::MoreParts);
        assert_eq!(fault("/*/*", &pattern("/b/*")), TemplateFault::MoreParts);
        assert_eq!(
            fault("/a/*", &pattern("/b/*.html")),
            TemplateFault::NotSegments
        );
        assert_eq!(
            fault("/a/**", &pattern("/**/b")),
            TemplateFault::NotSegments
        );
        assert_eq!(
            PathTemplate::new("/a/*", None).unwrap_err(),
            TemplateFault::NotSegments
        );
        assert!(PathTemplate::new("/a", None).is_ok());
    }
}
