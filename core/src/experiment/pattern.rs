//! Patterns of paths, hosts and values, as the file writes them.

use super::normal_path::{is_illegal, normal_encoding};
use super::path_regex::PathRegex;
use std::fmt;
use std::sync::LazyLock;

/// The longest pattern of a path, in bytes.
pub const PATTERN_BYTES_MAX: usize = 1_024;

/// The pattern of every path.
pub static WHOLE_SITE: LazyLock<PathPattern> = LazyLock::new(|| PathPattern::Under(Box::default()));

/// A pattern of paths in [normal form](super::normal_path).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPattern {
    /// This path and no other.
    Exact(Box<str>),
    /// `/checkout/**`: this path and everything below it.
    Under(Box<str>),
    /// Any other glob: `*` within a segment, `**` across segments, `{a,b}`, `[a-z]`.
    Glob(Box<str>),
    /// A regular expression.
    Regex(PathRegex),
}

/// Why a text is no pattern of paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathFault {
    /// It does not begin with `/`.
    Relative,
    /// It has a `?`: the query is no part of a path.
    Query,
    /// It has a `#`: clients do not send what follows.
    Fragment,
    /// It has `//`, `.` or `..`: matched paths have none.
    DotSegments,
    /// It has a character in brackets that is several bytes in a URL.
    WideClass,
    /// It has brackets that mean no character of a path, such as `[z-a]`.
    EmptyClass,
    /// It is no glob.
    Glob(fast_glob::Error),
    /// It is longer than [`PATTERN_BYTES_MAX`].
    Length,
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathPattern::Exact(text) | PathPattern::Glob(text) => f.write_str(text),
            PathPattern::Under(base) => write!(f, "{base}/**"),
            PathPattern::Regex(regex) => write!(f, "regex:{}", regex.text()),
        }
    }
}

impl PathPattern {
    /// Parses `/checkout`, `/checkout/**`, or another glob. The pattern is brought into normal form.
    pub fn new(text: &str) -> Result<PathPattern, PathFault> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(PathFault::Length);
        }
        if text.contains('?') {
            return Err(PathFault::Query);
        }
        if text.contains('#') {
            return Err(PathFault::Fragment);
        }
        let normal = normal_pattern(text)?;
        let Some(segments) = normal.strip_prefix('/') else {
            return Err(PathFault::Relative);
        };
        let mut parents = segments.split('/');
        let last = parents.next_back().unwrap_or_default();
        if parents.any(|it| matches!(it, "" | "." | "..")) || matches!(last, "." | "..") {
            return Err(PathFault::DotSegments);
        }
        if let Some(base) = normal.strip_suffix("/**")
            && PathPattern::is_literal(base)
        {
            return Ok(PathPattern::Under(base.into()));
        }
        if PathPattern::is_literal(&normal) {
            return Ok(PathPattern::Exact(normal.into()));
        }
        fast_glob::validate(&normal).map_err(PathFault::Glob)?;
        if classes(&normal).any(is_empty_class) {
            return Err(PathFault::EmptyClass);
        }
        Ok(PathPattern::Glob(normal.into()))
    }

    /// Whether a pattern has no special characters.
    pub fn is_literal(text: &str) -> bool {
        !text.contains(['*', '[', '{', '\\'])
    }

    /// Whether a path in normal form matches.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            PathPattern::Exact(exact) => path == &**exact,
            PathPattern::Under(base) => path
                .strip_prefix(&**base)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            PathPattern::Glob(glob) => fast_glob::glob_match(&**glob, path),
            PathPattern::Regex(regex) => regex.matches(path),
        }
    }
}

/// Brings a pattern into normal form. `*`, `[…]`, `{…}` and `\` stay.
fn normal_pattern(text: &str) -> Result<String, PathFault> {
    let mut pattern = String::with_capacity(text.len());
    let mut rest = text;
    let mut open_braces = 0;
    while let Some(at) = rest.find(['[', '\\', '^', '{', '}']) {
        let (before, special) = rest.split_at(at);
        pattern.push_str(before);
        rest = match special.as_bytes() {
            [b'[', ..] => {
                let class_bytes = class_bytes(special);
                let (class, rest) = special.split_at(class_bytes);
                if has_encoded(class) {
                    return Err(PathFault::WideClass);
                }
                pattern.push_str(class);
                rest
            }
            [b'\\', escaped, ..] if is_illegal(*escaped) && escaped.is_ascii() => {
                pattern.push_str(&format!("%{escaped:02X}"));
                &special[2..]
            }
            [b'\\', ..] => {
                pattern.push('\\');
                let escaped = special[1..].chars().next();
                pattern.extend(escaped);
                &special[1 + escaped.map_or(0, char::len_utf8)..]
            }
            [b'{', ..] => {
                open_braces += 1;
                pattern.push('{');
                &special[1..]
            }
            [b'}', ..] if open_braces > 0 => {
                open_braces -= 1;
                pattern.push('}');
                &special[1..]
            }
            // A `^`, or a `}` that closes nothing.
            [other, ..] => {
                pattern.push_str(&format!("%{other:02X}"));
                &special[1..]
            }
            [] => special,
        };
    }
    pattern.push_str(rest);
    let is_encoded = |byte: u8| is_illegal(byte) && !b"{}\\^".contains(&byte);
    Ok(normal_encoding(&pattern, is_encoded))
}

/// The length of a class in brackets, at the beginning of `text`. The first character may be `]`, and `\\` stands
/// before others that end nothing.
fn class_bytes(text: &str) -> usize {
    let bytes = text.as_bytes();
    let first = 1 + usize::from(matches!(bytes.get(1), Some(b'!' | b'^')));
    let mut at = first;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b']' if at > first => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

/// Whether one of the characters in brackets is percent-encoded in a URL.
fn has_encoded(class: &str) -> bool {
    let inside = class.strip_prefix('[').unwrap_or(class);
    let inside = inside.strip_prefix(['!', '^']).unwrap_or(inside);
    let mut characters = inside.chars();
    std::iter::from_fn(|| match characters.next()? {
        '\\' => characters.next(),
        other => Some(other),
    })
    .any(|it| !it.is_ascii() || is_illegal(it as u8))
}

/// The classes in brackets of a valid glob.
fn classes(glob: &str) -> impl Iterator<Item = &str> {
    let mut rest = glob;
    std::iter::from_fn(move || {
        loop {
            let special = &rest[rest.find(['[', '\\'])?..];
            if special.starts_with('[') {
                let (class, after) = special.split_at(class_bytes(special));
                rest = after;
                return Some(class);
            }
            let escaped = special[1..].chars().next();
            rest = &special[1 + escaped.map_or(0, char::len_utf8)..];
        }
    })
}

/// Whether a class means no character that a path in normal form may have within a segment.
fn is_empty_class(class: &str) -> bool {
    let legal = (b'!'..=b'~').filter(|&byte| byte != b'/' && !is_illegal(byte));
    let mut characters = legal.map(char::from);
    !characters.any(|it| fast_glob::glob_match(format!("/{class}"), format!("/{it}")))
}

/// A pattern of hosts in the file: `shop.example.com` or `*.example.com`. In lower case, without port and
/// without a dot at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// This host.
    Exact(Box<str>),
    /// Any host with this ending, which has its leading dot.
    Under(Box<str>),
}

/// Why a text is no pattern of hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostFault {
    /// It has characters that are no ASCII; clients send the form in Punycode.
    NotAscii,
    /// It has a port.
    Port,
    /// It has a `*` elsewhere than in `*.` at the beginning.
    Glob,
    /// It is no host otherwise.
    Malformed,
}

impl HostPattern {
    /// Parses a pattern.
    pub fn new(text: &str) -> Result<HostPattern, HostFault> {
        if !text.is_ascii() {
            return Err(HostFault::NotAscii);
        }
        let text = text.to_ascii_lowercase();
        if let Some(address) = text.strip_prefix('[') {
            return match address.split_once(']') {
                Some((_, port)) if port.starts_with(':') => Err(HostFault::Port),
                Some((address, "")) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                    Ok(HostPattern::Exact(text.into()))
                }
                _ => Err(HostFault::Malformed),
            };
        }
        if let Some((host, port)) = text.split_once(':')
            && !host.is_empty()
            && port.bytes().all(|byte| byte.is_ascii_digit())
        {
            return Err(HostFault::Port);
        }
        let (is_under, host) = match text.strip_prefix("*.") {
            Some(host) => (true, host),
            None => (false, &*text),
        };
        if host.contains('*') {
            return Err(HostFault::Glob);
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let is_label =
            |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(is_letter);
        if !host.split('.').all(is_label) {
            return Err(HostFault::Malformed);
        }
        Ok(match is_under {
            true => HostPattern::Under(format!(".{host}").into()),
            false => HostPattern::Exact(host.into()),
        })
    }

    /// Whether a request's host (without port) matches.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            HostPattern::Exact(exact) => host.eq_ignore_ascii_case(exact),
            HostPattern::Under(end) => {
                host.len() > end.len()
                    && host.as_bytes()[host.len() - end.len()..]
                        .eq_ignore_ascii_case(end.as_bytes())
            }
        }
    }
}

/// What the value of a header, cookie or query parameter must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueTest {
    /// There is one.
    Present,
    /// There is none.
    Absent,
    /// There is one that matches one of these patterns.
    OneOf(Box<[ValuePattern]>),
}

impl ValueTest {
    /// Whether these are the values of a request.
    pub fn holds<Value: AsRef<[u8]>>(&self, mut values: impl Iterator<Item = Value>) -> bool {
        match self {
            ValueTest::Present => values.next().is_some(),
            ValueTest::Absent => values.next().is_none(),
            ValueTest::OneOf(patterns) => values.any(|value| {
                let value = value.as_ref();
                patterns.iter().any(|pattern| pattern.matches(value))
            }),
        }
    }
}

/// A value, in which `*` stands for any text. Nothing else is special: values contain braces and brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValuePattern(Box<str>);

impl fmt::Display for ValuePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ValuePattern {
    /// The pattern of this text.
    pub fn new(text: &str) -> ValuePattern {
        ValuePattern(text.into())
    }

    /// Whether a value matches.
    pub fn matches(&self, value: &[u8]) -> bool {
        let mut pattern = self.0.as_bytes();
        let mut rest = value;
        let mut is_first = true;
        while let Some(star) = memchr::memchr(b'*', pattern) {
            let part = &pattern[..star];
            pattern = &pattern[star + 1..];
            let at = match is_first {
                true => rest.starts_with(part).then_some(0),
                false => memchr::memmem::find(rest, part),
            };
            let Some(at) = at else {
                return false;
            };
            rest = &rest[at + part.len()..];
            is_first = false;
        }
        match is_first {
            true => rest == pattern,
            false => rest.ends_with(pattern),
        }
    }

    /// Whether it begins, and whether it ends, with a space or a tab.
    pub fn outer_space(&self) -> (bool, bool) {
        (
            self.0.starts_with([' ', '\t']),
            self.0.ends_with([' ', '\t']),
        )
    }

    /// Whether it has one of these bytes.
    pub fn has_any(&self, bytes: &[u8]) -> bool {
        self.0.bytes().any(|byte| bytes.contains(&byte))
    }

    /// Whether every value that `other` matches certainly matches this pattern, too.
    pub fn contains(&self, other: &ValuePattern) -> bool {
        self == other
            || *self.0 == *"*"
            || (!other.0.contains('*') && self.matches(other.0.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_compared_byte_for_byte_except_for_stars() {
        let check = |pattern: &str, value: &str, expected: bool| {
            let matches = ValuePattern::new(pattern).matches(value.as_bytes());
            assert_eq!(matches, expected, "{pattern} {value}");
        };
        check("yes", "yes", true);
        check("yes", "yes2", false);
        check("yes", "Yes", false);
        check("", "", true);
        check("", "a", false);
        check("*", "", true);
        check("*", "a/b", true);
        check("text/*", "text/html", true);
        check("a*a", "a", false);
        check("a*a", "aa", true);
        check("*b*", "abc", true);
        check("*bb*", "abc", false);
        check("a*b*c", "a-b-b-c", true);
        check("a*b*c", "a-c-b", false);
        check("{a}[?]", "{a}[?]", true);
    }

    #[test]
    fn path_patterns_have_the_normal_form() {
        let check = |text: &str, expected: Result<&str, PathFault>| {
            let found = PathPattern::new(text).map(|pattern| pattern.to_string());
            assert_eq!(found, expected.map(str::to_owned), "{text}");
        };
        check("/", Ok("/"));
        check("/**", Ok("/**"));
        check("/a/", Ok("/a/"));
        check("/caf\u{e9}/**", Ok("/caf%C3%A9/**"));
        check("/%7euser/%c3%a9", Ok("/~user/%C3%A9"));
        check("/a b|c", Ok("/a%20b%7Cc"));
        check("/{\u{e9},x}/*", Ok("/{%C3%A9,x}/*"));
        check("/a^b/[^a-c]/*", Ok("/a%5Eb/[^a-c]/*"));
        check("/\\{id\\}/\\*", Ok("/%7Bid%7D/\\*"));
        check("/!", Ok("/!"));
        check("/a}/**", Ok("/a%7D/**"));
        check("/{a,b}}/*", Ok("/{a,b}%7D/*"));
        check("/{a,{b,c}}/*", Ok("/{a,{b,c}}/*"));
        check("a", Err(PathFault::Relative));
        check("", Err(PathFault::Relative));
        check("**", Err(PathFault::Relative));
        check("https://a.example/x", Err(PathFault::Relative));
        check("/a?b=c", Err(PathFault::Query));
        check("/a#b", Err(PathFault::Fragment));
        check("/a//b", Err(PathFault::DotSegments));
        check("//**", Err(PathFault::DotSegments));
        check("/a/../b", Err(PathFault::DotSegments));
        check("/a/%2e", Err(PathFault::DotSegments));
        check("/*/./x", Err(PathFault::DotSegments));
        for text in ["/[\u{e9}]", "/[ ]", "/[! ]", "/[a{]", "/[\\\\]"] {
            check(text, Err(PathFault::WideClass));
        }
        check(&format!("/{}", "a".repeat(1_024)), Err(PathFault::Length));
        for text in [
            "/[z-a]",
            "/{a,[z-a]}",
            "/[/]",
            "/[!!-~]",
            "/\\[[z-a]",
            "/[\\]a]/[z-a]",
        ] {
            check(text, Err(PathFault::EmptyClass));
        }
        check("/[a-az-a]", Ok("/[a-az-a]"));
        check("/[\\]]", Ok("/[\\]]"));
        check("/[]-a]", Ok("/[]-a]"));
        check("/\\[z-a]", Ok("/\\[z-a]"));
        for text in ["/{a,b", "/[a"] {
            assert!(
                matches!(PathPattern::new(text), Err(PathFault::Glob(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn encoded_patterns_match_what_browsers_send() {
        let check = |pattern: &str, path: &str| {
            assert!(
                PathPattern::new(pattern).unwrap().matches(path),
                "{pattern} {path}"
            );
        };
        check("/caf\u{e9}/**", "/caf%C3%A9/x");
        check("/*/[^a-c]x", "/%C3%A9/dx");
        check("/{\u{e9},x}/*", "/%C3%A9/1");
        check("/\\{id\\}", "/%7Bid%7D");
        check("/\\*", "/*");
        check("/a^b", "/a%5Eb");
    }

    #[test]
    fn hosts_are_names_or_addresses_without_port() {
        let check = |text: &str, expected: Result<HostPattern, HostFault>| {
            assert_eq!(HostPattern::new(text), expected, "{text}");
        };
        let exact = |text: &str| Ok(HostPattern::Exact(text.into()));
        check("Shop.example.com.", exact("shop.example.com"));
        check("10.0.0.1", exact("10.0.0.1"));
        check("[::1]", exact("[::1]"));
        check("localhost", exact("localhost"));
        check(
            "*.Example.com",
            Ok(HostPattern::Under(".example.com".into())),
        );
        check("m\u{fc}nchen.example", Err(HostFault::NotAscii));
        check("shop.example.com:8080", Err(HostFault::Port));
        check("[::1]:80", Err(HostFault::Port));
        for text in ["*", "*example.com", "shop.*.com", "shop.*", "*.*.com"] {
            check(text, Err(HostFault::Glob));
        }
        for text in [
            "",
            ".",
            ".example.com",
            "a..b",
            "https://a",
            "a/b",
            "a b",
            "::1",
            "[::1",
            "a@b",
            "*.",
        ] {
            check(text, Err(HostFault::Malformed));
        }
    }
}
