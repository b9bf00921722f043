//! Who the visitor is: an ID is never empty nor too long, and is found where a plain reading finds
//! it. The input's lines are, in order: the query, a header, `Authorization`, and cookies.
#![no_main]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, COOKIE, HeaderName, HeaderValue};
use http::request::Parts;
use libfuzzer_sys::fuzz_target;
use watershed::experiment::identity::{
    HashKey, Identity, Keep, Mint, Source, cookie_value, find, mint, query_value, set_cookie,
};
use watershed::experiment::key_ring::KeyRing;

fn identity(sources: Vec<Source>, join: bool) -> Identity {
    Identity {
        sources,
        id_bytes_max: 40,
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
        keep: Keep::Raw,
        keys: KeyRing::new("identity", b"a secret of this test", []),
        keys_from_file: false,
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
fn cookie(head: &Parts, name: &str) -> Option<Vec<u8>> {
    let mut found = None;
    for line in head.headers.get_all(COOKIE) {
        for pair in line.as_bytes().split(|&byte| byte == b';') {
            let equals = pair.iter().position(|&byte| byte == b'=');
            let Some(equals) = equals else { continue };
            let (left, right) = pair.split_at(equals);
            if left.trim_ascii_start() == name.as_bytes() && found.is_none() {
                found = Some(right[1..].trim_ascii_end().to_vec());
            }
        }
    }
    found
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

fuzz_target!(|bytes: &[u8]| {
    let Some(head) = request(bytes) else {
        return;
    };
    let header = HeaderName::from_static("x-user");
    let jwt = |cookie: Option<&str>| Source::Jwt {
        claim: "sub".into(),
        cookie: cookie.map(Into::into),
    };
    let usable = |id: &Vec<u8>| !id.is_empty() && id.len() <= 40;
    let alone = |source: Source| {
        let identity = identity(vec![source], false);
        // The minted cookie comes after every source.
        let found = find(&identity, &head).map(|visitor| visitor.user().as_bytes().to_vec());
        found.filter(|found| Some(found) != cookie(&head, "minted").as_ref())
    };
    let plain = |id: Option<Vec<u8>>| {
        let id = id.filter(usable);
        id.filter(|id| Some(id) != cookie(&head, "minted").as_ref())
    };
    let expect = |source: Source, id: Option<Vec<u8>>| match plain(id) {
        Some(id) => assert_eq!(alone(source), Some(id)),
        None => assert_eq!(alone(source), None),
    };
    assert_eq!(
        cookie_value(&head.headers, "uid").map(<[u8]>::to_vec),
        cookie(&head, "uid")
    );
    expect(Source::Cookie("uid".into()), cookie(&head, "uid"));
    let said = head.headers.get(&header);
    expect(
        Source::Header(header.clone()),
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
    let mint = mint(
        bytes.len() as u64,
        &[bytes.first().copied().unwrap_or(0); 10],
    );
    let given = set_cookie(&identity(Vec::new(), false).mint, mint.user(), true);
    let given = given.split(';').next().unwrap_or_default();
    let mut again = head.clone();
    again.headers.remove(COOKIE);
    if let Ok(given) = HeaderValue::from_str(given) {
        again.headers.insert(COOKIE, given);
    }
    assert_eq!(
        cookie_value(&again.headers, "minted"),
        Some(mint.user().as_bytes())
    );
    // All at once: some ID of its own, never an empty or a long one; twice the same.
    let all = vec![
        Source::Query("uid".into()),
        Source::Header(header),
        jwt(None),
        Source::Cookie("uid".into()),
    ];
    let identity = identity(all, true);
    if let Some(visitor) = find(&identity, &head) {
        for id in [Some(visitor.user()), visitor.also()].into_iter().flatten() {
            assert!(usable(&id.as_bytes().to_vec()));
            let hashed = Keep::Hashed(HashKey::new(b"key"));
            assert_eq!(hashed.of(id).id().as_bytes().len(), 32);
        }
        assert_ne!(Some(visitor.user()), visitor.also());
        assert_eq!(find(&identity, &head), Some(visitor));
    }
});

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
