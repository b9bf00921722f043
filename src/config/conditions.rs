//! Conditions on requests: what `match:` and keys like it may say.

use super::limits;
use super::reader::Node;
use crate::experiment::device::DeviceClass;
use crate::experiment::implication::never_holds;
use crate::experiment::language::LanguageRange;
use crate::experiment::matcher::{Condition, Matcher};
use crate::experiment::path_regex::{PathRegex, REGEX_BYTES_MAX, RegexFault};
use crate::experiment::pattern::{
    HostFault, HostPattern, PATTERN_BYTES_MAX, PathFault, PathPattern, ValuePattern, ValueTest,
};
use http::Method;
use http::header::HeaderName;

/// The name of what conditions say in the JSON Schema.
const DEFINITION: &str = "conditions";
/// The same for what a value must be.
const VALUES: &str = "values";

const KEYS: &[(&str, &str)] = &[
    (
        "path",
        "a path, such as /checkout/**, or { regex: \"^/p/[0-9]+$\" }, or a list of them",
    ),
    (
        "host",
        "a host, such as shop.example.com or *.example.com, or a list of them",
    ),
    ("method", "a method or a list of them"),
    ("headers", VALUES_OF_HEADERS),
    ("header", "the same as `headers`"),
    ("cookie", "cookie names, each with a value as for headers"),
    (
        "query",
        "query parameters, each with a value as for headers",
    ),
    (
        "network",
        "the client's network, such as 10.0.0.0/8, or a list of them",
    ),
    (
        "language",
        "the language that the user prefers, such as de (also de-AT), or a list of them",
    ),
    (
        "device",
        "the class of the client's device: mobile, tablet, desktop or other, or a list of them",
    ),
    (
        "any",
        "a list of conditions, of which at least one must hold",
    ),
    ("all", "a list of conditions, which must all hold"),
    ("not", "conditions that must not hold"),
];
const VALUES_OF_HEADERS: &str = "header names, each with a value (`*` for any text), a list of values, `true` for any value, or `false` for none";
const PATH: &str = "a path that begins with /, such as /checkout or /shop/**";
const VALUE: &str =
    "a value (`*` for any text), a list of values, true for any value, or false for none";

/// The nesting of `any`, `all` and `not`.
const DEPTH_MAX: usize = 8;
/// The conditions of one experiment.
const CONDITIONS_MAX: usize = 1_000;

/// Reads conditions: a path, keys that must all hold, or a list of which at least one must hold.
pub(super) fn read(node: &Node<'_>) -> Matcher {
    let Some(condition) = conditions(node, 0) else {
        return Matcher::default();
    };
    let mut count = 0;
    condition.for_each_simple(&mut |_| count += 1);
    if count > CONDITIONS_MAX {
        node.problem(
            format!("{count} conditions"),
            format!("at most {CONDITIONS_MAX}; a glob or a regex can replace a list of paths"),
        );
    } else if never_holds(&condition) {
        node.problem(
            "no request can meet these conditions: they contradict each other",
            "all keys of one item must hold together; write alternatives as a list or as `any`",
        );
    }
    Matcher::new(condition)
}

/// `None` where an error was reported.
fn conditions(node: &Node<'_>, depth: usize) -> Option<Condition> {
    node.defined(DEFINITION);
    if depth > DEPTH_MAX {
        node.problem(
            format!("conditions nested more than {DEPTH_MAX} times"),
            "write the same conditions with fewer `any`, `all` and `not`",
        );
        return None;
    }
    if node.is_list() {
        return one_of(node, "path or condition", |node| {
            conditions(node, depth + 1)
        });
    }
    if node.is_map() {
        return of_map(node, depth);
    }
    path(node).map(Condition::Path)
}

fn of_map(node: &Node<'_>, depth: usize) -> Option<Condition> {
    if !node.keys(KEYS) {
        return None;
    }
    let below = |node: &Node<'_>| conditions(node, depth + 1);
    let mut all: Vec<Option<Condition>> = Vec::new();
    let mut list = |key: &str, what, read: &dyn Fn(&Node<'_>) -> Option<Condition>| {
        all.extend(node.get(key).map(|node| one_of(&node, what, read)));
    };
    list("path", "path", &|node| path(node).map(Condition::Path));
    list("host", "host", &|node| host(node).map(Condition::Host));
    list("method", "method", &|node| {
        method(node).map(Condition::Method)
    });
    list("network", "network", &|node| {
        limits::network(node).map(Condition::Network)
    });
    list("language", "language", &|node| {
        language(node).map(Condition::Language)
    });
    list("device", "device", &|node| {
        device(node).map(Condition::Device)
    });
    list("any", "condition", &below);
    if let Some(node) = node.get("all") {
        let items = items(&node, "condition");
        all.extend(items.iter().map(below));
    }
    if let Some(node) = node.get("not") {
        all.push(below(&node).map(|it| Condition::Not(Box::new(it))));
    }
    let named = |key: &str| {
        let node = node.get(key);
        node.map(|node| node.named(key)).unwrap_or_default()
    };
    for key in ["headers", "header"] {
        let headers = named(key).into_iter();
        all.extend(headers.map(|it| header(&it).map(|(name, test)| Condition::Header(name, test))));
    }
    for it in named("cookie") {
        all.push(cookie(&it).map(|(name, test)| Condition::Cookie(name, test)));
    }
    for it in named("query") {
        all.push(parameter(&it).map(|(name, test)| Condition::Query(name, test)));
    }
    let mut all: Vec<Condition> = all.into_iter().collect::<Option<_>>()?;
    match all.len() {
        1 => all.pop(),
        _ => Some(Condition::All(all.into())),
    }
}

/// The items of a list, which must not be empty.
fn items<'a>(node: &Node<'a>, what: &str) -> Vec<Node<'a>> {
    let items = node.items();
    if items.is_empty() {
        node.problem(
            "an empty list",
            format!("write at least one {what}, or leave `{}` out", node.key()),
        );
    }
    items
}

/// A value, or a list of which at least one must hold.
fn one_of(
    node: &Node<'_>,
    what: &str,
    read: impl Fn(&Node<'_>) -> Option<Condition>,
) -> Option<Condition> {
    let read: Vec<_> = items(node, what).iter().map(read).collect();
    let mut any: Vec<Condition> = read.into_iter().collect::<Option<_>>()?;
    match any.len() {
        0 => None,
        1 => any.pop(),
        _ => Some(Condition::Any(any.into())),
    }
}

/// Reads a path, a glob of paths, or `{ regex: … }`.
pub(super) fn path(node: &Node<'_>) -> Option<PathPattern> {
    if node.is_map() {
        const REGEX: &str = "a regular expression, such as \"^/p/[0-9]+$\"";
        if !node.keys(&[("regex", REGEX)]) {
            return None;
        }
        let Some(regex) = node.get("regex") else {
            node.missing("regex", REGEX);
            return None;
        };
        let text = regex.text(REGEX)?;
        let compiled = PathRegex::new(text);
        let report = |fault| report_regex(&regex, text, fault);
        let compiled = compiled.map_err(report).ok()?;
        if !compiled.can_match() {
            regex.problem(
                format!("{text:?} can never match"),
                "a path begins with / and has no `?`, `#`, spaces or `//`",
            );
        }
        return Some(PathPattern::Regex(compiled));
    }
    let text = node.text(PATH)?;
    path_of(node, text)
}

/// The pattern of a text that is a part of this value.
pub(super) fn path_of(node: &Node<'_>, text: &str) -> Option<PathPattern> {
    let report = |fault| report_path(node, text, fault);
    PathPattern::new(text).map_err(report).ok()
}

fn report_path(node: &Node<'_>, text: &str, fault: PathFault) {
    let (found, allowed) = match fault {
        PathFault::Relative => (format!("found {text:?}"), PATH.to_owned()),
        PathFault::Query => (
            format!("{text:?} can never match: a path has no `?`"),
            "conditions on the query are written as `query: { name: value }`; for any one character, write [!/]".to_owned(),
        ),
        PathFault::Fragment => (
            format!("{text:?} can never match: clients do not send `#` and what follows"),
            "write the path without it".to_owned(),
        ),
        PathFault::DotSegments => (
            format!("{text:?} can never match: `//`, `.` and `..` are removed from paths before they are compared"),
            "write the path without them".to_owned(),
        ),
        PathFault::WideClass => (
            format!("{text:?} can never match: a character in brackets is several bytes in a URL"),
            "write alternatives, such as {é,è}".to_owned(),
        ),
        PathFault::EmptyClass => (
            format!("{text:?} can never match: no character of a path is in the brackets"),
            "write a range from the lower to the higher character, such as [a-z]; `/` stands outside brackets".to_owned(),
        ),
        PathFault::Glob(error) => (
            format!("{text:?} is no glob: {error}"),
            "write \\ before a character that has no special meaning".to_owned(),
        ),
        PathFault::Length => (
            format!("a path of {} bytes", text.len()),
            format!("at most {PATTERN_BYTES_MAX} bytes"),
        ),
    };
    node.problem(found, allowed);
}

fn report_regex(node: &Node<'_>, text: &str, fault: RegexFault) {
    let (found, allowed) = match fault {
        RegexFault::NotAscii => (
            format!("{text:?} has characters that are percent-encoded in URLs"),
            "write them as they are sent, such as %C3%A9 for é".to_owned(),
        ),
        RegexFault::Syntax(why) => (
            format!("{text:?} is no regular expression: {why}"),
            "the syntax is that of the Rust crate regex: no look-around, no backreferences"
                .to_owned(),
        ),
        RegexFault::Size => (
            "the regular expression is too large to be matched in bounded time".to_owned(),
            format!("at most {REGEX_BYTES_MAX} bytes, with smaller numbers in {{…}}"),
        ),
    };
    node.problem(found, allowed);
}

fn host(node: &Node<'_>) -> Option<HostPattern> {
    const HOST: &str = "a host without port, such as shop.example.com or *.example.com";
    let text = node.text(HOST)?;
    let fault = match HostPattern::new(text) {
        Ok(pattern) => return Some(pattern),
        Err(fault) => fault,
    };
    let (found, allowed) = match fault {
        HostFault::NotAscii => (
            format!("{text:?} can never match: clients send the name in Punycode"),
            match punycode(text) {
                Some(sent) => format!("write {sent}"),
                None => HOST.to_owned(),
            },
        ),
        HostFault::Port => (
            format!("{text:?} can never match: ports are not compared"),
            "write the host without its port".to_owned(),
        ),
        HostFault::Glob => (
            format!("{text:?} can never match: `*` stands only in front, for whole labels"),
            "write *.example.com, or leave `host` out for every host".to_owned(),
        ),
        HostFault::Malformed => (format!("found {text:?}"), HOST.to_owned()),
    };
    node.problem(found, allowed);
    None
}

/// The form of a host that clients send, where it has one.
pub(super) fn punycode(text: &str) -> Option<String> {
    let (star, host) = match text.strip_prefix("*.") {
        Some(host) => ("*.", host),
        None => ("", text),
    };
    let host = idna::domain_to_ascii(host).ok()?;
    HostPattern::new(&host).ok()?;
    Some(format!("{star}{host}"))
}

/// Reads a method, such as `POST`.
pub(super) fn method(node: &Node<'_>) -> Option<Method> {
    node.read("a method in capitals, such as GET or POST", method_of)
}

/// Returns the method of this name.
pub(super) fn method_of(text: &str) -> Option<Method> {
    let capitals = text
        .bytes()
        .all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    capitals.then(|| text.parse().ok()).flatten()
}

fn language(node: &Node<'_>) -> Option<LanguageRange> {
    node.read(
        "a language, such as de (also de-AT) or pt-BR",
        LanguageRange::new,
    )
}

fn device(node: &Node<'_>) -> Option<DeviceClass> {
    node.word(&[
        ("mobile", DeviceClass::Mobile),
        ("phone", DeviceClass::Mobile),
        ("tablet", DeviceClass::Tablet),
        ("desktop", DeviceClass::Desktop),
        ("other", DeviceClass::Other),
    ])
}

/// Reads the name of a header, and what its value must be.
pub(super) fn header((name, node): &(String, Node<'_>)) -> Option<(HeaderName, ValueTest)> {
    let never_sent = |value: &ValuePattern| match value.has_any(b"\r\n\0") {
        true => Some("a header has no line breaks"),
        false => outer_space(value, true),
    };
    let test = named_test(name, node, never_sent);
    match name.parse::<HeaderName>() {
        Ok(header) if !name.contains('*') => Some((header, test?)),
        _ => {
            node.problem(
                format!("{name:?} is not a header name"),
                "letters, digits and hyphens",
            );
            None
        }
    }
}

/// Reads the name of a cookie, and what its value must be.
pub(super) fn cookie((name, node): &(String, Node<'_>)) -> Option<(Box<str>, ValueTest)> {
    let never_sent = |value: &ValuePattern| match value.has_any(b";\r\n\0") {
        true => Some("a cookie's value has no `;` and no line breaks"),
        false => outer_space(value, false),
    };
    let test = named_test(name, node, never_sent);
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(sound) {
        node.problem(
            format!("{name:?} is not a cookie's name"),
            "letters, digits and !#$%&'+-.^_`|~",
        );
        return None;
    }
    node.reads_cookie(name);
    Some((name.as_str().into(), test?))
}

/// Reads the name of a query parameter, and what its value must be.
fn parameter((name, node): &(String, Node<'_>)) -> Option<(Box<str>, ValueTest)> {
    let test = named_test(name, node, |_| None);
    if name.is_empty() || name.contains(['*', '&', '=', '?', '#']) {
        node.problem(
            format!("{name:?} is not the name of a query parameter"),
            "the decoded name, without the value: a name has no `*`, `&`, `=`, `?` and `#`",
        );
        return None;
    }
    Some((name.as_str().into(), test?))
}

/// Why no value that is sent has these spaces. The value of a cookie may begin with one.
fn outer_space(value: &ValuePattern, in_front: bool) -> Option<&'static str> {
    let (before, behind) = value.outer_space();
    (behind || before && in_front)
        .then_some("spaces around a value are removed before it is compared")
}

/// Reads what the value of this name must be. `never_sent` says why no client sends a value.
fn named_test(
    name: &str,
    node: &Node<'_>,
    never_sent: impl Fn(&ValuePattern) -> Option<&'static str>,
) -> Option<ValueTest> {
    node.hide_if_named(name);
    value_test(node, never_sent)
}

/// Reads what a value must be. A key without a value asks only that there is one.
fn value_test(
    node: &Node<'_>,
    never_sent: impl Fn(&ValuePattern) -> Option<&'static str>,
) -> Option<ValueTest> {
    node.defined(VALUES);
    node.warn_of_old_boolean();
    match node.true_or_false() {
        Some(true) => return Some(ValueTest::Present),
        Some(false) => return Some(ValueTest::Absent),
        None if node.is_nothing() => return Some(ValueTest::Present),
        None => {}
    }
    let read = |node: &Node<'_>| {
        let text = node.text(VALUE)?;
        let value = ValuePattern::new(text);
        if let Some(why) = never_sent(&value) {
            node.problem(
                format!("{text:?} can never match: {why}"),
                "the value as clients send it",
            );
        }
        Some(value)
    };
    let patterns: Vec<_> = items(node, "value").iter().map(read).collect();
    let patterns = patterns.into_iter().collect::<Option<Box<[_]>>>()?;
    (!patterns.is_empty()).then_some(ValueTest::OneOf(patterns))
}
