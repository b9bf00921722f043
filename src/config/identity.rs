//! `user:` and `identity:`: the sources of user IDs, and the minted cookie.

use super::cookie_domain;
use super::plan::{self, PRIVATE_COOKIES};
use super::reader::Node;
use crate::experiment::identity::{HashKey, IdSource, IdStorage, Identity, Mint};
use crate::experiment::key_ring::KeyRing;
use std::time::Duration;

pub(super) const COOKIE: &str = "a cookie's name: letters, digits and !#$%&'*+-.^_`|~";

const KEY: &str =
    "a long random text, such as `openssl rand -hex 32` prints; or ${NAME}, or file:PATH";

const KEYS: &str = "a list of long random texts, the newest first: [file:new, file:old]";

/// A shorter key can be found by trying.
const KEY_BYTES_MIN: usize = 16;

const KEYS_OF_IDENTITY: &[(&str, &str)] = &[
    ("name", "the name of the minted cookie"),
    (
        "max_age",
        "how long browsers keep the cookie, such as 365d; no browser keeps one longer than 400d",
    ),
    ("domain", "its Domain, such as example.com"),
    ("path", "its Path, such as /"),
    ("same_site", "Lax, Strict or None"),
    (
        "secure",
        "true or false; by default, true where the request came over TLS, and always with `same_site: None`",
    ),
    ("http_only", "true or false"),
    ("max_length", "the longest accepted ID, in bytes"),
    (
        "join",
        "whether a minted ID and a user ID on one request are one user: true or false",
    ),
    ("store", "raw or hashed"),
    ("key", KEY),
    ("keys", KEYS),
];

/// Reads `user` and `identity`. `stored_keys` sign minted IDs unless the file has keys.
pub(super) fn read(root: &Node<'_>, stored_keys: KeyRing) -> Identity {
    let sources = root
        .get("user")
        .map(|node| node.items())
        .unwrap_or_default();
    let mut identity = Identity {
        sources: sources.iter().filter_map(source).collect(),
        id_bytes_max: 256,
        mint: Mint {
            cookie: "watershed_id".into(),
            max_age_s: 365 * 24 * 3600,
            domain: None,
            path: "/".into(),
            same_site: "Lax".into(),
            secure: None,
            http_only: true,
        },
        join: true,
        keep: IdStorage::Raw,
        keys: stored_keys,
        keys_from_file: false,
    };
    let Some(node) = root.get("identity") else {
        return identity;
    };
    node.keys(KEYS_OF_IDENTITY);
    read_cookie(&node, &mut identity.mint);
    if let Some(length) = node.get("max_length").and_then(|node| node.whole(1, 8192)) {
        identity.id_bytes_max = length as usize;
    }
    identity.join = node
        .get("join")
        .and_then(|node| node.boolean())
        .unwrap_or(true);
    if let Some(key) = hash_key(&node) {
        identity.keep = IdStorage::Hashed(key);
    }
    if let Some(keys) = node.get("keys").and_then(|node| signing_keys(&node)) {
        identity.keys = keys;
        identity.keys_from_file = true;
    }
    identity
}

/// Reads the attributes of the minted cookie.
fn read_cookie(node: &Node<'_>, mint: &mut Mint) {
    if let Some(name) = node.get("name").and_then(|node| cookie_name(&node)) {
        mint.cookie = name;
    }
    if let Some(max_age) = node.get("max_age")
        && let Some(age) = max_age.duration()
    {
        if age > Duration::from_secs(400 * 24 * 3600) || age.is_zero() {
            max_age.problem(
                "browsers do not keep a cookie for that long",
                "more than 0s and at most 400d",
            );
        }
        mint.max_age_s = age.as_secs();
    }
    let attribute = |text: &str| {
        (!text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b';'))
        .then(|| text.into())
    };
    mint.domain = node
        .get("domain")
        .and_then(|node| cookie_domain::read(&node));
    if let Some(path) = node.get("path") {
        let read = |text: &str| attribute(text).filter(|_| text.starts_with('/'));
        mint.path = path.read("a path, such as /", read).unwrap_or("/".into());
    }
    let sites = [
        ("Lax", "Lax"),
        ("Strict", "Strict"),
        ("None", "None"),
        ("lax", "Lax"),
        ("strict", "Strict"),
        ("none", "None"),
    ];
    if let Some(same_site) = node.get("same_site").and_then(|node| node.word(&sites)) {
        mint.same_site = same_site.into();
    }
    mint.secure = node.get("secure").and_then(|node| node.boolean());
    check_prefix(node, mint);
    mint.http_only = node
        .get("http_only")
        .and_then(|node| node.boolean())
        .unwrap_or(true);
    if &*mint.same_site == "None" && mint.secure == Some(false) {
        node.problem(
            "browsers refuse a cookie with SameSite=None that is not Secure",
            "write `secure: true`, or leave `secure` out: such a cookie is always Secure",
        );
    }
}

/// Reads the key that IDs are hashed with, where `store: hashed` asks for one.
fn hash_key(node: &Node<'_>) -> Option<HashKey> {
    let hashed = node
        .get("store")
        .and_then(|node| node.word(&[("raw", false), ("hashed", true)]));
    match (hashed, node.get("key")) {
        (Some(true), Some(written)) => {
            let key = written.secret("a text")?;
            if key.reveal().len() < KEY_BYTES_MIN {
                written.problem("the key is shorter than 16 bytes", KEY);
            }
            return Some(HashKey::new(key.reveal().as_bytes()));
        }
        (Some(true), None) => node.missing("key", KEY),
        (_, Some(written)) => written.problem(
            "a key has no effect while IDs are stored raw",
            "write `store: hashed`, or leave `key` out",
        ),
        (_, None) => {}
    }
    None
}

/// Reads the keys that sign minted IDs. The first one signs; the others still verify.
fn signing_keys(node: &Node<'_>) -> Option<KeyRing> {
    let written = node.items();
    if written.is_empty() {
        node.problem("no key", KEYS);
    }
    let read = |node: &Node<'_>| {
        let key = node.secret("a text")?;
        let is_long = key.reveal().len() >= KEY_BYTES_MIN;
        if !is_long {
            node.problem("the key is shorter than 16 bytes", KEY);
        }
        is_long.then_some(key)
    };
    let keys: Vec<_> = written.iter().map(read).collect();
    let keys: Option<Vec<_>> = keys.into_iter().collect();
    let keys = keys?;
    let mut secrets = keys.iter().map(|key| key.reveal().as_bytes());
    Some(KeyRing::new(plan::IDENTITY_KEYS, secrets.next()?, secrets))
}

/// Reads where an ID stands in requests.
pub(super) fn source(node: &Node<'_>) -> Option<IdSource> {
    const ALLOWED: &str =
        "one of { cookie: NAME }, { header: NAME }, { query: NAME }, { jwt: CLAIM }";
    if !node.keys(&[
        ("cookie", COOKIE),
        ("header", "a header's name"),
        ("query", "a parameter's name"),
        ("jwt", "a claim, such as sub"),
    ]) {
        return None;
    }
    let kinds: Vec<Node<'_>> = ["cookie", "header", "query", "jwt"]
        .into_iter()
        .filter_map(|key| node.get(key))
        .collect();
    let [only] = &kinds[..] else {
        node.problem(
            format!("{} sources in one item", kinds.len()),
            format!("{ALLOWED}; several as a list, the first that holds an ID wins"),
        );
        return None;
    };
    match only.path.last().map(String::as_str) {
        Some("cookie") => cookie_name(only).map(IdSource::Cookie),
        Some("header") => only
            .read("a header's name", |text| text.parse().ok())
            .map(IdSource::Header),
        Some("query") => only
            .read("a parameter's name: letters, digits and _.-", |text| {
                let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
                (!text.is_empty() && text.bytes().all(sound)).then(|| text.into())
            })
            .map(IdSource::Query),
        _ if only.is_map() => {
            only.keys(&[
                ("claim", "a claim, such as sub"),
                ("cookie", "the cookie that carries the token"),
            ]);
            let claim = only
                .get("claim")
                .and_then(|node| node.text("a claim, such as sub"));
            if claim.is_none() {
                only.missing("claim", "a claim, such as sub");
            }
            let cookie = only.get("cookie").and_then(|node| cookie_name(&node));
            Some(IdSource::Jwt {
                claim: claim?.into(),
                cookie,
            })
        }
        _ => only
            .text("a claim, such as sub")
            .map(|claim| IdSource::Jwt {
                claim: claim.into(),
                cookie: None,
            }),
    }
}

fn cookie_name(node: &Node<'_>) -> Option<Box<str>> {
    let name: Box<str> = node.read(COOKIE, |text| is_cookie_name(text).then(|| text.into()))?;
    if PRIVATE_COOKIES.contains(&&*name) {
        node.problem(
            "watershed has a cookie of this name for something else",
            "another name",
        );
    }
    node.reads_cookie(&name);
    Some(name)
}

/// Checks what browsers demand of a cookie whose name has a prefix (RFC 6265bis, 4.1.3). They ignore its case.
fn check_prefix(node: &Node<'_>, mint: &mut Mint) {
    let has = |prefix: &str| {
        let begin = mint.cookie.get(..prefix.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
    };
    let is_host = has("__Host-");
    if !is_host && !has("__Secure-") {
        return;
    }
    let refused = |key: &str, is_wrong: bool, allowed: &str| {
        if let Some(node) = node.get(key).filter(|_| is_wrong) {
            let found = format!("browsers refuse a cookie named {} with this", mint.cookie);
            node.problem(found, allowed);
        }
    };
    refused("domain", is_host, "no `domain`, or another name");
    refused("path", is_host && &*mint.path != "/", "/");
    refused("secure", mint.secure == Some(false), "true");
    mint.secure = Some(true);
}

/// Whether a cookie can have this name (RFC 6265, 4.1.1).
pub(super) fn is_cookie_name(text: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(sound)
}
