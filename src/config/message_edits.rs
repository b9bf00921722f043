//! What upstreams, groups and routes change in requests and responses: `headers`, `strip_prefix`,
//! `add_prefix`, `rewrite` and `redirect`.

use super::reader::Node;
use crate::experiment::matcher::{Condition, Matcher};
use crate::experiment::message_edits::{HeaderEdits, MessageEdits, Redirect};
use crate::experiment::path_rewrite::{PathPrefix, PathRewrite, PathTemplate, TemplateFault};
use crate::experiment::pattern::{PathPattern, WHOLE_SITE};
use http::Uri;
use http::header::{HeaderName, HeaderValue};

/// The key of changed header fields, and what it holds.
pub(super) const HEADERS: (&str, &str) = (
    "headers",
    "{ request: { set, add, remove }, response: { set, add, remove } }",
);
/// The keys of changed paths, and what they hold.
pub(super) const PATHS: [(&str, &str); 3] = [
    STRIP_PREFIX,
    (
        "add_prefix",
        "what is written before the path, such as /v2, after `strip_prefix`",
    ),
    (
        "rewrite",
        "another path, such as /new, or /new/** where the path of `match` is /old/**",
    ),
];
/// The key of a prefix that is removed, and what it holds.
pub(super) const STRIP_PREFIX: (&str, &str) = (
    "strip_prefix",
    "what is removed from the beginning of paths that have it, such as /shop",
);
/// The key of a redirect, and what it holds.
pub(super) const REDIRECT: (&str, &str) = (
    "redirect",
    "a path such as /new, or a URL, with * and ** for what those of `match` stand for; or { to, status }",
);

const PREFIX: &str = "whole segments of a path, such as /v2";
/// What the status of a redirect may be.
pub(super) const STATUS: &str = "301, 302, 307 or 308";
const LOCATION: &str = "a path such as /new, or a URL such as https://www.example.com/**";

/// Names that nobody may set, add or remove: they frame messages, belong to one connection, or are
/// written by the proxy itself.
const OF_THE_PROXY: &[&str] = &[
    "connection",
    "content-length",
    "date",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "te",
    "trailer",
    "transfer-encoding",
    "traceparent",
    "tracestate",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];
const PREFIXES_OF_THE_PROXY: &[&str] = &["watershed-", "proxy-"];

/// Reads the changes of a group or route whose requests meet these conditions.
pub(super) fn read(node: &Node<'_>, matcher: &Matcher) -> MessageEdits {
    let mut edits = headers(node);
    edits.path = path(node, matcher);
    edits
}

/// Reads `headers`.
pub(super) fn headers(owner: &Node<'_>) -> MessageEdits {
    let mut edits = MessageEdits::default();
    let Some(node) = owner.get("headers") else {
        return edits;
    };
    node.defined("header_edits");
    let keys = [
        (
            "request",
            "changes to what the upstream gets: { set, add, remove }",
        ),
        (
            "response",
            "changes to what the client gets: { set, add, remove }",
        ),
    ];
    if node.keys(&keys) {
        let of = |key: &str| {
            let fields = node.get(key).map(|node| fields(&node, key == "request"));
            fields.unwrap_or_default()
        };
        (edits.request, edits.response) = (of("request"), of("response"));
    }
    edits
}

fn fields(node: &Node<'_>, is_sent_to_upstreams: bool) -> HeaderEdits {
    node.keys(&[
        (
            "set",
            "header names, each with the value that replaces all others",
        ),
        (
            "add",
            "header names, each with a value that stands beside others",
        ),
        ("remove", "a header name, or a list of them"),
    ]);
    let values = |key: &str| {
        let named = node
            .get(key)
            .map(|node| node.named("header"))
            .unwrap_or_default();
        let fields = named.iter().filter_map(|(name, node)| {
            // What an upstream gets is often a credential.
            if is_sent_to_upstreams {
                node.hide();
            }
            let value = value(name, node);
            Some((header_name(node, name)?, value?))
        });
        fields.collect()
    };
    let remove = node
        .get("remove")
        .map(|node| node.items())
        .unwrap_or_default();
    let name = |node: &Node<'_>| header_name(node, node.text("a header name")?);
    HeaderEdits {
        set: values("set"),
        add: values("add"),
        remove: remove.iter().filter_map(name).collect(),
    }
}

/// Reads the value of a field of this name, which may come from the environment or a file.
pub(super) fn value(name: &str, node: &Node<'_>) -> Option<HeaderValue> {
    const VALUE: &str = "a value without control characters, or ${NAME}, or file:PATH";
    node.hide_if_named(name);
    let text = node.text(VALUE)?;
    let is_secret = text.contains("${") || text.starts_with("file:");
    let secret = match is_secret {
        true => Some(node.secret(VALUE)?),
        false => None,
    };
    let text = secret.as_ref().map_or(text, |secret| secret.reveal());
    let mut value = HeaderValue::try_from(text)
        .ok()
        .filter(|_| text.trim() == text);
    match &mut value {
        Some(value) => value.set_sensitive(is_secret),
        None => node.problem("control characters, or spaces at an end", VALUE),
    }
    value
}

/// Reads the name of a field that may be changed.
pub(super) fn header_name(node: &Node<'_>, text: &str) -> Option<HeaderName> {
    let Ok(name) = text.parse::<HeaderName>() else {
        let found = format!("{text:?} is not a header name");
        node.problem(found, "letters, digits and hyphens");
        return None;
    };
    let known = name.as_str();
    let begins = |prefix: &&str| known.starts_with(prefix);
    if OF_THE_PROXY.contains(&known) || PREFIXES_OF_THE_PROXY.iter().any(begins) {
        let allowed = match known {
            "host" => "write `host` beside `endpoints` of the upstream",
            _ => "any other header: the proxy writes this one, or needs it to frame messages",
        };
        node.problem(format!("{text} cannot be changed"), allowed);
        return None;
    }
    Some(name)
}

/// Reads a prefix of paths.
pub(super) fn prefix(node: &Node<'_>) -> PathPrefix {
    node.read(PREFIX, PathPrefix::new).unwrap_or_default()
}

/// Reads the prefixes that are removed and added.
pub(super) fn prefixes(node: &Node<'_>, strip: &str, add: &str) -> Option<PathRewrite> {
    let of = |key: &str| node.get(key).map(|node| prefix(&node)).unwrap_or_default();
    let (strip, add) = (of(strip), of(add));
    let is_any = !strip.is_empty() || !add.is_empty();
    is_any.then_some(PathRewrite::Prefix { strip, add })
}

fn path(node: &Node<'_>, matcher: &Matcher) -> Option<PathRewrite> {
    let prefixes = prefixes(node, "strip_prefix", "add_prefix");
    let Some(rewrite) = node.get("rewrite") else {
        return prefixes;
    };
    if prefixes.is_some() {
        rewrite.problem(
            "`rewrite` beside `strip_prefix` or `add_prefix`",
            "one of them: `rewrite` is the whole path",
        );
    }
    const REWRITE: &str = "a path such as /new or /new/**, without a query";
    let text = rewrite.text(REWRITE)?;
    if !is_path(text) || text.contains(['?', '#']) {
        rewrite.problem(format!("found {text:?}"), REWRITE);
        return None;
    }
    template(&rewrite, text, matcher).map(PathRewrite::Replace)
}

/// Whether this begins like a path, and no browser takes it for a URL without its scheme.
fn is_path(text: &str) -> bool {
    let is_sound = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
    text.starts_with('/') && !text.starts_with("//") && text.bytes().all(is_sound)
}

fn template(node: &Node<'_>, text: &str, matcher: &Matcher) -> Option<PathTemplate> {
    let pattern = only_path(matcher.condition());
    let fault = match PathTemplate::new(text, pattern) {
        Ok(template) => return Some(template),
        Err(fault) => fault,
    };
    let found = match fault {
        TemplateFault::MoreParts => {
            format!("{text:?} has a * or ** that the path of `match` has not")
        }
        TemplateFault::NotSegments => format!("{text:?} has a * or ** that stands for nothing"),
    };
    node.problem(
        found,
        "they stand for what the path of `match` has in their place: match: /old/*/** and /new/*/**, where * is a whole segment and ** is the end",
    );
    None
}

/// Returns the pattern of paths that a request must match, if that is one; `/**` where there is none.
fn only_path(condition: &Condition) -> Option<&PathPattern> {
    let mut count = 0;
    condition.for_each_simple(&mut |it| count += usize::from(matches!(it, Condition::Path(_))));
    match (condition, count) {
        (_, 0) => Some(&WHOLE_SITE),
        (Condition::Path(pattern), 1) => Some(pattern),
        (Condition::All(list), 1) => list.iter().find_map(|it| match it {
            Condition::Path(pattern) => Some(pattern),
            _ => None,
        }),
        _ => None,
    }
}

/// Reads `redirect`.
pub(super) fn redirect(owner: &Node<'_>, matcher: &Matcher) -> Option<Redirect> {
    let node = owner.get("redirect")?;
    if !node.is_map() {
        return location(&node, matcher).map(|location| Redirect {
            status: 302,
            location,
        });
    }
    node.keys(&[("to", LOCATION), ("status", STATUS)]);
    let status = node.get("status");
    let status = status.and_then(|node| node.read(STATUS, redirect_status));
    let Some(to) = node.get("to") else {
        node.missing("to", LOCATION);
        return None;
    };
    let location = location(&to, matcher)?;
    Some(Redirect {
        status: status.unwrap_or(302),
        location,
    })
}

/// Returns the status of a redirect.
pub(super) fn redirect_status(text: &str) -> Option<u16> {
    let status = text.parse().ok()?;
    matches!(status, 301 | 302 | 307 | 308).then_some(status)
}

fn location(node: &Node<'_>, matcher: &Matcher) -> Option<PathTemplate> {
    let text = node.text(LOCATION)?;
    if !is_path(text) && !is_url(text) {
        node.problem(format!("found {text:?}"), LOCATION);
        return None;
    }
    let template = template(node, text, matcher)?;
    // Whatever a `*` stands for.
    let path = text.replace("**", "x").replace('*', "x");
    if let Some(pattern) = only_path(matcher.condition())
        && text.starts_with('/')
        && pattern.matches(path.split(['?', '#']).next().unwrap_or(&path))
    {
        node.warn(
            format!(
                "{text} is itself redirected, without end, if the other conditions of `match` hold"
            ),
            "a `match` without the path that it leads to",
        );
    }
    Some(template)
}

/// Whether this is a URL with a scheme and a host, and a path after it where it has a `*`.
fn is_url(text: &str) -> bool {
    let rest = text
        .strip_prefix("https://")
        .or(text.strip_prefix("http://"));
    let Some(rest) = rest else {
        return false;
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let is_host = authority.parse::<Uri>().is_ok() && !authority.contains(['*', '@']);
    is_host
        && !authority.is_empty()
        && (path.is_empty() || path.starts_with(['?', '#']) || is_path(path))
}
