//! `consent:`, `events:` and `retention:`: what is recorded, from which sources, and for how long.

use super::conditions;
use super::plan::Beacon;
use super::reader::Node;
use crate::experiment::consent::Consent;
use crate::experiment::pattern::{PathPattern, ValuePattern};
use http::HeaderValue;
use std::time::Duration;

/// Reads `consent`.
pub(super) fn consent(root: &Node<'_>) -> Option<Consent> {
    const COOKIE: &str = "the name of the cookie that holds the consent";
    let node = root.get("consent")?;
    node.keys(&[
        ("cookie", COOKIE),
        (
            "value",
            "the value of the cookie with consent, with * for any text, such as \"*analytics*\"; any value unless given",
        ),
    ]);
    let Some(cookie) = node.get("cookie") else {
        node.missing("cookie", COOKIE);
        return None;
    };
    let sound = |text: &str| !text.is_empty() && !text.contains(['=', ';', ' ']);
    let name: Box<str> = cookie.read(COOKIE, |text| sound(text).then(|| text.into()))?;
    cookie.reads_cookie(&name);
    Some(Consent {
        cookie: name,
        value: node
            .get("value")
            .and_then(|node| node.text("a value"))
            .map_or(ValuePattern::new("*"), ValuePattern::new),
    })
}

/// The default of `per_minute_per_address` as a multiple of `per_minute`: households and offices share
/// an address.
const USERS_AT_AN_ADDRESS: u32 = 10;

/// Reads `events`.
pub(super) fn beacon(root: &Node<'_>) -> Beacon {
    let mut beacon = Beacon {
        path: "/_watershed/events".into(),
        origins: Box::default(),
        body_bytes_max: 16 * 1024,
        per_minute: 120,
        per_minute_per_address: 120 * USERS_AT_AN_ADDRESS,
        enabled: true,
    };
    let Some(node) = root.get("events") else {
        return beacon;
    };
    const PATH: &str = "a path that begins with /, such as /_watershed/events";
    node.keys(&[
        ("path", PATH),
        (
            "origins",
            "a list of origins of other sites that may report events",
        ),
        ("body", "the largest report, such as 16KiB"),
        ("per_minute", "the most events of one user per minute"),
        (
            "per_minute_per_address",
            "the most events of one client address per minute; ten times per_minute unless given",
        ),
        (
            "browser",
            "whether browsers may report events: true or false",
        ),
    ]);
    if let Some(path) = node.get("path") {
        let pattern = path.text(PATH);
        let pattern = pattern.and_then(|text| conditions::path_of(&path, text));
        match pattern {
            Some(PathPattern::Exact(exact)) => beacon.path = exact,
            Some(_) => path.problem("a glob, and browsers report events at one path", PATH),
            None => {}
        }
    }
    if let Some(origins) = node.get("origins") {
        let read = |node: &Node<'_>| node.read("an origin, such as https://shop.example", origin);
        beacon.origins = origins.items().iter().filter_map(read).collect();
    }
    if let Some(bytes) = node.get("body").and_then(|node| node.bytes()) {
        beacon.body_bytes_max = bytes as usize;
    }
    let most = |key: &str| node.get(key)?.whole(1, 1_000_000).map(|most| most as u32);
    beacon.per_minute = most("per_minute").unwrap_or(beacon.per_minute);
    let together = beacon.per_minute.saturating_mul(USERS_AT_AN_ADDRESS);
    beacon.per_minute_per_address = most("per_minute_per_address").unwrap_or(together);
    beacon.enabled = node
        .get("browser")
        .and_then(|node| node.boolean())
        .unwrap_or(true);
    beacon
}

/// Reads `retention`.
pub(super) fn retention(root: &Node<'_>) -> Option<Duration> {
    root.get("retention").and_then(|node| node.duration())
}

/// Reads an origin of pages, such as `https://shop.example`.
pub(super) fn origin(text: &str) -> Option<HeaderValue> {
    let host = text
        .strip_prefix("https://")
        .or(text.strip_prefix("http://"))?;
    let sound = !host.is_empty() && !host.contains(['/', '*']);
    sound.then(|| HeaderValue::from_str(text).ok())?
}
