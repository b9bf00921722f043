//! Who the visitor is: an ID is never empty nor too long, and is found where a plain reading finds
//! it. The input's lines are, in order: the query, a header, `Authorization`, and cookies.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, COOKIE, HeaderName, HeaderValue};
use http::request::Parts;
use watershed::experiment::http_view::HeaderView;
use watershed::experiment::identity::{
    HashKey, IdSource, IdStorage, Identity, Mint, find, is_no_id, mint, query_value, set_cookie,
};
use watershed::experiment::key_ring::KeyRing;
use watershed::experiment::minted::{self, Origin};

const ID_BYTES_MAX: usize = 40;

/// A new key, and the one before it.
fn keys() -> KeyRing {
    KeyRing::new("identity", b"new", [&b"old"[..]])
}

fn old_keys() -> KeyRing {
    KeyRing::new("identity", b"old", [])
}

fn identity(sources: Vec<IdSource>, join: bool) -> Identity {
    Identity {
        sources,
        id_bytes_max: ID_BYTES_MAX,
        mint: Mint {
            cookie: "minted".into(),
            max_age_s: 1,
            domain: None,
            path: "/".into(),
            same_site: "Lax".into(),
            secure: None,
            http_only: true,
        },
        join,
        keep: IdStorage::Raw,
        keys: keys(),
        keys_from_file: true,
    }
}

fn request(bytes: &[u8]) -> Option<Parts> {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let query = std::str::from_utf8(lines.next()?).ok()?;
    let mut head = http::Request::builder()
        .uri(format!("/?{query}"))
        .body(())
        .ok()?
        .into_parts()
        .0;
    if let Some(value) = lines.next() {
        let name = HeaderName::from_static("x-user");
        head.headers
            .insert(name, HeaderValue::from_bytes(value).ok()?);
    }
    if let Some(value) = lines.next() {
        head.headers
            .insert(AUTHORIZATION, HeaderValue::from_bytes(value).ok()?);
    }
    for value in lines {
        head.headers
            .append(COOKIE, HeaderValue::from_bytes(value).ok()?);
    }
    Some(head)
}

/// The plain reading of RFC 6265, 5.4 turned round: pairs between semicolons.
fn cookies(head: &Parts, name: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for line in head.headers.get_all(COOKIE) {
        for pair in line.as_bytes().split(|&byte| byte == b';') {
            let equals = pair.iter().position(|&byte| byte == b'=');
            let Some(equals) = equals else { continue };
            let (left, right) = pair.split_at(equals);
            if left.trim_ascii_start() == name.as_bytes() {
                found.push(right[1..].trim_ascii_end().to_vec());
            }
        }
    }
    found
}

fn cookie(head: &Parts, name: &str) -> Option<Vec<u8>> {
    cookies(head, name).into_iter().next()
}

/// Whether this can be an ID.
fn usable(id: &[u8]) -> bool {
    (1..=ID_BYTES_MAX).contains(&id.len()) && !is_no_id(id)
}

/// The ID in the cookie: all of it, or what stands before the first dot where the rest is what a
/// key of ours makes of it.
fn own(head: &Parts) -> Option<(Vec<u8>, Origin)> {
    cookies(head, "minted")
        .iter()
        .find_map(|value| own_of(value))
}

fn own_of(value: &[u8]) -> Option<(Vec<u8>, Origin)> {
    let value = without_spaces(value).to_vec();
    let end = value.iter().position(|&byte| byte == b'.');
    let id = value[..end.unwrap_or(value.len())].to_vec();
    let origin = match end {
        None => Some(Origin::Old),
        Some(_) => [Origin::Minted, Origin::Old].into_iter().find(|&origin| {
            let mut keys = [keys(), old_keys()].into_iter();
            keys.any(|keys| minted::write(&keys, &id, origin) == value)
        }),
    };
    origin.filter(|_| usable(&id)).map(|origin| (id, origin))
}

/// Only what was signed is read as signed: not with another ID, another tag, or a byte more.
fn check_tags(id: &[u8], change: &[u8]) {
    // An ID with a dot ends there for whoever reads it.
    if id.is_empty() || id.contains(&b'.') {
        return;
    }
    for (origin, keys, is_current) in [
        (Origin::Minted, keys(), true),
        (Origin::Old, keys(), true),
        (Origin::Minted, old_keys(), false),
    ] {
        let value = minted::write(&keys, id, origin);
        let ring = self::keys();
        let read = minted::read(&ring, &value).expect("it was signed");
        assert_eq!(
            (read.id, read.origin, read.is_current),
            (id, origin, is_current)
        );
        assert_eq!(minted::id_of(&ring, &value), id);
        let stranger = KeyRing::new("session", b"new", [&b"old"[..]]);
        assert_eq!(minted::read(&stranger, &value), None, "another purpose");
        let mut other = value.clone();
        match *change {
            [] => {}
            [byte] => other.push(byte),
            [place, byte, ..] => {
                let place = usize::from(place) % other.len();
                other[place] = byte;
            }
        }
        if other != value
            && let Some(forged) = minted::read(&ring, &other)
        {
            // Without a dot, it is an ID that anybody may choose.
            assert!(
                !other.contains(&b'.') && forged.origin == Origin::Old,
                "forged"
            );
        }
    }
}

/// Spaces and tabs around an ID are no part of it.
fn without_spaces(mut id: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = id {
        id = rest;
    }
    id
}

fn claim(token: &[u8], claim: &str) -> Option<Vec<u8>> {
    let payload = token.split(|&byte| byte == b'.').nth(1)?;
    let json = URL_SAFE_NO_PAD.decode(payload.trim_ascii_end()).ok()?;
    let claims: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&json).ok()?;
    match claims.get(claim)? {
        serde_json::Value::String(text) => Some(text.clone().into_bytes()),
        number if number.is_i64() || number.is_u64() => Some(number.to_string().into_bytes()),
        _ => None,
    }
}

/// Tries one input.
pub fn try_input(bytes: &[u8]) {
    let Some(head) = request(bytes) else {
        return;
    };
    let header = HeaderName::from_static("x-user");
    let jwt = |cookie: Option<&str>| IdSource::Jwt {
        claim: "sub".into(),
        cookie: cookie.map(Into::into),
    };
    let own = own(&head);
    // The cookie's ID stands in for that of any source.
    let own_id = own.as_ref().map(|(id, _)| id.clone());
    let alone = |source: IdSource| {
        let identity = identity(vec![source], false);
        find(&identity, &head).map(|visitor| visitor.user().as_bytes().to_vec())
    };
    let plain = |id: Option<Vec<u8>>| {
        let id = id.map(|id| without_spaces(&id).to_vec());
        id.filter(|id| usable(id)).or(own_id.clone())
    };
    let expect = |source: IdSource, id: Option<Vec<u8>>| match plain(id) {
        Some(id) => assert_eq!(alone(source), Some(id)),
        None => assert_eq!(alone(source), None),
    };
    assert_eq!(
        (&head.headers).cookies("uid").next().map(<[u8]>::to_vec),
        cookie(&head, "uid")
    );
    // It may stand in quotation marks.
    let unquoted = |value: Vec<u8>| match &value[..] {
        [b'"', inside @ .., b'"'] => inside.to_vec(),
        _ => value,
    };
    let mut uids = cookies(&head, "uid").into_iter().map(unquoted);
    let uid = uids.find(|id| usable(without_spaces(id)));
    expect(IdSource::Cookie("uid".into()), uid);
    let said = head.headers.get(&header);
    expect(
        IdSource::Header(header.clone()),
        said.map(|value| value.as_bytes().to_vec()),
    );
    let bearer = head.headers.get(AUTHORIZATION).and_then(|value| {
        let value = value.as_bytes();
        let (scheme, token) = value.split_at_checked(7)?;
        let scheme = scheme.eq_ignore_ascii_case(b"bearer ");
        scheme.then(|| claim(token.trim_ascii(), "sub")).flatten()
    });
    expect(jwt(None), bearer);
    let token = cookie(&head, "token").and_then(|token| claim(&token, "sub"));
    expect(jwt(Some("token")), token);
    let query = head.uri.query().unwrap_or_default();
    if let Some(value) = query_value(query, "uid") {
        // The usual parser agrees wherever the value is text.
        let usual = url(query, "uid");
        if std::str::from_utf8(&value).is_ok() {
            assert_eq!(usual.as_deref(), Some(&*value));
        }
    }
    // A minted ID is given and found again.
    let new = mint(
        bytes.len() as u64,
        &[bytes.first().copied().unwrap_or(0); 10],
        bytes.len().is_multiple_of(2),
    );
    let no_sources = identity(Vec::new(), true);
    let given = set_cookie(&no_sources, &new, true).expect("a new visitor has no cookie");
    let given = given.split(|&byte| byte == b';').next().unwrap_or_default();
    let mut again = head.clone();
    again.headers.remove(COOKIE);
    let given = HeaderValue::from_bytes(given).expect("a cookie");
    again.headers.insert(COOKIE, given);
    let found = find(&no_sources, &again).expect("it was given");
    assert_eq!(found.user(), new.user());
    assert_eq!(set_cookie(&no_sources, &found, true), None, "given twice");
    // All at once: some ID of its own, never an empty or a long one; twice the same.
    let all = vec![
        IdSource::Query("uid".into()),
        IdSource::Header(header),
        jwt(None),
        IdSource::Cookie("uid".into()),
    ];
    let identity = identity(all, true);
    if let Some(visitor) = find(&identity, &head) {
        let (user, by) = (visitor.user(), visitor.assigned_by());
        for id in [user, by] {
            assert!(usable(id.as_bytes()));
            let hashed = IdStorage::Hashed(HashKey::new(b"key"));
            assert_eq!(hashed.of(id).id().as_bytes().len(), 32);
        }
        // Groups go by the cookie; only a minted ID is absorbed.
        if let Some((id, _)) = &own {
            assert_eq!(by.as_bytes(), id);
        } else {
            assert_eq!(by, user);
        }
        let signed = own.as_ref().filter(|(_, origin)| *origin == Origin::Minted);
        let absorbed = visitor.minted_beside();
        let may_be = signed.filter(|(id, _)| id != user.as_bytes());
        assert_eq!(
            absorbed.map(|id| id.as_bytes().to_vec()),
            may_be.map(|(id, _)| id.clone())
        );
        // Whoever has an ID that a client may have chosen is given a signed one.
        if let Some(line) = set_cookie(&identity, &visitor, false) {
            let id = &by.as_bytes();
            assert!(line.starts_with(&[b"minted=", *id, b"."].concat()));
        }
        assert_eq!(find(&identity, &head), Some(visitor));
    } else {
        assert_eq!(own, None);
    }
    let (id, change) = bytes.split_at(
        bytes
            .len()
            .min(usize::from(bytes.first().copied().unwrap_or(0)) % ID_BYTES_MAX),
    );
    check_tags(id, change);
}

/// `application/x-www-form-urlencoded` for one value, by the letter.
fn url(query: &str, name: &str) -> Option<Vec<u8>> {
    let value = query
        .split('&')
        .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))?
        .1;
    let mut bytes = value.bytes().peekable();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        let rest: Vec<u8> = bytes.clone().take(2).collect();
        let hex = std::str::from_utf8(&rest)
            .ok()
            .filter(|hex| hex.len() == 2 && hex.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match (byte, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                bytes.nth(1);
            }
            (b'+', _) => decoded.push(b' '),
            _ => decoded.push(byte),
        }
    }
    Some(decoded)
}
