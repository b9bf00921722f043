//! Whose request it is, whatever the request looks like; and who may force a group.

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request};
use proptest::prelude::*;
use watershed::experiment::UserId;
use watershed::experiment::http_view::HeaderView;
use watershed::experiment::identity::{self, IdSource, IdStorage, Identity, Mint};
use watershed::experiment::key_ring::KeyRing;
use watershed::experiment::minted::{self, Origin};
use watershed::experiment::override_token::{self, Override, OverrideError};

fn identity(sources: Vec<IdSource>) -> Identity {
    let mint = Mint {
        cookie: "watershed_id".into(),
        max_age_s: 60,
        domain: Some("example.com".into()),
        path: "/".into(),
        same_site: "Lax".into(),
        secure: None,
        http_only: true,
    };
    Identity {
        sources,
        id_bytes_max: 20,
        mint,
        join: true,
        keep: IdStorage::Raw,
        keys: KeyRing::new("identity", b"a secret of this test", []),
        keys_from_file: false,
    }
}

fn request(target: &str, headers: &[(&'static str, &[u8])]) -> Parts {
    let mut request = Request::get(target);
    for (name, value) in headers {
        request = request.header(*name, HeaderValue::from_bytes(value).unwrap());
    }
    request.body(()).unwrap().into_parts().0
}

#[track_caller]
fn check(
    sources: &[IdSource],
    target: &str,
    headers: &[(&'static str, &[u8])],
    expected: Option<&[u8]>,
) {
    let request = request(target, headers);
    let identity = identity(sources.to_vec());
    let found = identity::find(&identity, &request);
    assert_eq!(
        found.as_ref().map(|visitor| visitor.user().as_bytes()),
        expected
    );
}

#[test]
fn known_id_counts_and_the_cookie_decides_the_group() {
    let uid = [IdSource::Cookie("uid".into())];
    let mut identity = identity(uid.to_vec());
    let value = minted::write(&identity.keys, b"m1", Origin::Minted);
    let cookie = [b"uid=u1; watershed_id=", &value[..]].concat();
    let request = request("/", &[("cookie", &cookie)]);
    let both = identity::find(&identity, &request).unwrap();
    assert_eq!(both.user().as_bytes(), b"u1");
    assert_eq!(both.assigned_by().as_bytes(), b"m1");
    assert_eq!(both.minted_beside().unwrap().as_bytes(), b"m1");
    assert_eq!(identity::set_cookie(&identity, &both, false), None);
    // Anybody can send an ID without a tag: it decides the group as before, is no evidence, and is
    // given a tag that says so.
    let mut cookie = b"uid=u1; watershed_id=m1".to_vec();
    for reissued in [true, false] {
        let request = self::request("/", &[("cookie", &cookie)]);
        let old = identity::find(&identity, &request).unwrap();
        assert_eq!(old.user().as_bytes(), b"u1");
        assert_eq!(old.assigned_by().as_bytes(), b"m1");
        assert_eq!(old.minted_beside(), None);
        let given = identity::set_cookie(&identity, &old, false);
        assert_eq!(given.is_some(), reissued);
        if let Some(given) = given {
            let value = given.split(|&byte| byte == b';').next().unwrap();
            cookie = [b"uid=u1; ", value].concat();
        }
    }
    // A wrong tag is as good as no cookie.
    let forged = self::request(
        "/",
        &[("cookie", b"uid=u1; watershed_id=m1.AAAAAAAAAAAAAAAAAAAAAA")],
    );
    let forged = identity::find(&identity, &forged).unwrap();
    assert_eq!(forged.assigned_by().as_bytes(), b"u1");
    assert_eq!(identity::set_cookie(&identity, &forged, false), None);
    identity.join = false;
    let alone = identity::find(&identity, &request).unwrap();
    assert_eq!(alone.assigned_by().as_bytes(), b"u1");
    assert_eq!(alone.minted_beside(), None);
}

#[test]
fn ids_are_kept_raw_or_hashed() {
    let user = UserId::new(b"user-1").unwrap();
    assert_eq!(IdStorage::Raw.of(user).id().as_bytes(), b"user-1");
    // echo -n user-1 | openssl dgst -sha256 -hmac 0123456789abcdef
    let keep = IdStorage::Hashed(identity::HashKey::new(b"0123456789abcdef"));
    let kept = keep.of(user);
    assert_eq!(kept.id().as_bytes(), b"9671a70114c638eedd26dab7f09610ba");
    assert!(!format!("{keep:?}").contains("0123456789abcdef"));
}

#[test]
fn cookies() {
    let uid = [IdSource::Cookie("uid".into())];
    check(&uid, "/", &[("cookie", b"a=1; uid=u1; b=2")], Some(b"u1"));
    check(
        &uid,
        "/",
        &[("cookie", b"a=1"), ("cookie", b"uid=u1")],
        Some(b"u1"),
    );
    check(&uid, "/", &[("cookie", b"uid=u1; uid=u2")], Some(b"u1"));
    check(&uid, "/", &[("cookie", b"xuid=u1;uid =u2; =;;uid")], None);
    check(&uid, "/", &[("cookie", b"uid=\"quoted\"")], Some(b"quoted"));
    check(&uid, "/", &[("cookie", b"uid=\"open")], Some(b"\"open"));
    check(&uid, "/", &[("cookie", b"uid=; uid=u1")], Some(b"u1"));
    check(&uid, "/", &[("cookie", b"uid=null; uid=u1")], Some(b"u1"));
    for none in [
        &b"uid=undefined"[..],
        b"uid=NULL",
        b"uid=\"\"",
        b"uid=[object Object]",
    ] {
        check(&uid, "/", &[("cookie", none)], None);
    }
    check(&uid, "/", &[("cookie", b"uid=a=b")], Some(b"a=b"));
    check(&uid, "/", &[("cookie", b"uid=\xff\xfe")], Some(b"\xff\xfe"));
    check(&uid, "/", &[("cookie", b"uid=")], None);
    check(
        &uid,
        "/",
        &[("cookie", b"uid=; watershed_id=m1")],
        Some(b"m1"),
    );
}

#[test]
fn id_sources_in_order() {
    let all = [
        IdSource::Header("x-user".parse().unwrap()),
        IdSource::Query("u".into()),
        IdSource::Cookie("uid".into()),
    ];
    check(
        &all,
        "/?u=q",
        &[("x-user", b"h"), ("cookie", b"uid=c")],
        Some(b"h"),
    );
    check(
        &all,
        "/?a=1&u=q%20%2B%ff",
        &[("cookie", b"uid=c")],
        Some(b"q +\xff"),
    );
    check(&all, "/?xu=1&u=", &[("cookie", b"uid=c")], Some(b"c"));
    check(
        &all,
        "/?u=exactly-twenty-bytes",
        &[],
        Some(b"exactly-twenty-bytes"),
    );
    check(
        &all,
        "/?u=more-than-twenty-bytes",
        &[("cookie", b"uid=c")],
        Some(b"c"),
    );
    check(&all, "/", &[], None);
}

#[test]
fn tokens() {
    let bearer = [IdSource::Jwt {
        claim: "sub".into(),
        cookie: None,
    }];
    // {"sub":"u1"}, {"sub":17}, {"sub":null}
    check(
        &bearer,
        "/",
        &[("authorization", b"Bearer x.eyJzdWIiOiJ1MSJ9.y")],
        Some(b"u1"),
    );
    check(
        &bearer,
        "/",
        &[("authorization", b"bearer x.eyJzdWIiOjE3fQ.y")],
        Some(b"17"),
    );
    check(
        &bearer,
        "/",
        &[("authorization", b"Bearer x.eyJzdWIiOm51bGx9.y")],
        None,
    );
    check(&bearer, "/", &[("authorization", b"Bearer nonsense")], None);
    check(
        &bearer,
        "/",
        &[("authorization", b"Basic x.eyJzdWIiOiJ1MSJ9.y")],
        None,
    );
    let cookie = [IdSource::Jwt {
        claim: "sub".into(),
        cookie: Some("session".into()),
    }];
    check(
        &cookie,
        "/",
        &[("cookie", b"session=x.eyJzdWIiOiJ1MSJ9.y")],
        Some(b"u1"),
    );
}

#[test]
fn minted_ids_are_ordered_uuids() {
    let early = identity::mint(1_700_000_000_000, &[7; 10], true);
    let late = identity::mint(1_700_000_000_001, &[0; 10], false);
    assert!(early.user().as_bytes() < late.user().as_bytes());
    let text = std::str::from_utf8(early.user().as_bytes()).unwrap();
    assert_eq!(uuid::Uuid::parse_str(text).unwrap().get_version_num(), 7);
    let identity = identity(vec![]);
    let cookie = |over_tls| {
        let given = identity::set_cookie(&identity, &early, over_tls).unwrap();
        String::from_utf8(given).unwrap()
    };
    let given = cookie(false);
    let value = given.strip_prefix("watershed_id=").unwrap();
    let (value, attributes) = value.split_once("; ").unwrap();
    assert_eq!(
        attributes,
        "Path=/; Max-Age=60; SameSite=Lax; Domain=example.com; HttpOnly"
    );
    let own = minted::read(&identity.keys, value.as_bytes()).unwrap();
    assert_eq!(
        (own.id, own.origin),
        (early.user().as_bytes(), Origin::Minted)
    );
    assert_eq!(cookie(true), format!("{}; Secure", cookie(false)));
}

proptest! {
    #[test]
    fn found_id_occurs_in_the_request(lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..4)) {
        let mut headers = HeaderMap::new();
        for line in &lines {
            if let Ok(value) = HeaderValue::from_bytes(line) {
                headers.append("cookie", value);
            }
        }
        for name in ["u", "uid", ""] {
            if let Some(found) = (&headers).cookies(name).next() {
                prop_assert!(lines.iter().any(|line| line.windows(found.len().max(1)).any(|part| part == found) || found.is_empty()));
                prop_assert!(!found.contains(&b';'));
            }
        }
    }

    #[test]
    fn any_query_is_parsed(query in "\\PC{0,60}", name in "[a-c]") {
        let _ = identity::query_value(&query, &name);
    }

    #[test]
    fn override_tokens_round_trip_and_changed_ones_fail(experiment in "\\PC{0,40}", group in "\\PC{0,40}", expires_s in any::<u64>(), place in any::<prop::sample::Index>(), bit in 0u8..7) {
        let forced = Override { experiment, group, expires_s };
        let token = override_token::sign(b"secret", &forced);
        let expected = if expires_s > 1000 { Ok(forced.clone()) } else { Err(OverrideError::Stale) };
        prop_assert_eq!(override_token::verify(b"secret", token.as_bytes(), 1000), expected);
        prop_assert_eq!(override_token::verify(b"other", token.as_bytes(), 0), Err(OverrideError::Forged));
        let mut changed = token.into_bytes();
        let place = place.index(changed.len());
        changed[place] ^= 1 << bit;
        let found = override_token::verify(b"secret", &changed, 0);
        prop_assert!(found.is_err(), "{found:?} from a changed token");
    }

    #[test]
    fn random_bytes_are_no_token(token in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(override_token::verify(b"secret", &token, 0), Err(OverrideError::Forged));
    }
}
