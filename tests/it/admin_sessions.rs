//! Sessions of the admin API: a reader of the routes file cannot forge one, and each ends alone.

use crate::support::client::{Answer, Client};
use crate::support::proxy::{How, Proxy};
use crate::support::redis::Redis;
use crate::support::until;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::time::{SystemTime, UNIX_EPOCH};
use watershed::config::plan::{Token, TokenRole};

const SITE: &str = "upstreams: { a: \"http://127.0.0.1:9\", b: \"http://127.0.0.1:9\" }\n\
    experiments: { site: { control: a, experiment: b, percent: 50 } }\n";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
const HTML: &str = "Accept: text/html\r\n";
const PAUSE: &str = "/admin/experiments/site/pause";

fn hash(text: &str) -> String {
    let digest = Sha256::digest(text);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"sha256:{hex}\"")
}

/// Two operators; the file has only the hashes of their tokens.
fn tokens(anna: &str) -> How {
    How {
        admin_keys: format!(
            "tokens: {{ anna: {{ role: operate, hash: {} }}, bert: {{ role: operate, hash: {} }} }}",
            hash(anna),
            hash("bert-secret")
        ),
        ..How::default()
    }
}

fn start(more: &str) -> Proxy {
    Proxy::start_how(&format!("{more}{SITE}"), tokens("anna-secret"))
}

fn get(proxy: &Proxy, path: &str, headers: &str) -> Answer {
    Client::admin(proxy.admin).get(path, headers)
}

fn post(proxy: &Proxy, path: &str, headers: &str, body: &str) -> Answer {
    Client::admin(proxy.admin).post(path, &format!("{FORM}{headers}"), body)
}

/// Logs in. Returns the header line of the session.
fn log_in(proxy: &Proxy, token: &str) -> String {
    let answer = post(proxy, "/admin/login", "", &format!("token={token}"));
    assert_eq!(answer.status, 303, "{}", answer.text());
    let cookie = answer.header("set-cookie").unwrap();
    format!("Cookie: {}\r\n", cookie.split(';').next().unwrap())
}

fn status(proxy: &Proxy, session: &str) -> u16 {
    get(proxy, "/admin/results", session).status
}

/// Returns the form token of a session.
fn form(proxy: &Proxy, session: &str) -> String {
    let page = get(proxy, "/admin/results", &format!("{session}{HTML}")).text();
    let (_, rest) = page.split_once("name=\"form\" value=\"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

fn log_out(proxy: &Proxy, session: &str) -> u16 {
    let body = format!("form={}", form(proxy, session));
    post(proxy, "/admin/logout", session, &body).status
}

fn now_s() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs()
}

fn mac(key: &[u8], parts: &[&str]) -> String {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).unwrap();
    for part in parts {
        mac.update(part.as_bytes());
        mac.update(b"\0");
    }
    URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}

/// A session as 0.1.0 signed it: the routes file contains everything that is needed.
fn forged_as_before(until_s: u64) -> String {
    let key = Sha256::digest("anna-secret");
    let signature = mac(&key, &["session", &until_s.to_string()]);
    format!("{until_s}.{signature}.anna")
}

#[test]
fn reader_of_the_routes_file_cannot_forge_a_session() {
    let proxy = start("");
    let sound = log_in(&proxy, "anna-secret");
    assert_eq!(status(&proxy, &sound), 200);
    let ten_years = now_s() + 10 * 365 * 24 * 3600;
    for until_s in [now_s() + 3600, now_s() + 12 * 3600, ten_years] {
        let forged = forged_as_before(until_s);
        let session = format!("Cookie: watershed_session={forged}\r\n");
        assert_eq!(status(&proxy, &session), 401, "{forged}");
        // A form token as 0.1.0 signed it.
        let proof = mac(&Sha256::digest("anna-secret"), &["form", &forged]);
        let paused = post(&proxy, PAUSE, &session, &format!("form={proof}"));
        assert_eq!(paused.status, 401);
        // The present format, signed with the hash in the file.
        let (until, nonce) = (until_s.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        let tag = mac(
            &Sha256::digest("anna-secret"),
            &["session", &until, nonce, "anna"],
        );
        for tag in [&tag, &tag[..22], ""] {
            let session = format!("Cookie: watershed_session={until}.{nonce}.{tag}.anna\r\n");
            assert_eq!(status(&proxy, &session), 401, "{session}");
        }
    }
    // A change in any part of a valid session makes it invalid.
    let value = sound.trim_end().split_once('=').unwrap().1;
    let parts: Vec<&str> = value.splitn(4, '.').collect();
    assert_eq!(parts.len(), 4, "{value}");
    let later = (parts[0].parse::<u64>().unwrap() + 1).to_string();
    let other_nonce = "A".repeat(parts[1].len());
    for changed in [
        [&later, parts[1], parts[2], parts[3]],
        [parts[0], &other_nonce, parts[2], parts[3]],
        [parts[0], parts[1], parts[2], "bert"],
        [parts[0], parts[1], &parts[2][1..], parts[3]],
    ] {
        let session = format!("Cookie: watershed_session={}\r\n", changed.join("."));
        assert_eq!(status(&proxy, &session), 401, "{changed:?}");
    }
    // A valid session with the form token of another one cannot change anything.
    let other = form(&proxy, &log_in(&proxy, "anna-secret"));
    let proof = mac(&Sha256::digest("anna-secret"), &["form", value]);
    for proof in [other, proof] {
        let refused = post(&proxy, PAUSE, &sound, &format!("form={proof}"));
        assert_eq!(refused.status, 403, "{}", refused.text());
    }
}

/// Returns the signing secret from the file for starts without the store.
fn kept_secret(proxy: &Proxy) -> String {
    let file = proxy.folder.path().join("watershed-journal/secrets.json");
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    kept["secrets"][0].as_str().unwrap().to_owned()
}

#[test]
fn correctly_signed_session_of_more_than_twelve_hours_is_refused() {
    let proxy = start("");
    let mut plan = watershed::config::load(&proxy.file()).unwrap();
    plan.sign_by(kept_secret(&proxy).as_bytes(), &[]);
    let keys = &plan.admin.session_keys;
    let token = Token {
        name: "anna".into(),
        role: TokenRole::Operate,
        digest: Sha256::digest("anna-secret").into(),
        short: false,
    };
    let session = |seconds: u64| {
        let (until, nonce) = ((now_s() + seconds).to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        let signed: [&[u8]; 5] = [
            b"session",
            until.as_bytes(),
            nonce.as_bytes(),
            token.name.as_bytes(),
            &token.digest,
        ];
        let tag = URL_SAFE_NO_PAD.encode(keys.sign(&signed));
        format!("Cookie: watershed_session={until}.{nonce}.{tag}.anna\r\n")
    };
    assert_eq!(
        status(&proxy, &session(3600)),
        200,
        "a session signed in this way is valid"
    );
    for hours in [13, 24, 10 * 365 * 24] {
        assert_eq!(status(&proxy, &session(hours * 3600)), 401, "{hours} hours");
    }
}

#[test]
fn logout_in_one_browser_keeps_other_sessions() {
    let mut proxy = start("");
    // Most of these sessions start in the same second.
    let sessions: Vec<_> = (0..6).map(|_| log_in(&proxy, "anna-secret")).collect();
    assert_eq!(log_out(&proxy, &sessions[0]), 303);
    assert_eq!(log_out(&proxy, &sessions[3]), 303);
    let statuses =
        |proxy: &Proxy| -> Vec<u16> { sessions.iter().map(|it| status(proxy, it)).collect() };
    let expected = [401, 200, 200, 401, 200, 200];
    assert_eq!(statuses(&proxy), expected);
    // After a crash and a restart, the same sessions are valid.
    proxy.kill();
    proxy.again(SITE);
    assert_eq!(statuses(&proxy), expected);
}

#[test]
fn session_ends_with_its_token() {
    let proxy = start("");
    let anna = log_in(&proxy, "anna-secret");
    let bert = log_in(&proxy, "bert-secret");
    let text = std::fs::read_to_string(proxy.file()).unwrap();
    let reload = |text: &str| {
        std::fs::write(proxy.file(), text).unwrap();
        let bearer = "Authorization: Bearer bert-secret\r\n";
        let done = Client::admin(proxy.admin).post("/admin/reload", bearer, "");
        assert_eq!(done.status, 200, "{}", done.text());
    };
    reload(&text.replace(&hash("anna-secret"), &hash("another-secret")));
    assert_eq!((status(&proxy, &anna), status(&proxy, &bert)), (401, 200));
    let removed = text.replace("anna: { role: operate", "carl: { role: operate");
    assert_ne!(removed, text);
    reload(&removed);
    assert_eq!((status(&proxy, &anna), status(&proxy, &bert)), (401, 200));
    // With the old token, the session is valid again.
    reload(&text);
    assert_eq!((status(&proxy, &anna), status(&proxy, &bert)), (200, 200));
}

#[test]
fn replicas_of_one_store_share_sessions_and_logouts() {
    let mut redis = Redis::start();
    let store = format!("store: {}\n", redis.url());
    let (one, mut two) = (start(&store), start(&store));
    let session = log_in(&one, "anna-secret");
    let other = log_in(&two, "anna-secret");
    for proxy in [&one, &two] {
        until("the secret of the other replica", || {
            let seen = (status(proxy, &session), status(proxy, &other));
            (seen == (200, 200)).then_some(()).ok_or(seen)
        });
    }
    // A replica accepts the form of another replica's page.
    let proof = form(&one, &session);
    let done = post(&two, PAUSE, &session, &format!("form={proof}"));
    assert_eq!(done.status, 303, "{}", done.text());
    // A logout at one replica ends the session at the other.
    assert_eq!(log_out(&one, &session), 303);
    assert_eq!(status(&one, &session), 401);
    until("the end of the session at the other replica", || {
        let seen = status(&two, &session);
        (seen == 401).then_some(()).ok_or(seen)
    });
    assert_eq!(status(&two, &other), 200);
    // After a restart without the store, the replica uses the secret in its file.
    redis.kill();
    two.kill();
    two.again(&format!("{store}{SITE}"));
    assert_eq!(
        status(&two, &other),
        503,
        "the session is valid, but there are no results"
    );
    assert_eq!(get(&two, "/admin/config", &other).status, 200);
    assert_eq!(get(&two, "/admin/config", "").status, 401);
}

#[test]
fn responses_commands_and_log_do_not_contain_secrets() {
    let secrets = [
        "token-secret-17",
        "override-secret-17",
        "identity-secret-17",
        "key-ring-secret-17",
        "redis-secret-17",
    ];
    let redis = Redis::start();
    let store = redis.url().replace("redis://", "redis://:redis-secret-17@");
    let _ = redis.command(&["CONFIG", "SET", "requirepass", "redis-secret-17"]);
    let how = How {
        admin_keys: "token: token-secret-17".to_owned(),
        ..How::default()
    };
    let site = format!(
        "store: \"{store}\"\n{SITE}overrides: {{ secret: override-secret-17 }}\n\
         identity: {{ store: hashed, key: identity-secret-17, keys: [key-ring-secret-17] }}\n"
    );
    let proxy = Proxy::start_how(&site, how);
    let bearer = "Authorization: bearer token-secret-17\r\n";
    let mut shown = Vec::new();
    for path in [
        "/admin/config",
        "/admin/results",
        "/admin/results?format=html",
        "/admin/acts",
        "/admin/metrics",
        "/admin/assignments?user=ann",
        "/admin/openapi.json",
    ] {
        let answer = get(&proxy, path, bearer);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        shown.push((path.to_owned(), answer.text()));
    }
    for words in [vec!["check"], vec!["explain", "--user", "ann"]] {
        let done = std::process::Command::new(crate::support::proxy::BINARY)
            .args(&words)
            .args(["-c", proxy.file().to_str().unwrap()])
            .output()
            .unwrap();
        let text = [done.stdout, done.stderr].concat();
        shown.push((words.join(" "), String::from_utf8(text).unwrap()));
    }
    shown.push(("the log".to_owned(), proxy.log.lock().unwrap().clone()));
    let own = kept_secret(&proxy);
    let digest = hash("token-secret-17").replace(['"'], "");
    for (place, text) in &shown {
        for secret in secrets.iter().copied().chain([&*own, &digest[7..]]) {
            assert!(!text.contains(secret), "{place} shows {secret}: {text}");
        }
    }
}
